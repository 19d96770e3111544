"""`make bench`: headrace beside other ways to bring a MariaDB table into CSV, with the targets it has to meet.

    python -m benchmarks.mysql [--rows 2000000] [--rounds 3] [--only headrace --only dlt]

Writes `results/mysql.md` and `results/mysql.svg` after a full run; a run with fewer contenders or other rows prints its
table only, unless `--results` names a folder.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import contest, mariadb, orders_mysql
from benchmarks.contest import BOOK, DLT, INGESTR, OURS, SLING, Bench, Contest, Headrace, LineUp, Options
from benchmarks.harness import REPOSITORY, Contender, Outcome, Result, Target, find, ratio
from benchmarks.mariadb import Server
from benchmarks.peers.environments import UnavailableError
from benchmarks.process import Usage

FLOOR, CLIENT, FALLBACK = "server alone", "mariadb --quick --batch", "headrace, fallback reader"
DLT_SQLALCHEMY, MYDUMPER, AIOMYSQL = "dlt + SQLAlchemy", "mydumper --csv", "aiomysql + csv"

EVERYTHING = "SELECT * FROM orders"


# -- contenders ----------------------------------------------------------------------------------------------------


def references(server: Server) -> list[Contender]:
    env = server.environment
    drain = [sys.executable, "-m", "benchmarks.mysql_drain", EVERYTHING]

    def drained(_: Path, usage: Usage) -> Outcome:
        said = contest.told(usage)
        return Outcome(bytes=int(said.get("bytes", 0)), seconds=said.get("seconds"))

    def client(_: Path) -> list[str]:
        options = ["--quick", "--batch", f"--execute={EVERYTHING}"]
        return ["sh", "-c", 'exec "$@" >/dev/null', "sh", *server.client(), *options]

    return [
        Contender(
            FLOOR,
            "one SELECT whose answer is taken from the socket and dropped unread: the floor.",
            lambda _: drain,
            drained,
            env | {"PYTHONPATH": str(REPOSITORY)},
        ),
        Contender(CLIENT, "its tab-separated output to /dev/null; no S3.", client, lambda _, __: Outcome(), env),
    ]


def headrace(bench: Bench, server: Server, loop: str) -> list[Contender]:
    source = ["--database", "mysql", "--table", "orders"]
    ours = Headrace(bench, loop, source, server.environment)
    note = "one partition, through aiomysql's public API, as with a version of it that headrace does not know."
    return [*ours.usual(), ours.contender(FALLBACK, note, "--fallback", most_rounds=1)]


def peers(bench: Bench, server: Server) -> list[Contender]:
    table = f"{server.database}.orders"
    return [
        *dlt(bench, server),
        Contender(
            INGESTR,
            "its defaults (pages of 25,000, five readers) into a local CSV file; no S3.",
            contest.ingestr(server.url, table),
            contest.csv_files(bench, "*.csv"),
            contest.INGESTR_ENVIRONMENT,
        ),
        Contender(
            SLING,
            "its defaults, into a local CSV file; no S3. The last version whose wheel holds the program.",
            contest.sling(server.url, table),
            contest.csv_files(bench, "*.csv"),
            contest.SLING_ENVIRONMENT,
            most_rounds=2,
        ),
        mydumper(bench, server),
        *scripts(bench, server),
    ]


def dlt(bench: Bench, server: Server) -> list[Contender]:
    url = server.url.replace("mysql://", "mysql+pymysql://")
    env = {"SOURCE_URL": url, "SOURCE_SCHEMA": server.database} | contest.DLT_ENVIRONMENT
    command, outcome = contest.script("dlt", "dlt_csv.py"), contest.csv_files(bench, "out/bench/orders/*.csv")
    return [
        Contender(
            DLT,
            "`sql_table` with the `connectorx` backend streaming Arrow (`arrow_stream`, chunks of 100,000) into a local "
            "CSV file, compression off; no S3.",
            command,
            outcome,
            env,
        ),
        Contender(
            DLT_SQLALCHEMY,
            "the same with the `sqlalchemy` backend, over PyMySQL.",
            command,
            outcome,
            env | {"DLT_BACKEND": "sqlalchemy"},
            most_rounds=1,
        ),
    ]


def mydumper(bench: Bench, server: Server) -> Contender:
    def command(_: Path) -> list[str]:
        program = mydumper_program()
        place = [f"--host={server.host}", f"--port={server.port}", f"--database={server.database}"]
        account = [f"--user={server.user}", f"--password={server.password}"]
        what = [f"--tables-list={server.database}.orders", "--csv"]
        return [program, *place, *account, *what, "--no-schemas", "--outputdir=out"]

    note = "its CSV (no header, backslashes before quotes), four threads, into local files; no S3."
    return Contender(MYDUMPER, note, command, contest.csv_files(bench, "out/*.dat", header=False))


def mydumper_program() -> str:
    """Where mydumper is installed; `UnavailableError` where it is not, or is too old to write CSV."""
    program = shutil.which("mydumper")
    if not program:
        raise UnavailableError("needs mydumper 0.11 or later on the PATH (Debian has 0.10, without --csv)")
    told = subprocess.run([program, "--help"], capture_output=True, text=True, check=False)
    if "--csv" not in told.stdout + told.stderr:
        raise UnavailableError("the mydumper that is installed has no --csv: 0.11 or later is needed")
    return program


def scripts(bench: Bench, server: Server) -> list[Contender]:
    """What people write for themselves."""
    env = {"SOURCE_URL": server.url, "SINK_URL": bench.sink}
    counted = contest.by_its_words(bench)
    return [
        Contender(
            AIOMYSQL,
            "`SSCursor`, `fetchmany(10000)` and `csv.writer` to a local file; no S3.",
            contest.script("book", "aiomysql_csv.py"),
            counted,
            env,
            most_rounds=1,
        ),
        Contender(
            BOOK,
            "PyMySQL `fetchall()`, `csv.writer` to a file, boto3 `upload_file` to the same S3 endpoint.",
            contest.script("book", "book.py"),
            counted,
            env,
            most_rounds=1,
        ),
    ]


# -- the run -------------------------------------------------------------------------------------------------------


def targets(results: list[Result]) -> list[Target]:
    ours, client = find(results, OURS), find(results, CLIENT)
    return [
        Target(f"{OURS} over `{CLIENT}`", 1.0, ratio(client, ours)),
        *contest.lead(results, {DLT: 1.8, INGESTR: 2.2, SLING: 8.0, AIOMYSQL: 8.0}),
        contest.memory(results, 200),
        *contest.compression(results),
    ]


@contextmanager
def line_up(base: Path, sink: str, options: Options) -> Iterator[LineUp]:
    """A server of its own with the table in it."""
    with mariadb.running(base) as server:
        bench = prepare(server, sink, base, options.rows)
        contenders = references(server) + headrace(bench, server, options.loop) + peers(bench, server)
        version = ("MariaDB", str(server.ask("SELECT VERSION()")))
        yield LineUp(bench, contenders, (server.instance.pid,), contest.versions(version, "aiomysql"))


def prepare(server: Server, sink: str, base: Path, rows: int) -> Bench:
    print(f"seeding {rows:,} rows …", flush=True)
    orders_mysql.seed(server, rows)
    size, header = orders_mysql.csv_size(server), len(orders_mysql.HEADER)
    return Bench(sink, base / "prefect", rows, size + header, size, header)


def main() -> None:
    references = [FLOOR, CLIENT]
    contest.run(Contest("MariaDB to CSV", "mysql", __doc__ or "", references, line_up, targets))


if __name__ == "__main__":
    main()
