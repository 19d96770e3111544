"""MySQL's binary JSON → the server's own text of it, with each quote doubled as it stands in a CSV field.

Format: https://dev.mysql.com/doc/dev/mysql-server/latest/json__binary_8h.html; text: Json_wrapper::to_string and
double_quote in json_dom.cc. Strings are looked at as views: see `tasks.extractors.mysql.binlog.layouts`.
"""

from __future__ import annotations

import struct
from base64 import encodebytes
from json.encoder import encode_basestring
from operator import add

from tasks.extractors.mysql.binlog.json_shapes import (
    DOUBLE,
    INT16,
    INT32,
    INT64,
    LARGE_ARRAY,
    LARGE_OBJECT,
    LITERAL,
    LITERALS,
    MOST_MEMBERS,
    OPAQUE,
    SMALL_ARRAY,
    SMALL_OBJECT,
    STRING,
    UINT16,
    UINT32,
    UINT64,
    Shapes,
)
from tasks.extractors.mysql.binlog.numbers import decimal_text, double

_NUMBERS = {
    kind: struct.Struct(form).unpack_from
    for kind, form in ((INT16, "<h"), (UINT16, "<H"), (INT32, "<i"), (UINT32, "<I"), (INT64, "<q"), (UINT64, "<Q"))
}
_REAL = struct.Struct("<d").unpack_from
_PLACES = (struct.Struct("<H").unpack_from, struct.Struct("<I").unpack_from)

# Field types in an opaque value.
_DECIMAL, _DATE, _TIME, _DATETIME, _TIMESTAMP = 246, 10, 11, 12, 7


def json_text(raw: bytes) -> str:
    """The text of a JSON column's value, as a view; ValueError, LookupError or struct.error for what is none."""
    return json_doubled(raw, raw.decode("latin-1")).replace('""', '"')


def json_doubled(raw: bytes, view: str) -> str:
    """The same with each quote doubled; ``view``: of the value."""
    if not raw:
        return "null"  # what a column that was added NOT NULL has in the rows of before
    kind = raw[0]
    if kind == SMALL_OBJECT and 0 < raw[3] | raw[4] << 8 < len(raw):
        return _small_object(raw, view, 1)
    if kind <= LARGE_ARRAY and 1 + _PLACES[kind & 1](raw, 5 if kind & 1 else 3)[0] > len(raw):
        raise ValueError("JSON that is cut off")
    return _value(raw, view, kind, 1)


def _quoted(text: str) -> str:
    return encode_basestring(text).replace('"', '""')


def _value(raw: bytes, view: str, kind: int, at: int) -> str:
    """The text of the value of this type that begins at ``at``."""
    if kind == SMALL_OBJECT:
        return _small_object(raw, view, at)
    if kind == SMALL_ARRAY:
        return _small_array(raw, view, at)
    if kind == STRING:
        return _quoted(_counted(raw, view, at))
    if kind in _NUMBERS:
        return str(_NUMBERS[kind](raw, at)[0])
    if kind == LITERAL:
        return LITERALS[raw[at]]
    if kind == DOUBLE:
        text = double(_REAL(raw, at)[0])
        return text if "." in text or "e" in text else text + ".0"
    if kind == OPAQUE:
        return _opaque(raw, view, at)
    if kind in (LARGE_OBJECT, LARGE_ARRAY):
        return _large(raw, view, kind, at)
    raise ValueError(f"JSON of type {kind}")


def _counted(raw: bytes, view: str, at: int) -> str:
    """A string behind its length, of seven bits a byte, the lowest first."""
    length = shift = 0
    while True:
        byte = raw[at]
        at += 1
        length |= (byte & 127) << shift
        if byte < 128:
            break
        shift += 7
    if at + length > len(raw):
        raise ValueError("JSON that is cut off")
    return view[at : at + length]


# -- small ones, which all that have less than 64 KiB are: the faster for being written out ----------------------------


class _Structs(dict[int, struct.Struct]):
    """So many times the same fields."""

    def __init__(self, fields: str) -> None:
        self._fields = fields

    def __missing__(self, count: int) -> struct.Struct:
        found = struct.Struct("<" + self._fields * count)
        if len(self) < 1024:
            self[count] = found
        return found


_KEYS = _Structs("HH")
"""Offset and length of each key."""
_ENTRIES = _Structs("BH")
"""Type of each value, and itself or its offset."""


def _small_object(raw: bytes, view: str, start: int) -> str:
    """Places of the keys, values or their places, the keys, and then the values that have no room among the places."""
    members = raw[start] | raw[start + 1] << 8
    if not members:
        return "{}"
    first = start + 4
    values = first + 4 * members
    begin = values + 3 * members
    end = start + (raw[values - 4] | raw[values - 3] << 8) + (raw[values - 2] | raw[values - 1] << 8)
    if members >= MOST_MEMBERS:
        return _object_by_value(raw, view, members, start)
    # Where the keys lie, what they are, and the types of the values say what the function has to know.
    identity = raw[first:values] + raw[begin:end] + raw[values:begin:3]
    function = _OBJECTS.by_members[members].get(identity)
    if function is not None:
        return function(raw, view, start)
    text = _object_by_value(raw, view, members, start)
    if _OBJECTS.met(identity):
        places = _KEYS[members].unpack_from(raw, first)
        # Always so in what MySQL writes, also where it has removed a member in place.
        if begin <= start + min(places[::2]) and start + max(map(add, places[::2], places[1::2])) <= end:
            _OBJECTS.make(identity, raw[values:begin:3], _keys(raw, view, places, start))
    return text


def _object_by_value(raw: bytes, view: str, members: int, start: int) -> str:
    keys = _keys(raw, view, _KEYS[members].unpack_from(raw, start + 4), start)
    return "{" + ", ".join(map(add, keys, _small_values(raw, view, members, start, start + 4 + 4 * members))) + "}"


def _keys(raw: bytes, view: str, places: tuple[int, ...], start: int) -> list[str]:
    """Keys as they stand before their values."""
    keys = []
    for offset, length in zip(places[::2], places[1::2], strict=True):
        at = start + offset
        if at + length > len(raw):
            raise ValueError("JSON that is cut off")
        keys.append(_quoted(view[at : at + length]) + ": ")
    return keys


def _small_array(raw: bytes, view: str, start: int) -> str:
    members = raw[start] | raw[start + 1] << 8
    if not 0 < members < MOST_MEMBERS:
        return _array_by_value(raw, view, members, start)
    kinds = raw[start + 4 : start + 4 + 3 * members : 3]
    function = _ARRAYS.by_members[members].get(kinds)
    if function is not None:
        return function(raw, view, start)
    text = _array_by_value(raw, view, members, start)
    if _ARRAYS.met(kinds):
        _ARRAYS.make(kinds, kinds, None)
    return text


def _array_by_value(raw: bytes, view: str, members: int, start: int) -> str:
    return "[" + ", ".join(_small_values(raw, view, members, start, start + 4)) + "]"


def _small_values(raw: bytes, view: str, members: int, start: int, at: int) -> list[str]:
    entries = iter(_ENTRIES[members].unpack_from(raw, at))
    texts: list[str] = []
    put, total = texts.append, len(raw)
    for kind, value in zip(entries, entries):  # noqa: B905 - two of one; a keyword would cost a tenth
        if kind == STRING:
            place = start + value + 1
            length = raw[place - 1]
            if length < 128 and place + length <= total:
                put(_quoted(view[place : place + length]))
            else:
                put(_value(raw, view, kind, place - 1))
        elif kind == INT16:
            put(str(value - 0x10000 if value > 0x7FFF else value))
        elif kind == UINT16:
            put(str(value))
        elif kind == LITERAL:
            put(LITERALS[value & 0xFF])
        elif kind == SMALL_ARRAY:
            put(_small_array(raw, view, start + value))
        elif kind == SMALL_OBJECT:
            put(_small_object(raw, view, start + value))
        else:
            put(_value(raw, view, kind, start + value))
    return texts


_CALLED = {"OBJECT": _small_object, "ARRAY": _small_array, "VALUE": _value, "COUNTED": _counted}
_OBJECTS, _ARRAYS = Shapes(_CALLED), Shapes(_CALLED)


# -- large ones -------------------------------------------------------------------------------------------------------

_LARGE_SIZES = struct.Struct("<II").unpack_from
_LARGE_KEY = struct.Struct("<IH")
_LARGE_ENTRY = struct.Struct("<BI")


def _large(raw: bytes, view: str, kind: int, start: int) -> str:
    """The same with offsets of four bytes, which numbers of four bytes have room in too."""
    members, size = _LARGE_SIZES(raw, start)
    if start + size > len(raw):
        raise ValueError("JSON that is cut off")
    at = start + 8
    keys: list[str] = []
    if kind == LARGE_OBJECT:
        places = [place for n in range(members) for place in _LARGE_KEY.unpack_from(raw, at + n * _LARGE_KEY.size)]
        keys = _keys(raw, view, tuple(places), start)
        at += members * _LARGE_KEY.size
    texts = []
    for entry in range(at, at + members * _LARGE_ENTRY.size, _LARGE_ENTRY.size):
        value, place = _LARGE_ENTRY.unpack_from(raw, entry)
        is_here = value in (LITERAL, INT16, UINT16, INT32, UINT32)
        texts.append(_value(raw, view, value, entry + 1 if is_here else start + place))
    if kind == LARGE_ARRAY:
        return "[" + ", ".join(texts) + "]"
    return "{" + ", ".join(map(add, keys, texts)) + "}"


def _opaque(raw: bytes, view: str, at: int) -> str:
    """A value of a type that JSON has not: https://dev.mysql.com/doc/refman/en/json.html#json-values"""
    kind = raw[at]
    data = _counted(raw, view, at + 1).encode("latin-1")
    if kind == _DECIMAL:
        return decimal_text(data[2:], data[0], data[1])
    if kind in (_DATE, _TIME, _DATETIME, _TIMESTAMP):
        return f'""{_packed_time(kind, int.from_bytes(data, "little", signed=True))}""'
    # In lines of 76, as the server's base64_encode has them.
    return _quoted(f"base64:type{kind}:{encodebytes(data).decode().removesuffix(chr(10))}")


def _packed_time(kind: int, value: int) -> str:
    """TIME_from_longlong_datetime_packed and its like in my_time.cc; the fraction always has six digits."""
    sign, value = ("-", -value) if value < 0 else ("", value)
    fraction, clock = value & 0xFFFFFF, value >> 24
    second, minute = clock & 63, clock >> 6 & 63
    if kind == _TIME:
        return f"{sign}{clock >> 12 & 1023:02d}:{minute:02d}:{second:02d}.{fraction:06d}"
    year, month = divmod(clock >> 22, 13)
    day = f"{year:04d}-{month:02d}-{clock >> 17 & 31:02d}"
    return day if kind == _DATE else f"{day} {clock >> 12 & 31:02d}:{minute:02d}:{second:02d}.{fraction:06d}"
