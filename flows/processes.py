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
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

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
        child = self._idle.pop() if self._idle else await _Child.started(self._setup)
        try:
            answer = await child.answer(Job(work.plan.only(partition), work.sequence), tell)
        except _GoneError as error:
            await child.stop()
            raise RuntimeError(f"partition {partition.name}: its process {child.end}") from error
        except BaseException:
            # Whether it goes on with its partition is not known (a cancel, say): it must not.
            await child.stop()
            raise
        self._idle.append(child)
        if isinstance(answer, Broken):
            raise answer.error
        return answer


class _GoneError(Exception):
    """A process does not answer any more."""


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
            with suppress(ConnectionError):  # where it ended at once, the first job finds that, too
                await send(writer, setup)
        except BaseException:
            await child.stop()
            raise
        return child

    async def answer(self, job: Job, tell: Tell) -> Record | Broken:
        """What became of a job. `_GoneError` where the process has ended before it told."""
        try:
            await send(self._writer, job)
            while isinstance(told := await receive(self._reader), Advanced):
                await tell(told.size)
        except (EOFError, ConnectionError) as error:
            raise _GoneError from error
        if not isinstance(told, Record | Broken):
            raise TypeError(f"a process sent {told!r}")
        return told

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

    @property
    def end(self) -> str:
        """How it has ended, for people."""
        code = self._process.returncode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return f"{self._process.pid} {how}"
