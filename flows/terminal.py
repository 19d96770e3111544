"""A run as bars in a terminal: one for each stream and one for each partition under way."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

from tasks import progress
from tasks.extractors.contract import Partition, Plan


@dataclass
class _Stream:
    """What is known of a stream's run."""

    bar: TaskID
    partitions: int = 1
    expected: int = 0
    started: float = field(default_factory=time.monotonic)
    sizes: dict[str, int] = field(default_factory=dict)
    rows: int = 0
    done: int = 0


class Bars:
    """A `tasks.progress.Watcher` that draws."""

    def __init__(self, drawn: Progress) -> None:
        self._drawn = drawn
        self._streams: dict[str, _Stream] = {}
        self._partitions: dict[tuple[str, str], TaskID] = {}

    def planned(self, stream: str, plan: Plan) -> None:
        known = _Stream(self._drawn.add_task(stream, total=None, told=""))
        known.partitions, known.expected = len(plan.partitions), plan.estimated_bytes or 0
        self._streams[stream] = known

    def advanced(self, stream: str, partition: Partition, size: int) -> None:
        known = self._streams.get(stream)
        if known is None:  # its plan was made by an earlier run
            known = self._streams[stream] = _Stream(self._drawn.add_task(stream, total=None, told=""))
        known.sizes[partition.name] = size
        self._draw_partition(stream, known, partition, size)
        self._draw(known)

    def done(self, stream: str, partition: Partition, rows: int, size: int) -> None:
        known = self._streams[stream]
        known.sizes[partition.name], known.rows, known.done = size, known.rows + rows, known.done + 1
        if (bar := self._partitions.pop((stream, partition.name), None)) is not None:
            self._drawn.remove_task(bar)
        self._draw(known)

    def committed(self, stream: str, sequence: int | None) -> None:
        known = self._streams.get(stream)
        if known is not None:
            told = f"{self._figures(known)}  commit {sequence}" if sequence else "nothing new"
            self._drawn.update(known.bar, total=1, completed=1, told=told)

    def _draw_partition(self, stream: str, known: _Stream, partition: Partition, size: int) -> None:
        if known.partitions == 1:
            return
        name = (stream, partition.name)
        if name not in self._partitions:
            share = known.expected / known.partitions or None
            self._partitions[name] = self._drawn.add_task(f"  {partition.name}", total=share, told="")
        self._drawn.update(self._partitions[name], completed=size, told=f"{size / 1e6:,.1f} MB")

    def _draw(self, known: _Stream) -> None:
        size = sum(known.sizes.values())
        # The estimate may be off; a bar that is full while bytes still come would lie.
        total = max(known.expected, size * 1.02) or None
        self._drawn.update(known.bar, total=total, completed=size, told=self._figures(known))

    @staticmethod
    def _figures(known: _Stream) -> str:
        size = sum(known.sizes.values()) / 1e6
        rate = size / max(time.monotonic() - known.started, 0.001)
        rows = f"{known.rows:,} rows  " if known.rows else ""
        return f"{rows}{size:,.1f} MB  {rate:,.0f} MB/s"


@contextlib.contextmanager
def bars(console: Console) -> Iterator[None]:
    """Draw the runs that begin inside; nothing where the console is not a terminal."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"))
    with Progress(*columns, console=console, disable=not console.is_terminal) as drawn:
        token = progress.watcher.set(Bars(drawn))
        try:
            yield
        finally:
            progress.watcher.reset(token)
