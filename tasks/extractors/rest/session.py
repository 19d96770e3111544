"""Sends requests: in their turn, again where that may help, and never for nothing.

A response is looked at before it is handed over: small bodies are there whole, so that one which was cut off is asked for
again; of a large one the beginning is, and the rest comes from the wire as it is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from http import HTTPStatus
from types import TracebackType
from typing import Self, TypeVar

import httpx
import stamina

from blocks.errors import ConfigurationError
from blocks.references import reveal
from blocks.rest import RestApi
from tasks.extractors.documents import json_text
from tasks.extractors.rest.errors import ApiError, BadResponse
from tasks.extractors.rest.pace import Pace, retry_after
from tasks.extractors.rest.spec import Spec
from tasks.extractors.rest.template import Request

T = TypeVar("T")

BUFFER_BYTES = 4 << 20
"""Of a body so much is read ahead: a response that is not larger is there whole, of others at least as much."""

_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which a request is sent again."""
_NOT_ACTED_UPON = frozenset({429, 503})
_SHOWN = 200
_SHORTEST_WAIT = 0.5

_MEND = {
    401: "check auth and its fields in the rest-api block, or renew what has expired",
    403: "the credentials do not permit it; check auth in the rest-api block",
    404: "check the field path and the connection's base_url",
    405: "check the field method",
    407: "check the field proxy of the rest-api block",
}

_ENCODINGS = "gzip, br, zstd, deflate"


class Response:
    """A response that is to be read."""

    def __init__(self, response: httpx.Response, request: Request, limit: int) -> None:
        self._response = response
        self._limit = limit
        self._stream = response.aiter_bytes()
        self._size = 0
        self.request = request
        self.status = response.status_code
        self.headers = response.headers
        self.url = response.url
        self.head = b""
        self.is_whole = False
        """Whether `head` is all of the body."""

    async def look(self) -> None:
        """Read the beginning of the body."""
        parts: list[bytes] = []
        async for data in self._stream:
            self._count(data)
            parts.append(data)
            if self._size >= BUFFER_BYTES:
                break
        else:
            self.is_whole = True
            await self._response.aclose()
        self.head = b"".join(parts)

    async def body(self) -> AsyncGenerator[bytes]:
        """All of the body, a piece at a time."""
        yield self.head
        self.head = b""
        if not self.is_whole:
            try:
                async for data in self._stream:
                    self._count(data)
                    yield data
            except httpx.TransportError as error:
                raise BadResponse(f"{self} was cut off: {error or type(error).__name__}") from error

    def _count(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._limit:
            raise ConfigurationError(
                f"field response_limit_mb of the connection: {self} is larger than {self._limit >> 20} MB; ask for smaller "
                "pages, or raise it"
            )

    async def aclose(self) -> None:
        await self._response.aclose()

    def __str__(self) -> str:
        return f"the response to {self.request}"


class Session:
    """Requests to one API. Used as ``async with``."""

    def __init__(self, block: RestApi) -> None:
        self._block = block
        self._pace = Pace(block.requests_per_second, block.longest_wait)
        self._slots = asyncio.Semaphore(block.concurrency)
        self._stack = AsyncExitStack()
        self._client: httpx.AsyncClient | None = None
        self.concurrency = block.concurrency

    async def __aenter__(self) -> Self:
        self._block = await reveal(self._block)
        self._client = await self._stack.enter_async_context(self._block.client())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def without_key(self, url: httpx.URL) -> httpx.URL:
        """A URL that the API gave, without the key it may repeat."""
        return self._block.without_key(url)

    async def fetch(self, request: Request, spec: Spec, make: Callable[[Response | None], T]) -> T:
        """What ``make`` makes of the response, its body looked at; of None for a status that is to be ignored.

        A `BadResponse` that it raises has the request sent again. The response is to be closed by who takes it. Raises
        `ConfigurationError` for what the user has to mend, `ApiError` for what did not pass.
        """
        try:
            return await self._once(request, spec, make)
        except ApiError as error:
            failed: ApiError | None = error
        # The loop costs half a millisecond, which most requests need not pay.
        async for attempt in stamina.retry_context(
            on=lambda error: self._may_pass(error, spec), attempts=self._block.retries + 1, timeout=None, wait_initial=0.5,
            wait_max=60, wait_jitter=1,
        ):  # fmt: skip
            with attempt:
                if failed is not None:
                    first, failed = failed, None
                    raise first
                return await self._once(request, spec, make)
        raise AssertionError("unreachable")

    def _may_pass(self, error: Exception, spec: Spec) -> bool | float:
        """Whether to send a request again, or after how many seconds."""
        if not isinstance(error, ApiError) or (error.is_sent and not spec.may_repeat):
            return False
        if error.wait is None:
            return True
        if error.wait > self._block.longest_wait:
            raise ConfigurationError(
                f"{error}; it wants to be asked again after {error.wait:.0f} s, which is more than the connection's "
                f"longest_wait of {self._block.longest_wait:.0f} s"
            ) from error
        # The pace holds back all requests until then; a time that is no wait would have all tries spent at once.
        return 0.01 if error.wait >= _SHORTEST_WAIT else True

    async def _once(self, request: Request, spec: Spec, make: Callable[[Response | None], T]) -> T:
        async with self._slots:
            await self._pace.turn()
            response = await self._sent(request)
            try:
                self._pace.heed(response)
                if not response.is_success and response.status_code != HTTPStatus.NOT_MODIFIED:
                    await self._refused(response, request, spec)
                    return make(None)
                looked_at = Response(response, request, self._block.response_limit_mb << 20)
                await self._looked(looked_at)
                return make(looked_at)
            except BaseException:
                await response.aclose()
                raise

    async def _sent(self, request: Request) -> httpx.Response:
        assert self._client is not None, "used outside of `async with`"  # noqa: S101
        headers = httpx.Headers({"Accept-Encoding": _ENCODINGS, **request.headers})
        content = None if request.body is None else json_text(request.body)
        if content is not None:
            headers.setdefault("Content-Type", "application/json")
        made = self._client.build_request(request.method, request.url, headers=headers, content=content)
        try:
            return await self._client.send(made, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
            raise self._unreachable(error) from error
        except httpx.TooManyRedirects as error:
            raise ConfigurationError(f"field path: {request} is redirected without end") from error
        except (httpx.TransportError, httpx.HTTPStatusError) as error:
            raise ApiError(f"{request} failed: {self._block.hidden(str(error)) or type(error).__name__}") from error

    def _unreachable(self, error: Exception) -> Exception:
        text = f"{self._block.describe()} cannot be reached: {self._block.hidden(str(error)) or type(error).__name__}"
        if "CERTIFICATE_VERIFY_FAILED" in text:
            return ConfigurationError(f"{text}; check tls and tls_ca_file of the rest-api block")
        return ApiError(text, is_sent=False)

    async def _looked(self, made: Response) -> None:
        try:
            await made.look()
        except httpx.TransportError as error:
            raise BadResponse(f"{made} was cut off: {error or type(error).__name__}") from error
        except httpx.DecodingError as error:
            raise BadResponse(f"{made} cannot be unpacked: {error}") from error

    async def _refused(self, response: httpx.Response, request: Request, spec: Spec) -> None:
        status = response.status_code
        action = spec.responses.get(str(status)) or ("retry" if status in _PASSING else "fail")
        said = await self._said(response)
        if action == "ignore":
            return
        what = f"{request} was answered with {status} {response.reason_phrase}{said}"
        if action == "fail":
            raise ConfigurationError(f"{what}; {_MEND.get(status, 'check the fields of the endpoint')}")
        wait = retry_after(response)
        if wait is not None:
            self._pace.hold(wait)
        raise ApiError(what, wait=wait, is_sent=status not in _NOT_ACTED_UPON)

    async def _said(self, response: httpx.Response) -> str:
        """The beginning of what a refusal says."""
        text = ""
        try:
            async for part in response.aiter_text():
                text += part
                if len(text) > _SHOWN:
                    break
        except httpx.HTTPError:
            pass
        finally:
            await response.aclose()
        text = self._block.hidden(" ".join(text.split()))
        return f": {text[:_SHOWN]}" if text and not text.startswith("<") else ""
