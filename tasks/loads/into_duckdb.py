"""A DuckDB file as a destination. Its calls block, so each runs in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blocks.duck import DuckDB
from blocks.errors import ConfigurationError
from tasks.commits import Commit
from tasks.extractors.contract import Column
from tasks.loads import warehouses
from tasks.loads.targets import Naming

if TYPE_CHECKING:
    import duckdb


class DuckDBSession:
    """See `tasks.loads.sessions.Session`."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, naming: Naming) -> None:
        self._connection = connection
        self.warehouse = warehouses.DuckDB(naming)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        await self.execute("BEGIN")
        try:
            yield
        except BaseException:
            await self.execute("ROLLBACK")
            raise
        await self.execute("COMMIT")

    async def execute(self, statement: str) -> None:
        await asyncio.to_thread(self._connection.execute, statement)

    async def value(self, query: str) -> Any:
        found = await asyncio.to_thread(lambda: self._connection.execute(query).fetchone())
        return found[0] if found else None

    async def lock(self, name: str) -> None:
        """Nothing: another process cannot open the file, and two writers of one process do not both commit."""

    async def types_of(self, table: str) -> dict[str, str]:
        def look() -> dict[str, str]:
            import duckdb

            try:
                return {str(row[0]): str(row[1]) for row in self._connection.execute(f"DESCRIBE {table}").fetchall()}
            except duckdb.CatalogException:
                return {}

        return await asyncio.to_thread(look)

    async def fill(self, columns: Sequence[Column], file: Path, stage: str, commit: Commit) -> None:
        await self.execute(self.warehouse.copy(columns, [str(file)], stage, commit))


@asynccontextmanager
async def session(block: DuckDB, naming: Naming) -> AsyncIterator[DuckDBSession]:
    """The file, open for writing; `ConfigurationError` where DuckDB is not installed."""
    try:
        import duckdb
    except ImportError:
        raise ConfigurationError("loading into DuckDB needs its package: pip install 'headrace[duckdb]'") from None
    connection = await asyncio.to_thread(duckdb.connect, block.path)
    try:
        await asyncio.to_thread(connection.execute, "SET TimeZone = 'UTC'")
        yield DuckDBSession(connection, naming)
    finally:
        await asyncio.to_thread(connection.close)
