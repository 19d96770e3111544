"""`make bench`: headrace beside other ways to bring a PostgreSQL table into CSV, with the targets it has to meet.

    python -m benchmarks.postgres [--rows 2000000] [--rounds 3] [--only headrace --only dlt]

Writes `results/postgres.md` and `results/postgres.svg` after a full run; a run with fewer contenders or other rows
prints its table only, unless `--results` names a folder.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import quote

from benchmarks import cluster, orders, plot
from benchmarks.cluster import Server
from benchmarks.harness import (
    REPOSITORY,
    Contender,
    Outcome,
    Report,
    Result,
    Target,
    count_records,
    environment,
    find,
    machine,
    ratio,
    run_rounds,
)
from benchmarks.peers import environments
from benchmarks.process import Usage

HERE = Path(__file__).resolve().parent
FLOOR, PSQL, IDLE, OURS = "server alone", "psql \\copy", "Prefect, idle", "headrace"
TWO, GZIP, ZSTD = "headrace, 2 partitions", "headrace, gzip", "headrace, zstd"
DLT, INGESTR, SLING, BOOK = "dlt + ConnectorX", "ingestr", "sling", "by the book"

# The dialect of headrace spells booleans out; all else of `orders` is what COPY writes by itself.
DIALECT = (
    "SELECT id, customer_id, status, email, total, weight, note, paid::text, order_date, updated_at, attrs, uid"
    " FROM orders"
)


@dataclass(frozen=True)
class Bench:
    """What the contenders share: the source, the S3 endpoint, and what a right answer looks like."""

    server: Server
    sink: str
    prefect_home: Path
    rows: int
    csv_bytes: int
    """As psql writes it, header included."""
    dialect_bytes: int
    """The same in headrace's dialect, without a header."""
    header_bytes: int


@contextmanager
def running_sink() -> Iterator[str]:
    """The S3 endpoint in a process of its own; its URL."""
    command = [sys.executable, "-m", "benchmarks.sink"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as sink:
        try:
            assert sink.stdout is not None
            yield f"http://127.0.0.1:{int(sink.stdout.readline())}"
        finally:
            sink.kill()


def stored_sizes(sink: str, prefix: str) -> list[int]:
    """Sizes of the objects under `prefix`, as the endpoint itself counted them."""
    with urllib.request.urlopen(f"{sink}/bench?list-type=2&prefix={quote(prefix)}") as answer:
        return [int(size) for size in re.findall(rb"<Size>(\d+)</Size>", answer.read())]


def copied_size(server: Server, select: str, options: str) -> int:
    """Bytes that psql writes for a query."""
    return int(server.ask(f"\\copy ({select}) TO PROGRAM 'wc -c' (FORMAT csv{options})"))


# -- contenders ----------------------------------------------------------------------------------------------------


def copy_tag(bench: Bench) -> Callable[[Path, Usage], Outcome]:
    def outcome(_: Path, usage: Usage) -> Outcome:
        found = re.search(r"COPY (\d+)", usage.stdout)
        rows = int(found[1]) if found else 0
        return Outcome(rows, wrong=wrong_rows(rows, bench.rows))

    return outcome


def wrong_rows(rows: int, wanted: int) -> str:
    return "" if rows == wanted else f"{rows:,} rows instead of {wanted:,}"


def told(usage: Usage) -> dict[str, float]:
    """The JSON object a program printed last."""
    lines = [line for line in usage.stdout.splitlines() if line.startswith("{")]
    return dict(json.loads(lines[-1])) if lines else {}


def csv_files(bench: Bench, pattern: str) -> Callable[[Path, Usage], Outcome]:
    """Counts the records of the files a tool wrote."""

    def outcome(folder: Path, usage: Usage) -> Outcome:
        files = [path for path in folder.glob(pattern) if path.is_file()]
        rows = count_records(files) - len(files)
        size = sum(path.stat().st_size for path in files)
        return Outcome(rows, size, told(usage).get("seconds"), wrong=wrong_rows(rows, bench.rows))

    return outcome


def references(bench: Bench) -> list[Contender]:
    select = "(SELECT * FROM orders) TO '/dev/null' (FORMAT csv, HEADER)"
    env, outcome = bench.server.environment, copy_tag(bench)
    psql = [part for part in bench.server.psql("") if part != "-q"][:-1]
    return [
        Contender(
            FLOOR,
            "`COPY … TO '/dev/null'` on the server: the floor.",
            lambda _: [*psql, f"COPY {select}"],
            outcome,
            env,
        ),
        Contender(PSQL, "`\\copy … TO '/dev/null'`; no S3.", lambda _: [*psql, f"\\copy {select}"], outcome, env),
    ]


def headrace(bench: Bench, loop: str) -> list[Contender]:
    env = bench.server.environment | {
        "PREFECT_HOME": str(bench.prefect_home),
        "PYTHONPATH": str(REPOSITORY),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    }
    program = [sys.executable, "-m", "benchmarks.headrace_run", "--loop", loop]
    serial = itertools.count(1)

    def contender(name: str, note: str, *, partitions: int = 1, compression: str = "none") -> Contender:
        def command(folder: Path) -> list[str]:
            # A stream of its own each time, so that every run is a first one. The folder tells the outcome which.
            stream = f"orders-{next(serial)}"
            (folder / "stream").write_text(stream)
            options = {
                "--sink": bench.sink,
                "--stream": stream,
                "--partitions": partitions,
                "--compression": compression,
            }
            return [*program, *(str(part) for option in options.items() for part in option)]

        def outcome(folder: Path, usage: Usage) -> Outcome:
            return headrace_outcome(bench, (folder / "stream").read_text(), usage, compressed=compression != "none")

        return Contender(name, note, command, outcome, env)

    idle = "Prefect's temporary server starts and runs a flow that does nothing: the base of *above idle*."
    return [
        Contender(IDLE, idle, lambda _: [*program, "--idle"], lambda _, __: Outcome(), env, counts=False),
        contender(OURS, "one partition, to S3 by multipart, uncompressed; from plan to commit."),
        contender(TWO, "the same in two halves under one snapshot.", partitions=2),
        contender(GZIP, "one partition, gzip.", compression="gzip"),
        contender(ZSTD, "one partition, zstd.", compression="zstd"),
    ]


def headrace_outcome(bench: Bench, stream: str, usage: Usage, *, compressed: bool) -> Outcome:
    """What the flow told, compared with what the endpoint counted and what psql writes of the same rows."""
    said = told(usage)
    rows, size = int(said.get("rows", 0)), int(said.get("bytes", 0))
    objects = stored_sizes(bench.sink, f"{stream}/data/")
    expected = bench.dialect_bytes + bench.header_bytes * len(objects)
    wrong = [wrong_rows(rows, bench.rows)]
    if size != expected:
        wrong.append(f"{size:,} bytes of CSV instead of {expected:,}")
    if not compressed and sum(objects) != expected:
        wrong.append(f"{sum(objects):,} bytes in S3 instead of {expected:,}")
    return Outcome(rows, size, said.get("seconds"), said.get("cpu"), "; ".join(filter(None, wrong)))


def peers(bench: Bench) -> list[Contender]:
    url = f"{bench.server.url}?sslmode=disable"
    env = {"SOURCE_URL": bench.server.url, "SINK_URL": bench.sink}

    def script(peer: str, file: str) -> Callable[[Path], list[str]]:
        return lambda _: [str(environments.environment(peer) / "bin" / "python"), str(HERE / "peers" / file)]

    def ingestr(folder: Path) -> list[str]:
        program = environments.program("ingestr", "bin/ingestr")
        target = f"csv://{folder}/orders.csv"
        options = [
            "--source-uri",
            url,
            "--source-table",
            "public.orders",
            "--dest-uri",
            target,
            "--dest-table",
            "bench.orders",
        ]
        return [str(program), "ingest", *options, "--yes", "--progress", "log"]

    def sling(folder: Path) -> list[str]:
        program = environments.program("sling", "lib/python*/site-packages/sling_linux_*/bin/sling-linux-*")
        options = ["--src-conn", url, "--src-stream", "public.orders", "--tgt-object", f"file://{folder}/orders.csv"]
        return [str(program), "run", *options]

    def book(_: Path, usage: Usage) -> Outcome:
        said = told(usage)
        rows = int(said.get("rows", 0))
        return Outcome(rows, int(said.get("bytes", 0)), said.get("seconds"), wrong=wrong_rows(rows, bench.rows))

    return [
        Contender(
            DLT,
            "`sql_table` with the `connectorx` backend streaming Arrow (`arrow_stream`, chunks of 100,000: quicker and "
            "smaller here than its default of one whole table) into a local CSV file, compression off; no S3.",
            script("dlt", "dlt_csv.py"),
            csv_files(bench, "out/bench/orders/*.csv"),
            env | {"DATA_WRITER__DISABLE_COMPRESSION": "true", "RUNTIME__DLTHUB_TELEMETRY": "false"},
        ),
        Contender(
            INGESTR,
            "its defaults (pages of 25,000, five readers) into a local CSV file; no S3.",
            ingestr,
            csv_files(bench, "*.csv"),
            {"INGESTR_DISABLE_TELEMETRY": "true", "DISABLE_TELEMETRY": "true"},
        ),
        Contender(
            SLING,
            "its defaults, into a local CSV file; no S3. The last version whose wheel holds the program.",
            sling,
            csv_files(bench, "*.csv"),
            {"SLING_DISABLE_TELEMETRY": "TRUE"},
            most_rounds=2,
        ),
        Contender(
            BOOK,
            "psycopg2 `fetchall()`, `csv.writer` to a file, boto3 `upload_file` to the same S3 endpoint.",
            script("book", "book.py"),
            book,
            env,
            most_rounds=1,
        ),
    ]


# -- the run -------------------------------------------------------------------------------------------------------


def targets(results: list[Result]) -> list[Target]:
    ours, idle, plain = find(results, OURS), find(results, IDLE), find(results, PSQL)
    cpu = ours.cpu - idle.cpu if ours and idle else None
    memory = (ours.peak - idle.peak) / 2**20 if ours and idle else None
    inside = ours.median(lambda sample: sample.outcome.cpu or 0.0) if ours else None
    found = [
        Target(f"{OURS}, as a part of the server alone", 0.85, ratio(find(results, FLOOR), ours)),
        *(
            Target(f"{OURS} over {peer}", wanted, ratio(find(results, peer), ours))
            for peer, wanted in ((DLT, 2.3), (INGESTR, 3.5), (SLING, 6.0), (BOOK, 10.0))
        ),
        Target("client CPU above idle, all processes", 2.5, cpu, at_least=False, unit=" s"),
        Target("client CPU inside the flow, own process", 2.5, inside, at_least=False, unit=" s"),
        Target("peak memory above idle", 150, memory, at_least=False, unit=" MB"),
        Target("two partitions over `psql \\copy` (given cores to spare)", 1.0, ratio(plain, find(results, TWO))),
    ]
    for name in (GZIP, ZSTD):
        packed = find(results, name)
        more_cpu = (packed.cpu - idle.cpu) / (ours.cpu - idle.cpu) if packed and ours and idle else None
        found.append(Target(f"{name}: CPU above idle over uncompressed", 1.5, more_cpu, at_least=False))
        found.append(Target(f"{name}: time over uncompressed", 1.3, ratio(packed, ours), at_least=False))
    return found


def versions(server: Server) -> list[tuple[str, str]]:
    pins = [
        line
        for name in ("dlt", "ingestr", "sling", "book")
        for line in (HERE / f"requirements-{name}.txt").read_text().split()
    ]
    own = [
        f"{name} {version_of(name)}" for name in ("headrace", "prefect", "asyncpg", "aiobotocore", "isal", "zstandard")
    ]
    return [
        ("PostgreSQL", server.ask("SHOW server_version").split()[0]),
        ("Python", sys.version.split()[0]),
        ("here", ", ".join(own)),
        ("others", ", ".join(pins)),
    ]


def version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(working tree)"


def prepare(server: Server, sink: str, base: Path, rows: int) -> Bench:
    print(f"seeding {rows:,} rows …", flush=True)
    orders.seed(server, rows)
    dialect = copied_size(server, DIALECT, "")
    plain = copied_size(server, "SELECT * FROM orders", ", HEADER")
    header = copied_size(server, "SELECT * FROM orders LIMIT 0", ", HEADER")
    return Bench(server, sink, base / "prefect", rows, plain, dialect, header)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=orders.ROWS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", default=[], help="contenders whose name holds this; may be repeated")
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio", help="event loop of headrace")
    parser.add_argument("--results", type=Path, help="folder for the table and the plot")
    arguments = parser.parse_args()
    complete = not arguments.only and arguments.rows == orders.ROWS
    folder = arguments.results or (HERE / "results" if complete else None)
    report = measured(arguments.rows, arguments.rounds, arguments.only, arguments.loop)
    print("\n" + report.markdown())
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "postgres.md").write_text(report.markdown())
        (folder / "postgres.svg").write_text(plot.svg(report, [FLOOR, PSQL]))
    ours = [result for result in report.results if result.contender.name.startswith("headrace")]
    if any(sample.outcome.wrong for result in ours for sample in result.samples):
        sys.exit("headrace did not bring what is in the table")


def measured(rows: int, rounds: int, only: list[str], loop: str) -> Report:
    """Start the servers, run everything, and stop the servers again."""
    with (
        tempfile.TemporaryDirectory(prefix="headrace-bench-") as name,
        cluster.running(Path(name)) as server,
        running_sink() as sink,
    ):
        base = Path(name)
        bench = prepare(server, sink, base, rows)
        everyone = references(bench) + headrace(bench, loop) + peers(bench)
        chosen = [each for each in everyone if not only or any(word in each.name for word in only)]
        warm_up(chosen, base)
        results = run_rounds(chosen, rounds, base, server.pid)
        return Report(
            title="PostgreSQL to CSV",
            introduction=f"`orders`: {rows:,} rows of 12 columns, {bench.csv_bytes / 1e6:,.0f} MB of CSV.",
            rows=rows,
            csv_bytes=bench.csv_bytes,
            results=results,
            ours=OURS,
            targets=targets(results),
            machine=machine() + versions(server),
        )


def warm_up(chosen: list[Contender], base: Path) -> None:
    """Let Prefect make its database, which only the first start of an installation does."""
    idle = next((each for each in chosen if each.name.startswith(("Prefect", "headrace"))), None)
    if idle:
        folder = base / "warm-up"
        folder.mkdir()
        command = [sys.executable, "-m", "benchmarks.headrace_run", "--idle"]
        subprocess.run(command, env=environment(folder, idle.environment), cwd=folder, check=True, capture_output=True)


if __name__ == "__main__":
    main()
