"""`make bench`: headrace beside other ways to bring a MongoDB collection into CSV, with the targets it has to meet.

    python -m benchmarks.mongodb [--rows 300000] [--rounds 3] [--only headrace --only dlt] [--results FOLDER]

The server is the one of the tests: DocumentDB's engine behind FerretDB, which sends slower than a `mongod`. So what is
compared is the CPU of the clients; the seconds are the server's. Tables of runs that ask for `--results` are kept.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks import contest, orders_mongodb
from benchmarks.contest import GZIP, OURS, SLING, TWO, ZSTD, Bench, Contest, Headrace, LineUp, Options
from benchmarks.harness import REPOSITORY, Contender, Outcome, Result, Target, find
from benchmarks.process import Usage
from tests.servers import mongodb
from tests.servers.mongodb import MongoServer, database_of

ALONE = "headrace, extractor alone"
FLOOR, MOTOR, ARROW, DLT = "raw batches, dropped", "motor + getters + csv", "pymongoarrow", "dlt + PyMongo"


def headrace(bench: Bench, server: MongoServer, loop: str) -> list[Contender]:
    ours = Headrace(bench, loop, ["--database", "mongodb", "--table", "orders"], environment(server))
    alone = Contender(
        ALONE,
        "the extractor in one partition, its CSV dropped: no Prefect, no S3.",
        lambda _: [sys.executable, "-m", "benchmarks.mongodb_read"],
        by_its_words(bench),
        environment(server) | {"PYTHONPATH": str(REPOSITORY)},
    )
    return [
        ours.idle(),
        ours.contender(OURS, "one partition, to S3 by multipart, uncompressed; from plan to commit."),
        ours.contender(TWO, "the same in two ranges of `_id`; this server has no snapshots.", partitions=2),
        ours.contender(GZIP, "one partition, gzip.", compression="gzip"),
        ours.contender(ZSTD, "one partition, zstd.", compression="zstd"),
        alone,
    ]


def by_its_words(bench: Bench) -> Callable[[Path, Usage], Outcome]:
    """For programs that count for themselves, the CPU of the work too: imports are left out."""
    counted = contest.by_its_words(bench)
    return lambda folder, usage: replace(counted(folder, usage), cpu=contest.told(usage).get("cpu"))


def environment(server: MongoServer) -> dict[str, str]:
    return {"MONGODB_URL": server.url, "MONGODB_DATABASE": server.database}


def peers(bench: Bench, server: MongoServer) -> list[Contender]:
    env = environment(server)
    counted = by_its_words(bench)
    sling_url = f"{server.url}?authSource=admin".replace("/?", f"/{server.database}?")
    return [
        Contender(
            FLOOR,
            "PyMongo's `find_raw_batches`, whose bytes are dropped: what the server sends, at its fastest.",
            contest.script("mongodb", "mongodb_raw.py"),
            counted,
            env,
        ),
        Contender(
            MOTOR,
            "`find()`, a list of values by their paths for each document, `csv.writer` to a local file; no S3.",
            contest.script("mongodb", "motor_csv.py"),
            counted,
            env,
        ),
        Contender(
            ARROW,
            "`find_arrow_all` with a schema, `pyarrow.csv` to a local file; no S3. The whole collection is in memory.",
            contest.script("mongodb", "pymongoarrow_csv.py"),
            counted,
            env,
        ),
        Contender(
            DLT,
            "a resource that yields pages of documents, as dlt's MongoDB source does (it is copied into projects, and in no "
            "package), into a local CSV file, compression off; no S3.",
            contest.script("dlt-mongodb", "dlt_mongodb_csv.py"),
            contest.csv_files(bench, "out/bench/orders/*.csv"),
            env | contest.DLT_ENVIRONMENT,
            most_rounds=1,
        ),
        Contender(
            SLING,
            "its defaults, into a local CSV file; no S3. The last version whose wheel holds the program.",
            contest.sling(sling_url, f"{server.database}.orders"),
            contest.csv_files(bench, "*.csv"),
            contest.SLING_ENVIRONMENT,
            most_rounds=1,
        ),
    ]


def targets(results: list[Result]) -> list[Target]:
    return [
        Target(f"documents per CPU second of the work: {ALONE} over {MOTOR}", 3.0, _per_cpu(results, MOTOR)),
        Target(f"documents per CPU second of the work: {ALONE} over {ARROW}", 1.0, _per_cpu(results, ARROW)),
        contest.memory(results, 200),
    ]


def _per_cpu(results: list[Result], peer: str) -> float | None:
    ours, other = find(results, ALONE), find(results, peer)
    return _cpu(other) / _cpu(ours) if ours and other else None


def _cpu(result: Result) -> float:
    return result.median(lambda sample: sample.outcome.cpu or 0)


@contextmanager
def line_up(base: Path, sink: str, options: Options) -> Iterator[LineUp]:
    """A server of its own with the collection in it."""
    with mongodb.started() as server:
        print(f"seeding {options.rows:,} documents …", flush=True)
        size, header = asyncio.run(seeded(server, options.rows)), len(orders_mongodb.HEADER)
        bench = Bench(sink, base / "prefect", options.rows, size + header, size, header)
        contenders = headrace(bench, server, options.loop) + peers(bench, server)
        versions = contest.versions(("MongoDB", server.version), "motor", ("mongodb", "dlt-mongodb", "sling"))
        pids = server.instance.pids if server.instance else ()
        yield LineUp(bench, contenders, pids, versions)


async def seeded(server: MongoServer, rows: int) -> int:
    """Fill the collection; bytes of its CSV."""
    size = 0
    async with database_of(server) as database:
        await database.orders.drop()
        for batch in orders_mongodb.batches(rows):
            size += sum(map(orders_mongodb.csv_size, batch))
            await database.orders.insert_many(batch, ordered=False)
    return size


def main() -> None:
    contest.run(Contest("MongoDB to CSV", "mongodb", __doc__ or "", [FLOOR], line_up, targets))


if __name__ == "__main__":
    main()
