"""The events of XA transactions that are prepared and not decided yet, in bounded memory."""

from __future__ import annotations

from tasks.extractors.mysql.binlog.transactions import Map, Rows

_KEPT_BYTES = 16 << 20
"""Events of XA transactions that are kept until it is known how they end; those of others are read once more then."""


class Kept:
    """Events of XA transactions, as long as they are few: a connection for each, to read them again, is slow."""

    def __init__(self) -> None:
        self._open: list[Map | Rows] = []
        self._of: dict[str, list[Map | Rows]] = {}
        self._room = _KEPT_BYTES
        self._is_whole = True

    def begin(self) -> None:
        """Another transaction begins; what was open is none that is kept."""
        self._room += _size(self._open)
        self._open, self._is_whole = [], True

    def add(self, step: Map | Rows) -> None:
        """An event of the transaction that is open."""
        size = _size([step])
        self._is_whole = self._is_whole and size <= self._room
        if self._is_whole:
            self._open.append(step)
            self._room -= size

    def keep(self, xid: str) -> None:
        """It is prepared: its events may be asked for."""
        if self._is_whole:
            self._of[xid], self._open = self._open, []

    def taken(self, xid: str) -> list[Map | Rows] | None:
        """The events of a transaction that is decided; None where they are not kept."""
        steps = self._of.pop(xid, None)
        self._room += _size(steps or [])
        return steps


def _size(steps: list[Map | Rows]) -> int:
    return sum(step.event.size for step in steps)
