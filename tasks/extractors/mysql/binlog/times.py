"""Dates and times of a row image as text, in today's formats and those of before MySQL 5.6.

Formats: my_time_packed_to_binary and my_datetime_packed_to_binary of
https://dev.mysql.com/doc/dev/mysql-server/latest/my__time_8cc.html. ``zero``: what is written for a date that no
calendar has; None: the date itself.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta

from tasks.extractors.mysql.binlog.columns import LogColumn
from tasks.extractors.mysql.binlog.layouts import Inline, Layout
from tasks.extractors.mysql.binlog.table_map import Code

# More than the seconds of a day.
_MEMO_MOST = 1 << 17


class _Memo(dict[int, str]):
    """Texts of numbers, made when they are first met."""

    def __init__(self, make: Callable[[int], str]) -> None:
        self._make = make

    def __missing__(self, number: int) -> str:
        if len(self) >= _MEMO_MOST:
            self.clear()
        text = self[number] = self._make(number)
        return text


def _date_text(year: int, month: int, day: int) -> str:
    if year > 9999 or month > 12:
        raise ValueError(f"{year}-{month}-{day} is no date")
    return f"{year:04d}-{month:02d}-{day:02d}"


def _clock_text(hour: int, minute: int, second: int) -> str:
    if hour > 23 or minute > 59 or second > 59:
        raise ValueError(f"{hour}:{minute}:{second} is no time")
    return f"{hour:02d}:{minute:02d}:{second:02d}"


def _of_three_bytes(number: int) -> str:
    return _date_text(number >> 9, number >> 5 & 15, number & 31)


def _of_packed(number: int) -> str:
    year, month = divmod(number >> 5, 13)
    return _date_text(year, month, number & 31)


_DATES = _Memo(_of_three_bytes)
_DAYS = _Memo(_of_packed)
_CLOCKS = _Memo(lambda number: _clock_text(number >> 12, number >> 6 & 63, number & 63))
_EPOCH = date(1970, 1, 1)


def _instant(seconds: int) -> str:
    day, second = divmod(seconds, 86400)
    return f"{_EPOCH + timedelta(day)} {second // 3600:02d}:{second % 3600 // 60:02d}:{second % 60:02d}"


_INSTANTS = _Memo(_instant)

# Bytes and digits stored for so many digits shown.
_FRACTION_BYTES = (0, 1, 1, 2, 2, 3, 3)


def _fraction(value: int, digits: int) -> str:
    """``.5`` … with so many digits, of a fraction stored with an even number of them."""
    stored = 2 * _FRACTION_BYTES[digits]
    if value >= 10**stored:
        raise ValueError(f"{value} is no fraction of {stored} digits")
    return "." + f"{value:0{stored}d}"[:digits] if digits else ""


_FRACTIONS = {digits: _Memo(lambda value, digits=digits: _fraction(value, digits)) for digits in range(7)}  # type: ignore[misc]


def _date(_digits: int, zero: str | None) -> Layout:
    dates = _DATES if zero is None else _Memo(lambda n: zero if not n & 31 or not n >> 5 & 15 else _of_three_bytes(n))
    name = "DATES" if zero is None else "REALDATES"
    inline = Inline("HB", ("@", "@h"), shown="{" + name + "[@|@h<<16]}", needs={name: dates})

    def text(raw: bytes) -> str | None:
        number = int.from_bytes(raw, "little")
        return None if zero is not None and (not number & 31 or not number >> 5 & 15) else _DATES[number]

    return Layout(text, size=3, inline=inline)


_DATETIME_BIAS = 1 << 39


def _datetime(digits: int, zero: str | None) -> Layout:
    size = 5 + _FRACTION_BYTES[digits]
    bits = 8 * _FRACTION_BYTES[digits]
    bias, mask = _DATETIME_BIAS << bits, (1 << bits) - 1
    fractions = _FRACTIONS[digits]

    def text(raw: bytes) -> str | None:
        value = int.from_bytes(raw, "big") - bias
        if value < 0:
            raise ValueError(f"{raw.hex()} is no DATETIME")
        day, clock = value >> bits + 17, value >> bits & 0x1FFFF
        if zero is not None and (not day & 31 or not (day >> 5) % 13):
            return None
        return f"{_DAYS[day]} {_CLOCKS[clock]}{fractions[value & mask]}"

    steps = [f"x=INT(@,'big')-{bias}", "if x<0: raise ValueError", f"@d=x>>{bits + 17}"]
    made = f"f'{{DAYS[@d]}} {{CLOCKS[x>>{bits}&0x1ffff]}}" + (f"{{FRACTION{digits}[x&{mask}]}}'" if digits else "'")
    if zero is None:
        steps.append("@=" + made)
    else:
        steps.append("@=" + f"{made} if @d&31 and (@d>>5)%13 else NULL")
    needs = {"INT": int.from_bytes, "DAYS": _DAYS, "CLOCKS": _CLOCKS, f"FRACTION{digits}": fractions}
    return Layout(text, size=size, inline=Inline(f"{size}s", steps=tuple(steps), needs=needs))


def _timestamp(digits: int, zero: str | None) -> Layout:
    """Seconds since 1970, of which 0 is the zero timestamp, and a fraction."""
    size, bits = 4 + _FRACTION_BYTES[digits], 8 * _FRACTION_BYTES[digits]
    fractions, mask = _FRACTIONS[digits], (1 << bits) - 1

    def text(raw: bytes) -> str | None:
        value = int.from_bytes(raw, "big")
        return _timestamp_text(value >> bits, fractions[value & mask], zero is not None)

    none = "NULL" if zero is not None else repr("0000-00-00 00:00:00" + _fraction(0, digits))
    made = f"f'{{INSTANTS[x>>{bits}]}}" + (f"{{FRACTION{digits}[x&{mask}]}}+00'" if digits else "+00'")
    steps = ("x=INT(@,'big')", f"@={made} if x>>{bits} else {none}")
    needs = {"INT": int.from_bytes, "INSTANTS": _INSTANTS, f"FRACTION{digits}": fractions}
    return Layout(text, size=size, inline=Inline(f"{size}s", steps=steps, needs=needs))


def _timestamp_text(seconds: int, fraction: str, zero_is_null: bool) -> str | None:
    if seconds:
        return f"{_INSTANTS[seconds]}{fraction}+00"
    return None if zero_is_null else f"0000-00-00 00:00:00{fraction}"


_TIME_BIAS = 1 << 23


def _time(digits: int, _zero: str | None) -> Layout:
    """Hours, minutes, seconds and fraction as one signed number, moved up so that it sorts as bytes."""
    bits = 8 * _FRACTION_BYTES[digits]

    def text(raw: bytes) -> str:
        value = int.from_bytes(raw, "big") - (_TIME_BIAS << bits)
        sign, value = ("-", -value) if value < 0 else ("", value)
        clock = value >> bits
        return sign + _long_clock(clock >> 12, clock >> 6 & 63, clock & 63) + _fraction(value & (1 << bits) - 1, digits)

    return Layout(text, size=3 + _FRACTION_BYTES[digits])


def _long_clock(hour: int, minute: int, second: int) -> str:
    if minute > 59 or second > 59:
        raise ValueError(f"{hour}:{minute}:{second} is no time")
    return f"{hour:02d}:{minute:02d}:{second:02d}"


TIMES: dict[Code, Callable[[int, str | None], Layout]] = {
    Code.DATE: _date,
    Code.NEWDATE: _date,
    Code.DATETIME2: _datetime,
    Code.TIMESTAMP2: _timestamp,
    Code.TIME2: _time,
}

# -- times of before MySQL 5.6, and of MariaDB without mysql56_temporal_format ----------------------------------------

# MariaDB's of 5.3 with a fraction, by its digits: sec_part_bytes, time_hires_bytes and datetime_hires_bytes of field.cc.
_OLD_SIZES = {
    Code.TIMESTAMP: (4, 5, 5, 6, 6, 7, 7),
    Code.TIME: (3, 4, 4, 5, 5, 5, 6),
    Code.DATETIME: (8, 6, 6, 7, 7, 7, 8),
}
_OLD_TIME_ZERO_SECONDS = 839 * 3600  # TIME_MAX_VALUE_SECONDS + 1, moved up by


def old_time(code: Code, column: LogColumn, zero_is_null: bool) -> Layout:
    digits = column.numbers[0] if column.numbers else 0
    size = _OLD_SIZES[code][digits]

    def timestamp(raw: bytes) -> str | None:
        seconds, fraction = (
            (int.from_bytes(raw[:4], "big"), raw[4:]) if digits else (int.from_bytes(raw, "little"), b"")
        )
        return _timestamp_text(seconds, _decimals(int.from_bytes(fraction, "big"), digits), zero_is_null)

    def time(raw: bytes) -> str:
        if digits:
            value = int.from_bytes(raw, "big") - _OLD_TIME_ZERO_SECONDS * 10**digits
            sign, (clock, fraction) = "-" if value < 0 else "", divmod(abs(value), 10**digits)
            return sign + _long_clock(clock // 3600, clock // 60 % 60, clock % 60) + _decimals(fraction, digits)
        value = int.from_bytes(raw, "little", signed=True)
        shown = abs(value)
        return ("-" if value < 0 else "") + _long_clock(shown // 10000, shown // 100 % 100, shown % 100)

    def datetime(raw: bytes) -> str | None:
        if digits:
            rest, fraction = divmod(int.from_bytes(raw, "big"), 10**digits)
            rest, second = divmod(rest, 60)
            rest, minute = divmod(rest, 60)
            rest, hour = divmod(rest, 24)
            rest, day = divmod(rest, 32)
            year, month = divmod(rest, 13)
        else:
            shown, fraction = int.from_bytes(raw, "little"), 0
            year, month, day = shown // 10**10, shown // 10**8 % 100, shown // 10**6 % 100
            hour, minute, second = shown // 10**4 % 100, shown // 100 % 100, shown % 100
        if zero_is_null and (not month or not day):
            return None
        return f"{_date_text(year, month, day)} {_clock_text(hour, minute, second)}{_decimals(fraction, digits)}"

    return Layout({Code.TIMESTAMP: timestamp, Code.TIME: time, Code.DATETIME: datetime}[code], size=size)


def _decimals(value: int, digits: int) -> str:
    if value >= 10**digits:
        raise ValueError(f"{value} is no fraction of {digits} digits")
    return f".{value:0{digits}d}" if digits else ""
