"""Who watches a run in this process: the terminal's bars, or nobody. Prefect's own artifacts do not go through here."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Protocol

from tasks.extractors.contract import Partition, Plan


class Watcher(Protocol):
    """Told what happens; returns at once and never raises."""

    def planned(self, stream: str, plan: Plan) -> None: ...
    def advanced(self, stream: str, partition: Partition, size: int) -> None:
        """``size`` bytes of CSV of the partition are made so far (0: it begins, or begins again)."""

    def done(self, stream: str, partition: Partition, rows: int, size: int) -> None: ...
    def committed(self, stream: str, sequence: int | None) -> None:
        """``None``: there was nothing to commit."""


class Nobody:
    def planned(self, stream: str, plan: Plan) -> None: ...
    def advanced(self, stream: str, partition: Partition, size: int) -> None: ...
    def done(self, stream: str, partition: Partition, rows: int, size: int) -> None: ...
    def committed(self, stream: str, sequence: int | None) -> None: ...


_NOBODY: Watcher = Nobody()
watcher: ContextVar[Watcher] = ContextVar("watcher", default=_NOBODY)
