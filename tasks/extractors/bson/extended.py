"""Extended JSON → BSON, whichever form it has: relaxed, canonical, or the old strict one.

https://www.mongodb.com/docs/manual/reference/mongodb-extended-json/ and, for the strict form, …-extended-json-v1/. Drivers' own
readers give a language's values, which turns symbols into strings and undefined into null.
"""

from __future__ import annotations

import json
import re
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
    if (marked := _MARKED.get(tuple(members))) is not None:
        names, read = marked
        try:
            return read(*[members[name] for name in names])
        except (ValueError, TypeError, ArithmeticError, AttributeError, struct.error):
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
#
# What does not look exactly as drivers write it is somebody's own document, and stays one with all that is in it.

_INTEGER = re.compile(r"-?[0-9]+").fullmatch
_REAL = re.compile(r"-?[0-9]+(\.[0-9]+)?(E[+-]?[0-9]+)?|-?Infinity|-?NaN", re.IGNORECASE).fullmatch
_OID = re.compile(r"[0-9a-f]{24}", re.IGNORECASE).fullmatch
_SUBTYPE = re.compile(r"[0-9a-f]{1,2}", re.IGNORECASE).fullmatch
_INSTANT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,3})?Z").fullmatch


def _like(matches: Callable[[str], Any], text: Any) -> str:
    """A text of that form."""
    if type(text) is not str or not matches(text):
        raise ValueError(f"not of its form: {text!r}")
    return text


def _only(members: Any, *names: str) -> list[Any]:
    """The values of a document that has these names and no others."""
    if type(members) is not dict or members.keys() != set(names):
        raise ValueError("not of its form")
    return [members[name] for name in names]


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise ValueError("no integer")
    return value


def _is(value: Any, wanted: Any) -> bytes:
    """Nothing: of a type with one value."""
    if type(value) is not type(wanted) or value != wanted:
        raise ValueError("not its value")
    return b""


def _date(given: Any) -> Made:
    if type(given) is str:
        given = (datetime.fromisoformat(_like(_INSTANT, given)) - _EPOCH) // _MILLISECOND
    elif type(given) is dict:
        given = int(_like(_INTEGER, *_only(given, "$numberLong")))
    return Kind.DATE, _int64(_whole(given))


def _binary(payload: Any, subtype: Any) -> Made:
    raw, number = b64decode(payload, validate=True), int(_like(_SUBTYPE, subtype), 16)
    if number == 2:  # which has its length once more
        raw = _int32(len(raw)) + raw
    return Kind.BINARY, _int32(len(raw)) + bytes((number,)) + raw


def _decimal(text: Any) -> Made:
    """https://github.com/mongodb/specifications/blob/master/source/bson-decimal128/decimal128.md"""
    whole, _, rest = _like(_REAL, text).removeprefix("-").partition(".")
    digits = whole + rest
    if not digits.isdigit() or len(digits) > 34:
        return Kind.DECIMAL, Decimal128(text).bid  # with an exponent, or no number
    number = int(digits)
    high = (text[0] == "-") << 63 | (6176 - len(rest)) << 49 | number >> 64
    return Kind.DECIMAL, _words(number & 0xFFFF_FFFF_FFFF_FFFF, high)


def _regex(pattern: str, options: str) -> Made:
    return Kind.REGEX, _name(pattern) + _name(options)


def _stamp(given: Any) -> Made:
    time, increment = map(_whole, _only(given, "t", "i"))
    return Kind.TIMESTAMP, _pair(increment, time)


def _scoped(code: str, scope: Any) -> Made:
    inner = _text(code) + document(scope)
    return Kind.CODE_WITH_SCOPE, _int32(len(inner) + 4) + inner


def _pointer(given: Any) -> Made:
    collection, key = _only(given, "$ref", "$id")
    return Kind.DBPOINTER, _text(collection) + bytes.fromhex(_like(_OID, *_only(key, "$oid")))


_READ: dict[tuple[str, ...], Callable[..., Made]] = {
    ("$oid",): lambda text: (Kind.OBJECTID, bytes.fromhex(_like(_OID, text))),
    ("$numberInt",): lambda text: (Kind.INT32, _int32(int(_like(_INTEGER, text)))),
    ("$numberLong",): lambda text: (Kind.INT64, _int64(int(_like(_INTEGER, text)))),
    ("$numberDouble",): lambda text: (Kind.DOUBLE, _double(float(_like(_REAL, text)))),
    ("$numberDecimal",): _decimal,
    ("$date",): _date,
    ("$binary",): lambda given: _binary(*_only(given, "base64", "subType")),
    ("$binary", "$type"): _binary,
    ("$regularExpression",): lambda given: _regex(*_only(given, "pattern", "options")),
    ("$regex", "$options"): _regex,
    ("$timestamp",): _stamp,
    ("$symbol",): lambda text: (Kind.SYMBOL, _text(text)),
    ("$code",): lambda text: (Kind.CODE, _text(text)),
    ("$code", "$scope"): _scoped,
    ("$dbPointer",): _pointer,
    ("$undefined",): lambda value: (Kind.UNDEFINED, _is(value, True)),
    ("$minKey",): lambda value: (Kind.MINKEY, _is(value, 1)),
    ("$maxKey",): lambda value: (Kind.MAXKEY, _is(value, 1)),
}
_MARKED = {order: (names, read) for names, read in _READ.items() for order in (names, names[::-1])}
"""By the names that they have, in whatever order."""
