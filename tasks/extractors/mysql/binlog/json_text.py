"""MySQL's binary JSON → the server's own text of it.

Format: https://dev.mysql.com/doc/dev/mysql-server/latest/json__binary_8h.html; text: Json_wrapper::to_string and
double_quote in json_dom.cc. Strings are looked at as views: see `tasks.extractors.mysql.binlog.values`.
"""

from __future__ import annotations

import struct
from base64 import b64encode
from json.encoder import encode_basestring

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
_SIZES = {False: struct.Struct("<HH").unpack_from, True: struct.Struct("<II").unpack_from}

# Field types in an opaque value.
_DECIMAL, _DATE, _TIME, _DATETIME, _TIMESTAMP = 246, 10, 11, 12, 7


def json_text(raw: bytes) -> str:
    """The text of a JSON column's value, as a view; ValueError, or IndexError, for what is none."""
    if not raw:
        return "null"  # what a column that was added NOT NULL has in the rows of before
    return _Document(raw).value(raw[0], 1)


class _Entries(dict[int, struct.Struct]):
    """The offset and the length of every key of an object of so many members."""

    def __init__(self, form: str) -> None:
        self._form = form

    def __missing__(self, members: int) -> struct.Struct:
        found = struct.Struct("<" + self._form * members)
        if len(self) < 1024:
            self[members] = found
        return found


_KEYS = {False: _Entries("HH"), True: _Entries("IH")}


class _Keys(dict[str, str]):
    """Keys as they stand before their values: they are the same in every row."""

    def __missing__(self, key: str) -> str:
        if len(self) >= 1 << 14:
            self.clear()
        text = self[key] = encode_basestring(key) + ": "
        return text


_QUOTED_KEYS = _Keys()


class _Document:
    """One value: its bytes and their view."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._view = raw.decode("latin-1")

    def value(self, kind: int, at: int) -> str:
        """The text of the value of this type that begins at ``at``."""
        if kind == _STRING:
            return encode_basestring(self._counted(at))
        if kind <= _LARGE_ARRAY:
            return self._container(kind, at)
        if kind in _NUMBERS:
            return str(_NUMBERS[kind](self._raw, at)[0])
        if kind == _LITERAL:
            return _LITERALS[self._raw[at]]
        if kind == _DOUBLE:
            text = double(_REAL(self._raw, at)[0])
            return text if "." in text or "e" in text else text + ".0"
        if kind == _OPAQUE:
            return self._opaque(at)
        raise ValueError(f"JSON of type {kind}")

    def _counted(self, at: int) -> str:
        length, at = self._length(at)
        if at + length > len(self._raw):
            raise ValueError("JSON that is cut off")
        return self._view[at : at + length]

    def _length(self, at: int) -> tuple[int, int]:
        """A length of seven bits a byte, the lowest first; and what follows it."""
        length = shift = 0
        while True:
            byte = self._raw[at]
            at += 1
            length |= (byte & 127) << shift
            if byte < 128:
                return length, at
            shift += 7

    def _container(self, kind: int, start: int) -> str:
        """An array or object: count and size, the places of the keys, the values or their places, and what is there."""
        large = kind in (_LARGE_OBJECT, _LARGE_ARRAY)
        members, size = _SIZES[large](self._raw, start)
        if start + size > len(self._raw):
            raise ValueError("JSON that is cut off")
        head = 8 if large else 4
        if kind in (_SMALL_ARRAY, _LARGE_ARRAY):
            return "[" + ", ".join(self._values(members, start, start + head, large)) + "]"
        layout = _KEYS[large][members]
        places = layout.unpack_from(self._raw, start + head)
        values = self._values(members, start, start + head + layout.size, large)
        view = self._view
        pairs = [
            _QUOTED_KEYS[view[start + at : start + at + length]] + value
            for at, length, value in zip(places[::2], places[1::2], values, strict=True)
        ]
        return "{" + ", ".join(pairs) + "}"

    def _values(self, members: int, start: int, at: int, large: bool) -> list[str]:
        raw, values = self._raw, []
        width, number = (5, _NUMBERS[_UINT32]) if large else (3, _NUMBERS[_UINT16])
        for entry in range(at, at + members * width, width):
            kind = raw[entry]
            if kind == _LITERAL:
                values.append(_LITERALS[raw[entry + 1]])
            elif kind in (_INT16, _UINT16) or (large and kind in (_INT32, _UINT32)):
                values.append(str(_NUMBERS[kind](raw, entry + 1)[0]))
            else:
                values.append(self.value(kind, start + number(raw, entry + 1)[0]))
        return values

    def _opaque(self, at: int) -> str:
        """A value of a type that JSON has not: https://dev.mysql.com/doc/refman/en/json.html#json-values"""
        kind = self._raw[at]
        data = self._counted(at + 1).encode("latin-1")
        if kind == _DECIMAL:
            return decimal_text(data[2:], data[0], data[1])
        if kind in (_DATE, _TIME, _DATETIME, _TIMESTAMP):
            return f'"{_packed_time(kind, int.from_bytes(data, "little", signed=True))}"'
        return f'"base64:type{kind}:{b64encode(data).decode()}"'


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
