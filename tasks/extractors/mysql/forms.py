"""How a value on the wire becomes text: as it is, or through one of the few conversions the server cannot do for us.

HEX() and TO_BASE64() on the server give NULL, with a mere warning, for values near ``max_allowed_packet``; its text of a
FLOAT has six digits, which is fewer than there are. So both are done here.
"""

from __future__ import annotations

import struct
from base64 import b64encode
from binascii import hexlify
from collections.abc import Callable
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from typing import Literal

# A geometry is stored as its SRID, in four bytes, and the WKB.
_SRID_BYTES = 4

# Digits before a number is written with an exponent, and zeros after its point: MySQL's my_gcvt().
_MOST_DIGITS = 15
_MOST_ZEROS = 15


class Form(Enum):
    """What is done to a column's values."""

    TEXT = "text"
    """Anything can be in it: quoted where that is needed."""
    PLAIN = "plain"
    """Numbers, dates and times: nothing in them ever needs quotes."""
    BYTES = "bytes"
    """Raw bytes, written as hex or base64."""
    GEOMETRY = "geometry"
    """MySQL's own storage of a geometry, of which the WKB is written as bytes are."""
    FLOAT = "float"
    """Single precision, sent by the server as the double of the same value."""


def conversion(form: Form, binary: Literal["hex", "base64"]) -> Callable[[bytes], bytes] | None:
    """What turns a value as sent into its text; None where it is that already."""
    write = hexlify if binary == "hex" else b64encode
    if form is Form.BYTES:
        return write
    if form is Form.GEOMETRY:
        return lambda value: write(value[_SRID_BYTES:])
    return single if form is Form.FLOAT else None


@lru_cache(maxsize=1 << 14)
def single(text: bytes) -> bytes:
    """The shortest decimal that reads back to the same single-precision bits, laid out as the server writes a DOUBLE."""
    value = float(text)
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    for digits in range(6, 10):  # nine always do
        short = f"{value:.{digits - 1}e}"
        if struct.unpack("<I", struct.pack("<f", float(short)))[0] == bits:
            return laid_out(short)
    raise ValueError(f"{text!r} is not a single-precision number")


def laid_out(scientific: str) -> bytes:
    """``1.50000e+01`` → ``15``: digits and point where the server's DOUBLE has them."""
    sign, digits, exponent = Decimal(scientific).as_tuple()
    figures = "".join(map(str, digits)).rstrip("0")
    if not figures:
        return b"-0" if sign else b"0"
    assert isinstance(exponent, int)  # noqa: S101 - a number that was formatted is neither NaN nor infinite
    point = len(digits) + exponent  # how many digits stand before the decimal point
    return (("-" if sign else "") + _positional(figures, point)).encode()


def _positional(figures: str, point: int) -> str:
    # Of a number as large as that the exponent would save no digit where some stand behind the point.
    if (point > _MOST_DIGITS and len(figures) <= point) or point <= -_MOST_ZEROS:
        mantissa = figures[0] + ("." + figures[1:] if figures[1:] else "")
        return f"{mantissa}e{point - 1}"
    if point <= 0:
        return "0." + "0" * -point + figures
    if point >= len(figures):
        return figures + "0" * (point - len(figures))
    return f"{figures[:point]}.{figures[point:]}"
