"""Whether a server's binary log can be followed: privileges, settings, and how long the log is kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import aiomysql
from pydantic import JsonValue

from blocks.errors import ConfigurationError, PositionLost
from blocks.mysql import MySQL
from tasks.extractors.mysql.binlog.position import log_position
from tasks.extractors.mysql.binlog.server import LogServer, choices
from tasks.extractors.mysql.binlog.tables import Tables
from tasks.extractors.mysql.grants import Grants
from tasks.extractors.mysql.session import Session
from tasks.extractors.mysql.sql import Connection, fetch, identifier, qualified
from tasks.findings import Finding, Findings

_SETTINGS = (
    "log_bin", "binlog_format", "binlog_row_image", "binlog_row_metadata", "binlog_row_value_options", "gtid_mode",
    "binlog_expire_logs_seconds", "expire_logs_days", "server_id", "log_bin_compress", "binlog_transaction_compression",
)  # fmt: skip

_SHORTEST_KEPT = 24 * 3600


@dataclass(frozen=True)
class _Wanted:
    """A setting of the server, and what it costs where it is otherwise."""

    name: str
    values: tuple[str, ...]
    level: Any
    otherwise: str
    way_out: str


_WANTED = (
    _Wanted("log_bin", ("ON", "1"), "error", "the server keeps no binary log",
            "set log_bin and server_id in my.cnf (RDS, Aurora: automated backups on, and aurora_enhanced_binlog or "
            "binlog_format in the parameter group) and restart it"),
    _Wanted("binlog_format", ("ROW",), "error", "statements are in the log, which cannot be read as rows",
            "SET GLOBAL binlog_format = 'ROW' (my.cnf: binlog_format=ROW; RDS: the parameter binlog_format); "
            "sessions that are open keep the old one"),
    _Wanted("binlog_row_image", ("FULL",), "warning",
            "updates and deletions do not have all columns; _unchanged tells which are missing",
            "SET GLOBAL binlog_row_image = 'FULL' (my.cnf: binlog_row_image=FULL)"),
    _Wanted("binlog_row_metadata", ("FULL",), "warning",
            "the log does not tell the columns' names: an ALTER TABLE between two runs stops the stream",
            "SET GLOBAL binlog_row_metadata = 'FULL' (my.cnf: binlog_row_metadata=FULL; from MySQL 8.0.1 and "
            "MariaDB 10.5 on)"),
    _Wanted("binlog_row_value_options", ("", "0"), "error", "updates of JSON columns are in the log as differences",
            "SET GLOBAL binlog_row_value_options = ''"),
)  # fmt: skip


async def look(connection: Connection, source: Any) -> Findings:
    """All findings about a source of changes, as they are made."""
    grants = await Grants.of(connection)
    yield _privilege(grants, ("REPLICATION SLAVE", "REPLICATION REPLICA"), "read the log", "error")
    yield _privilege(grants, ("REPLICATION CLIENT", "BINLOG MONITOR"), "see where the log ends", "error")
    if source.snapshot:
        yield _lock(grants, source)
    told = await _told(connection)
    for wanted in _WANTED:
        if wanted.name in told or wanted.name == "log_bin":
            yield _setting(wanted, told.get(wanted.name, ""))
    yield _kept(told)
    yield await _tables(source)


async def look_for_debezium(connection: Connection) -> Findings:
    """The same for Debezium's connector, which refuses a log without whole rows, and keeps the columns' names itself."""
    grants = await Grants.of(connection)
    yield _privilege(grants, ("REPLICATION SLAVE", "REPLICATION REPLICA"), "read the log", "error")
    yield _privilege(grants, ("REPLICATION CLIENT",), "see where the log ends", "error")
    yield _privilege(
        grants, ("RELOAD", "FLUSH_TABLES", "LOCK TABLES"), "lock tables while the snapshot begins", "error"
    )
    told = await _told(connection)
    for wanted in _WANTED:
        if wanted.name != "binlog_row_metadata" and (wanted.name in told or wanted.name == "log_bin"):
            yield _setting(replace(wanted, level="error"), told.get(wanted.name, ""))
    yield _kept(told)


async def _told(connection: Connection) -> dict[str, str]:
    """The settings of the server that matter to its log."""
    listed = ", ".join(f"'{name}'" for name in _SETTINGS)
    rows = await fetch(connection, f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({listed})")
    return {str(name).lower(): str(value or "") for name, value in rows}


def _privilege(grants: Grants, names: tuple[str, ...], what: str, level: Any) -> Finding:
    if any(grants.include(name) for name in names):
        return Finding("ok", f"source: the user may {what}")
    return Finding(level, f"source: the user may not {what}", grants.wanted(names[0]))


def _lock(grants: Grants, source: Any) -> Finding:
    database = source.connection.database or ""
    if grants.include("RELOAD") or grants.include("FLUSH_TABLES") or grants.include("LOCK TABLES", database):
        return Finding("ok", "source: the user may take the lock under which the snapshot gets its place in the log")
    return Finding(
        "error",
        "source: the user may take no lock, so the snapshot gets no place in the log to go on from",
        f"{grants.wanted('RELOAD')}, or {grants.wanted('LOCK TABLES', f'{identifier(database)}.*')}, or set snapshot: false",
    )


def _setting(wanted: _Wanted, value: str) -> Finding:
    if value.upper() in wanted.values:
        return Finding("ok", f"source: {wanted.name} is {value or 'unset'}")
    return Finding(wanted.level, f"source: {wanted.name} is {value or 'unset'}: {wanted.otherwise}", wanted.way_out)


def _seconds_kept(told: dict[str, str]) -> int:
    """0: for ever."""
    seconds = int(float(told.get("binlog_expire_logs_seconds") or 0))
    return seconds or int(float(told.get("expire_logs_days") or 0) * 86_400)


async def retention(block: MySQL, until: JsonValue, reached_at: datetime) -> Finding:
    """Whether the log still holds the position that a stream reached at that time, and how long it will."""
    try:
        position = log_position(until)
        session = await Session.open(block)
    except (PositionLost, ConfigurationError, aiomysql.MySQLError, OSError) as error:
        return Finding("error", f"log: {error}")
    try:
        server = await LogServer.of(session)
        if position is None or position.server != server.identity:
            return Finding("warning", "log: the position is another server's; the next run looks for it by its GTIDs")
        await server.check_is_there(position)
        end = await server.end(position.epoch)
        rows = await session.rows(
            "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('binlog_expire_logs_seconds', 'expire_logs_days')"
        )
    except PositionLost as error:
        return Finding("error", f"log: {error}", choices())
    except (ConfigurationError, aiomysql.MySQLError) as error:
        return Finding("error", f"log: {error}")
    finally:
        session.close()
    kept = _seconds_kept({str(name).lower(): str(value or "") for name, value in rows})
    age = (datetime.now(UTC) - reached_at).total_seconds()
    text = f"log: the position {position} is there; the stream came to it {_hours(age)} ago"
    # The file that is written to is never purged.
    if not kept or end.file == position.file or age < kept * _RISKY:
        return Finding("ok", text + (f", and files are kept for {_hours(kept)}" if kept else ""))
    return Finding(
        "error" if age > kept else "warning",
        f"{text}, and files are kept for {_hours(kept)}: what comes next may be purged",
        "run the stream now; have the log kept for longer (binlog_expire_logs_seconds) than the stream may stand still",
    )


_RISKY = 0.5
"""How much of the time that the log is kept a stream may stand still before it is told."""


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours"


def _kept(told: dict[str, str]) -> Finding:
    seconds = _seconds_kept(told)
    if not seconds:
        return Finding("ok", "source: the log is kept until somebody purges it")
    text = f"source: the log is kept for {seconds / 3600:.0f} hours"
    if seconds >= _SHORTEST_KEPT:
        return Finding("ok", f"{text}; a stream that does not run for longer loses its place")
    return Finding(
        "warning",
        f"{text}: a stream that does not run for longer loses its place",
        "SET GLOBAL binlog_expire_logs_seconds = 259200 (RDS: CALL mysql.rds_set_configuration('binlog retention hours', 72))",
    )


async def _tables(source: Any) -> Finding:
    tables = Tables.of(source.tables, source.connection.database or "")
    session = await Session.open(source.connection)
    try:
        found = await tables.found(session)
        for table in found:
            if refused := await session.attempt(f"SELECT 1 FROM {qualified(*table)} LIMIT 0"):
                return Finding("error", f"source: {'.'.join(table)} cannot be read: {refused.args[-1]}")
    finally:
        session.close()
    return Finding("ok", f"source: {len(found)} table(s) are followed: {_listed(['.'.join(table) for table in found])}")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
