"""MySQL's side of a capture: whether its log can be read, and where in it the connector is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiomysql

from blocks.errors import ConfigurationError, PositionLost
from blocks.mysql import MySQL
from tasks import check_binlog
from tasks.cdc.names import meant
from tasks.extractors.contract import Behind
from tasks.extractors.mysql.binlog.position import LogPosition
from tasks.extractors.mysql.binlog.server import LogServer
from tasks.extractors.mysql.session import Session
from tasks.extractors.mysql.sql import Connection, close, connect, fetch, server_of
from tasks.findings import Finding, Findings

_TABLES = """
SELECT CONCAT(table_schema, '.', table_name) FROM information_schema.tables
WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')
ORDER BY 1
"""


@asynccontextmanager
async def connected(block: MySQL) -> AsyncIterator[Connection]:
    """A connection to a server that Debezium's MySQL connector can capture; `ConfigurationError` otherwise."""
    if block.is_socket:
        raise ConfigurationError(f"field capture.database: {block.describe()}: the workers need a host and a port")
    connection = await connect(block)
    try:
        if server_of(connection).flavour == "MariaDB":
            raise ConfigurationError(
                f"field capture.database: {block.describe()} is MariaDB, whose connector headrace does not set up; read its "
                "log directly: a source of connection mysql/… with tables, in mode changes"
            )
        yield connection
    except aiomysql.MySQLError as error:
        raise ConfigurationError(f"{block.describe()}: {error.args[-1]}") from error
    finally:
        await close(connection)


async def tables(connection: Connection, patterns: Sequence[str]) -> list[str]:
    """The names (``shop.orders``) of those that are meant and that the account sees; `ConfigurationError` for none."""
    return meant(patterns, [str(name) for (name,) in await fetch(connection, _TABLES)])


async def look(connection: Connection) -> Findings:
    """Whether the server can be captured: rights, settings, and how long its log is kept."""
    async for finding in check_binlog.look_for_debezium(connection):
        yield Finding(finding.level, finding.text.replace("source:", "capture:", 1), finding.way_out)


async def behind(block: MySQL, offset: Mapping[str, Any]) -> Finding:
    """How far the connector is from the log's end, by the offset that it stored last; an error where that was purged."""
    session = await Session.open(block)
    try:
        server = await LogServer.of(session)
        at = LogPosition(server=server.identity, file=str(offset["file"]), position=int(offset["pos"]))
        await server.check_is_there(at)
        found: Behind = await server.behind(at)
    except PositionLost as lost:
        return Finding("error", f"capture: {lost}", "headrace cdc disable, then enable: it begins with a new snapshot")
    finally:
        session.close()
    return Finding("ok", f"capture: the connector is at {at}, {(found.bytes or 0) / 1e6:,.1f} MB of log behind")
