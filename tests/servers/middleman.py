"""A man in the middle: hides from MySQL's clients that the server has TLS, and keeps what they send after that."""

import asyncio

from tests.servers.proxy import Proxy, closed, ended, pump

_HEADER = 4  # of a packet: three bytes of length, one of sequence
_TLS = 0x08  # CLIENT_SSL, in the second byte of the capabilities


class Middleman(Proxy):
    """Stands in front of a MySQL server, on `port`; `overheard` is what clients have said."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.overheard = bytearray()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Change one bit of the server's first packet, and hand on everything else."""
        from_server, to_server = await self.connect()
        try:
            writer.write(await _greeting(from_server))
            await self._passed_on(reader, writer, from_server, to_server)
        finally:
            await closed(to_server)

    async def _passed_on(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        from_server: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
    ) -> None:
        pumps = [asyncio.create_task(self._overhear(reader, to_server)), asyncio.create_task(pump(from_server, writer))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await ended(*pumps)

    async def _overhear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            self.overheard += data
            writer.write(data)
            await writer.drain()


async def _greeting(from_server: asyncio.StreamReader) -> bytes:
    """The server's first packet, which says no more that it has TLS."""
    header = await from_server.readexactly(_HEADER)
    greeting = bytearray(await from_server.readexactly(int.from_bytes(header[:3], "little")))
    # One byte of protocol version, the server's version up to a zero, 4 bytes of id, 8 of salt, a zero.
    capabilities = greeting.index(0, 1) + 1 + 4 + 8 + 1
    greeting[capabilities + 1] &= ~_TLS
    return header + greeting
