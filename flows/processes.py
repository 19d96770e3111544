"""Partitions of one run in processes of this machine: the same plan, the same snapshot, one commit.

Making CSV of what a server sends takes one core in Python, however many connections there are. Each process here has its
own, and extracts one partition at a time; `flows.child` is what runs in it. A process that dies fails the attempt at its
partition, which is tried again in a new one.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from flows.frames import Advanced, Broken, Job, Setup, receive, send
from tasks.extractors.contract import Partition
from tasks.extractors.source import Source
from tasks.objects import Tell
from tasks.records import Record
from tasks.run import Run, Work

_ROOT = Path(__file__).parent.parent
_STOP_SECONDS = 10.0
"""What a process has to abort its uploads in."""


class Processes:
    """Extracts partitions in child processes, which it starts as they are needed. Used as ``async with``."""

    def __init__(self, source: Source, run: Run) -> None:
        self._setup = Setup(run.stream, source, run.destination, run.options)
        self._idle: list[_Child] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(child.stop() for child in self._idle))

    async def made(self, run: Run, work: Work, partition: Partition, tell: Tell) -> Record:  # noqa: ARG002 - of `Make`
        """See `tasks.objects.Make`."""
        job = Job(work.plan.only(partition), work.sequence)
        async with self._lent(partition) as child:
            return await child.made(job, tell)

    @asynccontextmanager
    async def _lent(self, partition: Partition) -> AsyncIterator[_Child]:
        child = self._idle.pop() if self._idle else await _Child.started(self._setup)
        try:
            yield child
        except (EOFError, ConnectionError) as error:
            await child.stop()
            child.fail(partition, error)
        except BaseException:
            # Whether it goes on with its partition is not known (a cancel, say): it must not.
            await child.stop()
            raise
        self._idle.append(child)


class _Child:
    """One process."""

    def __init__(self, process: Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._process, self._reader, self._writer = process, reader, writer

    @classmethod
    async def started(cls, setup: Setup) -> _Child:
        ours, theirs = socket.socketpair()
        with theirs:
            path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
            # In a group of its own: Ctrl-C is for the run, which then stops its processes.
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "flows.child", str(theirs.fileno()), pass_fds=[theirs.fileno()],
                process_group=0, env={**os.environ, "PYTHONPATH": path},
            )  # fmt: skip
        reader, writer = await asyncio.open_connection(sock=ours)
        child = cls(process, reader, writer)
        try:
            await send(writer, setup)
        except BaseException:
            await child.stop()
            raise
        return child

    async def made(self, job: Job, tell: Tell) -> Record:
        await send(self._writer, job)
        while True:
            match await receive(self._reader):
                case Advanced(size):
                    await tell(size)
                case Record() as record:
                    return record
                case Broken(error):
                    raise error
                case other:
                    raise TypeError(f"a process sent {other!r}")

    async def stop(self) -> None:
        """End it; what it was writing is aborted. Returns when it is gone, a second cancel notwithstanding."""
        stopping = asyncio.create_task(self._stopped())
        cancelled = False
        while not stopping.done():
            try:
                await asyncio.shield(stopping)
            except asyncio.CancelledError:
                cancelled = True
        if cancelled:
            raise asyncio.CancelledError

    async def _stopped(self) -> None:
        self._writer.close()
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def fail(self, partition: Partition, error: Exception) -> NoReturn:
        code = self._process.returncode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        raise RuntimeError(f"partition {partition.name}: its process {self._process.pid} {how}") from error
