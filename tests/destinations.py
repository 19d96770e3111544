"""Destinations that wait, fail and stall: what both suites of extractors say of a read that is told where to write.

`read` is given what it has to await for each piece, and reads one partition.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

Read = Callable[[Callable[..., Awaitable[None]]], Coroutine[Any, Any, object]]


async def assert_one_at_a_time(read: Read) -> None:
    """While one write waits no other begins."""
    under_way = 0

    async def write(*_: object) -> None:
        nonlocal under_way
        under_way += 1
        assert under_way == 1
        await asyncio.sleep(0.001)
        under_way -= 1

    await read(write)


async def assert_its_error_comes_out(read: Read) -> None:
    """A destination that fails ends the read by its own error."""

    async def fail(*_: object) -> None:
        raise ZeroDivisionError("destination")

    with pytest.raises(ZeroDivisionError, match="destination"):
        await read(fail)


async def assert_a_cancel_ends_it(read: Read) -> None:
    """A read that is cancelled while its destination waits ends within seconds."""
    begun = asyncio.Event()

    async def stall(*_: object) -> None:
        begun.set()
        await asyncio.sleep(3600)

    reading = asyncio.create_task(read(stall))
    await begun.wait()
    reading.cancel()
    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await reading
