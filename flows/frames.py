"""What a run and its child processes tell each other: pickled values over a socket pair that nobody else has.

Pickled because sources and destinations go along with their secrets, which no text form of theirs tells, and errors come
back as what they are.
"""

from __future__ import annotations

import asyncio
import pickle
import struct
from dataclasses import dataclass
from typing import Any

from blocks.s3 import S3Destination
from tasks.extractors.contract import Plan, ReadOptions
from tasks.extractors.source import Source

_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class Setup:
    """The first that a child is told: what it reads, and where to."""

    stream: str
    source: Source
    to: S3Destination
    options: ReadOptions


@dataclass(frozen=True)
class Job:
    """Then, one after the other: the last partition of the plan is to be extracted."""

    plan: Plan
    sequence: int


@dataclass(frozen=True)
class Advanced:
    """A child has made so many more bytes of CSV. At the end of a job comes a `Record`, or `Broken`."""

    size: int


@dataclass(frozen=True)
class Broken:
    """Why a job failed."""

    error: Exception

    @classmethod
    def of(cls, error: Exception) -> Broken:
        """With an error that can be sent."""
        try:
            pickle.loads(pickle.dumps(error))  # noqa: S301 - what this process has just made
        except Exception:  # an error may be made in any way, and so fail in any
            sent = RuntimeError(f"{type(error).__name__}: {error}")
            for note in getattr(error, "__notes__", ()):
                sent.add_note(note)
            return cls(sent)
        return cls(error)


async def send(writer: asyncio.StreamWriter, value: Any) -> None:
    """Send one value; returns when there is room for more."""
    data = pickle.dumps(value)
    writer.write(_LENGTH.pack(len(data)) + data)
    await writer.drain()


async def receive(reader: asyncio.StreamReader) -> Any:
    """The next value; `EOFError` when the other end is gone."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        return pickle.loads(await reader.readexactly(length))  # noqa: S301 - the socket is the other process's alone
    except asyncio.IncompleteReadError as error:
        raise EOFError("the other process is gone") from error
