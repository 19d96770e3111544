"""Where values lie in BSON (https://bsonspec.org/spec.html), and how they are ordered when types differ."""

from __future__ import annotations

import struct
from enum import IntEnum

int32 = struct.Struct("<i").unpack_from
int64 = struct.Struct("<q").unpack_from
double = struct.Struct("<d").unpack_from
timestamp = struct.Struct("<II").unpack_from


class Kind(IntEnum):
    """The byte an element begins with."""

    DOUBLE = 0x01
    STRING = 0x02
    DOCUMENT = 0x03
    ARRAY = 0x04
    BINARY = 0x05
    UNDEFINED = 0x06
    OBJECTID = 0x07
    BOOLEAN = 0x08
    DATE = 0x09
    NULL = 0x0A
    REGEX = 0x0B
    DBPOINTER = 0x0C
    CODE = 0x0D
    SYMBOL = 0x0E
    CODE_WITH_SCOPE = 0x0F
    INT32 = 0x10
    TIMESTAMP = 0x11
    INT64 = 0x12
    DECIMAL = 0x13
    MINKEY = 0xFF
    MAXKEY = 0x7F


SIZES: dict[int, int] = {
    Kind.DOUBLE: 8, Kind.UNDEFINED: 0, Kind.OBJECTID: 12, Kind.BOOLEAN: 1, Kind.DATE: 8, Kind.NULL: 0, Kind.INT32: 4,
    Kind.TIMESTAMP: 8, Kind.INT64: 8, Kind.DECIMAL: 16, Kind.MINKEY: 0, Kind.MAXKEY: 0,
}  # fmt: skip
"""Of values that are always as long."""

PREFIXED: dict[int, int] = {
    Kind.STRING: 4, Kind.CODE: 4, Kind.SYMBOL: 4, Kind.DOCUMENT: 0, Kind.ARRAY: 0, Kind.CODE_WITH_SCOPE: 0, Kind.BINARY: 5,
    Kind.DBPOINTER: 16,
}  # fmt: skip
"""Of values that begin with a length, what comes on top of it."""


def end_of(data: bytes, kind: int, at: int) -> int:
    """Where the value at ``at`` ends; ValueError for a type that BSON does not have."""
    size = SIZES.get(kind)
    if size is not None:
        return at + size
    extra = PREFIXED.get(kind)
    if extra is not None:
        return int(at + int32(data, at)[0] + extra)
    if kind == Kind.REGEX:
        return data.index(0, data.index(0, at) + 1) + 1
    raise ValueError(f"BSON has no type {kind:#04x}")


def documents(data: bytes) -> list[tuple[int, int]]:
    """Where each document of a batch begins and ends."""
    found = []
    at = 0
    while at < len(data):
        end = at + int32(data, at)[0]
        found.append((at, end))
        at = end
    return found


BRACKETS: tuple[tuple[str, ...], ...] = (
    ("minKey",), ("null", "undefined"), ("double", "int", "long", "decimal"), ("string", "symbol"), ("object",), ("array",),
    ("binData",), ("objectId",), ("bool",), ("date",), ("timestamp",), ("regex",), ("dbPointer",), ("javascript",),
    ("javascriptWithScope",), ("maxKey",),
)  # fmt: skip
"""Types in the order in which values of different types sort, by the names that ``$type`` knows; ``$gt`` and its like
compare only within one: https://www.mongodb.com/docs/manual/reference/bson-type-comparison-order/
"""
