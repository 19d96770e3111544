"""httpx's requests, sent by aiohttp, whose parser is C: 0.1 ms of CPU for each, where httpx's own transport takes 0.8 ms.

What httpx does above stays its own: redirects, cookies, decompression, logs. This is HTTP/1.1; for HTTP/2 `RestApi` takes
httpx's transport.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from ssl import SSLContext

import aiohttp
import httpx
from multidict import CIMultiDict
from yarl import URL

_LONGEST_HEADER = 64 << 10
"""Bytes: a Link header with long cursors is more than aiohttp's 8 KiB."""

_READ_BYTES = 256 << 10


class AiohttpTransport(httpx.AsyncBaseTransport):
    """One pool of connections, as many as are asked for at once."""

    def __init__(self, verify: SSLContext, proxy: str, timeout: httpx.Timeout) -> None:
        verify.set_alpn_protocols(["http/1.1"])
        self._verify = verify
        self._proxy = proxy or None
        self._timeout = aiohttp.ClientTimeout(sock_connect=timeout.connect, sock_read=timeout.read)
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._session is None:
            self._session = self._made()
        body = await request.aread()
        # Encoded already; and a user in it (of a redirect) is httpx's to show.
        url = URL(str(request.url.copy_with(userinfo=b"") if request.url.userinfo else request.url), encoded=True)
        encoding = request.headers.encoding
        headers = CIMultiDict((name.decode(encoding), value.decode(encoding)) for name, value in request.headers.raw)
        with _explained():
            response = await self._session.request(
                request.method, url, headers=headers, data=body or None, allow_redirects=False
            )
        return httpx.Response(
            response.status,
            headers=response.raw_headers,
            stream=_Body(response),
            extensions={"reason_phrase": (response.reason or "").encode()},
        )

    def _made(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._verify, keepalive_timeout=30),
            # httpx has its own.
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            auto_decompress=False,
            timeout=self._timeout,
            proxy=self._proxy,
            read_bufsize=_READ_BYTES,
            max_line_size=_LONGEST_HEADER,
            max_field_size=_LONGEST_HEADER,
        )

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()


class _Body(httpx.AsyncByteStream):
    """The bytes of a response as they come."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _explained():
            async for data in self._response.content.iter_any():
                yield data

    async def aclose(self) -> None:
        # A connection whose response is not read to its end is closed.
        self._response.release()


@contextmanager
def _explained() -> Iterator[None]:
    """aiohttp's errors as httpx's; those before a request was sent apart from all others. None holds the URL."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        raise httpx.ConnectTimeout("ConnectTimeout: no connection within connect_timeout") from error
    except TimeoutError as error:
        raise httpx.ReadTimeout("ReadTimeout: silent for longer than read_timeout") from error
    except aiohttp.ClientHttpProxyError as error:
        raise httpx.ProxyError(f"the proxy answered {error.status} {error.message}") from error
    except aiohttp.ClientProxyConnectionError as error:
        raise httpx.ProxyError(str(error)) from error
    except aiohttp.ClientConnectorError as error:
        raise httpx.ConnectError(str(error)) from error
    except aiohttp.ClientPayloadError as error:
        raise httpx.RemoteProtocolError(str(error)) from error
    except aiohttp.ClientResponseError as error:
        raise httpx.RemoteProtocolError(error.message) from error
    except (aiohttp.NonHttpUrlClientError, aiohttp.InvalidURL) as error:
        raise httpx.UnsupportedProtocol("no URL of http or https") from error
    except (aiohttp.ClientError, OSError) as error:
        raise httpx.ReadError(str(error) or type(error).__name__) from error
