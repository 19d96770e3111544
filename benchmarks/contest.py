"""What the benchmarks of all databases share: headrace's runs, how a peer's outcome is read, and the program around them.

A benchmark of one database says who runs on which data (`Contest.line_up`) and what was to be reached
(`Contest.targets`); `run` does the rest.
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import quote

from benchmarks import orders, plot
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
IDLE, OURS, TWO = "Prefect, idle", "headrace", "headrace, 2 partitions"
PROCESSES = "headrace, 2 processes"
GZIP, ZSTD = "headrace, gzip", "headrace, zstd"
DLT, INGESTR, SLING, BOOK = "dlt + ConnectorX", "ingestr", "sling", "by the book"

# What each of them is told so that it sends nothing about its use.
DLT_ENVIRONMENT = {"DATA_WRITER__DISABLE_COMPRESSION": "true", "RUNTIME__DLTHUB_TELEMETRY": "false"}
INGESTR_ENVIRONMENT = {"INGESTR_DISABLE_TELEMETRY": "true", "DISABLE_TELEMETRY": "true"}
SLING_ENVIRONMENT = {"SLING_DISABLE_TELEMETRY": "TRUE"}


@dataclass(frozen=True)
class Bench:
    """What the contenders share: the S3 endpoint, and what a right answer looks like."""

    sink: str
    prefect_home: Path
    rows: int
    csv_bytes: int
    """As the table's MB/s count them, header included."""
    dialect_bytes: int
    """The same in headrace's dialect, without a header."""
    header_bytes: int


@dataclass(frozen=True)
class LineUp:
    """A server with its data, and who reads them."""

    bench: Bench
    contenders: list[Contender]
    server: tuple[int, ...]
    """The server's root processes."""
    versions: list[tuple[str, str]]


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    rows: int
    rounds: int
    only: list[str]
    loop: str
    partitions: int
    results: Path | None


@dataclass(frozen=True)
class Contest:
    """The benchmark of one database."""

    title: str
    name: str
    """Of the files that hold its results."""
    description: str
    references: list[str]
    """Contenders that the plot draws in grey."""
    line_up: Callable[[Path, str, Options], AbstractContextManager[LineUp]]
    """Given a folder and the S3 endpoint's URL: the server is there until the context ends."""
    targets: Callable[[list[Result]], list[Target]]
    rows: int = orders.ROWS
    """Of a full run."""
    data: str = "`orders`"
    columns: int = 12

    def folder(self, options: Options) -> Path | None:
        """Where the table and the plot go, if anywhere."""
        complete = not options.only and options.rows == self.rows and options.partitions == 1
        return options.results or (HERE / "results" if complete else None)


# -- the S3 endpoint -----------------------------------------------------------------------------------------------


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


# -- outcomes ------------------------------------------------------------------------------------------------------


def wrong_rows(rows: int, wanted: int) -> str:
    return "" if rows == wanted else f"{rows:,} rows instead of {wanted:,}"


def told(usage: Usage) -> dict[str, float]:
    """The JSON object a program printed last."""
    lines = [line for line in usage.stdout.splitlines() if line.startswith("{")]
    return dict(json.loads(lines[-1])) if lines else {}


def csv_files(bench: Bench, pattern: str, *, header: bool = True) -> Callable[[Path, Usage], Outcome]:
    """Counts the records of the files a tool wrote."""

    def outcome(folder: Path, usage: Usage) -> Outcome:
        files = [path for path in folder.glob(pattern) if path.is_file()]
        rows = count_records(files) - (len(files) if header else 0)
        size = sum(path.stat().st_size for path in files)
        return Outcome(rows, size, told(usage).get("seconds"), wrong=wrong_rows(rows, bench.rows))

    return outcome


def by_its_words(bench: Bench) -> Callable[[Path, Usage], Outcome]:
    """For a peer's script that counts for itself."""

    def outcome(_: Path, usage: Usage) -> Outcome:
        said = told(usage)
        rows = int(said.get("rows", 0))
        return Outcome(rows, int(said.get("bytes", 0)), said.get("seconds"), wrong=wrong_rows(rows, bench.rows))

    return outcome


def headrace_outcome(bench: Bench, stream: str, usage: Usage, *, compressed: bool) -> Outcome:
    """What the flow told, compared with what the endpoint counted and the size of the same rows by another count."""
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


# -- contenders ----------------------------------------------------------------------------------------------------


class Headrace:
    """Makes the contenders of headrace for one source: `source` is what `headrace_run` is told about it."""

    def __init__(self, bench: Bench, loop: str, source: list[str], env: dict[str, str]) -> None:
        self._bench = bench
        self._program = [sys.executable, "-m", "benchmarks.headrace_run", "--loop", loop, *source]
        self._serial = itertools.count(1)
        self._environment = env | {
            "PREFECT_HOME": str(bench.prefect_home),
            "PYTHONPATH": str(REPOSITORY),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        }

    def usual(self) -> list[Contender]:
        """Prefect alone, and headrace in the ways that every database is read."""
        return [
            self.idle(),
            self.contender(OURS, "one partition, to S3 by multipart, uncompressed; from plan to commit."),
            self.contender(TWO, "the same in two halves under one snapshot.", partitions=2),
            self.contender(GZIP, "one partition, gzip.", compression="gzip"),
            self.contender(ZSTD, "one partition, zstd.", compression="zstd"),
        ]

    def idle(self) -> Contender:
        note = "Prefect's temporary server starts and runs a flow that does nothing: the base of *above idle*."
        command = [*self._program, "--idle"]
        return Contender(IDLE, note, lambda _: command, lambda _, __: Outcome(), self._environment, counts=False)

    def contender(
        self,
        name: str,
        note: str,
        *extra: str,
        partitions: int = 1,
        compression: str = "none",
        most_rounds: int = 99,
    ) -> Contender:
        """One way to run it; `extra` are further options of `headrace_run`."""
        options = ["--partitions", str(partitions), "--compression", compression, *extra]

        def command(folder: Path) -> list[str]:
            # A stream of its own each time, so that every run is a first one. The folder tells the outcome which.
            stream = f"orders-{next(self._serial)}"
            (folder / "stream").write_text(stream)
            return [*self._program, "--sink", self._bench.sink, "--stream", stream, *options]

        def outcome(folder: Path, usage: Usage) -> Outcome:
            stream = (folder / "stream").read_text()
            return headrace_outcome(self._bench, stream, usage, compressed=compression != "none")

        return Contender(name, note, command, outcome, self._environment, most_rounds)


def script(peer: str, file: str) -> Callable[[Path], list[str]]:
    """The command that runs one of `peers/` in the environment of a tool."""
    return lambda _: [str(environments.environment(peer) / "bin" / "python"), str(HERE / "peers" / file)]


def ingestr(url: str, table: str) -> Callable[[Path], list[str]]:
    """The command by which ingestr reads a table into a CSV file."""

    def command(folder: Path) -> list[str]:
        program = environments.program("ingestr", "bin/ingestr")
        source = ["--source-uri", url, "--source-table", table]
        target = ["--dest-uri", f"csv://{folder}/orders.csv", "--dest-table", "bench.orders"]
        return [str(program), "ingest", *source, *target, "--yes", "--progress", "log"]

    return command


def sling(url: str, table: str) -> Callable[[Path], list[str]]:
    """The command by which sling reads a table into a CSV file."""

    def command(folder: Path) -> list[str]:
        program = environments.program("sling", "lib/python*/site-packages/sling_linux_*/bin/sling-linux-*")
        target = ["--tgt-object", f"file://{folder}/orders.csv"]
        return [str(program), "run", "--src-conn", url, "--src-stream", table, *target]

    return command


# -- what was reached ----------------------------------------------------------------------------------------------


def lead(results: list[Result], wanted: dict[str, float]) -> list[Target]:
    """How many times faster than others headrace has to be."""
    ours = find(results, OURS)
    return [Target(f"{OURS} over {peer}", least, ratio(find(results, peer), ours)) for peer, least in wanted.items()]


def cpu_above_idle(results: list[Result]) -> float | None:
    ours, idle = find(results, OURS), find(results, IDLE)
    return ours.cpu - idle.cpu if ours and idle else None


def memory(results: list[Result], most: float) -> Target:
    """Peak memory in MB above a Prefect that does nothing."""
    ours, idle = find(results, OURS), find(results, IDLE)
    value = (ours.peak - idle.peak) / 2**20 if ours and idle else None
    return Target("peak memory above idle", most, value, at_least=False, unit=" MB")


def compression(results: list[Result]) -> list[Target]:
    """What gzip and zstd may cost."""
    found = []
    ours, idle, plain = find(results, OURS), find(results, IDLE), cpu_above_idle(results)
    for name in (GZIP, ZSTD):
        packed = find(results, name)
        more_cpu = (packed.cpu - idle.cpu) / plain if packed and idle and plain else None
        found.append(Target(f"{name}: CPU above idle over uncompressed", 1.5, more_cpu, at_least=False))
        found.append(Target(f"{name}: time over uncompressed", 1.3, ratio(packed, ours), at_least=False))
    return found


# -- the run -------------------------------------------------------------------------------------------------------


PEERS = ("dlt", "ingestr", "sling", "book")


def versions(server: tuple[str, str], driver: str, peers: Sequence[str] = PEERS) -> list[tuple[str, str]]:
    """What took part: the server, Python, headrace with its libraries, and the pins of the peers."""
    pins = [line for name in peers for line in (HERE / f"requirements-{name}.txt").read_text().split()]
    names = ("headrace", "prefect", driver, "aiobotocore", "isal", "zstandard")
    own = [f"{name} {version_of(name)}" for name in names]
    return [server, ("Python", sys.version.split()[0]), ("here", ", ".join(own)), ("others", ", ".join(pins))]


def version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(working tree)"


def run(contest: Contest) -> None:
    """The program: measure, print, keep the results of a full run; ends with an error where headrace was wrong."""
    options = options_of(contest)
    report = measured(contest, options)
    print("\n" + report.markdown())
    if folder := contest.folder(options):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{contest.name}.md").write_text(report.markdown())
        (folder / f"{contest.name}.svg").write_text(plot.svg(report, contest.references))
    ours = [result for result in report.results if result.contender.name.startswith("headrace")]
    if any(sample.outcome.wrong for result in ours for sample in result.samples):
        sys.exit("headrace did not bring what is in the table")


def options_of(contest: Contest) -> Options:
    """The command line of every benchmark."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=contest.description, formatter_class=formatter)
    parser.add_argument("--rows", type=int, default=contest.rows)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", default=[], help="contenders whose name holds this; may be repeated")
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio", help="event loop of headrace")
    parser.add_argument("--partitions", type=int, default=1, help="kafka: how many the topic has")
    parser.add_argument("--results", type=Path, help="folder for the table and the plot")
    return Options(**vars(parser.parse_args()))


def measured(contest: Contest, options: Options) -> Report:
    """Start the servers, run everything, and stop the servers again."""
    with (
        tempfile.TemporaryDirectory(prefix="headrace-bench-") as name,
        running_sink() as sink,
        contest.line_up(Path(name), sink, options) as line_up,
    ):
        only, base = options.only, Path(name)
        chosen = [each for each in line_up.contenders if not only or any(word in each.name for word in only)]
        warm_up(chosen, base)
        results = run_rounds(chosen, options.rounds, base, line_up.server)
        size = line_up.bench.csv_bytes
        return Report(
            title=contest.title,
            introduction=f"{contest.data}: {options.rows:,} rows of {contest.columns} columns, {size / 1e6:,.0f} MB of CSV.",
            rows=options.rows,
            csv_bytes=size,
            results=results,
            ours=OURS,
            targets=contest.targets(results),
            machine=machine() + line_up.versions,
        )


def warm_up(chosen: list[Contender], base: Path) -> None:
    """Let Prefect make its database, which only the first start of an installation does."""
    idle = next((each for each in chosen if each.name.startswith(("Prefect", "headrace"))), None)
    if idle:
        folder = base / "warm-up"
        folder.mkdir()
        command = [sys.executable, "-m", "benchmarks.headrace_run", "--idle"]
        subprocess.run(command, env=environment(folder, idle.environment), cwd=folder, check=True, capture_output=True)
