"""httpx's requests through aiohttp, on the wire: what is sent, and what becomes of answers that are none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest

from blocks.rest import RestApi

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@asynccontextmanager
async def answering(*answers: bytes) -> AsyncIterator[tuple[str, list[str]]]:
    """A server that gives each request the next of ``answers``, an empty one by hanging up; its URL, and what it was sent."""
    left, sent = list(answers), list[str]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                sent.append(head.decode())
                answer = left.pop(0) if left else OK
                writer.write(answer)
                await writer.drain()
                if b"Content-Length: 2\r\n" not in answer:
                    break
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", sent


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", httpx.ReadError),
        (b"hello\r\n\r\n", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", httpx.RemoteProtocolError),
        (b"HTTP/1.1 302 Found\r\nLocation: ftp://127.0.0.1/\r\nContent-Length: 2\r\n\r\n{}", httpx.UnsupportedProtocol),
    ],
)
async def test_an_answer_that_is_none(answer: bytes, error: type[Exception]) -> None:
    """It is an error of a request that was sent: a POST is not repeated after one."""
    async with answering(answer) as (url, sent), RestApi(base_url=url).client() as client:
        with pytest.raises(error) as raised:
            await client.post(f"{url}/?key=s3cr3t", json={"a": 1})
        assert not isinstance(raised.value, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError)
        assert "s3cr3t" not in f"{raised.value!r} {raised.value}"
    assert [line.split()[0] for line in sent] == ["POST"]


async def test_a_connection_that_was_closed_meanwhile() -> None:
    """The next GET has another one."""
    closing = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", b""
    async with answering(*closing) as (url, sent), RestApi(base_url=url).client() as client:
        for _ in range(2):
            assert (await client.get(url)).json() == {}
    assert len(sent) == 3


async def test_silence_is_told_by_its_field() -> None:
    """Before the head of an answer, and within its body."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        writer.write(head if b"/body" in asked else b"")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with RestApi(base_url=url, read_timeout=0.2).client() as client:
            for path in ("/head", "/body"):
                with pytest.raises(httpx.ReadTimeout, match="longer than read_timeout"):
                    await client.get(url + path)


async def test_what_is_sent() -> None:
    """The URL as it is encoded, the API's cookies, and nothing that httpx did not ask for."""
    cookie = OK.replace(b"\r\n\r\n", b"\r\nSet-Cookie: at=7; Path=/\r\n\r\n")
    async with answering(cookie) as (url, sent), RestApi(base_url=url).client() as client:
        await client.get(f"{url}/a%2Fb/%7B?q=a%2Bb+c&r=%7C")
        await client.get(url, headers={"X-A": "b"})
    first, second = ({*text.split("\r\n")} for text in sent)
    assert "GET /a%2Fb/%7B?q=a%2Bb+c&r=%7C HTTP/1.1" in first
    assert {"Cookie: at=7", "X-A: b"} <= second
    names = [line.partition(":")[0].lower() for line in sent[0].split("\r\n")[1:] if line]
    assert sorted(names) == ["accept", "accept-encoding", "connection", "host", "user-agent"]


async def test_a_long_link_header() -> None:
    """Those with cursors in them can be."""
    link = f'<http://a.example/?cursor={"x" * 40_000}>; rel="next"'
    answer = OK.replace(b"\r\n\r\n", f"\r\nLink: {link}\r\n\r\n".encode())
    async with answering(answer) as (url, _), RestApi(base_url=url).client() as client:
        assert (await client.get(url)).headers["link"] == link


async def test_a_proxy() -> None:
    """It is asked for the whole URL, with its own credentials; a refusal of its holds none of them."""
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
    async with answering(OK, refusal) as (url, sent):
        proxy = url.replace("//", "//user:s3cr3t@")
        async with RestApi(base_url="http://api.invalid", proxy=proxy).client() as client:
            assert (await client.get("http://api.invalid/items")).json() == {}
        async with RestApi(base_url="https://api.invalid", proxy=proxy).client() as client:
            with pytest.raises(httpx.ProxyError, match="407 Proxy Authentication Required") as raised:
                await client.get("https://api.invalid/items")
    assert sent[0].startswith("GET http://api.invalid/items HTTP/1.1\r\n")
    assert "proxy-authorization: basic dxnlcjpzm2nym3q=" in sent[0].lower()
    assert sent[1].startswith("CONNECT api.invalid:443 HTTP/1.1\r\n")
    assert "s3cr3t" not in f"{raised.value!r} {raised.value}"
    unreachable = RestApi(base_url="http://api.invalid", proxy="http://user:s3cr3t@127.0.0.1:9")
    async with unreachable.client() as client:
        with pytest.raises(httpx.ProxyError, match=r"127\.0\.0\.1:9") as nobody:
            await client.get("http://api.invalid/items")
    assert "s3cr3t" not in f"{nobody.value!r} {nobody.value}"


async def test_connections_are_used_again() -> None:
    """Eight requests at once, again and again, take eight connections."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while await reader.readuntil(b"\r\n\r\n"):
            await asyncio.sleep(0.01)
            writer.write(OK)
            await writer.drain()

    async with await asyncio.start_server(_until_closed(serve), "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with RestApi(base_url=url).client() as client:
            for _ in range(5):
                await asyncio.gather(*(client.get(url) for _ in range(8)))
    assert connections == 8


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def _until_closed(serve: Serve) -> Serve:
    async def serving(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except asyncio.IncompleteReadError:
            writer.close()

    return serving
