"""What a partition costs as a flow run of a process pool, beside one in the run's own process: `python -m benchmarks.pool`.

    python -m benchmarks.pool [--partitions 16] [--parallel 2] [--rounds 3]

The partitions are next to empty (a few pages of a small table), so that what is measured is what each costs before its first
row: a process, Prefect's requests, the records in the bucket. PostgreSQL, the Prefect server, the S3 sink and the worker are
on this machine, so seconds of wall clock depend on how busy it is; CPU seconds and requests do not.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import process
from benchmarks.contest import running_sink
from tests.servers import faults, postgres, prefect
from tests.servers.postgres import PostgresServer, connected

REPOSITORY = Path(__file__).parent.parent
POOL = "bench"
_PAGES = 16
"""Of the table, for each partition; a row of it fills most of a page."""


@dataclass(frozen=True)
class Sample:
    """One run of the flow."""

    seconds: float
    cpu: float
    """Of this process, the worker and what it started; not of the Prefect server."""
    server_cpu: float
    api: Counter[str]
    s3: Counter[str]


@dataclass(frozen=True)
class Place:
    """The servers of one benchmark."""

    api: faults.FaultProxy
    s3: faults.FaultProxy
    server: int
    worker: int

    def cpu(self) -> float:
        own = resource.getrusage(resource.RUSAGE_SELF)
        return own.ru_utime + own.ru_stime + process.tree_cpu(self.worker)


async def filled(server: PostgresServer, partitions: int) -> PostgresServer:
    """A database with a table that can be cut into so many partitions."""
    database = await server.create_database()
    async with connected(database) as connection:
        await connection.execute("CREATE TABLE pages (id int PRIMARY KEY, filling text NOT NULL)")
        await connection.execute("ALTER TABLE pages ALTER filling SET STORAGE plain")
        await connection.execute(
            f"INSERT INTO pages SELECT i, repeat('x', 7000) FROM generate_series(1, {_PAGES * partitions}) i"
        )
    return database


def prefect_command(*words: str) -> list[str]:
    return [sys.executable, "-m", "prefect", *words]


@contextmanager
def working(folder: Path) -> Iterator[int]:
    """A worker of a process pool that runs partitions; its process id."""
    file = folder / "prefect.yaml"
    file.write_text(
        "pull: [{prefect.deployments.steps.set_working_directory: {directory: '" + str(REPOSITORY) + "'}}]\n"
        f"deployments: [{{name: {POOL}, entrypoint: 'flows/partition.py:extract_partition', work_pool: {{name: {POOL}}}}}]\n"
    )
    for words in (
        ("work-pool", "create", POOL, "--type", "process"),
        ("--no-prompt", "deploy", "--all", "--prefect-file", str(file)),
    ):
        subprocess.run(prefect_command(*words), check=True, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    environment = os.environ | {"TMPDIR": str(folder), "PREFECT_WORKER_QUERY_SECONDS": "1"}
    with subprocess.Popen(
        prefect_command("worker", "start", "--pool", POOL),
        env=environment, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as worker:  # fmt: skip
        try:
            yield worker.pid
        finally:
            worker.kill()


def kind_of(request: faults.Request) -> str:
    """A request by its method and path, ids left out."""
    parts = [part for part in request.path.split("/") if part and part != "api"]
    return f"{request.method} /" + "/".join("…" if len(part) >= 30 else part for part in parts)


async def measured(place: Place, pool: str, partitions: int, parallel: int) -> Sample:
    """One run of `extract`."""
    from flows.extract import extract

    await asyncio.sleep(2)  # what the one before had still to tell
    place.api.clear()
    place.s3.clear()
    cpu, server, started = place.cpu(), process.tree_cpu(place.server), time.monotonic()
    stream: Any = f"pages-{pool or 'here'}"
    source: Any = {"connection": "postgres/bench", "table": "public.pages"}
    to: Any = "s3-destination/bench"
    outcome: Any = await extract(
        stream=stream, source=source, to=to, partitions=partitions, parallel=parallel, work_pool=pool
    )
    seconds = time.monotonic() - started
    assert outcome["committed"], outcome
    await asyncio.sleep(2)  # the last processes end, and the last logs and events go out
    return Sample(
        seconds, place.cpu() - cpu, process.tree_cpu(place.server) - server,
        Counter(map(kind_of, place.api.seen)), Counter(request.method for request in place.s3.seen),
    )  # fmt: skip


async def saved(database: PostgresServer, endpoint: str) -> None:
    """The blocks that the stream names."""
    from prefect_aws import AwsCredentials
    from pydantic import SecretStr

    from blocks.postgres import Postgres
    from blocks.s3 import S3Destination

    await Postgres(
        host=database.host, port=database.port, database=database.database, user=database.user,
        password=SecretStr(database.password),
    ).asave("bench", overwrite=True)  # fmt: skip
    await S3Destination(
        bucket="bench", region="us-east-1", endpoint=endpoint, compression="none",
        credentials=AwsCredentials(aws_access_key_id="bench", aws_secret_access_key=SecretStr("bench")),
    ).asave("bench", overwrite=True)  # fmt: skip


async def compared(place: Place, arguments: argparse.Namespace) -> None:
    """All rounds, in turns, and their table."""
    for pool in ("", POOL):  # the first run of all registers, caches and compiles
        await measured(place, pool, 2, 2)
    found: dict[str, list[Sample]] = {"": [], POOL: []}
    for _ in range(arguments.rounds):
        for pool, samples in found.items():
            samples.append(await measured(place, pool, arguments.partitions, arguments.parallel))
    print(table(found, arguments.partitions))
    few = await measured(place, POOL, 1, 1)
    print(requests(few, found[POOL][-1], arguments.partitions))


def table(found: dict[str, list[Sample]], partitions: int) -> str:
    """What a partition costs in each of the two, and the difference."""
    lines = [f"{partitions} partitions, medians of {len(found[POOL])} round(s), divided by the partitions", ""]
    lines += ["| a partition | s | CPU s | CPU s of the Prefect server | requests to Prefect | requests to S3 |"]
    lines += ["|---|--:|--:|--:|--:|--:|"]
    for pool, name in (("", "in the run's process"), (POOL, "a flow run of the pool")):
        told = [each / partitions for each in medians(found[pool])]
        lines.append(f"| {name} | " + " | ".join(f"{each:,.2f}" for each in told) + " |")
    return "\n".join(lines)


def medians(samples: Sequence[Sample]) -> list[float]:
    columns = [(s.seconds, s.cpu, s.server_cpu, float(s.api.total()), float(s.s3.total())) for s in samples]
    return [statistics.median(column) for column in zip(*columns, strict=True)]


def requests(few: Sample, many: Sample, partitions: int) -> str:
    """What a further partition asks of Prefect, by kind."""
    more = {
        kind: (often - few.api[kind]) / (partitions - 1) for kind, often in many.api.items() if often > few.api[kind]
    }
    lines = ["", f"Requests to Prefect that each further partition costs ({partitions} against 1):", ""]
    return "\n".join(lines + [f"- {often:.1f} {kind}" for kind, often in sorted(more.items(), key=lambda e: -e[1])])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--partitions", type=int, default=16)
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-pool-")))
        server = stack.enter_context(prefect.started())
        api = stack.enter_context(faults.FaultProxy(server.url.removesuffix("/api")))
        s3 = stack.enter_context(faults.FaultProxy(stack.enter_context(running_sink())))
        # Before Prefect is imported, which reads them once.
        os.environ |= replace(server, port=api.port).environment | {"PREFECT_LOGGING_LEVEL": "ERROR"}
        database = stack.enter_context(postgres.started())
        database = asyncio.run(filled(database, arguments.partitions))
        asyncio.run(saved(database, s3.endpoint))
        worker = stack.enter_context(working(folder))
        assert server.daemon is not None
        asyncio.run(compared(Place(api, s3, server.daemon.pid, worker), arguments))


if __name__ == "__main__":
    main()
