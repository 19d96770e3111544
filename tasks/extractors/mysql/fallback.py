"""Reads a result through aiomysql's public API alone: for a version of it whose internals `wire` does not know.

The same bytes, about ten times slower.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import aiomysql

from blocks.s3 import CsvDialect
from tasks.extractors.contract import Write
from tasks.extractors.mysql.forms import Form
from tasks.extractors.mysql.rows import GarbledError, Records

_CHUNK_BYTES = 1 << 20


class CursorReader:
    """As `WireReader`, by a server-side cursor. The connection converts nothing: every value is bytes."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._cursor: Any = None

    @property
    def is_in_sync(self) -> bool:
        """Whether the next command can be sent: no result is half read."""
        return self._cursor is None

    @property
    def is_lost(self) -> bool:
        """Whether the connection broke in the middle of a result."""
        return bool(self._connection.closed)

    async def read(self, statement: str, forms: Sequence[Form], dialect: CsvDialect, write: Write) -> int:
        """Push the statement's rows to ``write``; how many. After an error see `is_in_sync`."""
        cursor = self._cursor = await self._connection.cursor(aiomysql.SSCursor)
        await self._ask(cursor, statement)
        if len(cursor.description) != len(forms):
            raise GarbledError(f"a result of {len(cursor.description)} columns, not {len(forms)}")
        records, count = Records(forms, dialect), 0
        chunk, size = [], 0
        while (row := await self._next(cursor)) is not None:
            chunk.append(records.record(row))
            size += len(chunk[-1])
            count += 1
            if size >= _CHUNK_BYTES:
                await write(b"".join(chunk))
                chunk, size = [], 0
        self._cursor = None
        if chunk:
            await write(b"".join(chunk))
        return count

    async def _ask(self, cursor: Any, statement: str) -> None:
        try:
            await cursor.execute(statement)
        except aiomysql.MySQLError:
            self._cursor = None
            raise

    async def _next(self, cursor: Any) -> Sequence[bytes | None] | None:
        try:
            row: Sequence[bytes | None] | None = await cursor.fetchone()
        except aiomysql.MySQLError:
            self._cursor = None  # an error ends the result
            raise
        return row

    async def discard(self) -> None:
        """Read the rest of a half-read result and throw it away; its error, if it ends with one, is no matter."""
        cursor, self._cursor = self._cursor, None
        if cursor is not None:
            try:
                while await cursor.fetchone() is not None:
                    pass
            except aiomysql.MySQLError:
                if self._connection.closed:
                    raise
