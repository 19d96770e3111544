"""`make bench`: headrace beside other ways to bring a PostgreSQL table into CSV, with the targets it has to meet.

    python -m benchmarks.postgres [--rows 2000000] [--rounds 3] [--only headrace --only dlt]

Writes `results/postgres.md` and `results/postgres.svg` after a full run; a run with fewer contenders or other rows
prints its table only, unless `--results` names a folder.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import cluster, contest, orders
from benchmarks.cluster import Server
from benchmarks.contest import BOOK, DLT, INGESTR, OURS, SLING, TWO, Bench, Contest, Headrace, LineUp, Options
from benchmarks.harness import Contender, Outcome, Result, Target, find, ratio
from benchmarks.process import Usage

FLOOR, PSQL = "server alone", "psql \\copy"

# The dialect of headrace spells booleans out; all else of `orders` is what COPY writes by itself.
DIALECT = (
    "SELECT id, customer_id, status, email, total, weight, note, paid::text, order_date, updated_at, attrs, uid"
    " FROM orders"
)


def copied_size(server: Server, select: str, options: str) -> int:
    """Bytes that psql writes for a query."""
    return int(server.ask(f"\\copy ({select}) TO PROGRAM 'wc -c' (FORMAT csv{options})"))


# -- contenders ----------------------------------------------------------------------------------------------------


def copy_tag(bench: Bench) -> Callable[[Path, Usage], Outcome]:
    def outcome(_: Path, usage: Usage) -> Outcome:
        found = re.search(r"COPY (\d+)", usage.stdout)
        rows = int(found[1]) if found else 0
        return Outcome(rows, wrong=contest.wrong_rows(rows, bench.rows))

    return outcome


def references(bench: Bench, server: Server) -> list[Contender]:
    select = "(SELECT * FROM orders) TO '/dev/null' (FORMAT csv, HEADER)"
    env, outcome = server.environment, copy_tag(bench)
    psql = [part for part in server.psql("") if part != "-q"][:-1]
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


def peers(bench: Bench, server: Server) -> list[Contender]:
    url, table = f"{server.url}?sslmode=disable", "public.orders"
    env = {"SOURCE_URL": server.url, "SINK_URL": bench.sink}
    return [
        Contender(
            DLT,
            "`sql_table` with the `connectorx` backend streaming Arrow (`arrow_stream`, chunks of 100,000: quicker and "
            "smaller here than its default of one whole table) into a local CSV file, compression off; no S3.",
            contest.script("dlt", "dlt_csv.py"),
            contest.csv_files(bench, "out/bench/orders/*.csv"),
            env | contest.DLT_ENVIRONMENT,
        ),
        Contender(
            INGESTR,
            "its defaults (pages of 25,000, five readers) into a local CSV file; no S3.",
            contest.ingestr(url, table),
            contest.csv_files(bench, "*.csv"),
            contest.INGESTR_ENVIRONMENT,
        ),
        Contender(
            SLING,
            "its defaults, into a local CSV file; no S3. The last version whose wheel holds the program.",
            contest.sling(url, table),
            contest.csv_files(bench, "*.csv"),
            contest.SLING_ENVIRONMENT,
            most_rounds=2,
        ),
        Contender(
            BOOK,
            "psycopg2 `fetchall()`, `csv.writer` to a file, boto3 `upload_file` to the same S3 endpoint.",
            contest.script("book", "book.py"),
            contest.by_its_words(bench),
            env,
            most_rounds=1,
        ),
    ]


# -- the run -------------------------------------------------------------------------------------------------------


def targets(results: list[Result]) -> list[Target]:
    ours, plain = find(results, OURS), find(results, PSQL)
    cpu = contest.cpu_above_idle(results)
    inside = ours.median(lambda sample: sample.outcome.cpu or 0.0) if ours else None
    return [
        Target(f"{OURS}, as a part of the server alone", 0.85, ratio(find(results, FLOOR), ours)),
        *contest.lead(results, {DLT: 2.3, INGESTR: 3.5, SLING: 6.0, BOOK: 10.0}),
        Target("client CPU above idle, all processes", 2.5, cpu, at_least=False, unit=" s"),
        Target("client CPU inside the flow, own process", 2.5, inside, at_least=False, unit=" s"),
        contest.memory(results, 150),
        Target("two partitions over `psql \\copy` (given cores to spare)", 1.0, ratio(plain, find(results, TWO))),
        *contest.compression(results),
    ]


def prepare(server: Server, sink: str, base: Path, rows: int) -> Bench:
    print(f"seeding {rows:,} rows …", flush=True)
    orders.seed(server, rows)
    dialect = copied_size(server, DIALECT, "")
    plain = copied_size(server, "SELECT * FROM orders", ", HEADER")
    header = copied_size(server, "SELECT * FROM orders LIMIT 0", ", HEADER")
    return Bench(sink, base / "prefect", rows, plain, dialect, header)


@contextmanager
def line_up(base: Path, sink: str, options: Options) -> Iterator[LineUp]:
    """A cluster of its own with the table in it."""
    with cluster.running(base) as server:
        bench = prepare(server, sink, base, options.rows)
        ours = Headrace(bench, options.loop, [], server.environment).usual()
        version = ("PostgreSQL", server.ask("SHOW server_version").split()[0])
        contenders = references(bench, server) + ours + peers(bench, server)
        yield LineUp(bench, contenders, (server.pid,), contest.versions(version, "asyncpg"))


def main() -> None:
    references = [FLOOR, PSQL]
    contest.run(Contest("PostgreSQL to CSV", "postgres", __doc__ or "", references, line_up, targets))


if __name__ == "__main__":
    main()
