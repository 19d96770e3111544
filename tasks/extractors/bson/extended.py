"""Extended JSON → BSON, whichever form it has: relaxed, canonical, or the old strict one.

https://www.mongodb.com/docs/manual/reference/mongodb-extended-json/ and, for the strict form, …-extended-json-v1/. Drivers' own
readers give a language's values, which turns symbols into strings and undefined into null.
"""

from __future__ import annotations

import json
import struct
from base64 import b64decode
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import msgspec
from bson.decimal128 import Decimal128

from tasks.extractors.bson.layout import Kind

_INT32 = range(-(1 << 31), 1 << 31)
_int32 = struct.Struct("<i").pack
_int64 = struct.Struct("<q").pack
_double = struct.Struct("<d").pack
_pair = struct.Struct("<II").pack
_words = struct.Struct("<QQ").pack

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def parsed(text: str | bytes) -> Any:
    """JSON; NaN and infinities may stand bare, as the strict form has them. `ValueError` for what is none."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return json.loads(text)


def document(value: Any) -> bytes:
    """A parsed document as BSON; `ValueError` for what is none."""
    if not isinstance(value, dict):
        raise ValueError("it is no document")  # noqa: TRY004 - what is no document is bad data, and no mistake of a caller
    return _document(value)


def _document(members: Mapping[str, Any]) -> bytes:
    parts: list[bytes] = []
    for name, value in members.items():
        # What most values are, without a call for each.
        if type(value) is str:
            raw = value.encode()
            parts += (b"\2", _name(name), _int32(len(raw) + 1), raw, b"\0")
        else:
            kind, data = _VALUES[type(value)](value)
            parts += (_BYTES[kind], _name(name), data)
    return _framed(parts)


def _framed(parts: list[bytes]) -> bytes:
    body = b"".join(parts)
    return _int32(len(body) + 5) + body + b"\0"


@lru_cache(maxsize=4096)
def _name(text: str) -> bytes:
    if "\0" in text:
        raise ValueError(f"BSON has no names such as {text!r}")
    return text.encode() + b"\0"


def _text(text: str) -> bytes:
    raw = text.encode()
    return _int32(len(raw) + 1) + raw + b"\0"


_BYTES = [bytes((kind,)) for kind in range(256)]

Made = tuple[int, bytes]
"""The kind of a value, and its bytes."""


def _number(value: int) -> Made:
    try:
        return (Kind.INT32, _int32(value)) if value in _INT32 else (Kind.INT64, _int64(value))
    except struct.error:
        raise ValueError(f"BSON has no integer {value}") from None


def _array(values: list[Any]) -> Made:
    return Kind.ARRAY, _document({str(place): value for place, value in enumerate(values)})


def _members(members: dict[str, Any]) -> Made:
    if (read := _MARKED.get(tuple(members))) is not None:
        try:
            return read(members)
        except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, struct.error):
            pass  # somebody's own field, which only looks like a type
    return Kind.DOCUMENT, _document(members)


_VALUES: dict[type, Callable[[Any], Made]] = {
    str: lambda value: (Kind.STRING, _text(value)),
    bool: lambda value: (Kind.BOOLEAN, b"\1" if value else b"\0"),
    int: _number,
    float: lambda value: (Kind.DOUBLE, _double(value)),
    type(None): lambda _value: (Kind.NULL, b""),
    list: _array,
    dict: _members,
}


# -- values that say their type ---------------------------------------------------------------------------------------------


def _date(members: Mapping[str, Any]) -> Made:
    given = members["$date"]
    if isinstance(given, str):
        at = datetime.fromisoformat(given)
        given = (at - _EPOCH) // _MILLISECOND
    elif isinstance(given, dict):
        given = int(given["$numberLong"])
    return Kind.DATE, _int64(given)


def _bytes(members: Mapping[str, Any]) -> Made:
    given, subtype = members["$binary"], members.get("$type")
    if isinstance(given, dict):
        given, subtype = given["base64"], given["subType"]
    raw, number = b64decode(given, validate=True), int(str(subtype), 16)
    if number == 2:  # which has its length once more
        raw = _int32(len(raw)) + raw
    return Kind.BINARY, _int32(len(raw)) + bytes((number,)) + raw


def _uuid(members: Mapping[str, Any]) -> Made:
    raw = bytes.fromhex(members["$uuid"].replace("-", ""))
    return Kind.BINARY, _int32(len(raw)) + b"\4" + raw


def _decimal(text: str) -> bytes:
    """https://github.com/mongodb/specifications/blob/master/source/bson-decimal128/decimal128.md"""
    whole, _, rest = text.removeprefix("-").partition(".")
    digits = whole + rest
    if not (digits.isdigit() and digits.isascii() and len(digits) <= 34):
        return Decimal128(text).bid  # with an exponent, no number, or none at all
    number = int(digits)
    high = (text[0] == "-") << 63 | (6176 - len(rest)) << 49 | number >> 64
    return _words(number & 0xFFFF_FFFF_FFFF_FFFF, high)


def _objectid(text: str) -> bytes:
    raw = bytes.fromhex(text)
    if len(raw) != 12:
        raise ValueError("an ObjectId has 12 bytes")
    return raw


def _regex(members: Mapping[str, Any]) -> Made:
    given = members.get("$regularExpression") or {"pattern": members["$regex"], "options": members["$options"]}
    return Kind.REGEX, _name(given["pattern"]) + _name(given["options"])


def _stamp(members: Mapping[str, Any]) -> Made:
    given = members["$timestamp"]
    return Kind.TIMESTAMP, _pair(given["i"], given["t"])


def _scoped(members: Mapping[str, Any]) -> Made:
    inner = _text(members["$code"]) + document(members["$scope"])
    return Kind.CODE_WITH_SCOPE, _int32(len(inner) + 4) + inner


def _pointer(members: Mapping[str, Any]) -> Made:
    given = members["$dbPointer"]
    return Kind.DBPOINTER, _text(given["$ref"]) + _objectid(given["$id"]["$oid"])


_MARKED: dict[tuple[str, ...], Callable[[Mapping[str, Any]], Made]] = {
    marks: read
    for names, read in (
        (("$oid",), lambda members: (Kind.OBJECTID, _objectid(members["$oid"]))),
        (("$numberInt",), lambda members: (Kind.INT32, _int32(int(members["$numberInt"])))),
        (("$numberLong",), lambda members: (Kind.INT64, _int64(int(members["$numberLong"])))),
        (("$numberDouble",), lambda members: (Kind.DOUBLE, _double(float(members["$numberDouble"])))),
        (("$numberDecimal",), lambda members: (Kind.DECIMAL, _decimal(members["$numberDecimal"]))),
        (("$date",), _date),
        (("$binary",), _bytes),
        (("$binary", "$type"), _bytes),
        (("$uuid",), _uuid),
        (("$regularExpression",), _regex),
        (("$regex", "$options"), _regex),
        (("$timestamp",), _stamp),
        (("$symbol",), lambda members: (Kind.SYMBOL, _text(members["$symbol"]))),
        (("$code",), lambda members: (Kind.CODE, _text(members["$code"]))),
        (("$code", "$scope"), _scoped),
        (("$dbPointer",), _pointer),
        (("$undefined",), lambda _members: (Kind.UNDEFINED, b"")),
        (("$minKey",), lambda _members: (Kind.MINKEY, b"")),
        (("$maxKey",), lambda _members: (Kind.MAXKEY, b"")),
    )
    for marks in (names, names[::-1])
}
"""By the names that they have, in whatever order."""
