"""Dates and times of Debezium's events as PostgreSQL's and MySQL's SELECT write them.

``digits``: of the fraction of a second; None: as many as there are, without zeros at their end, as PostgreSQL does.
Types: https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-temporal-types
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone

_EPOCH = date(1970, 1, 1).toordinal()
_FIRST, _LAST = 1 - _EPOCH, date.max.toordinal() - _EPOCH
FIRST_SECOND, LAST_SECOND = _FIRST * 86400, (_LAST + 1) * 86400
"""Of the years 1 to 9999, since 1970; the last is the first of the year after."""
_MEMO_MOST = 1 << 17

_POSITIVE_DATES = frozenset({-2147472692, -622191234})
"""What becomes of the date infinity: PostgreSQL's own largest number, days from 2000 (from the WAL), or the JDBC
driver's DATE_POSITIVE_INFINITY (in a snapshot), both past the end of 32 bits. No date of PostgreSQL is that early."""
_NEGATIVE_DATES = frozenset({-2147472691, -625821272})
POSITIVE_INFINITY, NEGATIVE_INFINITY = 9223372036825200000, -9223372036832400000
"""PGStatement.DATE_POSITIVE_INFINITY and its counterpart, which Debezium writes for timestamps."""


def day(days: int) -> str:
    """A date by its number of days since 1970."""
    if _FIRST <= days <= _LAST:
        return date.fromordinal(days + _EPOCH).isoformat()
    if days in _POSITIVE_DATES:
        return "infinity"
    if days in _NEGATIVE_DATES:
        return "-infinity"
    year, month, of_month = _civil(days)
    return f"{year:04d}-{month:02d}-{of_month:02d}" if year > 0 else f"{1 - year:04d}-{month:02d}-{of_month:02d} BC"


def _civil(days: int) -> tuple[int, int, int]:
    """Of the proleptic Gregorian calendar; there is a year 0. It repeats itself every 400 years, which are 146097 days."""
    eras, rest = divmod(days - _FIRST, 146097)
    found = date.fromordinal(rest + 1)
    return found.year + 400 * eras, found.month, found.day


class _Memo(dict[int, str]):
    """Texts of numbers, made when they are first met."""

    def __init__(self, make: Callable[[int], str]) -> None:
        self._make = make

    def __missing__(self, number: int) -> str:
        if len(self) >= _MEMO_MOST:
            self.clear()
        text = self[number] = self._make(number)
        return text


DAYS = _Memo(day)
CLOCKS = _Memo(lambda second: f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}")
"""By seconds; more than a day of them too."""
INSTANTS = _Memo(lambda second: f"{DAYS[second // 86400]} {CLOCKS[second % 86400]}")
"""By seconds since 1970, of dates that have four digits of a year."""


def _fraction(value: int, width: int, digits: int | None) -> str:
    """``.5`` of a fraction of so many digits."""
    if digits is None:
        return f".{value:0{width}d}".rstrip("0") if value else ""
    return f".{value:0{width}d}"[: digits + 1].ljust(digits + 1, "0") if digits else ""


def clock(width: int, digits: int | None) -> Callable[[int], str]:
    """A time of day, or a span of time, in units of ten to the power of ``-width`` seconds."""
    unit = 10**width

    def text(value: int) -> str:
        sign, value = ("-", -value) if value < 0 else ("", value)
        second, fraction = divmod(value, unit)
        return sign + CLOCKS[second] + _fraction(fraction, width, digits)

    return text


def stamp(width: int, digits: int | None) -> Callable[[int], str]:
    """A time of a day, in units of ten to the power of ``-width`` seconds since 1970."""
    unit = 10**width
    first, last = FIRST_SECOND * unit, LAST_SECOND * unit

    def text(value: int) -> str:
        if not first <= value < last:
            return _far(value)
        fraction = value % unit
        if fraction:
            return INSTANTS[value // unit] + _fraction(fraction, width, digits)
        return INSTANTS[value // unit] + _fraction(0, width, digits) if digits else INSTANTS[value // unit]

    def _far(value: int) -> str:
        for number, name in ((POSITIVE_INFINITY, "infinity"), (NEGATIVE_INFINITY, "-infinity")):
            if value in (number, number // 1000):
                return name
        second, fraction = divmod(value, unit)
        return with_era(DAYS[second // 86400], f"{CLOCKS[second % 86400]}{_fraction(fraction, width, digits)}")

    return text


def with_era(of_day: str, rest: str) -> str:
    """``0044-03-15 BC`` and a time: the era stands at the end."""
    return f"{of_day[:-3]} {rest} BC" if of_day.endswith(" BC") else f"{of_day} {rest}"


_ISO = re.compile(
    r"([-+]?\d{4,})-(\d\d)-(\d\d)(?:T(\d\d:\d\d)(?::(\d\d)(?:\.(\d+))?)?)?(Z|[-+]\d\d(?::?\d\d(?::?\d\d)?)?)?"
)
_ISO_TIME = re.compile(r"(\d\d:\d\d)(?::(\d\d)(?:\.(\d+))?)?(Z|[-+]\d\d(?::?\d\d)?)?")
_INFINITE = ("infinity", "-infinity")
_INFINITE_STAMPS = {"+294247-01-10T04:00:25.2Z": "infinity", "-290308-12-21T19:59:27.6Z": "-infinity"}
"""The numbers that stand for the infinities, as timestamps."""


def iso_stamp(digits: int | None, *, zoned: bool) -> Callable[[str], str]:
    """Of ``2024-02-29T21:59:59.123456Z``; ``zoned``: an instant, written in UTC with ``+00``."""
    suffix = "+00" if zoned else ""

    def text(value: str) -> str:
        # Six digits of a fraction, as PostgreSQL's connector writes a column without a precision; then all but the odd one.
        if len(value) == 27 and digits is None and value[26] == "Z" and value[10] == "T" and value[19] == ".":
            return f"{value[:10]} {value[11:26].rstrip('0').rstrip('.')}{suffix}"
        if value[10:11] != "T" or value[-1] != "Z" or value[0] in "+-" or len(value) < 20:
            return _odd(value)
        if len(value) == 20:
            return f"{value[:10]} {value[11:19]}{_fraction(0, 6, digits)}{suffix}"
        if value[19] != ".":
            return _odd(value)
        return f"{value[:10]} {value[11:19]}{_of_fraction(value[20:-1], digits)}{suffix}"

    def _odd(value: str) -> str:
        if value in _INFINITE:
            return value
        if value in _INFINITE_STAMPS:
            return _INFINITE_STAMPS[value]
        found = _ISO.fullmatch(value)
        if found is None or found[4] is None:
            raise ValueError(f"{value!r} is no timestamp")
        year, of_day, offset = int(found[1]), f"-{found[2]}-{found[3]}", found[7] or "Z"
        rest = f"{found[4]}:{found[5] or '00'}"
        fraction = _of_fraction(found[6] or "", digits)
        if zoned and offset != "Z":
            moved = _moved(f"{year:04d}{of_day} {rest}", offset)
            return f"{moved}{fraction}{suffix}"
        return with_era(_year(year, of_day), rest + fraction + suffix)

    return text


def _moved(local: str, offset: str) -> str:
    """In UTC."""
    hours, minutes = int(offset[1:3]), int(offset[3:].replace(":", "")[:2] or 0)
    zone = timezone((-1 if offset[0] == "-" else 1) * timedelta(hours=hours, minutes=minutes))
    moved = datetime.fromisoformat(local).replace(tzinfo=zone).astimezone(timezone.utc)  # noqa: UP017 - as its neighbour
    return moved.replace(tzinfo=None).isoformat(sep=" ")


def _year(year: int, of_day: str) -> str:
    return f"{year:04d}{of_day}" if year > 0 else f"{1 - year:04d}{of_day} BC"


def _of_fraction(figures: str, digits: int | None) -> str:
    if digits is None:
        figures = figures.rstrip("0")
        return f".{figures}" if figures else ""
    return f".{figures[:digits].ljust(digits, '0')}" if digits else ""


def iso_day(value: str) -> str:
    """Of ``2024-02-29Z`` or ``2024-02-29``."""
    if value in _INFINITE:
        return value
    found = _ISO.fullmatch(value)
    if found is None:
        raise ValueError(f"{value!r} is no date")
    year = int(found[1])
    if not -4713 < year <= 5874897:
        # What PostgreSQL has no date for stands for one of the infinities; see `_POSITIVE_DATES`.
        return "infinity" if year > 0 or value.startswith("-5877611-06-21") else "-infinity"
    return _year(year, f"-{found[2]}-{found[3]}")


def iso_clock(digits: int | None, *, zoned: bool) -> Callable[[str], str]:
    """Of ``10:00:00.5Z``; ``zoned``: with its offset, which Debezium has turned to UTC."""

    def text(value: str) -> str:
        found = _ISO_TIME.fullmatch(value)
        if found is None:
            raise ValueError(f"{value!r} is no time")
        offset = (found[4] or "Z").replace("Z", "+00") if zoned else ""
        return f"{found[1]}:{found[2] or '00'}{_of_fraction(found[3] or '', digits)}{offset.removesuffix(':00')}"

    return text


_INTERVAL = re.compile(
    r"P(?:(-?\d+)Y)?(?:(-?\d+)M)?(?:(-?\d+)D)?(?:T(?:(-?\d+)H)?(?:(-?\d+)M)?(?:(-?\d+(?:\.\d+)?(?:E[-+]?\d+)?)S)?)?"
)


def interval(value: str) -> str:
    """An interval as PostgreSQL writes it with ``IntervalStyle`` iso_8601: ``P1Y2M-3DT4H5M6.7S``."""
    found = _INTERVAL.fullmatch(value)
    if found is None:
        raise ValueError(f"{value!r} is no interval")
    years, months, days, hours, minutes = (int(part or 0) for part in found.groups()[:5])
    micros = (hours * 3600 + minutes * 60) * 1_000_000 + round(float(found[6] or 0) * 1_000_000)
    return _interval(12 * years + months, days, micros)


def duration(width: int) -> Callable[[int], str]:
    """A number of units of ten to the power of ``-width`` seconds, as an interval of hours, minutes and seconds."""
    return lambda value: _interval(0, 0, value * 10 ** (6 - width) if width <= 6 else value // 10 ** (width - 6))


def _interval(months: int, days: int, micros: int) -> str:
    sign = -1 if micros < 0 else 1
    seconds, fraction = divmod(abs(micros), 1_000_000)
    year = abs(months) // 12 * (-1 if months < 0 else 1)
    parts = [f"{number}{unit}" for number, unit in ((year, "Y"), (months - 12 * year, "M"), (days, "D")) if number]
    times = [f"{sign * number}{unit}" for number, unit in ((seconds // 3600, "H"), (seconds // 60 % 60, "M")) if number]
    if seconds % 60 or fraction:
        times.append(f"{'-' if sign < 0 else ''}{seconds % 60}{_fraction(fraction, 6, None)}S")
    if not parts and not times:
        return "PT0S"
    return "P" + "".join(parts) + ("T" + "".join(times) if times else "")
