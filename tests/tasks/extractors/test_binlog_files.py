"""A log that is cut where its files begin brings what it brings in one piece, and comes to the same position."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tasks.extractors.contract import Limits, Output, Plan, ReadOptions, Records
from tasks.extractors.mysql.binlog.parts import Within
from tasks.extractors.mysql.binlog.position import LogPosition
from tasks.extractors.mysql.binlog.server import LogFile
from tasks.extractors.mysql.binlog.source import MySQLChanges
from tests.servers.mysql import MySQLServer
from tests.tasks.extractors.test_binlog_starts import STATUS
from tests.tasks.extractors.test_mysql import block_of

FILES = 9


@pytest.fixture
async def server(mysql_database: MySQLServer) -> AsyncIterator[MySQLServer]:
    """With a second database, which may be gone at the end."""
    await mysql_database.execute(f"CREATE DATABASE {mysql_database.database}_gone")
    yield mysql_database
    await mysql_database.execute(f"DROP DATABASE IF EXISTS {mysql_database.database}_gone")


async def written(server: MySQLServer, chance: random.Random) -> str:
    """A random history in some files; where it begins."""
    await server.execute(
        *(f"CREATE TABLE {name} (id INT PRIMARY KEY AUTO_INCREMENT, note TEXT)" for name in ("rows_", "xa")),
        "FLUSH BINARY LOGS",
    )
    start = ":".join(map(str, (await server.fetch(STATUS[server.flavour]))[0][:2]))
    gone = f"{server.database}_gone"
    prepared: list[str] = []
    for file in range(FILES):
        for number in range(chance.randrange(1, 8)):
            xid = f"'{server.database}-{file}-{number}'"
            add = f"INSERT INTO rows_ (note) VALUES ('{file}'), ('{number}')"
            match chance.randrange(6):
                case 0:
                    # In a table of their own, which others need not wait for.
                    held = add.replace("rows_", "xa")
                    await server.execute(f"XA START {xid}", held, f"XA END {xid}", f"XA PREPARE {xid}")
                    prepared.append(xid)
                case 1 if prepared:
                    xid = prepared.pop(chance.randrange(len(prepared)))
                    await server.execute(f"XA {chance.choice(['COMMIT', 'COMMIT', 'ROLLBACK'])} {xid}")
                case 2:
                    await server.execute("UPDATE rows_ SET note = CONCAT(note, '!') ORDER BY id LIMIT 3")
                case 3:
                    await server.execute("DELETE FROM rows_ ORDER BY id LIMIT 1")
                case _:
                    await server.execute(add)
        match file:
            case 1:
                await server.execute(*(f"CREATE TABLE {gone}.t{n} (id INT PRIMARY KEY, a INT)" for n in range(3)))
                await server.execute(*(f"INSERT INTO {gone}.t{n} VALUES (1, 1)" for n in range(3)))
            case 3:
                await server.execute(
                    f"ALTER TABLE {gone}.t0 ADD COLUMN b INT", f"INSERT INTO {gone}.t0 VALUES (2, 2, 2)"
                )
                await server.execute(f"DROP TABLE {gone}.t1", "ALTER TABLE rows_ ADD COLUMN extra INT")
            case 6:
                await server.execute(f"DROP DATABASE {gone}", "TRUNCATE TABLE rows_")
        await server.execute("FLUSH BINARY LOGS")
    # Open at the end: what the position says of it has to be the same, too.
    xid = f"'{server.database}-last'"
    await server.execute(f"XA START {xid}", "INSERT INTO xa (note) VALUES ('z')", f"XA END {xid}", f"XA PREPARE {xid}")
    return start


async def settled(server: MySQLServer) -> None:
    """Wait until the log's end stays where it is: MariaDB notes there, up to a second later, which files it needs no more."""
    ((file, *_),) = await server.fetch(STATUS[server.flavour])
    async with asyncio.timeout(60):
        while server.is_mariadb:
            notes = await server.fetch(f"SHOW BINLOG EVENTS IN '{file}'")
            if any(kind == "Binlog_checkpoint" and needed == file for _, _, kind, _, _, needed in notes):
                return
            await asyncio.sleep(0.1)


async def decide(server: MySQLServer) -> None:
    """End all XA transactions: a prepared one holds locks for ever."""
    for *_, found in await server.fetch("XA RECOVER"):
        xid = found.decode() if isinstance(found, bytes) else str(found)
        if xid.startswith(server.database):
            await server.execute(f"XA COMMIT '{xid}'")


async def read(server: MySQLServer, start: str, partitions: int) -> tuple[Plan, dict[Output, bytes], Any]:
    """What a run brings, its partitions as other processes read them: each by an extractor of its own, the last first."""
    source = MySQLChanges.model_validate({
        "connection": block_of(server), "tables": (f"{server.database}*.*",),
        "snapshot": False, "start": start,
    })  # fmt: skip
    options = ReadOptions(mode="changes", partitions=partitions)
    pieces: dict[str, dict[Output, bytes]] = {}
    reached = {}
    async with source.open(options) as extractor:
        plan = await extractor.plan(None)
    for partition in reversed(plan.partitions):
        made = pieces[partition.name] = {}

        async def emit(output: Output, records: Records, made: dict[Output, bytes] = made) -> None:
            made[output] = made.get(output, b"") + records.data

        async with source.open(options) as extractor:
            reached[partition.name] = await extractor.capture(plan, partition, emit)
    whole: dict[Output, bytes] = {}
    for partition in plan.partitions:
        for output, data in pieces[partition.name].items():
            whole[output] = whole.get(output, b"") + data
    until = extractor.reached(plan, [reached[partition.name] for partition in plan.partitions])
    assert isinstance(until, dict)
    return plan, whole, {name: value for name, value in until.items() if name != "as_of"}


async def test_pieces_make_the_whole(server: MySQLServer) -> None:
    """XA transactions that are decided in a later file, DROP DATABASE of what only earlier files know, new columns."""
    await server.execute(f"CREATE TABLE {server.database}_gone.before (id INT PRIMARY KEY)")
    seed = random.randrange(1 << 30)
    start = await written(server, random.Random(seed))
    try:
        await settled(server)
        plan, whole, until = await read(server, start, 1)
        assert len(plan.partitions) == 1
        assert {b"T"} < {line[:1] for data in whole.values() for line in data.splitlines()}
        for partitions in (3, 99):
            cut, pieces, came = await read(server, start, partitions)
            assert len(cut.partitions) >= min(partitions, FILES) - 1
            assert pieces == whole, f"seed {seed}, {partitions} partitions"
            assert came == until, f"seed {seed}, {partitions} partitions"
    finally:
        await decide(server)


async def test_an_end_that_is_told_before_it_is_sent(only_mysql_database: MySQLServer) -> None:
    """A server that syncs its log a while after it wrote it says at once where it ends, and is waited for."""
    server = only_mysql_database
    await server.execute("CREATE TABLE ends (id INT PRIMARY KEY AUTO_INCREMENT)")
    start = ":".join(map(str, (await server.fetch(STATUS[server.flavour]))[0][:2]))
    source = MySQLChanges.model_validate({
        "connection": block_of(server), "tables": ("ends",), "snapshot": False, "start": start,
    })  # fmt: skip
    since: Any = None
    count, stopping = 0, False

    async def write() -> int:
        number = 0
        while not stopping:
            await server.execute("INSERT INTO ends VALUES ()")
            number += 1
        return number

    async def emit(_output: Output, records: Records) -> None:
        nonlocal count
        count += records.count

    async def follow() -> None:
        nonlocal since
        async with source.open(ReadOptions(mode="changes")) as extractor:
            plan = await extractor.plan(since)
            reached = [await extractor.capture(plan, partition, emit) for partition in plan.partitions]
            since = extractor.reached(plan, reached) if reached else since

    await server.execute("SET GLOBAL sync_binlog = 1", "SET GLOBAL binlog_group_commit_sync_delay = 300000")
    try:
        writers = [asyncio.create_task(write()) for _ in range(3)]
        for _ in range(20):
            await follow()
        stopping = True
        written = sum(await asyncio.gather(*writers))
        await follow()
    finally:
        stopping = True
        await server.execute("SET GLOBAL sync_binlog = 0", "SET GLOBAL binlog_group_commit_sync_delay = 0")
    assert count == written


def files(*sizes: int) -> list[LogFile]:
    return [LogFile(f"binlog.{number:06d}", size) for number, size in enumerate(sizes, 1)]


def place(number: int, position: int) -> LogPosition:
    return LogPosition(server="s", file=f"binlog.{number:06d}", position=position)


def starts(within: Within, **options: Any) -> list[str]:
    cut = within.cut(ReadOptions(mode="changes", **options))
    ends: Iterator[Any] = iter([partition.upper for partition in cut])
    begins = [partition.lower["since"] for partition in cut if isinstance(partition.lower, dict)]
    assert begins[1:] == list(ends)[:-1]
    return [f"{each['file']}:{each['position']}" for each in begins if isinstance(each, dict)]


def test_pieces_are_about_as_large_as_wanted() -> None:
    """By size, or as many as are asked for; a limit, and what depends on what came before, want one."""
    within = Within(place(2, 40), place(6, 10), files(100, 100, 100, 100, 100, 100))
    assert within.size == 60 + 300 + 10
    assert starts(within, object_bytes=1000) == ["binlog.000002:40"]
    assert starts(within, object_bytes=200) == ["binlog.000002:40", "binlog.000004:4", "binlog.000006:4"]
    assert starts(within, partitions=99) == ["binlog.000002:40", *(f"binlog.00000{n}:4" for n in (3, 4, 5, 6))]
    assert starts(within, partitions=99, limits=Limits(rows=1)) == ["binlog.000002:40"]
    by_gtids = Within(within.since.model_copy(update={"by_gtids": True}), within.until, within.files)
    assert starts(by_gtids, partitions=99) == ["binlog.000002:40"]
