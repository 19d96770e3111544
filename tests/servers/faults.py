"""A reverse proxy that fails requests as a test tells it to, at the very point where it hurts.

    with FaultProxy(server.endpoint) as proxy:
        proxy.before(slow_down(), method="PUT", query="partNumber=2", times=2)
        proxy.after(Reset(), method="POST", query="uploadId=")      # done, but the client never hears of it
        ...
        assert len(proxy.requests(method="PUT", query="partNumber=2")) == 3

Nothing of a request is changed on its way, the Host header included, so AWS signatures stay valid.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from tests.servers.http1 import Head, ends_with_connection, read_head, request_body, response_body
from tests.servers.proxy import Proxy, closed, ended, pump, reset
from tests.servers.rules import Action, Call, Delay, Request, Reset, Respond, Rule, Truncate, s3_error, slow_down
from tests.servers.support import ServerUnavailableError
from tests.servers.wire import TcpProxy

__all__ = [
    "Call",
    "Delay",
    "FaultProxy",
    "Request",
    "Reset",
    "Respond",
    "Rule",
    "TcpProxy",
    "Truncate",
    "s3_error",
    "slow_down",
]


class FaultProxy(Proxy):
    """Stands in front of an HTTP server, at `endpoint`, in a thread of its own; what came by is in `seen`."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        if parts.scheme != "http" or parts.hostname is None:
            raise ServerUnavailableError(f"faults are injected into plain HTTP only, not into {upstream}")
        super().__init__(parts.hostname, parts.port or 80)
        self.seen: list[Request] = []
        self._rules: list[Rule] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def before(
        self,
        action: Action,
        *,
        method: str | None = None,
        path: str = "",
        query: str = "",
        nth: int = 1,
        times: int | None = 1,
    ) -> Rule:
        """Act when the head of a matching request has come, before anything of it is forwarded.

        `path` and `query` are regular expressions that are searched for.
        """
        return self._add(Rule("before", action, method=method, path=path, query=query, nth=nth, times=times))

    def after(
        self,
        action: Action,
        *,
        method: str | None = None,
        path: str = "",
        query: str = "",
        nth: int = 1,
        times: int | None = 1,
    ) -> Rule:
        """Act when the server has answered a matching request in full, and the client has not heard of it."""
        return self._add(Rule("after", action, method=method, path=path, query=query, nth=nth, times=times))

    def clear(self) -> None:
        """Forget all rules, and what came by."""
        self._rules.clear()
        self.seen.clear()

    def requests(self, *, method: str | None = None, path: str = "", query: str = "") -> list[Request]:
        """The matching ones of those that came by, in order."""
        wanted = Rule("before", Delay(0), method=method, path=path, query=query, nth=1, times=None)
        return [request for request in self.seen if wanted.matches(request)]

    def _add(self, rule: Rule) -> Rule:
        self._rules.append(rule)
        return rule

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await read_head(reader):
            request = Request(head.method, head.path, head.query)
            self.seen.append(request)
            exchange = _Exchange(self, request, head, reader, writer)
            if not await exchange.run([rule for rule in list(self._rules) if rule.applies(request)]):
                return


class _Exchange:
    """One request and its answer on a connection of the client's."""

    def __init__(
        self, proxy: Proxy, request: Request, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._proxy = proxy
        self._request = request
        self._head = head
        self._reader = reader
        self._writer = writer

    async def run(self, rules: list[Rule]) -> bool:
        """Whether the connection can carry another request."""
        fate = await self._decide([rule for rule in rules if rule.when == "before"])
        if isinstance(fate, Respond):
            return await self._respond(fate, unread=True)
        if isinstance(fate, Truncate) or (isinstance(fate, Reset) and fate.body_bytes is None):
            reset(self._writer)
            return False
        cut = fate.body_bytes if isinstance(fate, Reset) else None
        return await self._forward(cut, [rule for rule in rules if rule.when == "after"])

    async def _decide(self, rules: list[Rule]) -> Respond | Reset | Truncate | None:
        """Do what lets the request go on, up to the first rule that does not."""
        for rule in rules:
            rule.happened()
            action: Action | None = rule.action
            while isinstance(action, (Delay, Call)):
                action = await self._pause(action, rule)
            if action is not None:
                return action
        return None

    async def _pause(self, action: Delay | Call, rule: Rule) -> Action | None:
        if isinstance(action, Delay):
            await asyncio.sleep(action.seconds)
            return None
        if inspect.iscoroutinefunction(action.function):
            if rule.loop is None:
                raise RuntimeError("a rule with a coroutine function must be added by a coroutine")
            called = asyncio.run_coroutine_threadsafe(action.function(self._request), rule.loop)
            await asyncio.wrap_future(called)
        else:
            await asyncio.to_thread(action.function, self._request)
        return action.then

    async def _respond(self, answer: Respond, *, unread: bool) -> bool:
        """Answer as a server does that has read the request: with its body unread, the client would see a reset."""
        if unread and self._head.expects_continue:
            self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if unread:
            async for data in request_body(self._reader, self._head):
                self._request.bytes_in += len(data)
        head = f"HTTP/1.1 {answer.status} Injected\r\nContent-Type: {answer.content_type}\r\n"
        body = b"" if self._head.method == "HEAD" else answer.body
        self._request.status, self._request.bytes_out = answer.status, len(body)
        self._writer.write(f"{head}Content-Length: {len(answer.body)}\r\n\r\n".encode() + body)
        await self._writer.drain()
        return self._head.keeps_alive

    async def _forward(self, cut: int | None, rules: list[Rule]) -> bool:
        reader, writer = await self._proxy.connect()
        self._request.forwarded = True
        sending = asyncio.create_task(self._send(writer, cut))
        try:
            alive = await self._answer(reader, writer, rules)
            # An answer before the end of the request (an early error) leaves the rest of the body on the connection.
            await asyncio.wait([sending], timeout=1)
            return alive and sending.done() and self._head.keeps_alive
        finally:
            try:
                await ended(sending)
            finally:  # also where the proxy ends meanwhile
                await closed(writer)

    async def _send(self, writer: asyncio.StreamWriter, cut: int | None) -> None:
        """Send the request on; at `cut` bytes of its body, or where the client goes away, the server is cut off too."""
        try:
            writer.write(self._head.raw)
            async for data in request_body(self._reader, self._head):
                room = len(data) if cut is None else max(0, cut - self._request.bytes_in)
                self._request.bytes_in += len(data[:room])
                writer.write(data[:room])
                await writer.drain()
                if room < len(data):
                    raise ConnectionResetError("a rule cuts this request")
            if cut is not None:
                raise ConnectionResetError("a rule cuts this request")
        except (OSError, asyncio.IncompleteReadError):
            reset(self._writer)
            reset(writer)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rules: list[Rule]) -> bool:
        head = await read_head(reader)
        while head and head.status == 100:
            self._writer.write(head.raw)
            head = await read_head(reader)
        if head is None:
            reset(self._writer)
            return False
        if head.status == 101:
            return await self._tunnel(head, reader, writer)
        body = response_body(reader, head, self._head.method)
        if not rules:
            await self._pass(head, body)
            return head.keeps_alive and not ends_with_connection(head, self._head.method)
        received = b"".join([data async for data in body])
        return await self._finish(head, received, await self._decide(rules))

    async def _finish(self, head: Head, body: bytes, fate: Respond | Reset | Truncate | None) -> bool:
        """Give the client the answer the server gave, or what a rule makes of it."""
        if isinstance(fate, Respond):
            return await self._respond(fate, unread=False)
        if isinstance(fate, Reset) and fate.body_bytes is None:
            reset(self._writer)
            return False
        size = len(body) if fate is None else fate.body_bytes
        await self._pass(head, _once(body[:size]))
        if isinstance(fate, Reset):
            await self._delivered()
            reset(self._writer)
        return fate is None and head.keeps_alive and not ends_with_connection(head, self._head.method)

    async def _delivered(self) -> None:
        """Wait a moment: a reset overtakes what the client has not read yet."""
        await asyncio.sleep(0.1)

    async def _pass(self, head: Head, body: AsyncIterator[bytes]) -> None:
        # Noted first: the client may look at it, in its thread, as soon as it has the bytes.
        self._request.status = head.status
        self._writer.write(head.raw)
        async for data in body:
            self._request.bytes_out += len(data)
            self._writer.write(data)
            await self._writer.drain()
        await self._writer.drain()

    async def _tunnel(self, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """A WebSocket, say: whatever comes is handed on until one side ends."""
        self._request.status = head.status
        self._writer.write(head.raw)
        pumps = [asyncio.create_task(pump(self._reader, writer)), asyncio.create_task(pump(reader, self._writer))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await ended(*pumps)
        return False


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
