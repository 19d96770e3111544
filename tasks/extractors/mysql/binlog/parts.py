"""A run's part of the log cut where files begin: each piece can be read by itself, and by another process.

No transaction goes over the end of a file, a file says itself which GTIDs stand before it, and numbers of tables are
given anew in each. What a piece must know of those before it, it looks up there: rows of XA transactions that were
prepared there, and tables that a DROP DATABASE empties.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from blocks.errors import PositionLost
from tasks.extractors.contract import Limits, Partition, ReadOptions
from tasks.extractors.mysql.binlog.log import FIRST
from tasks.extractors.mysql.binlog.position import LogPosition, log_position
from tasks.extractors.mysql.binlog.server import LogFile


def is_slice(partition: Partition) -> bool:
    """Whether it is one of the snapshot's, not of the log."""
    return isinstance(partition.lower, dict) and "slice" in partition.lower


@dataclass(frozen=True)
class Part:
    """A partition of the log."""

    since: LogPosition
    until: LogPosition
    begin: LogPosition | None
    """Where the run begins, of a later part."""

    @classmethod
    def of(cls, partition: Partition) -> Self:
        """As `Within.cut` made it."""
        lower, upper = partition.lower, partition.upper
        if not isinstance(lower, dict):
            raise PositionLost(f"partition {partition.name} is no part of a log")
        since, until, begin = log_position(lower["since"]), log_position(upper), log_position(lower["begin"])
        if since is None or until is None:
            raise PositionLost(f"partition {partition.name} is no part of a log")
        return cls(since, until, begin)


@dataclass(frozen=True)
class Within:
    """What lies between two positions of the log, in files of these sizes."""

    since: LogPosition
    until: LogPosition
    files: Sequence[LogFile]

    @property
    def size(self) -> int:
        """In bytes."""
        whole = sum(file.size for file in self.files if self.since.number <= file.number < self.until.number)
        return whole + self.until.position - self.since.position

    def cut(self, options: ReadOptions) -> tuple[Partition, ...]:
        """As many as asked for, or as give each about ``object_bytes`` of log, as far as files allow."""
        starts = list(self._starts(self._least(options)))
        ends = [*starts[1:], self.until]
        name = "log" if len(starts) == 1 else "log-{:06d}"
        return tuple(
            Partition(
                name=name.format(start.number),
                lower={
                    "since": start.model_dump(mode="json"),
                    "begin": self.since.model_dump(mode="json") if start is not self.since else None,
                },
                upper=end.model_dump(mode="json"),
            )
            for start, end in zip(starts, ends, strict=True)
        )

    def _least(self, options: ReadOptions) -> float:
        # A limit ends a run where it is reached: nothing may be read beyond. The others depend on what comes before them.
        if options.limits != Limits() or self.since.by_gtids or self.since.not_before:
            return float("inf")
        return self.size / options.partitions if options.partitions else options.object_bytes

    def _starts(self, least: float) -> Iterator[LogPosition]:
        """Each the begin of a file, but the first."""
        yield self.since
        size = -self.since.position
        for file in self.files:
            # Of two places, the one that is nearer to what is wanted.
            if self.since.number < file.number <= self.until.number and size + file.size / 2 >= least:
                yield LogPosition(server=self.until.server, file=file.name, position=FIRST, epoch=self.since.epoch)
                size = 0
            if file.number >= self.since.number:
                size += file.size
