"""Whether a PostgreSQL source can be read, and what its user may not see that a run would look at."""

from __future__ import annotations

from typing import Any

import asyncpg

from blocks.errors import ConfigurationError
from blocks.hosts import is_local
from blocks.postgres import Postgres
from tasks.extractors.contract import ReadOptions
from tasks.extractors.postgres.select import Select, Subject
from tasks.extractors.postgres.source import PostgresQuery
from tasks.extractors.postgres.sql import Connection, begin, connect, explained
from tasks.findings import Finding, Findings, greeting, replica


async def look(source: Any, options: ReadOptions) -> Findings:
    """All findings about a table or a query, as they are made."""
    connection = await connect(source.connection)
    try:
        yield await _greeting(connection, source.connection)
        await begin(connection)
        yield await _readable(connection, source, options)
        if options.mode == "incremental":
            yield await _sees_transactions(connection)
            yield replica(await connection.fetchval("SELECT pg_catalog.pg_is_in_recovery()"), source.lag)
    finally:
        connection.terminate()


async def _greeting(connection: Connection, block: Postgres) -> Finding:
    version = await connection.fetchval("SHOW server_version")
    protocol = await connection.fetchval("SELECT version FROM pg_catalog.pg_stat_ssl WHERE pid = pg_backend_pid()")
    meant = block.tls_mode == "disable" or is_local(block.host)
    return greeting(f"{block.describe()} answers: PostgreSQL {version}", protocol, in_clear_is_meant=meant)


async def _readable(connection: Connection, source: Any, options: ReadOptions) -> Finding:
    if isinstance(source, PostgresQuery):
        subject, what = Subject(source.connection, source, query=source.query, key=source.key), "the query"
    else:
        subject, what = Subject(source.connection, source, table=source.table, where=source.where), source.table
    select = await Select.of(connection, subject, options.dialect)
    if select.cursor is None and options.mode == "incremental":
        raise ConfigurationError("field cursor: mode incremental needs one; `headrace discover` proposes some")
    chosen = ", ".join(field.selected for field in select.relation.chosen(options.columns))
    condition = f" WHERE {select.relation.where}" if select.relation.where else ""
    try:
        # EXPLAIN checks the privileges, columns and views included, and reads no row.
        await connection.execute(f"EXPLAIN SELECT {chosen} FROM {await select.origin(connection)}{condition}")
    except asyncpg.InsufficientPrivilegeError as error:
        return Finding("error", f"source: {error}", f'GRANT SELECT ON … TO "{source.connection.user}"')
    except asyncpg.PostgresError as error:
        raise explained(error, f"{what} cannot be read") from error
    return Finding("ok", f"source: {what} can be read, {len(select.relation.chosen(options.columns))} columns")


async def _sees_transactions(connection: Connection) -> Finding:
    sees = await connection.fetchval(
        "SELECT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)"
        " OR pg_catalog.pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')"
    )
    if sees:
        return Finding("ok", "source: the user sees when other sessions' transactions began")
    return Finding(
        "warning",
        "source: the user does not see when other sessions' transactions began: rows of long ones may be passed over",
        "GRANT pg_read_all_stats TO this user, or set lag",
    )
