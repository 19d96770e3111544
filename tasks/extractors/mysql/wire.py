"""Reads a result from the wire in large blocks: aiomysql connects, logs in and asks; then its transport is taken over.

aiomysql makes several Python objects for every packet, ten times the work of everything else together. So the bytes
of a result go past it, into one buffer, from which `Packets` makes CSV. Reading is paused whenever the buffer is not
being filled: a slow destination stops the socket, and TCP stops the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import aiomysql
from aiomysql.connection import MySQLResult
from pymysql.constants import COMMAND, CR

from blocks.s3 import CsvDialect
from tasks.extractors.contract import Write
from tasks.extractors.mysql.forms import Form
from tasks.extractors.mysql.packets import Packets
from tasks.extractors.mysql.rows import GarbledError

BUFFER_BYTES = 2 << 20

# A quick client gets rows a few KiB at a time, and each wake-up costs. After a small piece a rest lets the kernel's
# socket buffer fill.
_SMALL_BYTES = 128 << 10
_REST_SECONDS = 0.002


# uvloop's transports have them, and are no asyncio.Transport.
_TRANSPORT = ("set_protocol", "get_protocol", "pause_reading", "resume_reading", "abort")


def unusable(connection: Any) -> str | None:
    """Why a connection's transport cannot be taken over; None when it can: what is used here of aiomysql is there."""
    wanted = {
        "_execute_command": callable(getattr(connection, "_execute_command", None)),
        "_next_seq_id": isinstance(getattr(connection, "_next_seq_id", None), int),
        "_reader._buffer": isinstance(getattr(getattr(connection, "_reader", None), "_buffer", None), bytearray),
        "_writer.transport": all(hasattr(transport(connection), name) for name in _TRANSPORT),
        "init_unbuffered_query": callable(getattr(MySQLResult, "init_unbuffered_query", None)),
    }
    missing = [name for name, there in wanted.items() if not there]
    return f"aiomysql {aiomysql.__version__} has no {', '.join(missing)}" if missing else None


def transport(connection: Any) -> Any:
    return getattr(getattr(connection, "_writer", None), "transport", None)


class Inbox(asyncio.BufferedProtocol):
    """Stands in for aiomysql's protocol while a result is read; what happens to the connection is told to both."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._usual = transport.get_protocol()
        self.data = bytearray(BUFFER_BYTES)
        self.size = 0
        self.lost: str | None = None
        """How the connection ended; None while it is there."""
        self._arrived: asyncio.Future[None] | None = None

    def take_over_from(self, connection: Any) -> None:
        """Receive what the connection would, beginning with what it has not looked at yet."""
        self._transport.pause_reading()
        buffer = connection._reader._buffer
        self._take_over(bytes(buffer))
        buffer.clear()

    def _take_over(self, already: bytes) -> None:
        if len(already) > len(self.data):
            self.data = bytearray(2 * len(already))
        self.data[: len(already)] = already
        self.size = len(already)
        self._transport.set_protocol(self)

    def give_back(self) -> None:
        self._transport.set_protocol(self._usual)
        self._transport.resume_reading()

    async def more(self) -> None:
        """Wait for bytes behind those that are there; a connection that was lost is aiomysql's own error."""
        if self.lost is not None:
            raise aiomysql.OperationalError(CR.CR_SERVER_LOST, self.lost)
        before = self.size
        self._arrived = asyncio.get_running_loop().create_future()
        self._transport.resume_reading()
        try:
            await self._arrived
        finally:
            self._arrived = None
            self._transport.pause_reading()
        if self.size == before:
            raise aiomysql.OperationalError(CR.CR_SERVER_LOST, self.lost or "the connection was closed")
        if self.size - before < _SMALL_BYTES:
            await asyncio.sleep(_REST_SECONDS)

    def drop(self, used: int) -> None:
        """Move what is left to the front."""
        left = self.size - used
        if used and left:
            self.data[:left] = self.data[used : self.size]
        self.size = left

    def grow(self) -> None:
        """Make room for something larger than the buffer."""
        self.data += bytes(len(self.data))

    # -- asyncio.BufferedProtocol ----------------------------------------------------------------------------------

    def get_buffer(self, _sizehint: int) -> memoryview:
        return memoryview(self.data)[self.size :]

    def buffer_updated(self, nbytes: int) -> None:
        self.size += nbytes
        self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool | None:
        self._lose("the server closed the connection in the middle of a result")
        kept: bool | None = getattr(self._usual, "eof_received", lambda: None)()
        return kept

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose(f"lost the connection to the server in the middle of a result ({exc or 'closed'})")
        self._usual.connection_lost(exc)

    def _lose(self, reason: str) -> None:
        self.lost = self.lost or reason
        self._wake()

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)


class WireReader:
    """Reads results of one connection, one after the other."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._inbox: Inbox | None = None
        self._packets: Packets | None = None

    @property
    def is_in_sync(self) -> bool:
        """Whether the next command can be sent: no result is half read."""
        return self._packets is None

    @property
    def is_lost(self) -> bool:
        """Whether the connection broke in the middle of a result."""
        return self._inbox is not None and self._inbox.lost is not None

    async def read(self, statement: str, forms: Sequence[Form], dialect: CsvDialect, write: Write) -> int:
        """Push the statement's rows to ``write``; how many. After an error see `is_in_sync`."""
        connection = self._connection
        await connection._execute_command(COMMAND.COM_QUERY, statement)
        result = MySQLResult(connection)
        await result.init_unbuffered_query()
        packets = self._packets = Packets(forms, dialect, connection._next_seq_id)
        inbox = self._inbox = Inbox(transport(connection))
        inbox.take_over_from(connection)
        if len(result.fields) != len(forms):
            raise GarbledError(f"a result of {len(result.fields)} columns, not {len(forms)}")
        await self._pump(inbox, packets, write)
        return packets.rows

    async def _pump(self, inbox: Inbox, packets: Packets, write: Write) -> None:
        while True:
            try:
                records, used = packets.feed(inbox.data, inbox.size)
            except aiomysql.MySQLError:
                self._finish(inbox)  # the server's error ends the result
                raise
            inbox.drop(used)
            if packets.done:
                self._finish(inbox)
            if records:
                await write(records)
            if packets.done:
                return
            await inbox.more()

    def _finish(self, inbox: Inbox) -> None:
        inbox.give_back()
        self._inbox = self._packets = None

    async def discard(self) -> None:
        """Read the rest of a half-read result and throw it away; its error, if it ends with one, is no matter."""
        if self._packets is None or self._inbox is None:
            return
        self._packets.discarding = True

        async def nowhere(_data: bytes) -> None:
            return

        try:
            await self._pump(self._inbox, self._packets, nowhere)
        except aiomysql.MySQLError:
            if self._packets is not None:
                raise
