"""How the values of each column lie in a row image, and the texts a SELECT gives for them.

Formats: https://dev.mysql.com/doc/dev/mysql-server/latest/classmysql_1_1binlog_1_1event_1_1Table__map__event.html
"""

from __future__ import annotations

import zlib
from base64 import b64encode
from binascii import hexlify
from collections.abc import Callable
from ipaddress import IPv4Address
from itertools import takewhile

from blocks.s3 import CsvDialect
from tasks.extractors.mysql.binlog.charsets import keeps_ascii, utf8
from tasks.extractors.mysql.binlog.columns import LogColumn
from tasks.extractors.mysql.binlog.json_text import json_doubled, json_text
from tasks.extractors.mysql.binlog.layouts import Inline, Layout
from tasks.extractors.mysql.binlog.numbers import INTEGERS, decimal, integer, real
from tasks.extractors.mysql.binlog.table_map import Code, MappedColumn
from tasks.extractors.mysql.binlog.times import TIMES, old_time
from tasks.extractors.mysql.describe import ZeroDates
from tasks.extractors.mysql.sql import Flavour


def layout(
    mapped: MappedColumn, column: LogColumn, dialect: CsvDialect, zero_dates: ZeroDates, flavour: Flavour
) -> Layout:
    """How a column is read; LookupError for what cannot be."""
    zero = dialect.null if zero_dates == "null" else None
    code = mapped.code
    if code in INTEGERS:
        return integer(code, column.unsigned)
    if code in (Code.FLOAT, Code.DOUBLE):
        return real(code, flavour)
    if code is Code.NEWDECIMAL:
        return decimal(*mapped.metadata)
    if code in (Code.TIME, Code.DATETIME, Code.TIMESTAMP):
        return old_time(code, column, zero is not None)
    if code in TIMES:
        return TIMES[code](mapped.metadata[0], zero)
    if code in (Code.ENUM, Code.SET):
        return _choice(mapped, column)
    if code is Code.BIT:
        bits = mapped.metadata[1] * 8 + mapped.metadata[0]
        return Layout(lambda raw: f"{int.from_bytes(raw, 'big'):0{bits}b}", size=(bits + 7) // 8)
    if code is Code.YEAR:
        return Layout(lambda raw: str(1900 + raw[0]) if raw[0] else "0000", size=1)
    return _string(mapped, column, dialect)


def view(utf8_text: bytes) -> str:
    """The str whose characters are these bytes."""
    return utf8_text.decode("latin-1")


def _choice(mapped: MappedColumn, column: LogColumn) -> Layout:
    values = [value.encode("utf-8", "surrogateescape").decode("latin-1") for value in column.values]

    def of_enum(raw: bytes) -> str:
        place = int.from_bytes(raw, "little")
        if place > len(values):
            raise ValueError(f"value {place} of {len(values)}")
        return values[place - 1] if place else ""

    def of_set(raw: bytes) -> str:
        bits = int.from_bytes(raw, "little")
        if bits >> len(values):
            raise ValueError(f"bits {bits:b} of {len(values)} values")
        return ",".join(value for place, value in enumerate(values) if bits >> place & 1)

    text = of_enum if mapped.code is Code.ENUM else of_set
    return Layout(text, size=mapped.metadata[0], plain=False)


def _string(mapped: MappedColumn, column: LogColumn, dialect: CsvDialect) -> Layout:
    code, (length, _) = mapped.code, mapped.metadata
    if code in (Code.VARCHAR, Code.VARCHAR_COMPRESSED, Code.STRING, Code.VAR_STRING):
        prefix = 1 if length < 256 else 2
    elif code in (Code.BLOB, Code.BLOB_COMPRESSED, Code.GEOMETRY, Code.JSON, Code.VECTOR):
        prefix = length
    else:
        raise LookupError(f"values of type {code.name} cannot be decoded")
    write = _written(mapped, column, dialect)
    if code in (Code.VARCHAR_COMPRESSED, Code.BLOB_COMPRESSED):
        return Layout(lambda raw: write(inflated(raw)), prefix=prefix, plain=False)
    return Layout(write, prefix=prefix, plain=False, inline=_inline_string(mapped, column, dialect))


def _written(mapped: MappedColumn, column: LogColumn, dialect: CsvDialect) -> Callable[[bytes], str]:
    if column.kind in _STRUCTS:
        struct_text, size = _STRUCTS[column.kind]
        return lambda raw: struct_text(raw.ljust(size, b"\0"))
    if mapped.code is Code.JSON:
        return json_text
    encode = hexlify if dialect.binary == "hex" else b64encode

    def binary(raw: bytes) -> str:
        return encode(raw).decode()

    if mapped.code is Code.GEOMETRY:
        return lambda raw: binary(raw[4:])  # behind the SRID
    if column.kind == "binary":
        size = mapped.metadata[0]
        return lambda raw: binary(raw.ljust(size, b"\0"))  # zeros at its end are not in the log
    if is_bytes(mapped, column):
        return binary
    convert = utf8(column.charset or "")
    if convert is None:
        return view
    return lambda raw: view(convert(raw))


def is_bytes(mapped: MappedColumn, column: LogColumn) -> bool:
    """Whether values are bytes, and no text."""
    return column.charset in (None, "binary") or mapped.code is Code.VECTOR


def _inline_string(mapped: MappedColumn, column: LogColumn, dialect: CsvDialect) -> Inline | None:
    if column.kind in _STRUCTS or mapped.code is Code.GEOMETRY:
        return None
    if mapped.code is Code.JSON:
        return Inline(steps=("@=JSON(d[@a:p],s[@a:p])",), needs={"JSON": json_doubled}, doubled=True)
    if is_bytes(mapped, column):
        if dialect.binary != "hex":
            return None
        padded = f".ljust({mapped.metadata[0]},b'\\0')" if column.kind == "binary" else ""
        return Inline(steps=("@=d[@a:p]" + padded + ".hex()",))
    convert = utf8(column.charset or "")
    if convert is None:
        return Inline(steps=("@=s[@a:p]",))
    if not keeps_ascii(column.charset or ""):
        return None
    name = f"CONVERT_{column.charset}"
    return Inline(
        steps=("@=s[@a:p]", f"if not @.isascii(): @={name}(d[@a:p]).decode('latin-1')"),
        needs={name: convert},
    )


def inflated(raw: bytes) -> bytes:
    """A value of a COMPRESSED column: https://mariadb.com/docs/server/ha-and-performance/optimization-and-tuning/
    optimization-and-tuning-compression/storage-engine-independent-column-compression
    """
    if not raw or raw[0] == 0:
        return raw[1:]
    method, wrapped, width = raw[0] >> 4, not raw[0] & 8, raw[0] & 7
    if method != 8:
        raise ValueError(f"compression method {method}")
    size = int.from_bytes(raw[1 : 1 + width], "big")
    value = zlib.decompress(raw[1 + width :], wbits=zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)
    if len(value) != size:
        raise ValueError(f"{len(value)} bytes, and {size} were compressed")
    return value


def _uuid(raw: bytes) -> str:
    figures = raw.hex()
    return f"{figures[:8]}-{figures[8:12]}-{figures[12:16]}-{figures[16:20]}-{figures[20:]}"


def _inet4(raw: bytes) -> str:
    return str(IPv4Address(raw))


def _inet6(raw: bytes) -> str:
    """As MariaDB's Inet6::to_string: the longest run of zeros is left out, the first of several, even a single zero."""
    words = [int.from_bytes(raw[place : place + 2], "big") for place in range(0, 16, 2)]
    start, length = _longest_zeros(words)
    if start == 0 and (length == 6 or (length == 5 and words[5] == 0xFFFF)):
        return ("::" if length == 6 else "::ffff:") + str(IPv4Address(raw[12:]))
    figures = [f"{word:x}" for word in words]
    return ":".join(figures[:start]) + "::" + ":".join(figures[start + length :]) if length else ":".join(figures)


def _longest_zeros(words: list[int]) -> tuple[int, int]:
    """Where the first of the longest runs of zeros begins, and how long it is."""
    runs = [(len(list(takewhile(lambda word: word == 0, words[place:]))), -place) for place in range(len(words))]
    length, place = max(runs)
    return -place, length


_STRUCTS: dict[str, tuple[Callable[[bytes], str], int]] = {
    "uuid": (_uuid, 16),
    "inet4": (_inet4, 4),
    "inet6": (_inet6, 16),
}
