"""Where a stream of changes begins without a snapshot, and that limits lose nothing on the way there."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import JsonValue

from blocks.errors import ConfigurationError
from tasks.extractors.contract import ChangeExtractor, Limits, Output, ReadOptions, Records
from tasks.extractors.mysql.binlog.source import MySQLChanges
from tests.servers.mysql import MySQLServer
from tests.tasks.extractors.test_mysql import block_of

STATUS = {"MySQL": "SHOW BINARY LOG STATUS", "MariaDB": "SHOW MASTER STATUS"}
EXECUTED = {"MySQL": "gtid_executed", "MariaDB": "gtid_binlog_pos"}
UNKNOWN = {"MySQL": "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5", "MariaDB": "7-9-100"}


def opened(server: MySQLServer, limits: Limits, **source: Any) -> ChangeExtractor:
    made = MySQLChanges.model_validate({"connection": block_of(server), "tables": ("rows_",), **source})
    return made.open(ReadOptions(mode="changes", limits=limits))


async def read(server: MySQLServer, limits: Limits, start: str) -> tuple[list[str], int]:
    """The ids of all records from there to the log's end, and how many runs it took."""
    ids: list[str] = []
    since: JsonValue = None
    runs = 0

    async def emit(_output: Output, records: Records) -> None:
        ids.extend(line.split(",")[-1] for line in records.data.decode().splitlines())

    while True:
        async with opened(server, limits, snapshot=False, start=start) as extractor:
            plan = await extractor.plan(since)
            if not plan.partitions:
                return ids, runs
            since = extractor.reached(plan, [await extractor.capture(plan, plan.partitions[0], emit)])
            runs += 1


async def written(server: MySQLServer) -> dict[str, str]:
    """Rows 1 to 3 in a new file of the log; how the place behind them is named; then rows 4 to 6."""
    add = "INSERT INTO rows_ VALUES ({0})"
    await server.execute("CREATE TABLE rows_ (id INT PRIMARY KEY)", "FLUSH BINARY LOGS")
    await asyncio.sleep(1.1)  # a file's beginning, and MariaDB's transactions, are known to the second
    await server.execute(*(add.format(number) for number in (1, 2, 3)))
    await asyncio.sleep(1.1)
    starts = {
        "place": ":".join(map(str, (await server.fetch(STATUS[server.flavour]))[0][:2])),
        "GTIDs": str(await server.fetch_value(f"SELECT @@GLOBAL.{EXECUTED[server.flavour]}")),
        "time": str(await server.fetch_value("SELECT UTC_TIMESTAMP()")),
    }
    starts["zoned time"] = f" {starts['time'].replace(' ', 'T')}+00:00 "
    await server.execute(*(add.format(number) for number in (4, 5, 6)))
    return starts


async def test_limits_lose_nothing_of_what_is_passed_over(mysql_database: MySQLServer) -> None:
    """A run that ends among transactions that are passed over is gone on from: those behind are not brought, the rest is.

    With no time at all each run comes an event, or a transaction, further.
    """
    starts = await written(mysql_database)
    for start in (starts["GTIDs"], starts["time"]):
        ids, runs = await read(mysql_database, Limits(seconds=1e-9), start)
        assert ids == ["4", "5", "6"], start
        assert runs > 6


async def test_each_way_to_name_a_start(mysql_database: MySQLServer) -> None:
    """A place, GTIDs and times name the same start, whatever the limit of a run."""
    for start in (await written(mysql_database)).values():
        assert (await read(mysql_database, Limits(rows=2), start)) == (["4", "5", "6"], 2)
        assert (await read(mysql_database, Limits(), start)) == (["4", "5", "6"], 1)


async def test_a_start_within_a_second_loses_none_of_it(mysql_database: MySQLServer) -> None:
    """Where the log knows transactions to the second, all of that second come."""
    await mysql_database.execute("CREATE TABLE rows_ (id INT PRIMARY KEY)", "FLUSH BINARY LOGS")
    await asyncio.sleep(1.1)  # the file begins before that second
    moment = datetime.now(UTC).replace(microsecond=1)
    await mysql_database.execute("INSERT INTO rows_ VALUES (1)")
    ids, _ = await read(mysql_database, Limits(), moment.isoformat())
    assert ids == ["1"]


async def test_a_start_now_is_one_of_its_own(mysql_database: MySQLServer) -> None:
    """Nothing of before, and only a position."""
    await written(mysql_database)
    async with opened(mysql_database, Limits(), snapshot=False) as extractor:
        plan = await extractor.plan(None)
        (partition,) = plan.partitions
        assert partition.lower == {"since": partition.upper, "begin": None}
        assert plan.until == partition.upper


@pytest.mark.parametrize(
    "start", ["", "yesterday", "binlog:4", "nowhere.000001:4", "binlog.000001:999999999", "2001-01-01", "GTIDs"]
)
async def test_a_start_that_is_not_there_is_refused(mysql_database: MySQLServer, start: str) -> None:
    """What is no place, none of this server's, or none any more: the field is named."""
    await mysql_database.execute("CREATE TABLE rows_ (id INT PRIMARY KEY)")
    named = UNKNOWN[mysql_database.flavour] if start == "GTIDs" else start
    async with opened(mysql_database, Limits(), snapshot=False, start=named) as extractor:
        with pytest.raises(ConfigurationError, match=r"^field start: "):
            await extractor.plan(None)


async def test_a_start_beside_a_snapshot_is_refused(mysql_database: MySQLServer) -> None:
    """It would mean nothing."""
    with pytest.raises(ConfigurationError, match=r"field start.*snapshot: false"):
        opened(mysql_database, Limits(), start="2026-01-01")


async def test_xa_transactions_count_where_they_are_decided(mysql_database: MySQLServer) -> None:
    """Decided in the run that saw them prepared, where they are kept, or in a later one, which reads them again."""
    server, add = mysql_database, "INSERT INTO rows_ VALUES ({0})"
    await server.execute("CREATE TABLE rows_ (id INT PRIMARY KEY)", "FLUSH BINARY LOGS")
    start = ":".join(map(str, (await server.fetch(STATUS[server.flavour]))[0][:2]))
    for xid, number in (("a", 1), ("b", 2), ("c", 3)):
        xa = f"XA {{0}} '{server.database}{xid}'"
        await server.execute(xa.format("START"), add.format(number), xa.format("END"), xa.format("PREPARE"))
    one = f"XA {{0}} '{server.database}d'"
    await server.execute(one.format("START"), add.format(4), one.format("END"), one.format("COMMIT") + " ONE PHASE")
    await server.execute(
        add.format(5),
        f"XA COMMIT '{server.database}b'",
        f"XA ROLLBACK '{server.database}a'",
        f"XA COMMIT '{server.database}c'",
    )
    for limits in (Limits(), Limits(seconds=1e-9)):
        assert (await read(server, limits, start))[0] == ["4", "5", "2", "3"]
