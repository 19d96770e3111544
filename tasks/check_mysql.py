"""Whether a MySQL or MariaDB source can be read, and what its user may not do that a run would make use of."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial
from typing import Any

import aiomysql
from pymysql.constants import ER

from blocks.errors import ConfigurationError
from blocks.hosts import is_local
from blocks.mysql import MySQL
from tasks.extractors.contract import ReadOptions
from tasks.extractors.mysql.grants import Grants
from tasks.extractors.mysql.replica import is_replica
from tasks.extractors.mysql.sql import (
    Connection,
    close,
    connect,
    explained,
    fetch,
    identifier,
    name_parts,
    number_of,
    qualified,
    server_of,
)
from tasks.findings import Finding, Findings, greeting, replica

_DENIED = (
    ER.DBACCESS_DENIED_ERROR,
    ER.TABLEACCESS_DENIED_ERROR,
    ER.COLUMNACCESS_DENIED_ERROR,
    ER.SPECIFIC_ACCESS_DENIED_ERROR,
)


async def look(source: Any, options: ReadOptions) -> Findings:
    """All findings about a table or a query, as they are made."""
    connection = await connect(source.connection)
    try:
        yield await _greeting(connection, source.connection)
        grants = await Grants.of(connection)
        yield await _readable(connection, source, options, grants)
        if options.partitions != 1:
            yield _lockable(grants, source)
        if options.mode == "incremental":
            yield await _sees_transactions(connection, grants)
            yield replica(await is_replica(partial(fetch, connection)), source.lag)
        yield await _log_position(connection, grants)
    finally:
        await close(connection)


async def _greeting(connection: Connection, block: MySQL) -> Finding:
    ((_, protocol),) = await fetch(connection, "SHOW SESSION STATUS LIKE 'Ssl_version'")
    meant = block.tls_mode == "disable" or is_local(block.host)
    return greeting(f"{block.describe()} answers: {server_of(connection)}", protocol or None, in_clear_is_meant=meant)


# -- reading --------------------------------------------------------------------------------------------------------


async def _readable(connection: Connection, source: Any, options: ReadOptions, grants: Grants) -> Finding:
    if options.mode == "incremental" and not source.cursor:
        raise ConfigurationError("field cursor: mode incremental needs one; `headrace discover` proposes some")
    table = _table(source)
    what = "the query" if table is None else source.table
    columns = await _columns(connection, table, options.columns)
    wanted = [f"t.{identifier(name)}" for name in (*columns, *([source.cursor] if source.cursor else []))]
    statement = f"SELECT {', '.join(wanted if columns else ['t.*', *wanted])} FROM {_origin(source, table)}"
    try:
        # Preparing checks names and privileges, those of columns and views included, and reads no row.
        await fetch(connection, "PREPARE headrace FROM %s", [statement])
    except aiomysql.MySQLError as error:
        if number_of(error) in _DENIED:
            return Finding(
                "error", f"source: {error.args[1]}", grants.wanted("SELECT", qualified(*table) if table else "…")
            )
        raise explained(error, f"{what} cannot be read", statement) from error
    await fetch(connection, "DEALLOCATE PREPARE headrace")
    return Finding("ok", f"source: {what} can be read" + (f", {len(columns)} columns" if columns else ""))


def _table(source: Any) -> tuple[str, str] | None:
    """Database and name; None: it is a query."""
    if not (named := getattr(source, "table", "")):
        return None
    schema, name = [source.connection.database, *name_parts(named)][-2:]
    return schema, name


def _origin(source: Any, table: tuple[str, str] | None) -> str:
    # A line break ends a trailing comment of the user's.
    if table is not None:
        return f"{qualified(*table)} AS t" + (f" WHERE (\n{source.where}\n)" if source.where else "")
    # NULL stands for a bound of any type.
    bare = re.sub(r"[;\s]+\Z", "", source.query).replace("{since}", "NULL").replace("{until}", "NULL")
    return f"(\n{bare}\n) AS t"


async def _columns(connection: Connection, table: tuple[str, str] | None, chosen: Iterable[str]) -> list[str]:
    """Those that a run reads; none where they are not known: of a query, or of a table that is not to be seen."""
    named = [name for name in chosen if not name.startswith("-")]
    if named or table is None:
        return named
    rows = await fetch(
        connection,
        "SELECT column_name FROM information_schema.columns WHERE table_schema = %s AND table_name = %s",
        table,
    )
    return [name for (name,) in rows if f"-{name}" not in chosen]


# -- privileges -----------------------------------------------------------------------------------------------------


def _lockable(grants: Grants, source: Any) -> Finding:
    table = _table(source)
    if (
        grants.include("RELOAD")
        or grants.include("FLUSH_TABLES")
        or (table and grants.include("LOCK TABLES", table[0]))
    ):
        return Finding("ok", "source: the user may take the lock under which several slices see one state")
    narrow = f", or {grants.wanted('LOCK TABLES', f'{identifier(table[0])}.*')}" if table else ""
    return Finding(
        "warning",
        "source: the user may take no lock under which several slices would see one state: a full read is one slice",
        grants.wanted("RELOAD") + narrow,
    )


async def _sees_transactions(connection: Connection, grants: Grants) -> Finding:
    try:
        await fetch(connection, "SELECT count(*) FROM information_schema.innodb_trx")
    except aiomysql.MySQLError as error:
        if number_of(error) not in _DENIED:
            raise explained(error, "transactions in flight cannot be seen") from error
        return Finding(
            "warning",
            "source: the user does not see other sessions' transactions: rows of long ones may be passed over",
            f"{grants.wanted('PROCESS')}, or set lag",
        )
    return Finding("ok", "source: the user sees when other sessions' transactions began")


async def _log_position(connection: Connection, grants: Grants) -> Finding:
    # MariaDB before 11 and MySQL before 8.2 know the older statement only, MySQL from 8.4 on the newer one.
    for statement in ("SHOW BINARY LOG STATUS", "SHOW MASTER STATUS"):
        try:
            position = await fetch(connection, statement)
        except aiomysql.MySQLError as error:
            if number_of(error) == ER.PARSE_ERROR:
                continue
            if number_of(error) not in _DENIED:
                raise explained(error, "the binary log's position cannot be read") from error
            break
        if position:
            return Finding("ok", "source: commits will tell the binary log's position")
        return Finding("ok", "source: the server keeps no binary log, so commits tell no position in it")
    return Finding(
        "warning",
        "source: the user does not see the binary log's position: commits will not tell it",
        grants.wanted("REPLICATION CLIENT"),
    )
