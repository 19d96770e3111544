"""A PostgreSQL database as a destination: objects go in by COPY from this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg

from blocks.postgres import Postgres
from blocks.references import reveal
from tasks.commits import Commit
from tasks.extractors.contract import Column
from tasks.loads import warehouses
from tasks.loads.files import unpacked
from tasks.loads.targets import Naming

_TYPES = """
    SELECT a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod)
    FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = pg_catalog.to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped"""


class PostgresSession:
    """See `tasks.loads.sessions.Session`."""

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record], naming: Naming) -> None:
        self._connection = connection
        self.warehouse = warehouses.Postgres(naming)

    def transaction(self) -> AbstractAsyncContextManager[Any]:
        return self._connection.transaction()

    async def execute(self, statement: str) -> None:
        await self._connection.execute(statement)

    async def value(self, query: str) -> Any:
        return await self._connection.fetchval(query)

    async def lock(self, name: str) -> None:
        await self._connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"headrace load {name}")

    async def types_of(self, table: str) -> dict[str, str]:
        return {str(name): str(kind) for name, kind in await self._connection.fetch(_TYPES, table)}

    async def fill(self, columns: Sequence[Column], file: Path, stage: str, commit: Commit) -> None:
        await self._connection.copy_to_table(
            stage,
            source=unpacked(file, commit.compression),
            columns=[column.name for column in columns],
            format="csv",
            header=commit.csv.header,
            null=commit.csv.null,
        )


@asynccontextmanager
async def session(block: Postgres, naming: Naming) -> AsyncIterator[PostgresSession]:
    """A session of its own, whose times are in UTC."""
    connection = await asyncpg.connect(**(await reveal(block)).connect_arguments())
    try:
        # Times without an offset in columns that have one mean UTC, whatever the server's zone is.
        await connection.execute("SET TIME ZONE 'UTC'; SET DateStyle = 'ISO'")
        yield PostgresSession(connection, naming)
    finally:
        await connection.close()
