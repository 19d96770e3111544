"""Values of one type in a whole batch, as text, by NumPy: no Python object is made before the text itself.

Text here is a view of UTF-8 bytes: a str whose characters are those bytes (latin-1).
"""

from __future__ import annotations

from collections.abc import Callable
from json.encoder import encode_basestring
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from tasks.extractors.bson.layout import Kind

Numbers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.intp]

_PAD = 16
_YEAR_1, _YEAR_10000 = -62_135_596_800_000, 253_402_300_800_000
_DAY = 86_400_000
_QUOTED = bytes(byte in b'",\r\n' for byte in range(256))
"""Bytes for which CSV quotes a field."""
_ESCAPED = bytes(byte < 32 or byte in b'"\\' for byte in range(256))
"""Bytes that JSON escapes."""


class Block:
    """A batch of BSON, to be read at many places at once."""

    def __init__(self, data: bytes) -> None:
        padded = data + bytes(_PAD)
        size = len(data) + 8
        self.data = data
        self.text = data.decode("latin-1")
        self.bytes: Bytes = np.frombuffer(padded, np.uint8)
        # Numbers lie at any place: these arrays overlap themselves, one element for each byte.
        self.words: npt.NDArray[np.uint64] = _every(padded, "<u8", size)
        self.int64 = _every(padded, "<i8", size)
        self.int32 = _every(padded, "<i4", size)
        self.double = _every(padded, "<f8", size)
        self._places: dict[bytes, Places] = {}

    def holds(self, special: bytes, begins: Numbers, ends: Numbers) -> Flags:
        """Which of these strings hold a special byte, one for which the table has a 1."""
        places = self._places.get(special)
        if places is None:
            places = self._places[special] = np.flatnonzero(np.frombuffer(self.data.translate(special), np.bool_))
        found: Flags = np.searchsorted(places, begins) != np.searchsorted(places, ends)
        return found

    def gathered(self, at: Numbers, size: int) -> Bytes:
        """The bytes at these places, a row for each."""
        found: Bytes = self.bytes[at[:, None] + np.arange(size)]
        return found


def _every(padded: bytes, kind: str, size: int) -> npt.NDArray[Any]:
    return np.ndarray((size,), dtype=kind, buffer=padded, strides=(1,))


Texts = list[str]
Vector = Callable[[Block, Numbers, Numbers], "Texts | None"]
"""Takes where values begin and end; None where some of them have to be looked at one by one."""


def strings(block: Block, begins: Numbers, ends: Numbers) -> Texts:
    """Quoted where they have to be."""
    begins, ends = begins + 4, ends - 1
    made = _sliced(block, begins, ends)
    for place in np.flatnonzero(block.holds(_QUOTED, begins, ends) | (begins == ends)).tolist():
        made[place] = '"' + made[place].replace('"', '""') + '"'
    return made


def _sliced(block: Block, begins: Numbers, ends: Numbers) -> Texts:
    text = block.text
    return [text[begin:end] for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]


def int32s(block: Block, begins: Numbers, _ends: Numbers) -> Texts:
    return _listed(block.int32[begins])


def int64s(block: Block, begins: Numbers, _ends: Numbers) -> Texts:
    return _listed(block.int64[begins])


def doubles(block: Block, begins: Numbers, _ends: Numbers) -> Texts | None:
    """orjson writes the shortest digits too, and spells exponents otherwise than Python."""
    values = block.double[begins]
    size = np.abs(values)
    if not np.all((size < 1e16) & (size >= 1e-4) | (values == 0)):
        return None
    made = _listed(values)
    for place in np.flatnonzero(values == np.floor(values)).tolist():
        made[place] = made[place].removesuffix(".0")
    return made


def whole_doubles(block: Block, begins: Numbers, _ends: Numbers) -> Texts | None:
    values = block.double[begins]
    if not np.all((np.abs(values) < 2**53) & (values == np.floor(values))):
        return None
    return _listed(values.astype(np.int64))


def decimals(block: Block, begins: Numbers, _ends: Numbers) -> Texts | None:
    """Of up to 18 digits, with one number of decimal places: what prices are.

    https://github.com/mongodb/specifications/blob/master/source/bson-decimal128/decimal128.md
    """
    digits, high = block.int64[begins], block.int64[begins + 8]
    # Sign, exponent and the upper half of the coefficient.
    exponent = (high >> 49) & 0x3FFF
    places = 6176 - int(exponent[0])
    plain = (high & 0x1_FFFF_FFFF_FFFF == 0) & (high >= 0) & (exponent == exponent[0])
    if not 0 <= places <= 18 or not np.all(plain & (digits >= 0) & (digits < 10**18)):
        return None
    if not places:
        return _listed(digits)
    whole, rest = np.divmod(digits, 10**places)
    # A one before the decimal places keeps their zeros.
    pairs = zip(_listed(whole), _listed(rest + 10**places), strict=True)
    return [f"{before}.{after[1:]}" for before, after in pairs]


def uuids(block: Block, begins: Numbers, ends: Numbers) -> Texts | None:
    if not np.all((ends - begins == 21) & (block.bytes[np.minimum(begins + 4, len(block.data))] == 4)):
        return None
    figures = np.frombuffer(block.gathered(begins + 5, 16).tobytes().hex().encode(), np.uint8).reshape(-1, 32)
    page = np.full((len(begins), 36), ord("-"), np.uint8)
    for place, first, last in ((0, 0, 8), (9, 8, 12), (14, 12, 16), (19, 16, 20), (24, 20, 32)):
        page[:, place : place + last - first] = figures[:, first:last]
    return _cut(page.tobytes().decode(), 36)


def booleans(block: Block, begins: Numbers, _ends: Numbers) -> Texts:
    found: Texts = np.array(["false", "true"], object)[(block.bytes[begins] != 0).astype(np.int8)].tolist()
    return found


def objectids(block: Block, begins: Numbers, _ends: Numbers) -> Texts:
    return _cut(block.gathered(begins, 12).tobytes().hex(), 24)


def instants(zone: str) -> Vector:
    """Dates as `texts.instant` writes them, of years with four digits."""

    def written(block: Block, begins: Numbers, _ends: Numbers) -> Texts | None:
        milliseconds = block.int64[begins]
        if not np.all((milliseconds >= _YEAR_1) & (milliseconds < _YEAR_10000)):
            return None
        width = 23 + len(zone)
        page = np.empty((len(milliseconds), width), np.uint8)
        page[:] = np.frombuffer(f"0000-00-00 00:00:00.000{zone}".encode(), np.uint8)
        days, rest = np.divmod(milliseconds, _DAY)
        _write_days(page, days)
        seconds, thousandths = np.divmod(rest, 1000)
        minutes, seconds = np.divmod(seconds, 60)
        hours, minutes = np.divmod(minutes, 60)
        for place, value, digits in ((11, hours, 2), (14, minutes, 2), (17, seconds, 2), (20, thousandths, 3)):
            _write(page, place, value, digits)
        return _cut(page.tobytes().decode(), width)

    return written


def days(block: Block, begins: Numbers, _ends: Numbers) -> Texts | None:
    milliseconds = block.int64[begins]
    if not np.all((milliseconds >= _YEAR_1) & (milliseconds < _YEAR_10000) & (milliseconds % _DAY == 0)):
        return None
    page = np.empty((len(milliseconds), 10), np.uint8)
    _write_days(page, milliseconds // _DAY)
    return _cut(page.tobytes().decode(), 10)


def _write_days(page: Bytes, days: Numbers) -> None:
    """`texts.date` of each day there is, once."""
    different, place = np.unique(days, return_inverse=True)
    dates = different.astype("M8[D]").astype("S10")
    page[:, :10] = dates.view(np.uint8).reshape(-1, 10)[place]


def _write(page: Bytes, place: int, values: Numbers, digits: int) -> None:
    for digit in range(digits - 1, -1, -1):
        values, rest = np.divmod(values, 10)
        page[:, place + digit] = rest + 48


def _listed(values: npt.NDArray[Any]) -> Texts:
    return orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].decode().split(",")


def _cut(text: str, width: int) -> Texts:
    return [text[at : at + width] for at in range(0, len(text), width)]


_INTEGERS: dict[int, Vector] = {Kind.INT32: int32s, Kind.INT64: int64s}
_NUMBERS: dict[int, Vector] = {**_INTEGERS, Kind.DOUBLE: doubles, Kind.DECIMAL: decimals}
_STAMPS: dict[int, Vector] = {Kind.DATE: instants("+00")}
VECTORS: dict[str, dict[int, Vector]] = {
    "text": {Kind.STRING: strings},
    "integer": {**_INTEGERS, Kind.DOUBLE: whole_doubles},
    "decimal": _NUMBERS,
    "float": _NUMBERS,
    "boolean": {Kind.BOOLEAN: booleans},
    "date": {Kind.DATE: days},
    "timestamp": {Kind.DATE: instants("")},
    "timestamptz": _STAMPS,
    "objectid": {Kind.OBJECTID: objectids},
    "uuid": {Kind.BINARY: uuids},
    "any": {
        **_NUMBERS, **_STAMPS, Kind.STRING: strings, Kind.BOOLEAN: booleans, Kind.OBJECTID: objectids,
    },
}  # fmt: skip
"""What is known of a column's type and the type that values have; what is not is done value by value."""


def _json_strings(block: Block, begins: Numbers, ends: Numbers) -> Texts:
    begins, ends = begins + 4, ends - 1
    made = [f'"{text}"' for text in _sliced(block, begins, ends)]
    for place in np.flatnonzero(block.holds(_ESCAPED, begins, ends)).tolist():
        made[place] = encode_basestring(made[place][1:-1])
    return made


def _json_doubles(block: Block, begins: Numbers, _ends: Numbers) -> Texts | None:
    values = block.double[begins]
    size = np.abs(values)
    return _listed(values) if np.all((size < 1e16) & (size >= 1e-4) | (values == 0)) else None


def _json_objectids(block: Block, begins: Numbers, ends: Numbers) -> Texts:
    return [f'{{"$oid":"{text}"}}' for text in objectids(block, begins, ends)]


def _json_dates(block: Block, begins: Numbers, ends: Numbers) -> Texts | None:
    if np.any(block.int64[begins] < 0) or (texts := _STAMPS[Kind.DATE](block, begins, ends)) is None:
        return None
    return [f'{{"$date":"{text[:10]}T{text[11:23]}Z"}}' for text in texts]


JSON: dict[int, Vector] = {
    **_INTEGERS, Kind.STRING: _json_strings, Kind.DOUBLE: _json_doubles, Kind.BOOLEAN: booleans, Kind.DATE: _json_dates,
    Kind.OBJECTID: _json_objectids,
}  # fmt: skip
"""Values as relaxed Extended JSON."""
