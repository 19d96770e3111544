"""Which records are in a window, by their cursor."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tasks.extractors.rest.times import Times, Window


class Sieve:
    """Looks at one record after the other."""

    def __init__(self, times: Times, window: Window) -> None:
        has_bounds = window.since is not None or window.until is not None
        self._read = times.reader() if times.cursor and has_bounds else None
        self._keeps_null = times.null_cursor == "include"
        self._window = window
        self._order = times.order
        self._before = self._after = self._inside = 0

    def is_in(self, record: Any) -> bool:
        """Whether a record is wanted; all are where there is no cursor, or no window."""
        if self._read is None:
            return True
        moment = self._read(record)
        return self._keeps_null if moment is None else self._is_in(moment)

    def is_news(self, record: Any) -> bool:
        """The same, but for records without a time that come with every run."""
        if self._read is None:
            return True
        moment = self._read(record)
        return moment is not None and self._is_in(moment)

    def _is_in(self, moment: datetime) -> bool:
        since, until = self._window.since, self._window.until
        if since is not None and moment <= since:
            self._before += 1
            return False
        if until is not None and moment > until:
            self._after += 1
            return False
        self._inside += 1
        return True

    def is_past(self) -> bool:
        """Whether all records since the last call were on the far side of the window, by the order they come in."""
        before, after, inside = self._before, self._after, self._inside
        self._before = self._after = self._inside = 0
        beyond, rest = (before, after) if self._order == "newest-first" else (after, before)
        return bool(self._order and beyond and not rest and not inside)
