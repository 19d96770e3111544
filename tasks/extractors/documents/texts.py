"""One value of a JSON document → its text in the dialect, by the type its column is declared with.

Each function gives None for a value that is not of its type. Numbers come as `tasks.extractors.documents.parse` gives them.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from datetime import date as Date  # noqa: N812 - `date` is the function that writes one
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

import msgspec

from tasks.extractors.documents.parse import json_text
from tasks.extractors.fields import FieldType

Text = Callable[[Any], str | None]

_NUMBER = re.compile(r"[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?")
_SPECIAL_NUMBERS = frozenset({"NaN", "Infinity", "-Infinity"})
_STAMP = re.compile(
    r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d(?::\d\d)?)(?:[.,](\d+))? ?(?:([Zz])|([+-]\d\d):?(\d\d)?)?", re.ASCII
)
_UUID = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)
_OBJECT_ID = re.compile(r"[0-9a-f]{24}", re.IGNORECASE)

_MOST_PLACES = 1_000
"""A number whose exponent is larger keeps it: ``1e999999999`` written out would be a gigabyte."""


def text(value: Any) -> str | None:
    return value if type(value) is str else None


def integer(value: Any) -> str | None:
    """Also ``1.0`` and ``1e3``, which JSON does not tell apart from integers."""
    if type(value) is int:
        return str(value)
    if type(value) is not msgspec.Raw:
        return None
    digits = bytes(value).decode()
    if digits.removeprefix("-").isdecimal():  # too many for Python's own
        return digits
    number = Decimal(digits)
    whole = abs(number.adjusted()) < _MOST_PLACES and number == number.to_integral_value()
    return f"{number.to_integral_value():f}" if whole else None


def decimal(value: Any) -> str | None:
    """Exact digits; also from a string, as which many APIs send what must not become a float."""
    digits = _digits(value)
    if digits is None or ("e" not in digits and "E" not in digits):
        return digits
    number = Decimal(digits)
    return f"{number:f}" if abs(number.adjusted()) < _MOST_PLACES else digits


def real(value: Any) -> str | None:
    """The shortest text that reads back to the same bits."""
    digits = _digits(value)
    if digits is None or type(value) is int or digits in _SPECIAL_NUMBERS:
        return digits
    number = repr(float(digits))
    return digits if number in ("inf", "-inf") else number.removesuffix(".0")


def _digits(value: Any) -> str | None:
    kind = type(value)
    if kind is int:
        return str(value)
    if kind is msgspec.Raw:
        return bytes(value).decode()
    if kind is str and (_NUMBER.fullmatch(value) or value in _SPECIAL_NUMBERS):
        return str(value)
    return None


def boolean(value: Any) -> str | None:
    return None if type(value) is not bool else "true" if value else "false"


def date(value: Any) -> str | None:
    try:
        return Date.fromisoformat(value).isoformat() if type(value) is str and len(value) == 10 else None
    except ValueError:
        return None


def timestamp(value: Any) -> str | None:
    """ISO 8601 without an offset."""
    return _stamp(value, zoned=False)


def timestamptz(value: Any) -> str | None:
    """ISO 8601 with an offset, brought to UTC."""
    return _stamp(value, zoned=True)


def _stamp(value: Any, *, zoned: bool) -> str | None:
    if zoned and type(value) is str and is_usual(value):
        return f"{value[:10]} {value[11:-1]}+00"
    match = _STAMP.fullmatch(value) if type(value) is str else None
    if match is None:
        return None
    day, clock, fraction, utc, hours, minutes = match.groups()
    if zoned != bool(utc or hours):
        return None
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}")
        if hours:
            moment -= timedelta(hours=int(hours), minutes=int(hours[0] + (minutes or "0")))
    except (ValueError, OverflowError):
        return None
    return f"{moment.isoformat(' ')}{'.' + fraction if fraction else ''}{'+00' if zoned else ''}"


def is_usual(value: str) -> bool:
    """Whether a stamp is laid out as most are, ``2026-01-31T23:59:59.123Z``: found out in a quarter of the time."""
    try:
        marks = value[4] + value[7] + value[13] + value[16] + value[-1]
        return marks == "--::Z" and value[19] in "Z." and datetime.fromisoformat(value) is not None
    except (ValueError, IndexError):
        return False


def uuid(value: Any) -> str | None:
    if type(value) is not str or not _UUID.fullmatch(value):
        return None
    digits = value.replace("-", "").lower()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def objectid(value: Any) -> str | None:
    """24 hex digits, alone or as MongoDB's Extended JSON has them."""
    if type(value) is dict and list(value) == ["$oid"]:
        value = value["$oid"]
    return value.lower() if type(value) is str and _OBJECT_ID.fullmatch(value) else None


def _bytes_as(form: Literal["hex", "base64"]) -> Text:
    def binary(value: Any) -> str | None:
        """Bytes are base64 in JSON."""
        try:
            data = base64.b64decode(value, validate=True) if type(value) is str else None
        except (binascii.Error, ValueError):
            return None
        if data is None:
            return None
        return data.hex() if form == "hex" else base64.b64encode(data).decode()

    return binary


def texts(binary: Literal["hex", "base64"]) -> Mapping[FieldType, Text]:
    """What writes the values of each type; ``binary``: how bytes are written."""
    return {
        "text": text,
        "integer": integer,
        "decimal": decimal,
        "float": real,
        "boolean": boolean,
        "date": date,
        "timestamp": timestamp,
        "timestamptz": timestamptz,
        "uuid": uuid,
        "objectid": objectid,
        "bytes": _bytes_as(binary),
        "json": json_text,
    }


def whatever(value: Any) -> str:
    """The text of a value whatever its type: strings as they are, all else as JSON."""
    return value if type(value) is str else json_text(value)
