"""What writes to a database while something else happens to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")


class Writes(Protocol):
    """One of them."""

    stopping: bool

    async def write(self) -> None:
        """Write until told to stop."""
        ...


async def while_they_write(writers: Sequence[Writes], work: Awaitable[T]) -> T:
    """What the work returns; they write until it ends, however it does."""
    async with asyncio.TaskGroup() as group:
        for writer in writers:
            group.create_task(writer.write())
        try:
            return await work
        finally:
            for writer in writers:
                writer.stopping = True
