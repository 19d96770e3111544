"""Values of one type in a whole batch, as text, by NumPy: no Python object is made before the text itself.

Text here is a view of UTF-8 bytes: a str whose characters are those bytes (latin-1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from tasks.extractors.mongodb.layout import Kind

Numbers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]

_PAD = 16
_YEAR_1, _YEAR_10000 = -62_135_596_800_000, 253_402_300_800_000
_DAY = 86_400_000
_SPECIAL = np.zeros(256, np.int32)
_SPECIAL[[ord(character) for character in '",\r\n']] = 1


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
        self._specials: npt.NDArray[np.int32] | None = None

    def has_special(self, begins: Numbers, ends: Numbers) -> Flags:
        """Which of these strings have to be quoted."""
        if self._specials is None:
            self._specials = np.zeros(len(self.data) + 1, np.int32)
            np.cumsum(_SPECIAL[self.bytes[: len(self.data)]], out=self._specials[1:])
        found: Flags = self._specials[ends] != self._specials[begins]
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
    begins, ends, text = begins + 4, ends - 1, block.text
    made = [text[begin:end] for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]
    for place in np.flatnonzero(block.has_special(begins, ends) | (begins == ends)).tolist():
        made[place] = '"' + made[place].replace('"', '""') + '"'
    return made


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
_NUMBERS: dict[int, Vector] = {**_INTEGERS, Kind.DOUBLE: doubles}
_STAMPS: dict[int, Vector] = {Kind.DATE: instants("+00")}
VECTORS: dict[str, dict[int, Vector]] = {
    "text": {Kind.STRING: strings},
    "integer": {**_INTEGERS, Kind.DOUBLE: whole_doubles},
    "decimal": _NUMBERS,
    "float": _NUMBERS,
    "boolean": {Kind.BOOLEAN: booleans},
    "timestamp": {Kind.DATE: instants("")},
    "timestamptz": _STAMPS,
    "objectid": {Kind.OBJECTID: objectids},
    "any": {
        **_NUMBERS, **_STAMPS, Kind.STRING: strings, Kind.BOOLEAN: booleans, Kind.OBJECTID: objectids,
    },
}  # fmt: skip
"""What is known of a column's type and the type that values have; what is not is done value by value."""
