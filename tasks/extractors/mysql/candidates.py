"""Values that may lie between two others of a type: where to look for bounds of slices.

A guess may be bad (who knows how a collation sorts): whoever uses it asks the server for the nearest value there is.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal, InvalidOperation
from ipaddress import ip_address
from uuid import UUID

from tasks.extractors.mysql.describe import ADDRESSES, BINARIES, DATES, INTEGERS, STRINGS, Field

_STEPS = 16

# MySQL's name of a character set → Python's codec.
_CODECS = {
    "utf8mb4": "utf-8", "utf8mb3": "utf-8", "utf8": "utf-8", "ascii": "ascii", "latin1": "cp1252", "latin2": "iso8859-2",
    "latin5": "iso8859-9", "latin7": "iso8859-13", "ucs2": "utf-16-be", "utf16": "utf-16-be", "utf16le": "utf-16-le",
    "utf32": "utf-32-be", "gbk": "gbk", "gb2312": "gb2312", "gb18030": "gb18030", "big5": "big5", "sjis": "shift_jis",
    "cp932": "cp932", "ujis": "euc_jp", "eucjpms": "euc_jp", "euckr": "euc_kr", "cp1250": "cp1250", "cp1251": "cp1251",
    "cp1256": "cp1256", "cp1257": "cp1257", "koi8r": "koi8_r", "koi8u": "koi8_u", "greek": "iso8859-7",
    "hebrew": "iso8859-8", "tis620": "tis_620", "cp850": "cp850", "cp852": "cp852", "cp866": "cp866",
}  # fmt: skip
_ASCII = [chr(code) for code in range(0x20, 0x7F)]

# The bytes of a UUID in the order MariaDB compares them in: versions 1 to 5 (and not the later ones) by the node, by the
# clock's sequence, and last by the lowest digits of the time.
_NODE_FIRST = (10, 11, 12, 13, 14, 15, 8, 9, 6, 7, 4, 5, 0, 1, 2, 3)

CUTTABLE = INTEGERS | STRINGS | BINARIES - {"vector"} | DATES | ADDRESSES | {"decimal", "year", "uuid"}
"""Types of key columns that slices can be bounded by.

Not FLOAT and DOUBLE, whose text is not always the value that is stored, nor ENUM and SET, which sort by their numbers and
are compared by their texts.
"""


def between(field: Field, low: str, high: str) -> list[str]:
    """Values to look at between two values of a key column, and ``high``; all as `key_literal` takes them."""
    if field.kind in INTEGERS or field.kind == "year":
        found = _integers(int(low), int(high))
    elif field.kind == "decimal":
        found = _decimals(low, high)
    elif field.kind in DATES:
        found = _dates(low, high)
    elif field.kind in BINARIES:
        found = _bytes(bytes.fromhex(low), bytes.fromhex(high))
    elif field.kind == "uuid":
        found = _uuids(UUID(low).bytes, UUID(high).bytes)
    elif field.kind in ADDRESSES:
        address = type(ip_address(low))
        found = [str(address(int(value))) for value in _integers(int(address(low)), int(address(high)))]
    else:
        found = _strings(low, high, _CODECS.get(field.charset or ""))
    return list(dict.fromkeys([*found, high]))


def _integers(low: int, high: int) -> list[str]:
    return [str(low + (high - low) * step // _STEPS) for step in range(1, _STEPS)]


def _decimals(low: str, high: str) -> list[str]:
    try:
        first, last = Decimal(low), Decimal(high)
    except InvalidOperation:
        return []
    return [f"{first + (last - first) * step / _STEPS:f}" for step in range(1, _STEPS)]


def _dates(low: str, high: str) -> list[str]:
    try:
        first, last = datetime.fromisoformat(low), datetime.fromisoformat(high)
    except ValueError:  # a date that no calendar has
        return []
    values = [first + (last - first) * step / _STEPS for step in range(1, _STEPS)]
    return [value.isoformat(" ")[: max(len(low), 10)] for value in values]


def _bytes(low: bytes, high: bytes) -> list[str]:
    prefix = _common(low, high)
    first = low[prefix] if prefix < len(low) else 0
    last = high[prefix] if prefix < len(high) else 255
    steps = [first + (last - first) * step // _STEPS for step in range(1, _STEPS + 1)]
    return [(high[:prefix] + bytes([step])).hex() for step in dict.fromkeys(steps) if step > first]


def _uuids(low: bytes, high: bytes) -> list[str]:
    found: list[str] = []
    for like in (low, high):
        order = _NODE_FIRST if 1 <= like[6] >> 4 <= 5 else range(16)
        first, last = sorted(int.from_bytes(bytes(end[n] for n in order)) for end in (low, high))
        for value in _integers(first, last):
            octets = dict(zip(order, int(value).to_bytes(16), strict=True))
            # Of the same version and variant, or the server would look for it elsewhere.
            octets[6] = like[6] & 0xF0 | octets[6] & 0x0F
            octets[8] = like[8] & 0xC0 | octets[8] & 0x3F
            found.append(str(UUID(bytes=bytes(octets[n] for n in range(16)))))
    return found


def _strings(low: str, high: str, codec: str | None) -> list[str]:
    if codec is None:
        return []
    try:
        first, last = bytes.fromhex(low).decode(codec), bytes.fromhex(high).decode(codec)
    except UnicodeDecodeError:
        return []
    prefix = _common(first.casefold(), last.casefold())
    codes = [ord(text[prefix]) if prefix < len(text) else 0x20 for text in (first, last)]
    spaced = [chr(min(codes) + (max(codes) - min(codes)) * step // _STEPS) for step in range(1, _STEPS)]
    return [text.hex() for character in [*_ASCII, *spaced] if (text := _encoded(last[:prefix] + character, codec))]


def _encoded(text: str, codec: str) -> bytes:
    """Empty where the character set lacks a character."""
    try:
        return text.encode(codec)
    except UnicodeEncodeError:
        return b""


def _common(first: bytes | str, last: bytes | str) -> int:
    return next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
