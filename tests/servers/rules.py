"""What is done to a request by a proxy, and to which one."""

import asyncio
import dataclasses
import re
import threading
from collections.abc import Awaitable, Callable
from typing import Literal, TypeAlias


@dataclasses.dataclass
class Request:
    """One request that came by; `status` is what the client was told, None while it was told nothing."""

    method: str
    path: str
    query: str
    status: int | None = None
    forwarded: bool = False
    bytes_in: int = 0  # of the request's body, as it is on the wire
    bytes_out: int = 0  # of the answer's


@dataclasses.dataclass(frozen=True)
class Respond:
    """Answer this, in place of the server."""

    status: int
    body: bytes = b""
    content_type: str = "application/xml"


@dataclasses.dataclass(frozen=True)
class Delay:
    """Wait, then go on."""

    seconds: float


@dataclasses.dataclass(frozen=True)
class Reset:
    """Reset the connection (RST): at once, or after so many bytes of the body.

    `before`: of the request's body, which the server gets as far, and is cut off from as well; with None the server
    gets nothing. `after`: of the answer's body; with None the client gets not even its head.
    """

    body_bytes: int | None = None


@dataclasses.dataclass(frozen=True)
class Truncate:
    """`after`: end the connection in good order after so many bytes of the answer's body."""

    body_bytes: int


@dataclasses.dataclass(frozen=True)
class Call:
    """Call a function with the request, wait for it, then do `then`, or go on.

    A coroutine function runs in the event loop of the test that adds the rule; another one in a thread of its own.
    A function that kills the client says `then=Reset()` where the server shall not get the request.
    """

    function: Callable[[Request], object] | Callable[[Request], Awaitable[object]]
    then: "Action | None" = None


Action: TypeAlias = Respond | Delay | Reset | Truncate | Call


def s3_error(status: int, code: str) -> Respond:
    """An error as S3 spells it."""
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{code}</Message></Error>'
    return Respond(status, text.encode())


def slow_down() -> Respond:
    """What S3 answers when it is asked too much."""
    return s3_error(503, "SlowDown")


class Rule:
    """What is done to which requests: from the `nth` match on, `times` times, or for ever."""

    def __init__(
        self,
        when: Literal["before", "after"],
        action: Action,
        *,
        method: str | None,
        path: str,
        query: str,
        nth: int,
        times: int | None,
    ) -> None:
        self.when = when
        self.action = action
        self.fired = 0
        self._method = method
        self._path = re.compile(path)
        self._query = re.compile(query)
        self._before_first = nth - 1
        self._times = times
        self._happened = threading.Event()
        self.loop = _running_loop()

    def matches(self, request: Request) -> bool:
        return (
            self._method in (None, request.method)
            and self._path.search(request.path) is not None
            and self._query.search(request.query) is not None
        )

    def applies(self, request: Request) -> bool:
        """Count a request, and say whether it is one that is meant."""
        if not self.matches(request) or self._times == self.fired:
            return False
        if self._before_first:
            self._before_first -= 1
            return False
        self.fired += 1
        return True

    def happened(self) -> None:
        self._happened.set()

    def wait(self, seconds: float = 30) -> None:
        """Block until the action was begun for the first time."""
        if not self._happened.wait(seconds):
            raise TimeoutError(f"no request came that a rule waits for: {self._path.pattern} {self._query.pattern}")


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
