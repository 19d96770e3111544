"""What the tests of the binary log share: a table's snapshot and its log as raw CSV fields, side by side."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from blocks.s3 import CsvDialect
from tasks.extractors.contract import ReadOptions, Records
from tasks.extractors.mysql import describe
from tasks.extractors.mysql.binlog.columns import log_columns
from tasks.extractors.mysql.binlog.decoder import Decoder, Head
from tasks.extractors.mysql.binlog.table_map import TableMap
from tasks.extractors.mysql.describe import Relation, ZeroDates
from tasks.extractors.mysql.session import Session
from tasks.extractors.mysql.source import MySQLTable
from tests.servers import binlog
from tests.servers.binlog import Event
from tests.servers.mysql import MySQLServer
from tests.tasks.extractors.test_mysql import block_of

HEAD = Head("2026-01-01 00:00:00+00", "000001-")

Row = list[bytes]
Rows = dict[bytes, Row]
"""By the first column, whose value is the key."""
Log = list[tuple[bytes, Event]]

_FIELD = re.compile(rb'("(?:[^"]|"")*"|[^,\n"]*)([,\n])')


def fields(data: bytes) -> list[Row]:
    """The records of a CSV as it is written: quotes stay."""
    rows: list[Row] = [[]]
    at = 0
    while at < len(data):
        found = _FIELD.match(data, at)
        assert found, data[at : at + 80]
        rows[-1].append(found[1])
        if found[2] == b"\n":
            rows.append([])
        at = found.end()
    assert rows.pop() == []
    return rows


async def snapshot(server: MySQLServer, table: str, dialect: CsvDialect, zero_dates: ZeroDates = "text") -> Rows:
    """The table as a SELECT has it."""
    chunks: list[bytes] = []

    async def write(data: bytes) -> None:
        chunks.append(data)

    source = MySQLTable(connection=block_of(server), table=table, zero_dates=zero_dates)
    async with source.open(ReadOptions(dialect=dialect)) as extractor:
        plan = await extractor.plan(None)
        for partition in plan.partitions:
            await extractor.read(plan, partition, write)
    return {row[0]: row for row in fields(b"".join(chunks))}


async def described(server: MySQLServer, table: str) -> Relation:
    session = await Session.open(block_of(server))
    try:
        return await describe.table(session, table, "", await describe.Writing.of(session, CsvDialect(), "text"))
    finally:
        session.close()


@asynccontextmanager
async def logged(server: MySQLServer, table: str) -> AsyncIterator[Log]:
    """The row events of what is written inside; there when it ends."""
    since = await asyncio.to_thread(binlog.end_of_log, server)
    log: Log = []
    yield log
    log += await asyncio.to_thread(binlog.row_events, server, since, table)


@asynccontextmanager
async def metadata(server: MySQLServer, amount: str) -> AsyncIterator[None]:
    """What the server writes about columns into its log, for a while."""
    await server.execute(f"SET GLOBAL binlog_row_metadata = {amount}")
    try:
        yield
    finally:
        await server.execute("SET GLOBAL binlog_row_metadata = FULL")


def decoded(
    server: MySQLServer, log: Log, relation: Relation | None, dialect: CsvDialect | None = None, **options: Any
) -> list[Records]:
    """The records of each event."""
    decoders: dict[bytes, Decoder] = {}
    found = []
    for body, event in log:
        if body not in decoders:
            table_map = TableMap.parse(body, server.flavour)
            columns = log_columns(table_map, relation)
            decoders[body] = Decoder(table_map, columns, dialect or CsvDialect(), **options)
        found.append(decoders[body].records(event.kind, event.body, HEAD))
    return found


def replayed(records: Iterable[Records], names: Sequence[str], null: bytes = b"") -> Rows:
    """What a loader has that merges the records in their order; fields an image did not hold stay what they were."""
    rows: Rows = {}
    for event in records:
        found = fields(event.data)
        assert len(found) == event.count
        absent: set[str] = set()
        moved: Row = []  # of a change of the key, whose insertion follows its deletion
        for operation, committed, position, unchanged, *row in found:
            assert len(row) == len(names)
            assert committed == HEAD.committed_at.encode()
            assert position.startswith(HEAD.position.encode())
            missing = [] if unchanged == null else json.loads(unchanged.decode()[1:-1].replace('""', '"'))
            absent.update(missing)
            if operation == b"D":
                moved = rows.pop(row[0])
                continue
            assert (row[0] in rows) == (operation == b"U"), (operation, row)
            for place in map(names.index, missing):
                assert row[place] == null
                row[place] = rows.get(row[0], moved)[place]
            rows[row[0]] = row
        assert absent == event.absent
    return rows
