"""Whether a server's binary log can be followed: privileges, settings, and how long the log is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
    listed = ", ".join(f"'{name}'" for name in _SETTINGS)
    rows = await fetch(connection, f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({listed})")
    told = {str(name).lower(): str(value or "") for name, value in rows}
    for wanted in _WANTED:
        if wanted.name in told or wanted.name == "log_bin":
            yield _setting(wanted, told.get(wanted.name, ""))
    yield _kept(told)
    yield await _tables(source)


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


def _kept(told: dict[str, str]) -> Finding:
    seconds = int(float(told.get("binlog_expire_logs_seconds") or 0))
    seconds = seconds or int(float(told.get("expire_logs_days") or 0) * 86_400)
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
