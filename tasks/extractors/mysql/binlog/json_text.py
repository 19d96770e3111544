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
_SIZES = (struct.Struct("<HH").unpack_from, struct.Struct("<II").unpack_from)
_PLACES = (struct.Struct("<H").unpack_from, struct.Struct("<I").unpack_from)

# Field types in an opaque value.
_DECIMAL, _DATE, _TIME, _DATETIME, _TIMESTAMP = 246, 10, 11, 12, 7


def json_text(raw: bytes) -> str:
    """The text of a JSON column's value, as a view; ValueError, LookupError or struct.error for what is none."""
    if not raw:
        return "null"  # what a column that was added NOT NULL has in the rows of before
    return _value(raw, raw.decode("latin-1"), raw[0], 1)


def _value(raw: bytes, view: str, kind: int, at: int) -> str:
    """The text of the value of this type that begins at ``at``."""
    if kind == _STRING:
        return encode_basestring(_counted(raw, view, at))
    if kind <= _LARGE_OBJECT:
        return _object(raw, view, kind, at)
    if kind <= _LARGE_ARRAY:
        members, head = _container(raw, at, kind - _SMALL_ARRAY)
        return "[" + ", ".join(_values(raw, view, members, at, at + head, kind - _SMALL_ARRAY)) + "]"
    if kind in _NUMBERS:
        return str(_NUMBERS[kind](raw, at)[0])
    if kind == _LITERAL:
        return _LITERALS[raw[at]]
    if kind == _DOUBLE:
        text = double(_REAL(raw, at)[0])
        return text if "." in text or "e" in text else text + ".0"
    if kind == _OPAQUE:
        return _opaque(raw, view, at)
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


def _container(raw: bytes, at: int, large: int) -> tuple[int, int]:
    """How many members an array or object has, and how many bytes say so."""
    members, size = _SIZES[large](raw, at)
    if at + size > len(raw):
        raise ValueError("JSON that is cut off")
    return members, 8 if large else 4


class _Structs(dict[int, struct.Struct]):
    """So many times the same fields."""

    def __init__(self, fields: str) -> None:
        self._fields = fields

    def __missing__(self, count: int) -> struct.Struct:
        found = struct.Struct("<" + self._fields * count)
        if len(self) < 1024:
            self[count] = found
        return found


# Of small and large containers: offset and length of a key; type of a value, and itself or its offset.
_KEYS = (_Structs("HH"), _Structs("IH"))
_ENTRIES = (_Structs("BH"), _Structs("BI"))


class _Members(dict[bytes, tuple[str, ...]]):
    """The keys of an object as they stand before their values. Most documents of a column have the same."""

    _MOST = 1 << 12

    def keep(self, identity: bytes, keys: tuple[str, ...]) -> None:
        if len(self) >= self._MOST:
            self.clear()
        self[identity] = keys


_members = _Members()


def _object(raw: bytes, view: str, large: int, start: int) -> str:
    """Places of the keys, values or their places, the keys, and then the values that have no room among the places."""
    members, head = _container(raw, start, large)
    if not members:
        return "{}"
    keys = _KEYS[large][members]
    first = start + head
    values = first + keys.size
    texts = _values(raw, view, members, start, values, large)
    begin = values + _ENTRIES[large][members].size
    (last,) = _PLACES[large](raw, values - (6 if large else 4))
    end = start + last + raw[values - 2] + (raw[values - 1] << 8)
    # Where they lie and what they are says it all, and is found faster than they are looked at one by one.
    identity = raw[first:values] + raw[begin:end]
    known = _members.get(identity)
    if known is None:
        places = keys.unpack_from(raw, first)
        known = _keys(raw, view, places, start)
        # Always so in what MySQL writes, also where it has removed a member in place.
        if begin <= start + min(places[::2]) and start + max(map(add, places[::2], places[1::2])) <= end:
            _members.keep(identity, known)
    return "{" + ", ".join(map(add, known, texts)) + "}"


def _keys(raw: bytes, view: str, places: tuple[int, ...], start: int) -> tuple[str, ...]:
    keys = []
    for offset, length in zip(places[::2], places[1::2], strict=True):
        at = start + offset
        if at + length > len(raw):
            raise ValueError("JSON that is cut off")
        keys.append(encode_basestring(view[at : at + length]) + ": ")
    return tuple(keys)


def _values(raw: bytes, view: str, members: int, start: int, at: int, large: int) -> list[str]:
    entries = _ENTRIES[large][members].unpack_from(raw, at)
    texts, total = [], len(raw)
    for kind, value in zip(entries[::2], entries[1::2], strict=True):
        if kind == _STRING:
            place = start + value
            length = raw[place]
            place += 1
            if length < 128 and place + length <= total:
                texts.append(encode_basestring(view[place : place + length]))
            else:
                texts.append(_value(raw, view, kind, place - 1))
        elif kind == _INT16:
            value &= 0xFFFF
            texts.append(str(value - 0x10000 if value > 0x7FFF else value))
        elif kind == _UINT16:
            texts.append(str(value & 0xFFFF))
        elif kind == _LITERAL:
            texts.append(_LITERALS[value & 0xFF])
        elif large and kind == _UINT32:
            texts.append(str(value))
        elif large and kind == _INT32:
            texts.append(str(value - 0x100000000 if value > 0x7FFFFFFF else value))
        else:
            texts.append(_value(raw, view, kind, start + value))
    return texts


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
