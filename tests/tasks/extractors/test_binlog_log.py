"""The log as it comes from real servers: every event in its place, whatever the size of what was written."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import pairwise

from tasks.extractors.mysql.binlog.events import ROWS, Kind
from tasks.extractors.mysql.binlog.log import FIRST, LogReader, Placed
from tests.servers.mysql import MySQLServer
from tests.tasks.extractors.test_mysql import block_of


async def status(server: MySQLServer) -> tuple[str, int]:
    """File and position of the log's end."""
    word = "MASTER" if server.is_mariadb else "BINARY LOG"
    row = (await server.fetch(f"SHOW {word} STATUS"))[0]
    return str(row[0]), int(row[1])


async def logged(server: MySQLServer, file: str, position: int) -> list[Placed]:
    """All events from there on."""
    async with await LogReader.open(block_of(server), file, position) as reader:
        return [each async for some in reader.events() for each in some]


async def test_events_lie_one_behind_the_other(mysql_database: MySQLServer) -> None:
    """Events of all sizes, those of several packets among them, come whole, and end where the server says it ends."""
    await mysql_database.execute("CREATE TABLE sizes (id INT PRIMARY KEY, body LONGBLOB, more LONGBLOB)")
    file, start = await status(mysql_database)
    sizes = [1, 100, 70_000, 1 << 20, (1 << 24) - 200, (1 << 24) + 5_000_000, 3]
    for number, size in enumerate(sizes):
        half = size // 2
        await mysql_database.execute(
            f"INSERT INTO sizes VALUES ({number}, REPEAT('x', {half}), REPEAT('y', {size - half}))"
        )
    events = await logged(mysql_database, file, start)
    real = [each for each in events if each.event.takes_place]
    assert real[0].start == start
    # MariaDB's annotations are not sent.
    gaps = sum(before.end != after.start for before, after in pairwise(real))
    assert gaps <= (len(sizes) if mysql_database.is_mariadb else 0)
    assert all(before.end <= after.start for before, after in pairwise(real))
    assert (real[-1].file, real[-1].end) == await status(mysql_database)
    lengths = [each.event.size for each in real if each.event.kind in ROWS]
    assert len(lengths) == len(sizes)
    assert all(0 < length - size < 100 for length, size in zip(lengths, sizes, strict=True))


async def test_files_are_gone_through_in_turn(mysql_database: MySQLServer) -> None:
    """A rotated log is read on in the next file, from its first event."""
    await mysql_database.execute("CREATE TABLE turns (id INT PRIMARY KEY)")
    file, start = await status(mysql_database)
    for number in range(3):
        await mysql_database.execute(f"INSERT INTO turns VALUES ({number})", "FLUSH BINARY LOGS")
    events = await logged(mysql_database, file, start)
    async with asyncio.timeout(30):  # MariaDB writes its checkpoints a while after a file was begun
        while (events[-1].file, events[-1].end) != await status(mysql_database):
            events = await logged(mysql_database, file, start)
    files = list(dict.fromkeys(each.file for each in events if each.event.takes_place))
    assert len(files) == 4
    assert files[0] == file
    kinds = Counter(each.event.kind for each in events)
    assert sum(kinds[kind] for kind in ROWS) == 3
    assert all(each.start == FIRST for each in events if each.event.kind == Kind.FORMAT and each.event.takes_place)
