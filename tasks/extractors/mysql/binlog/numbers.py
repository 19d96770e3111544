"""Integers, FLOAT, DOUBLE and DECIMAL of a row image as text."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache

from tasks.extractors.mysql.binlog.layouts import Inline, Layout
from tasks.extractors.mysql.binlog.table_map import Code
from tasks.extractors.mysql.forms import laid_out, single
from tasks.extractors.mysql.sql import Flavour

INTEGERS = {
    Code.TINY: ("b", 1),
    Code.SHORT: ("h", 2),
    Code.LONG: ("i", 4),
    Code.LONGLONG: ("q", 8),
    Code.INT24: ("", 3),
}


def integer(code: Code, unsigned: bool) -> Layout:
    form, size = INTEGERS[code]
    inline = Inline(form.upper() if unsigned else form)
    if code is Code.INT24:
        inline = Inline("HB" if unsigned else "Hb", ("@", "@h"), shown="{@|@h<<16}")
    return Layout(lambda raw: str(int.from_bytes(raw, "little", signed=not unsigned)), size=size, inline=inline)


def double(value: float) -> str:
    """A double as the servers write it: the shortest digits that say which it is, laid out as my_gcvt does."""
    text = repr(value)
    if -1e15 < value < 1e15 and "e" not in text:
        return text[:-2] if text.endswith(".0") else text
    if text in ("nan", "inf", "-inf"):
        raise ValueError(f"{text} is no number of MySQL's")
    return laid_out(text).decode()


def _single(value: float) -> str:
    return single(repr(value).encode()).decode()


def real(code: Code, flavour: Flavour) -> Layout:
    form, size, text = ("f", 4, _single) if code is Code.FLOAT else ("d", 8, double)
    unpack = struct.Struct(f"<{form}").unpack
    name = "REAL" if code is Code.DOUBLE else "SINGLE"
    if flavour == "MariaDB":  # it stores -0, and shows it as 0
        inline = Inline(form, shown=f"{{{name}(@ or 0.)}}", needs={name: text})
        return Layout(lambda raw: text(unpack(raw)[0] or 0.0), size=size, inline=inline)
    return Layout(
        lambda raw: text(unpack(raw)[0]), size=size, inline=Inline(form, shown=f"{{{name}(@)}}", needs={name: text})
    )


_MOST_DIGITS = 65
_DIGITS_PER_GROUP = 9
_BYTES_OF_DIGITS = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)


def _groups(digits: int, first_is_short: bool) -> list[int]:
    """How many digits stand in each group of a DECIMAL's integer or fractional part."""
    whole, rest = divmod(digits, _DIGITS_PER_GROUP)
    groups = [_DIGITS_PER_GROUP] * whole
    if rest:
        groups.insert(0 if first_is_short else whole, rest)
    return groups


@dataclass(frozen=True)
class _Decimal:
    """Where the groups of digits of a DECIMAL lie in the one big-endian number that it is."""

    precision: int
    scale: int
    size: int
    """Bytes."""
    groups: tuple[tuple[int, int, int], ...]
    """Shift, mask and number of digits of each."""
    before: int
    """How many groups stand before the point."""

    @classmethod
    @lru_cache(maxsize=1 << 12)
    def of(cls, precision: int, scale: int) -> _Decimal:
        if not 0 <= scale <= precision <= _MOST_DIGITS:
            raise ValueError(f"there is no DECIMAL({precision},{scale})")
        before, after = _groups(precision - scale, True), _groups(scale, False)
        size = left = sum(_BYTES_OF_DIGITS[digits] for digits in before + after)
        groups = []
        for digits in before + after:
            left -= _BYTES_OF_DIGITS[digits]
            groups.append((8 * left, (1 << 8 * _BYTES_OF_DIGITS[digits]) - 1, digits))
        return cls(precision, scale, size, tuple(groups), len(before))

    @property
    def sign(self) -> int:
        """The first bit; it is set where a number is not negative."""
        return 1 << 8 * self.size - 1

    @property
    def ones(self) -> int:
        """All bits, which are turned in a negative number."""
        return (1 << 8 * self.size) - 1


def decimal_text(raw: bytes, precision: int, scale: int) -> str:
    """https://dev.mysql.com/doc/dev/mysql-server/latest/decimal_8cc.html, decimal2bin; ValueError for what is none."""
    how = _Decimal.of(precision, scale)
    if len(raw) != how.size:
        raise ValueError(f"{raw.hex()} is no DECIMAL({precision},{scale})")
    value = int.from_bytes(raw, "big") ^ how.sign
    negative = value & how.sign
    value = value ^ how.ones if negative else value
    figures = ""
    for shift, mask, digits in how.groups:
        group = value >> shift & mask
        if group >= 10**digits:
            raise ValueError(f"{raw.hex()} is no DECIMAL({precision},{scale})")
        figures += f"{group:0{digits}d}"
    whole = figures[: precision - scale].lstrip("0") or "0"
    return ("-" if negative else "") + whole + ("." + figures[precision - scale :] if scale else "")


# Larger ones are rare, and gain less from being written out.
_MOST_INLINE_BYTES = 16


def decimal(precision: int, scale: int) -> Layout:
    how = _Decimal.of(precision, scale)
    inline = _written_out(how) if how.size <= _MOST_INLINE_BYTES else None
    return Layout(lambda raw: decimal_text(raw, precision, scale), size=how.size, inline=inline)


@lru_cache
def _figures(digits: int) -> list[str]:
    """The texts of all groups of so many digits, which are taken from a list faster than they are made."""
    return [f"{value:0{digits}d}" for value in range(10**digits)]


_MOST_LISTED_DIGITS = 4


def _written_out(how: _Decimal) -> Inline:
    groups = list(enumerate(how.groups))
    # A list refuses what is past its end; the others have to be looked at.
    listed = {place for place, (_, _, digits) in groups[how.before :] if digits <= _MOST_LISTED_DIGITS}
    large = [f"@{place}>={10**digits}" for place, (_, _, digits) in groups if place not in listed]
    steps = (
        f"x=INT(@,'big')^{how.sign}",
        f"if x&{how.sign}: x^={how.ones}; @s='-'",
        "else: @s=''",
        *(f"@{place}=x>>{shift}&{mask}" if shift else f"@{place}=x&{mask}" for place, (shift, mask, _) in groups),
        *([f"if {' or '.join(large)}: raise ValueError"] if large else []),
    )
    left, terms = sum(digits for _, (_, _, digits) in groups[: how.before]), []
    for place, (_, _, digits) in groups[: how.before]:
        left -= digits
        terms.append(f"@{place}*{10**left}" if left else f"@{place}")
    fraction = "".join(
        f"{{FIGURES{digits}[@{place}]}}" if place in listed else f"{{@{place}:0{digits}d}}"
        for place, (_, _, digits) in groups[how.before :]
    )
    shown = "{@s}{" + ("+".join(terms) or "0") + "}" + (f".{fraction}" if fraction else "")
    tables = {f"FIGURES{how.groups[place][2]}": _figures(how.groups[place][2]) for place in listed}
    return Inline(f"{how.size}s", steps=steps, shown=shown, needs={"INT": int.from_bytes, **tables})
