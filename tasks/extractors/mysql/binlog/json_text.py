"""MySQL's binary JSON → the server's own text of it.

Format: https://dev.mysql.com/doc/dev/mysql-server/latest/json__binary_8h.html; text: Json_wrapper::to_string and
double_quote in json_dom.cc. Strings are looked at as views: see `tasks.extractors.mysql.binlog.values`.
"""

from __future__ import annotations

import struct
from base64 import encodebytes
from json.encoder import encode_basestring
from operator import add

from tasks.extractors.mysql.binlog.numbers import decimal_text, double

_SMALL_OBJECT, _LARGE_OBJECT, _SMALL_ARRAY, _LARGE_ARRAY, _LITERAL = range(5)
_INT16, _UINT16, _INT32, _UINT32, _INT64, _UINT64, _DOUBLE, _STRING = range(5, 13)
_OPAQUE = 15

_LITERALS = ("null", "true", "false")
_NUMBERS = {
    kind: struct.Struct(form).unpack_from
    for kind, form in (
        (_INT16, "<h"),
        (_UINT16, "<H"),
        (_INT32, "<i"),
        (_UINT32, "<I"),
        (_INT64, "<q"),
        (_UINT64, "<Q"),
    )
}
_REAL = struct.Struct("<d").unpack_from
_PLACES = (struct.Struct("<H").unpack_from, struct.Struct("<I").unpack_from)

# Field types in an opaque value.
_DECIMAL, _DATE, _TIME, _DATETIME, _TIMESTAMP = 246, 10, 11, 12, 7


def json_text(raw: bytes) -> str:
    """The text of a JSON column's value, as a view; ValueError, LookupError or struct.error for what is none."""
    if not raw:
        return "null"  # what a column that was added NOT NULL has in the rows of before
    kind = raw[0]
    if kind <= _LARGE_ARRAY and 1 + _PLACES[kind & 1](raw, 5 if kind & 1 else 3)[0] > len(raw):
        raise ValueError("JSON that is cut off")
    return _value(raw, raw.decode("latin-1"), kind, 1)


def _value(raw: bytes, view: str, kind: int, at: int) -> str:
    """The text of the value of this type that begins at ``at``."""
    if kind == _SMALL_OBJECT:
        return _small_object(raw, view, at)
    if kind == _SMALL_ARRAY:
        return _small_array(raw, view, at)
    if kind == _STRING:
        return encode_basestring(_counted(raw, view, at))
    if kind in _NUMBERS:
        return str(_NUMBERS[kind](raw, at)[0])
    if kind == _LITERAL:
        return _LITERALS[raw[at]]
    if kind == _DOUBLE:
        text = double(_REAL(raw, at)[0])
        return text if "." in text or "e" in text else text + ".0"
    if kind == _OPAQUE:
        return _opaque(raw, view, at)
    if kind in (_LARGE_OBJECT, _LARGE_ARRAY):
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

_MOST_TEMPLATES = 1 << 12
_templates: dict[bytes, str] = {}
"""Objects without their values: most documents of a column have the same keys."""


def _small_object(raw: bytes, view: str, start: int) -> str:
    """Places of the keys, values or their places, the keys, and then the values that have no room among the places."""
    members = raw[start] | raw[start + 1] << 8
    if not members:
        return "{}"
    first = start + 4
    values = first + 4 * members
    begin = values + 3 * members
    end = start + (raw[values - 4] | raw[values - 3] << 8) + (raw[values - 2] | raw[values - 1] << 8)
    # Where the keys lie and what they are says it all, and is found faster than they are looked at one by one.
    identity = raw[first:values] + raw[begin:end]
    template = _templates.get(identity)
    if template is None:
        places = _KEYS[members].unpack_from(raw, first)
        template = "{" + ", ".join([key.replace("%", "%%") + "%s" for key in _keys(raw, view, places, start)]) + "}"
        # Always so in what MySQL writes, also where it has removed a member in place.
        if begin <= start + min(places[::2]) and start + max(map(add, places[::2], places[1::2])) <= end:
            if len(_templates) >= _MOST_TEMPLATES:
                _templates.clear()
            _templates[identity] = template
    return template % tuple(_small_values(raw, view, members, start, values))


def _keys(raw: bytes, view: str, places: tuple[int, ...], start: int) -> list[str]:
    """Keys as they stand before their values."""
    keys = []
    for offset, length in zip(places[::2], places[1::2], strict=True):
        at = start + offset
        if at + length > len(raw):
            raise ValueError("JSON that is cut off")
        keys.append(encode_basestring(view[at : at + length]) + ": ")
    return keys


def _small_array(raw: bytes, view: str, start: int) -> str:
    return "[" + ", ".join(_small_values(raw, view, raw[start] | raw[start + 1] << 8, start, start + 4)) + "]"


def _small_values(raw: bytes, view: str, members: int, start: int, at: int) -> list[str]:
    entries = iter(_ENTRIES[members].unpack_from(raw, at))
    texts: list[str] = []
    put, total = texts.append, len(raw)
    for kind, value in zip(entries, entries):  # noqa: B905 - two of one; a keyword would cost a tenth
        if kind == _STRING:
            place = start + value + 1
            length = raw[place - 1]
            if length < 128 and place + length <= total:
                put(encode_basestring(view[place : place + length]))
            else:
                put(_value(raw, view, kind, place - 1))
        elif kind == _INT16:
            put(str(value - 0x10000 if value > 0x7FFF else value))
        elif kind == _UINT16:
            put(str(value))
        elif kind == _LITERAL:
            put(_LITERALS[value & 0xFF])
        elif kind == _SMALL_ARRAY:
            put(_small_array(raw, view, start + value))
        elif kind == _SMALL_OBJECT:
            put(_small_object(raw, view, start + value))
        else:
            put(_value(raw, view, kind, start + value))
    return texts


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
    if kind == _LARGE_OBJECT:
        places = [place for n in range(members) for place in _LARGE_KEY.unpack_from(raw, at + n * _LARGE_KEY.size)]
        keys = _keys(raw, view, tuple(places), start)
        at += members * _LARGE_KEY.size
    texts = []
    for entry in range(at, at + members * _LARGE_ENTRY.size, _LARGE_ENTRY.size):
        value, place = _LARGE_ENTRY.unpack_from(raw, entry)
        is_here = value in (_LITERAL, _INT16, _UINT16, _INT32, _UINT32)
        texts.append(_value(raw, view, value, entry + 1 if is_here else start + place))
    if kind == _LARGE_ARRAY:
        return "[" + ", ".join(texts) + "]"
    return "{" + ", ".join(map(add, keys, texts)) + "}"


def _opaque(raw: bytes, view: str, at: int) -> str:
    """A value of a type that JSON has not: https://dev.mysql.com/doc/refman/en/json.html#json-values"""
    kind = raw[at]
    data = _counted(raw, view, at + 1).encode("latin-1")
    if kind == _DECIMAL:
        return decimal_text(data[2:], data[0], data[1])
    if kind in (_DATE, _TIME, _DATETIME, _TIMESTAMP):
        return f'"{_packed_time(kind, int.from_bytes(data, "little", signed=True))}"'
    # In lines of 76, as the server's base64_encode has them.
    return encode_basestring(f"base64:type{kind}:{encodebytes(data).decode().removesuffix(chr(10))}")


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
