"""Windows of time: their bounds, how requests and records write them, and how they are cut.

A bound is a moment in UTC with microseconds at most; for the format ``date`` it is a midnight, and stands for all of its day.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from blocks.errors import ConfigurationError
from tasks.extractors import cuts
from tasks.extractors.contract import Frozen
from tasks.extractors.documents import MISSING, getter
from tasks.extractors.durations import duration
from tasks.extractors.position import null_cursor_error
from tasks.extractors.source import NullCursor

TimeFormat = Literal["iso", "epoch", "epoch-ms", "date"]
Order = Literal["", "newest-first", "oldest-first"]

_DAY = timedelta(days=1)
_BEYOND = timedelta(seconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECONDS, _MICROSECONDS = 10**11, 10**14
"""From here on a number counts milliseconds, or microseconds: as seconds it would be the year 5138."""


class Window(Frozen):
    """``(since, until]``; None: open."""

    since: datetime | None = None
    until: datetime | None = None


class Times(Frozen):
    """Everything about time that an endpoint is told: see `tasks.extractors.rest.source`."""

    cursor: str = ""
    lag: str = ""
    lookback: str = ""
    null_cursor: NullCursor = "fail"
    zone: str = ""
    format: TimeFormat = "iso"
    start: str = ""
    split: str = ""
    order: Order = ""

    def timezone(self) -> tzinfo:
        """Of days, and of records' times without one; `ConfigurationError` when there is none of the name."""
        try:
            return ZoneInfo(self.zone) if self.zone else UTC
        except (ZoneInfoNotFoundError, ValueError):
            raise ConfigurationError(f"field cursor_timezone: there is no time zone {self.zone!r}") from None

    # -- bounds --------------------------------------------------------------------------------------------------

    def until(self, now: datetime) -> datetime:
        """Where a window ends that is read at ``now`` of the server: at a whole second, or the last day that is over."""
        held = now.replace(microsecond=0) - (duration("lag", self.lag) if self.lag else timedelta())
        return self._day(held) - _DAY if self.format == "date" else held

    def first(self) -> datetime | None:
        """Where the first window begins."""
        if not self.start:
            return None
        found = _moment(self.start, self.timezone())
        if found is None:
            raise ConfigurationError(
                f"field window.start: {self.start!r} is no time such as 2026-01-31 or 2026-01-31T12:00:00Z"
            )
        return self._day(found) - _DAY if self.format == "date" else found

    def looked_back(self, since: datetime | None) -> datetime | None:
        """``since``, so much earlier as the field lookback says."""
        if since is None or not self.lookback:
            return since
        earlier = since - duration("lookback", self.lookback)
        return self._day(earlier) if self.format == "date" else earlier

    def inner(self, window: Window, pieces: int) -> list[datetime]:
        """The bounds inside a window that cut it by ``split``, or into so many pieces; none where it has an open end.

        `ConfigurationError` where ``split`` would make more than there may be.
        """
        if window.since is None or window.until is None:
            return []
        step = timedelta(days=1) if self.format == "date" else timedelta(seconds=1)
        units = (window.until - window.since) // step
        if self.split:
            span = max(1, duration("window.split", self.split) // step)
            places = range(span, units, span)
            if len(places) >= cuts.MAX_PARTITIONS:
                raise ConfigurationError(
                    f"field window.split: the window would be cut into {len(places) + 1:,} partitions; "
                    f"{cuts.MAX_PARTITIONS:,} are the most. Choose a longer span, or a later window.start"
                )
            return [window.since + step * n for n in places]
        pieces = min(pieces, units)
        return [window.since + step * (units * n // pieces) for n in range(1, pieces)]

    # -- texts ---------------------------------------------------------------------------------------------------

    def written(self, bound: datetime, *, is_since: bool) -> str:
        """A bound as requests have it."""
        if not is_since and self.cursor and self.format != "date":
            # Some APIs leave the end out: what is stamped there is asked for, and what is behind it left out by its cursor.
            bound += _BEYOND
        match self.format:
            case "date":
                # Ends of a range of days both belong to it.
                return (bound + _DAY if is_since else bound).date().isoformat()
            case "epoch":
                return str((bound - _EPOCH) // timedelta(seconds=1))
            case "epoch-ms":
                return str((bound - _EPOCH) // timedelta(milliseconds=1))
        return text_of(bound)

    def stored(self, bound: datetime) -> str:
        """A bound as the watermark has it."""
        return bound.date().isoformat() if self.format == "date" else text_of(bound)

    def moment(self, stored: str) -> datetime:
        """What was `stored`, or what a person has set; `ConfigurationError` when it is no time."""
        found = _moment(stored, self.timezone())
        if found is None:
            raise ConfigurationError(f"the position {stored!r} is no time; set one with `headrace state set`")
        return self._day(found) if self.format == "date" else found

    def _day(self, moment: datetime) -> datetime:
        local = moment.astimezone(self.timezone())
        return datetime(local.year, local.month, local.day, tzinfo=UTC)

    # -- records -------------------------------------------------------------------------------------------------

    def reader(self) -> Callable[[Any], datetime | None]:
        """Gives the time of a record: None where it has none, and the field null_cursor lets that pass."""
        get, zone, by_day = getter(self.cursor, "cursor"), self.timezone(), self.format == "date"

        def read(record: Any) -> datetime | None:
            value = get(record)
            if value is None or value is MISSING:
                if self.null_cursor == "fail":
                    raise null_cursor_error(self.cursor)
                return None
            found = _moment(value, zone)
            if found is None:
                raise ConfigurationError(
                    f"field cursor: {self.cursor} of a record is no time (ISO 8601, or a number since 1970)"
                )
            return self._day(found) if by_day else found

        return read


def text_of(moment: datetime) -> str:
    """``2026-01-31T23:59:59Z``, with the fraction there is."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _moment(value: Any, zone: tzinfo) -> datetime | None:
    """ISO 8601, or seconds, milliseconds or microseconds since 1970; None for anything else."""
    try:
        if type(value) is str:
            # Years past 9999 and such are no times to Python.
            found = datetime.fromisoformat(value) if not value.isdecimal() else _since_1970(int(value))
            return (found if found.tzinfo else found.replace(tzinfo=zone)).astimezone(UTC)
        if type(value) is int:
            return _since_1970(value)
        return _since_1970(float(bytes(value))) if type(value) is msgspec.Raw else None
    except (ValueError, OverflowError):
        return None


def _since_1970(value: float) -> datetime:
    size = abs(value)
    unit = 10**6 if size < _MILLISECONDS else 10**3 if size < _MICROSECONDS else 1
    return _EPOCH + timedelta(microseconds=int(value * unit))
