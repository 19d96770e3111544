"""The binary log of a server as a stream of events: asked for as a replica asks, read in large blocks.

aiomysql connects and logs in, so that TLS and accounts are those of every other read; then its transport is taken over,
as for large results. `COM_BINLOG_DUMP <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_binlog_dump.html>`_
"""

from __future__ import annotations

import asyncio
import secrets
import struct
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, Self

import aiomysql
from pymysql.constants import COMMAND, CR
from pymysql.err import raise_mysql_exception

from blocks.errors import ConfigurationError, PositionLost
from blocks.mysql import MySQL
from tasks.extractors.mysql import wire
from tasks.extractors.mysql.binlog.events import Event, Framing, GarbledLogError, Kind, rotation
from tasks.extractors.mysql.binlog.position import number_of
from tasks.extractors.mysql.sql import connect, fetch, server_of

FIRST = 4
"""Where the first event of a file begins."""

_FULL = 0xFFFFFF
_EOF, _ERROR = 0xFE, 0xFF
_NON_BLOCKING = 1

_HEARTBEAT_SECONDS = 15
_SILENCE_SECONDS = 60.0

_FATAL = 1236
"""The one number under which servers refuse to send a log from a place, whatever the reason."""


@dataclass(frozen=True, order=True)
class Place:
    """Where in the log of one server: files sort by their number."""

    number: int
    position: int
    base: str

    @classmethod
    def of(cls, file: str, position: int) -> Self:
        base, _, number = file.rpartition(".")
        return cls(int(number), position, base)

    @property
    def file(self) -> str:
        return f"{self.base}.{self.number:06d}"

    def __str__(self) -> str:
        return f"{self.file}:{self.position}"


class Placed(NamedTuple):
    """An event and where it begins and ends in the log."""

    event: Event
    file: str
    start: int
    end: int

    @property
    def place(self) -> tuple[int, int]:
        """Where it ends; see `LogPosition.place`."""
        return number_of(self.file), self.end


class LogReader:
    """Reads the log from a place on. Used as ``async with``."""

    def __init__(self, connection: Any, file: str, position: int, *, checksummed: bool) -> None:
        """``checksummed``: whether events have checksums until the log itself tells."""
        self._connection = connection
        self._file, self._position = file, position
        self._framing = Framing(checksummed=checksummed)

    @classmethod
    async def open(cls, block: MySQL, file: str, position: int, *, server_id: int = 0) -> Self:
        """Ask for the log from there on. The server's refusal comes with the first event."""
        connection = await connect(block, again=True)
        try:
            checksummed = await _ask(connection, file, position, server_id)
        except BaseException:
            connection.close()
            raise
        return cls(connection, file, position, checksummed=checksummed)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._connection.closed:
            # The rest of the log is on its way; a farewell would wait behind it.
            self._connection._writer.transport.abort()
        self._connection.close()

    async def events(self) -> AsyncIterator[list[Placed]]:
        """Events as they arrive, some at a time, to the log's end as it is then. Files are gone through in turn."""
        try:
            async for packets in self._packets():
                placed = [each for packet in packets if (each := self._placed(packet)) is not None]
                if placed:
                    yield placed
        except aiomysql.MySQLError as error:
            if error.args and error.args[0] == _FATAL:
                raise PositionLost(
                    f"the server does not send its log from {self._file}:{self._position} on: {error.args[1]}"
                ) from error
            raise

    def _placed(self, packet: bytes) -> Placed | None:
        event = self._framing.event(packet)
        if event.kind == Kind.ROTATE:
            file, position = rotation(event)
            placed = self._take(event)
            self._file, self._position = file, position
            return placed
        if event.kind == Kind.HEARTBEAT:
            return None
        return self._take(event)

    def _take(self, event: Event) -> Placed:
        if not event.takes_place:
            return Placed(event, self._file, self._position, self._position)
        # The event has 32 bits of it, if any. What lies between two events was not sent (MariaDB's annotations, say).
        ahead = (event.end - self._position) & 0xFFFFFFFF if event.end else event.size
        end = self._position + ahead
        if end - event.size < self._position:
            raise GarbledLogError(
                f"{self._file}: an event of {event.size} bytes ends at {end}, and the one before at {self._position}"
            )
        self._position = end
        return Placed(event, self._file, end - event.size, end)

    async def _packets(self) -> AsyncIterator[list[bytes]]:
        """Payloads without their OK byte, all that are whole in what has arrived."""
        inbox = wire.Inbox(wire.transport(self._connection))
        inbox.take_over_from(self._connection)
        gathered: bytearray | None = None
        while True:
            found, used, gathered, ended = _split(inbox.data, inbox.size, gathered)
            inbox.drop(used)
            if found:
                yield found
            if ended:
                return
            if inbox.size == len(inbox.data):
                inbox.grow()
            try:
                async with asyncio.timeout(_SILENCE_SECONDS):
                    await inbox.more()
            except TimeoutError:
                raise aiomysql.OperationalError(
                    CR.CR_SERVER_LOST, f"the server sent nothing for {_SILENCE_SECONDS:g} s, not even a heartbeat"
                ) from None


def _split(data: bytearray, size: int, gathered: bytearray | None) -> tuple[list[bytes], int, bytearray | None, bool]:
    """The payloads that are whole, the bytes used, what is gathered of one in several packets, and whether it was the last."""
    found: list[bytes] = []
    at = 0
    while size - at >= (5 if gathered is None else 4):
        length = int.from_bytes(data[at : at + 3], "little")
        start, end = at + 4, at + 4 + length
        if end > size:
            break
        if gathered is not None:
            gathered += data[start:end]
            if length < _FULL:
                found.append(bytes(gathered))
                gathered = None
        elif data[start] == 0:
            if length == _FULL:
                gathered = bytearray(data[start + 1 : end])
            else:
                found.append(bytes(data[start + 1 : end]))
        elif data[start] == _EOF and length < 9:
            return found, end, None, True
        elif data[start] == _ERROR:
            raise_mysql_exception(bytes(data[start:end]))
        else:
            raise GarbledLogError("a packet that is neither an event nor the end")
        at = end
    return found, at, gathered, False


async def _ask(connection: Any, file: str, position: int, server_id: int) -> bool:
    """Whether the server makes checksums now."""
    if reason := wire.unusable(connection):
        raise ConfigurationError(
            f"the log cannot be read: {reason}. Install the version of aiomysql that headrace was tested with"
        )
    if position >= 1 << 32:
        raise PositionLost(f"{file}:{position} is past what a replica can ask for (4 GiB)")
    await _introduce(connection)
    ((algorithm,),) = await fetch(connection, "SELECT @@global.binlog_checksum")
    # Of a range that people do not give to servers.
    number = server_id or (1 << 31 | secrets.randbits(31))
    body = struct.pack("<IHI", position, _NON_BLOCKING, number) + file.encode()
    await connection._execute_command(COMMAND.COM_BINLOG_DUMP, body)
    return bool(algorithm != "NONE")


async def _introduce(connection: Any) -> None:
    """Tell the server what its replica can take in."""
    mine = str(uuid.uuid4())
    period = _HEARTBEAT_SECONDS * 1_000_000_000
    if server_of(connection).flavour == "MariaDB":
        # 4: GTID events are understood. Compressed ones are, too.
        settings = ["@mariadb_slave_capability = 4", "@master_binlog_checksum = @@global.binlog_checksum"]
        settings += [f"@master_heartbeat_period = {period}"]
    else:
        both = ("master", "source")
        settings = [f"@{name}_binlog_checksum = @@global.binlog_checksum" for name in both]
        settings += [f"@{name}_heartbeat_period = {period}" for name in both]
        # Of two replicas with one of these, the server hangs up on the elder.
        settings += [f"@slave_uuid = '{mine}'", f"@replica_uuid = '{mine}'"]
    await fetch(connection, "SET " + ", ".join(settings))
