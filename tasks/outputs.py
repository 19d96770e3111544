"""The objects of a partition of a change stream: one at a time for each output, in bounded memory.

An output has an open upload while records come for it. Where too many bytes wait in open uploads, the one with the most
of them is finished, and another object begins when its output has more records: so a hundred tables need no more memory
than a few. Outputs that share a lane have one open object among them, so that a lane's objects follow the log.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Hashable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self

from blocks.s3 import S3Destination
from tasks.extractors.contract import Output, Records
from tasks.upload import StoredObject, Upload

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client

_WAITING_PARTS = 8
"""How many parts' worth of bytes may wait in all open uploads together."""


class OpenObject:
    """One object that is being written."""

    def __init__(self, output: Output, upload: Upload) -> None:
        self.output = output
        self.upload = upload
        self.rows = 0
        self.size = 0
        self.absent: set[str] = set()
        self.counted: Counter[str] = Counter()


class Outputs:
    """Used as ``async with``: all open uploads are aborted unless `finish` was awaited."""

    def __init__(
        self,
        client: S3Client,
        destination: S3Destination,
        key: Callable[[Output, int], str],
        header: Callable[[Output], bytes],
        lane: Callable[[Output], Hashable] = lambda output: output,
    ) -> None:
        """``key``: of the n-th object (from 1) of an output. ``header``: its first line. ``lane``: each its own, or shared."""
        self._client, self._destination = client, destination
        self._key, self._header, self._lane = key, header, lane
        self._open: dict[Hashable, OpenObject] = {}
        self._count: dict[Output, int] = {}
        # One for all: what is on its way stays bounded, however many uploads are open.
        self._slots = asyncio.Semaphore(destination.parallel_parts)
        self.finished: list[tuple[OpenObject, StoredObject]] = []
        """In the order in which they were finished; one lane's objects in log order."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async with AsyncExitStack() as stack:
            for target in self._open.values():
                stack.push_async_exit(target.upload)
            if error is not None:
                raise error

    async def write(self, output: Output, records: Records) -> None:
        """Take records; returns when there is room for more."""
        target = self._open.get(self._lane(output))
        if target is not None and target.output != output:
            await self._finish(target)
            target = None
        target = target or await self._begin(output)
        await target.upload.write(records.data)
        target.rows += records.count
        target.size += len(records.data)
        target.absent |= records.absent
        target.counted.update(records.counted)
        if target.size >= self._destination.object_size_mb << 20:
            await self._finish(target)
        while self._waiting() > _WAITING_PARTS * self._destination.part_size_mb << 20:
            await self._finish(max(self._open.values(), key=lambda each: each.upload.waiting))

    async def finish(self) -> list[tuple[OpenObject, StoredObject]]:
        """Finish what is open; all objects."""
        for target in list(self._open.values()):
            await self._finish(target)
        return self.finished

    async def _begin(self, output: Output) -> OpenObject:
        number = self._count[output] = self._count.get(output, 0) + 1
        upload = Upload(self._client, self._destination, self._key(output, number), self._slots)
        target = OpenObject(output, await upload.__aenter__())
        self._open[self._lane(output)] = target
        await upload.write(self._header(output))
        return target

    async def _finish(self, target: OpenObject) -> None:
        stored = await target.upload.finish()
        await target.upload.__aexit__(None, None, None)
        del self._open[self._lane(target.output)]
        self.finished.append((target, stored))

    def _waiting(self) -> int:
        return sum(each.upload.waiting for each in self._open.values())
