"""HTTP/1.1 on the wire, as far as a proxy that changes nothing has to understand it: heads, and where bodies end."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator

from tests.servers.proxy import CHUNK


@dataclasses.dataclass(frozen=True)
class Head:
    """The first line and the headers of a message, and the very bytes they came as."""

    raw: bytes
    first: tuple[str, str, str]
    headers: dict[str, str]

    @property
    def method(self) -> str:
        return self.first[0]

    @property
    def path(self) -> str:
        return self.first[1].partition("?")[0]

    @property
    def query(self) -> str:
        return self.first[1].partition("?")[2]

    @property
    def status(self) -> int:
        return int(self.first[1])

    @property
    def keeps_alive(self) -> bool:
        return self.headers.get("connection", "").lower() != "close"

    @property
    def expects_continue(self) -> bool:
        return self.headers.get("expect", "").lower() == "100-continue"


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """The next head of a connection; None where it ends cleanly."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    first, *lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
    one, two, three = (*first.split(" ", 2), "")[:3]
    pairs = (line.partition(":") for line in lines)
    return Head(raw, (one, two, three), {name.lower(): value.strip() for name, _, value in pairs})


def request_body(reader: asyncio.StreamReader, head: Head) -> AsyncIterator[bytes]:
    """The body as it is on the wire, chunk marks and all."""
    return _body(reader, head, until_close=False)


def response_body(reader: asyncio.StreamReader, head: Head, method: str) -> AsyncIterator[bytes]:
    """The body of an answer to `method`, as it is on the wire."""
    if method == "HEAD" or head.status in (204, 304):
        return _nothing()
    return _body(reader, head, until_close=True)


def ends_with_connection(head: Head, method: str) -> bool:
    """Whether only the end of the connection tells the end of this answer."""
    if method == "HEAD" or head.status in (204, 304):
        return False
    return "content-length" not in head.headers and "chunked" not in head.headers.get("transfer-encoding", "")


async def _body(reader: asyncio.StreamReader, head: Head, *, until_close: bool) -> AsyncIterator[bytes]:
    if "chunked" in head.headers.get("transfer-encoding", ""):
        async for data in _chunked(reader):
            yield data
    elif "content-length" in head.headers:
        async for data in _counted(reader, int(head.headers["content-length"])):
            yield data
    elif until_close:
        while data := await reader.read(CHUNK):
            yield data


async def _counted(reader: asyncio.StreamReader, size: int) -> AsyncIterator[bytes]:
    while size:
        data = await reader.read(min(size, CHUNK))
        if not data:
            raise asyncio.IncompleteReadError(b"", size)
        size -= len(data)
        yield data


async def _chunked(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while True:
        line = await reader.readuntil(b"\r\n")
        yield line
        size = int(line.split(b";")[0], 16)
        if not size:
            break
        async for data in _counted(reader, size + 2):
            yield data
    while (trailer := await reader.readuntil(b"\r\n")) != b"\r\n":
        yield trailer
    yield b"\r\n"


async def _nothing() -> AsyncIterator[bytes]:
    nothing: tuple[bytes, ...] = ()
    for data in nothing:
        yield data
