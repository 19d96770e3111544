"""Row events of `orders` → CSV, in this process alone: headrace's decoder beside plain mysql-replication and csv.writer.

    python -m benchmarks.binlog_decode [rows]

The events come from a private MySQL server first and are kept in memory, so that nothing but decoding is measured.
"""

from __future__ import annotations

import asyncio
import csv
import io
import struct
import sys
import time
from collections.abc import Callable, Sequence

from pymysql.protocol import MysqlPacket
from pymysqlreplication.packet import BinLogPacketWrapper
from pymysqlreplication.row_event import DeleteRowsEvent, TableMapEvent, UpdateRowsEvent, WriteRowsEvent

from benchmarks.binlog import filling
from benchmarks.orders_mysql import CREATE
from blocks.s3 import CsvDialect
from tasks.extractors.mysql.binlog.columns import log_columns
from tasks.extractors.mysql.binlog.decoder import Decoder, Head
from tasks.extractors.mysql.binlog.table_map import TableMap
from tests.servers import binlog
from tests.servers.mysql import MySQLServer, started

HEAD = Head("2026-01-01 00:00:00.000000+00", "00000000000000000001-000000001-")
LEADING = ["I", HEAD.committed_at, HEAD.position, ""]

Log = Sequence[tuple[bytes, binlog.Event]]
Decode = Callable[[Log], tuple[int, int]]
"""How many rows, and bytes of CSV."""


async def recorded(server: MySQLServer, rows: int) -> Log:
    """The events of an insert of so many rows."""
    database = await server.create_database()
    since = binlog.end_of_log(database)
    depth = f"SET SESSION cte_max_recursion_depth = {rows + 1}"
    await database.execute(CREATE, depth, filling(1, rows))
    return binlog.row_events(database, since, "orders")


def by_headrace(log: Log) -> tuple[int, int]:
    decoders: dict[bytes, Decoder] = {}
    rows = size = 0
    for body, event in log:
        decoder = decoders.get(body)
        if decoder is None:
            table_map = TableMap.parse(body)
            decoder = decoders[body] = Decoder(table_map, log_columns(table_map), CsvDialect())
        records = decoder.records(event.kind, event.body, HEAD)
        rows += records.count
        size += len(records.data)
    return rows, size


class Control:
    """What mysql-replication asks the connection to the server for."""

    charset = "utf8mb4"

    def _get_dbms(self) -> str:
        return "mysql"


def by_mysql_replication(log: Log) -> tuple[int, int]:
    maps: dict[int, object] = {}
    rows = size = 0
    for body, event in log:
        mapped = _event(binlog.TABLE_MAP, body, maps)
        maps[mapped.table_id] = mapped.get_table()
        text = io.StringIO()
        writer = csv.writer(text)
        for row in _event(event.kind, event.body, maps).rows:
            writer.writerow([*LEADING, *row["values"].values()])
            rows += 1
        size += len(text.getvalue().encode())
    return rows, size


def _event(kind: int, body: bytes, maps: dict[int, object]) -> TableMapEvent | WriteRowsEvent:
    header = struct.pack("<BIBIIIH", 0, 0, kind, 1, 19 + len(body), 0, 0)
    wanted = frozenset({TableMapEvent, WriteRowsEvent, UpdateRowsEvent, DeleteRowsEvent})
    packet = MysqlPacket(header + body, "utf8")
    nothing = (None, None, None, None, False, False, False, True, False)
    return BinLogPacketWrapper(packet, maps, Control(), (9, 7, 0), False, wanted, *nothing).event


def measured(name: str, decode: Decode, log: Log) -> float:
    """CPU seconds for a million rows; prints them."""
    begin = time.process_time()
    rows, size = decode(log)
    spent = time.process_time() - begin
    print(
        f"{name:32} {rows / spent:9,.0f} rows/s {spent / rows * 1e6:7.2f} CPU s per 1M rows {size / 1e6:8.1f} MB of CSV"
    )
    return spent / rows * 1e6


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with started("MySQL") as server:
        log = asyncio.run(recorded(server, rows))
    print(f"{rows:,} rows of orders, {len(log):,} events, {sum(len(e.body) for _, e in log) / 1e6:.1f} MB")
    ours = measured("headrace", by_headrace, log)
    theirs = measured("mysql-replication + csv.writer", by_mysql_replication, log)
    print(f"headrace takes 1/{theirs / ours:.1f} of the CPU")


if __name__ == "__main__":
    main()
