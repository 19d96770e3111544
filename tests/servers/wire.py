"""A TCP proxy that cuts, stalls and slows down connections: the bad network in front of a database."""

import asyncio
import contextlib
import dataclasses
from collections.abc import Iterator

from tests.servers.proxy import CHUNK, Proxy, closed, ended, reset


@dataclasses.dataclass(frozen=True)
class Pair:
    """The two ends of one connection."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter

    def reset(self) -> None:
        reset(self.client)
        reset(self.server)


class TcpProxy(Proxy):
    """Stands in front of a TCP server, on `port`, in a thread of its own; TLS passes through it unseen."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.accepted = 0  # connections, since the start
        self.received = 0  # bytes from the server, handed to clients
        self._pairs: set[Pair] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._cut_at: int | None = None
        self._rate: float | None = None

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self._pairs)

    def cut(self) -> None:
        """Reset every open connection, on both sides, now."""
        self.do(self._cut())

    def cut_after(self, size: int) -> None:
        """Reset every open connection once the server has sent so many bytes from now on; later ones are left alone."""
        self._cut_at = self.received + size

    def throttle(self, bytes_per_second: float | None) -> None:
        """Let no connection have more than this from the server, until None is said."""
        self._rate = bytes_per_second

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        """Connections stay open, and nothing moves in either direction."""
        self._loop.call_soon_threadsafe(self._flowing.clear)
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(self._flowing.set)

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """New connections are refused, as by a server that is down; open ones stay."""
        self.do(self.refuse())
        try:
            yield
        finally:
            self.do(self.listen())

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            server_reader, server_writer = await self.connect()
        except OSError:
            reset(writer)
            return
        pair = Pair(writer, server_writer)
        self._pairs.add(pair)
        up = asyncio.create_task(self._up(reader, server_writer))
        down = asyncio.create_task(self._down(server_reader, writer))
        try:
            # Whichever end is closed or reset first, the other one is as well.
            done, _ = await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
            if any(task.exception() for task in done):
                pair.reset()
        finally:
            self._pairs.discard(pair)
            try:
                await ended(up, down)
            finally:  # also where the proxy ends meanwhile
                await closed(server_writer)

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            await self._flowing.wait()
            writer.write(data)
            await writer.drain()

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK if self._rate is None else 4096):
            await self._flowing.wait()
            if self._rate is not None:
                await asyncio.sleep(len(data) / self._rate)
            room = len(data) if self._cut_at is None else max(0, self._cut_at - self.received)
            self.received += len(data[:room])
            writer.write(data[:room])
            await writer.drain()
            if room < len(data):
                self._cut_at = None
                await self._cut()

    async def _cut(self) -> None:
        for pair in list(self._pairs):
            pair.reset()
