"""One connection as the extractor uses it: text in, text out, and large results streamed as CSV."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import aiomysql

from blocks.errors import ConfigurationError
from blocks.mysql import MySQL
from blocks.s3 import CsvDialect
from tasks.extractors.contract import Write
from tasks.extractors.mysql import wire
from tasks.extractors.mysql.fallback import CursorReader
from tasks.extractors.mysql.forms import Form
from tasks.extractors.mysql.rows import GarbledError
from tasks.extractors.mysql.sql import connect, fetch, server_of

Row = tuple[str | None, ...]

# Beside those of every connection. Each is refused by some server that does not know it, which is no matter.
_SETTINGS = (
    "max_error_count = 1024",
    "information_schema_stats_expiry = 0",  # else the table's size may be a day old
    "show_gipk_in_create_table_and_information_schema = 1",
)

_KILL_SECONDS = 10.0

_ALLOWED_PACKET_OVERFLOWED = 1301


class OversizedError(ConfigurationError):
    """A value could not be sent as it is; the server replaced it."""


class Session:
    """A connection that is planned on and read from."""

    def __init__(self, block: MySQL, connection: Any) -> None:
        self._block = block
        self._connection = connection
        # No value is decoded by the driver: all are texts, in the server's own words.
        connection.decoders = {}
        connection.use_unicode = False
        self.unusable = wire.unusable(connection)
        """Why rows are read the slow way; None when they are not."""
        self._reader = CursorReader(connection) if self.unusable else wire.WireReader(connection)

    @classmethod
    async def open(cls, block: MySQL, *, again: bool = False) -> Session:
        """Connect and settle; `ConfigurationError` when the server cannot be reached (``again``: see `connect`)."""
        connection = await connect(block, again=again)
        session = cls(block, connection)
        try:
            await session._settle()
        except BaseException:
            session.close()
            raise
        return session

    async def _settle(self) -> None:
        for setting in _SETTINGS:
            await self.attempt(f"SET SESSION {setting}")

    @property
    def is_mariadb(self) -> bool:
        return server_of(self._connection).flavour == "MariaDB"

    @property
    def version(self) -> str:
        return str(server_of(self._connection))

    @property
    def id(self) -> int:
        """The server's number of this connection, for KILL."""
        return int(self._connection.thread_id())

    @property
    def is_usable(self) -> bool:
        return not self._connection.closed and self._reader.is_in_sync

    # -- small results ---------------------------------------------------------------------------------------------

    async def rows(self, statement: str) -> list[Row]:
        """All rows, each value as text."""
        rows, _ = await self.described(statement)
        return rows

    async def described(self, statement: str) -> tuple[list[Row], list[tuple[str, int, int]]]:
        """All rows, and name, type code and length of each column."""
        async with self._connection.cursor() as cursor:
            await cursor.execute(statement)
            found = await cursor.fetchall()
            columns = [(d[0], int(d[1]), int(d[3] or 0)) for d in cursor.description or ()]
        return [tuple(None if value is None else value.decode() for value in row) for row in found], columns

    async def value(self, statement: str) -> str | None:
        """The first value of the first row; None without one."""
        rows = await self.rows(statement)
        return rows[0][0] if rows else None

    async def estimates(self, statement: str) -> dict[int, int]:
        """How many rows the server thinks it will look at, for each SELECT of a union (counted from 1)."""
        form = "" if self.is_mariadb else "FORMAT=TRADITIONAL "
        rows, columns = await self.described(f"EXPLAIN {form}{statement}")
        names = [name.lower() for name, _, _ in columns]
        number, guess = names.index("id"), names.index("rows")
        return {int(row[number] or 0): int(row[guess] or 0) for row in rows if row[number] is not None}

    async def execute(self, statement: str) -> None:
        await self.rows(statement)

    async def attempt(self, statement: str) -> aiomysql.MySQLError | None:
        """The server's refusal, where it refuses: for what not every server and account can do."""
        try:
            await self.execute(statement)
        except aiomysql.MySQLError as error:
            if self._connection.closed:
                raise
            return error
        return None

    # -- large ones ------------------------------------------------------------------------------------------------

    async def stream(self, statement: str, forms: Sequence[Form], dialect: CsvDialect, write: Write) -> int:
        """Push the rows of ``statement`` to ``write``; how many.

        When it fails, the statement is stopped on the server, and the connection with its snapshot stays usable; when it
        is cancelled, or the server does not let go in time, the connection is closed.
        """
        try:
            rows = await self._reader.read(statement, forms, dialect, write)
        except GarbledError:
            self.close()
            raise
        except Exception:
            await self._recover()
            raise
        except BaseException:  # cancelled
            self.close()
            raise
        await self._check_warnings()
        return rows

    async def _recover(self) -> None:
        if self._reader.is_in_sync or self._connection.closed:
            return
        if self._reader.is_lost:
            self.close()
            return
        try:
            async with asyncio.timeout(_KILL_SECONDS):
                await self._kill_query()
                await self._reader.discard()
                # A KILL that came too late would hit the next statement.
                for _ in range(3):
                    if await self.attempt("DO 0") is None:
                        return
                self.close()
        except (aiomysql.MySQLError, OSError, TimeoutError, GarbledError):
            # The error that brought us here matters more; the caller sees that the connection is closed.
            self.close()
        except BaseException:
            self.close()
            raise

    async def _kill_query(self) -> None:
        other = await connect(self._block, again=True)
        try:
            await fetch(other, f"KILL QUERY {self.id}")
        finally:
            other.close()

    async def _check_warnings(self) -> None:
        """A function's result above max_allowed_packet becomes NULL, with no more than a warning."""
        for _, code, message in await self.rows("SHOW WARNINGS"):
            if code == str(_ALLOWED_PACKET_OVERFLOWED):
                raise OversizedError(
                    f"the server made NULL of a value: {message}. Raise max_allowed_packet on the server, or leave the "
                    "function out of the query: a column as it is may have any size"
                )

    def close(self) -> None:
        """Hang up at once; whatever the server is doing for this connection ends."""
        if not self.unusable and not self._connection.closed:
            # Not close(): TLS would wait for the server's farewell behind all rows that are on their way.
            self._connection._writer.transport.abort()
        self._connection.close()
