"""The binary logs of MySQL and MariaDB pass the suite of change streams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from blocks.errors import ConfigurationError
from tasks.extractors.contract import ChangeExtractor, Output, ReadOptions, Records
from tasks.extractors.mysql import snapshot
from tasks.extractors.mysql.binlog.source import MySQLChanges
from tests.changes_contract import ChangesContract, captured, note
from tests.servers.mysql import MySQLServer
from tests.tasks.extractors.test_binlog_starts import STATUS
from tests.tasks.extractors.test_mysql import block_of


@dataclass
class Log:
    """One table, from a place in the log on; what is added at once is two transactions, which end a file of it."""

    server: MySQLServer
    start: str
    count: int = 0

    def open(self, options: ReadOptions) -> ChangeExtractor:
        named = {"connection": block_of(self.server), "tables": ("events",), "snapshot": False, "start": self.start}
        return MySQLChanges.model_validate(named).open(options)

    def misnamed(self, options: ReadOptions) -> ChangeExtractor:
        # With a snapshot: without, a table may be one that the log has and the server has no more.
        named = {"connection": block_of(self.server), "tables": ("evnets",)}
        return MySQLChanges.model_validate(named).open(options)

    async def add(self, count: int) -> None:
        numbers = range(self.count + 1, self.count + count + 1)
        notes = ("NULL" if (text := note(number)) is None else f"'{text}'" for number in numbers)
        rows = [f"({number}, {text})" for number, text in zip(numbers, notes, strict=True)]
        halves = (", ".join(half) for half in (rows[: count // 2], rows[count // 2 :]))
        await self.server.execute(*(f"INSERT INTO events VALUES {half}" for half in halves), "FLUSH BINARY LOGS")
        self.count += count

    def order_of(self, _position: str) -> str:
        return ""


class TestLog(ChangesContract):
    @pytest.fixture
    async def subject(self, mysql_database: MySQLServer) -> Log:
        await mysql_database.execute("CREATE TABLE events (id INT PRIMARY KEY, note TEXT)")
        file, position, *_ = (await mysql_database.fetch(STATUS[mysql_database.flavour]))[0]
        return Log(mysql_database, f"{file}:{position}")


async def test_tables_of_any_name_have_folders_of_their_own(mysql_database: MySQLServer) -> None:
    """Of the log and of the snapshot: names that differ in letters alone that no folder has are told apart."""
    tables, found = ("orders", "заказы", "товары"), dict[str, set[str]]()
    for table in tables:
        await mysql_database.execute(
            f"CREATE TABLE `{table}` (id INT PRIMARY KEY)", f"INSERT INTO `{table}` VALUES (1)"
        )
    source = MySQLChanges.model_validate({"connection": block_of(mysql_database), "tables": tables})

    async def emit(output: Output, _records: Records) -> None:
        found.setdefault(output.table, set()).add(output.name)

    since = None
    for _ in ("snapshot", "log"):
        async with source.open(ReadOptions(mode="changes")) as extractor:
            plan = await extractor.plan(since)
            assert len(plan.partitions)
            reached = [await extractor.capture(plan, partition, emit) for partition in plan.partitions]
            since = extractor.reached(plan, reached) if any(reached) else plan.until
        await mysql_database.execute(
            *(f"INSERT INTO `{table}` (id) SELECT max(id) + 1 FROM `{table}`" for table in tables)
        )
    folders = [found[f"{mysql_database.database}.{table}"] for table in tables]
    assert folders[0] == {f"{mysql_database.database}.orders"}
    assert all(len(names) == 1 for names in folders)
    assert len(set.union(*folders)) == 3


async def test_a_table_that_is_made_before_the_lock_is_in_the_snapshot(
    mysql_database: MySQLServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables are listed before commits are held up: what is made and filled in between is lost neither there nor here."""
    taken, takes = snapshot.take, 0

    async def take(*arguments: Any, **named: Any) -> snapshot.Snapshot:
        nonlocal takes
        takes += 1
        if takes == 1:
            await mysql_database.execute("CREATE TABLE late (id INT PRIMARY KEY)", "INSERT INTO late VALUES (1), (2)")
        return await taken(*arguments, **named)

    monkeypatch.setattr(snapshot, "take", take)
    await mysql_database.execute("CREATE TABLE early (id INT PRIMARY KEY)", "INSERT INTO early VALUES (3)")
    source = MySQLChanges.model_validate({"connection": block_of(mysql_database), "tables": ("*",)})
    found: list[str] = []

    async def emit(_output: Output, records: Records) -> None:
        found.extend(line.split(",")[-1] for line in records.data.decode().splitlines())

    since = None
    for _ in ("snapshot", "log"):
        async with source.open(ReadOptions(mode="changes")) as extractor:
            plan = await extractor.plan(since)
            for partition in plan.partitions:
                await extractor.capture(plan, partition, emit)
            since = plan.until
        await mysql_database.execute("INSERT INTO late SELECT max(id) + 1 FROM late")
    assert sorted(found) == ["1", "2", "3", "3"]


@pytest.mark.parametrize(
    "statement", ["INSERT INTO events VALUES (1, 'a')", "LOAD DATA INFILE '{file}' INTO TABLE events"]
)
async def test_a_write_that_is_logged_as_a_statement_is_refused(mysql_database: MySQLServer, statement: str) -> None:
    """What no rows tell of is an error, never a run without them."""
    folder = str(await mysql_database.fetch_value("SELECT @@secure_file_priv"))
    file = f"{folder.rstrip('/')}/{mysql_database.database}.txt"
    await mysql_database.execute(
        "CREATE TABLE events (id INT PRIMARY KEY, note TEXT)", f"SELECT 1, 'a' INTO OUTFILE '{file}'"
    )
    named = {"connection": block_of(mysql_database), "tables": ("events",), "snapshot": False}
    source = MySQLChanges.model_validate(named)
    async with source.open(ReadOptions(mode="changes")) as extractor:
        since = (await extractor.plan(None)).until
    await mysql_database.execute("SET SESSION binlog_format = STATEMENT", statement.format(file=file))

    async def emit(_output: Output, _records: Records) -> None:
        raise AssertionError("there are no rows")

    async with source.open(ReadOptions(mode="changes")) as extractor:
        plan = await extractor.plan(since)
        with pytest.raises(ConfigurationError, match=r"events as a statement, not as rows: (INSERT|LOAD)"):
            await extractor.capture(plan, plan.partitions[0], emit)


async def logged(server: MySQLServer, tables: tuple[str, ...], *statements: str) -> list[tuple[str, str]]:
    """Operation and id of the records that statements bring, in the order of the log."""
    source = MySQLChanges.model_validate({"connection": block_of(server), "tables": tables, "snapshot": False})
    async with source.open(ReadOptions(mode="changes")) as extractor:
        since = (await extractor.plan(None)).until
    await server.execute(*statements)
    async with source.open(ReadOptions(mode="changes")) as extractor:
        made = await captured(extractor, await extractor.plan(since))
    return [(row["_op"], row["id"]) for row in sorted(made.all, key=lambda row: row["_position"])]


@pytest.mark.parametrize("mysql_database", ["mariadb"], indirect=True)
async def test_a_table_that_is_replaced_is_emptied_first(mysql_database: MySQLServer) -> None:
    """MariaDB's CREATE OR REPLACE TABLE comes as a record of its own, before the rows that it may bring."""
    await mysql_database.execute("CREATE TABLE events (id INT PRIMARY KEY)", "INSERT INTO events VALUES (1)")
    found = await logged(
        mysql_database,
        ("events",),
        "CREATE OR REPLACE TEMPORARY TABLE events (id INT)",
        "CREATE OR REPLACE TEMPORARY TABLE others (id INT)",
        "DROP TEMPORARY TABLE events",
        "CREATE OR REPLACE TABLE events (id INT PRIMARY KEY)",
        "INSERT INTO events VALUES (2)",
        "CREATE OR REPLACE TABLE events (id INT PRIMARY KEY) AS SELECT 3 AS id",
    )
    assert found == [("T", ""), ("I", "2"), ("T", ""), ("I", "3")]


async def test_a_table_that_is_made_of_a_query_brings_its_rows(mysql_database: MySQLServer) -> None:
    """CREATE TABLE … SELECT is a statement and rows in one transaction, also where nobody follows the table."""
    await mysql_database.execute("CREATE TABLE events (id INT PRIMARY KEY)")
    found = await logged(
        mysql_database,
        ("events", "made"),
        "CREATE TABLE other (id INT PRIMARY KEY) AS SELECT 1 AS id",
        "CREATE TABLE none AS SELECT 1 AS id WHERE 1 = 0",
        "INSERT INTO events VALUES (2)",
        "CREATE TABLE made (id INT PRIMARY KEY) AS SELECT 3 AS id",
        "ALTER TABLE made ADD note TEXT",
        "INSERT INTO events VALUES (4)",
    )
    assert found == [("I", "2"), ("I", "3"), ("I", "4")]
