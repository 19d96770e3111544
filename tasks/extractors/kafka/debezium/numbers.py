"""Numbers as PostgreSQL and MySQL write them: the shortest text that reads back to the same bits, exact decimals."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

import numpy as np

_SCIENTIFIC = re.compile(r"(-?)(\d)(?:\.(\d+))?e([-+]\d+)")


def decimal(unscaled: int, scale: int) -> str:
    """``unscaled`` divided by ten to the power of ``scale``, with as many digits behind the point."""
    if scale <= 0:
        return str(unscaled * 10**-scale)
    sign, digits = ("-", str(-unscaled)) if unscaled < 0 else ("", str(unscaled))
    digits = digits.zfill(scale + 1)
    return f"{sign}{digits[:-scale]}.{digits[-scale:]}"


_NAMES = {"NAN": "NaN", "POSITIVE_INFINITY": "Infinity", "NEGATIVE_INFINITY": "-Infinity"}


def plain(text: str) -> str:
    """A decimal as text: without an exponent (``1.5E+3`` → ``1500``), what is no number as PostgreSQL calls it."""
    if text[-1:] not in "0123456789":
        return _NAMES.get(text, text)
    mantissa, _, exponent = text.upper().partition("E")
    if not exponent:
        return text
    whole, _, fraction = mantissa.partition(".")
    return decimal(int(whole + fraction), len(fraction) - int(exponent))


def _special(value: float) -> str:
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


def _digits(value: float, single: bool) -> tuple[str, str, int]:
    """Sign, digits without zeros at their end, and the exponent of the first of them."""
    if single:
        text = np.format_float_scientific(np.float32(value), unique=True, trim="-", exp_digits=1)
    else:
        text = np.format_float_scientific(value, unique=True, trim="-", exp_digits=1)
    found = _SCIENTIFIC.fullmatch(text)
    assert found is not None, text  # noqa: S101 - of a finite number it is always one
    sign, first, rest, exponent = found.groups()
    return sign, (first + (rest or "")).rstrip("0") or "0", int(exponent)


def _postgres(sign: str, digits: str, exponent: int, most: int) -> str:
    if -4 <= exponent < most:
        return sign + _positional(digits, exponent + 1)
    mantissa = digits[0] + ("." + digits[1:] if digits[1:] else "")
    return f"{sign}{mantissa}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"


def _mysql(sign: str, digits: str, exponent: int) -> str:
    """As my_gcvt() of MySQL's dtoa.cc lays it out."""
    point = exponent + 1
    if (point > 15 and len(digits) <= point) or point <= -15:
        mantissa = digits[0] + ("." + digits[1:] if digits[1:] else "")
        return f"{sign}{mantissa}e{exponent}"
    return sign + _positional(digits, point)


def _positional(digits: str, point: int) -> str:
    """``point`` of the digits stand before the decimal point."""
    if point <= 0:
        return "0." + "0" * -point + digits
    if point >= len(digits):
        return digits + "0" * (point - len(digits))
    return f"{digits[:point]}.{digits[point:]}"


def postgres_double(value: float) -> str:
    """As float8out; its rules are repr()'s but for what has 16 digits before the point."""
    text = repr(value)
    if text[-2:] == ".0":
        text = text[:-2]
    if len(text) < 15 or ("e" in text and len(text) > 15):
        return text if text[-1:].isdigit() else _special(value)
    return _postgres(*_digits(value, single=False), most=15) if value - value == 0 else _special(value)


def _zero(value: float) -> str:
    """Apart, as -0.0 is the same key of a cache as 0.0."""
    return repr(value)[:-2]


@lru_cache(maxsize=1 << 14)
def postgres_single(value: float) -> str:
    """As float4out, but for zero."""
    return _postgres(*_digits(value, single=True), most=6) if value - value == 0 else _special(value)


@lru_cache(maxsize=1 << 14)
def mysql_double(value: float) -> str:
    """As a SELECT of a DOUBLE, but for zero."""
    return _mysql(*_digits(value, single=False)) if value - value == 0 else _special(value)


@lru_cache(maxsize=1 << 14)
def mysql_single(value: float) -> str:
    """The shortest that reads back to the same single-precision bits, laid out as a DOUBLE is; but for zero."""
    return _mysql(*_digits(value, single=True)) if value - value == 0 else _special(value)


def real(single: bool, mysql: bool) -> Callable[[float | str], str]:
    """Of a number, or of NaN and Infinity, which JSON has as strings."""
    number = (mysql_single if single else mysql_double) if mysql else (postgres_single if single else postgres_double)

    def text(value: float | str) -> str:
        if isinstance(value, str):
            return value
        return number(value) if value else _zero(value)

    return text
