"""The events of a server's binary log, as raw bytes: COM_BINLOG_DUMP through pymysql, up to the end of the log."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pymysql
from pymysql.constants import COMMAND

from tests.servers.mysql import MySQLServer

_HEADER_BYTES = 19
_CHECKSUM_BYTES = 4
_NON_BLOCKING = 1  # the server ends the dump where the log ends
_REPLICA = 7_000_001

TABLE_MAP = 19
ROWS = frozenset({23, 24, 25, 30, 31, 32, 39, 166, 167, 168, 169, 170, 171})
"""WRITE, UPDATE and DELETE of versions 1 and 2, the partial update, and MariaDB's compressed ones."""

Place = tuple[str, int]


@dataclass(frozen=True)
class Event:
    """One event without its header and checksum."""

    kind: int
    body: bytes


def end_of_log(server: MySQLServer) -> Place:
    """Where the next event will be written."""
    with _connection(server) as connection, connection.cursor() as cursor:
        cursor.execute("SHOW MASTER STATUS" if server.is_mariadb else "SHOW BINARY LOG STATUS")
        name, place, *_ = cursor.fetchone()
        return str(name), int(place)


def events(server: MySQLServer, since: Place) -> list[Event]:
    """All events of the log file from ``since`` on."""
    name, place = since
    with _connection(server) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SELECT @@global.binlog_checksum")
            summed = cursor.fetchone()[0] != "NONE"
            cursor.execute("SET @master_binlog_checksum = @@global.binlog_checksum")
            cursor.execute("SET @source_binlog_checksum = @@global.binlog_checksum")
            cursor.execute("SET @mariadb_slave_capability = 4")
        arguments = struct.pack("<IHI", place, _NON_BLOCKING, _REPLICA) + name.encode()
        connection._execute_command(COMMAND.COM_BINLOG_DUMP, arguments)
        return list(_dumped(connection, _CHECKSUM_BYTES if summed else 0))


def row_events(server: MySQLServer, since: Place, table: str) -> list[tuple[bytes, Event]]:
    """The row events of one table of the server's database, each with the body of the table map before it."""
    maps: dict[bytes, bytes] = {}
    found = []
    for event in events(server, since):
        if event.kind == TABLE_MAP:
            maps[event.body[:6]] = event.body
        elif event.kind in ROWS and _name(maps[event.body[:6]]) == (server.database, table):
            found.append((maps[event.body[:6]], event))
    return found


def _name(table_map: bytes) -> tuple[str, str]:
    schema = table_map[9 : 9 + table_map[8]]
    rest = table_map[10 + len(schema) :]
    return schema.decode(), rest[1 : 1 + rest[0]].decode()


@contextlib.contextmanager
def _connection(server: MySQLServer) -> Iterator[Any]:
    place = {"host": server.host, "port": server.port, "database": server.database}
    connection = pymysql.connect(**place, user=server.user, password=server.password, charset="utf8mb4")
    try:
        yield connection
    finally:
        connection.close()


def _dumped(connection: Any, checksum: int) -> Iterator[Event]:
    while True:
        packet = connection._read_packet()
        if packet.is_eof_packet():
            return
        event = packet.get_all_data()[1:]
        yield Event(event[4], event[_HEADER_BYTES : len(event) - checksum])
