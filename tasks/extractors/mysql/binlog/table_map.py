"""A TABLE_MAP_EVENT: which table the row events after it are about, and how its columns are laid out.

https://dev.mysql.com/doc/dev/mysql-server/latest/classmysql_1_1binlog_1_1event_1_1Table__map__event.html
https://mariadb.com/docs/server/reference/clientserver-protocol/replication-protocol/table_map_event
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from blocks.errors import ConfigurationError
from tasks.extractors.mysql.sql import Flavour


class UndecodableError(ConfigurationError):
    """An event that cannot be decoded: a setting or a type that is not supported, or bytes that are not what they should be."""


class Code(IntEnum):
    """Types as they stand in a table map, ENUM and SET taken out of the STRING they hide in.

    https://dev.mysql.com/doc/dev/mysql-server/latest/field__types_8h.html; 140 and 141 are MariaDB's alone.
    """

    TINY = 1
    SHORT = 2
    LONG = 3
    FLOAT = 4
    DOUBLE = 5
    TIMESTAMP = 7
    LONGLONG = 8
    INT24 = 9
    DATE = 10
    TIME = 11
    DATETIME = 12
    YEAR = 13
    NEWDATE = 14
    VARCHAR = 15
    BIT = 16
    TIMESTAMP2 = 17
    DATETIME2 = 18
    TIME2 = 19
    BLOB_COMPRESSED = 140
    VARCHAR_COMPRESSED = 141
    VECTOR = 242
    JSON = 245
    NEWDECIMAL = 246
    ENUM = 247
    SET = 248
    BLOB = 252
    VAR_STRING = 253
    STRING = 254
    GEOMETRY = 255


_METADATA_BYTES = {
    **dict.fromkeys((Code.FLOAT, Code.DOUBLE, Code.TIMESTAMP2, Code.DATETIME2, Code.TIME2), 1),
    **dict.fromkeys((Code.BLOB, Code.BLOB_COMPRESSED, Code.GEOMETRY, Code.JSON, Code.VECTOR), 1),
    **dict.fromkeys((Code.VARCHAR, Code.VARCHAR_COMPRESSED, Code.VAR_STRING, Code.STRING), 2),
    **dict.fromkeys((Code.BIT, Code.NEWDECIMAL, Code.ENUM, Code.SET), 2),
}

NUMBERS = frozenset(
    {Code.TINY, Code.SHORT, Code.INT24, Code.LONG, Code.LONGLONG, Code.NEWDECIMAL, Code.FLOAT, Code.DOUBLE}
)
"""Types that have a bit in SIGNEDNESS."""
CHARACTERS = frozenset(
    {Code.STRING, Code.VAR_STRING, Code.VARCHAR, Code.BLOB, Code.VARCHAR_COMPRESSED, Code.BLOB_COMPRESSED, Code.VECTOR}
)
"""Types that have a place in DEFAULT_CHARSET and COLUMN_CHARSET; with MariaDB a GEOMETRY has one too."""


@dataclass(frozen=True)
class MappedColumn:
    """One column. What only ``binlog_row_metadata`` tells is None where the log does not tell it.

    MySQL always tells signedness and, like MariaDB, nothing but that and character sets under ``MINIMAL``.
    """

    code: Code
    metadata: tuple[int, int]
    """Meaning by type: length, precision and scale, bytes of a length, digits of a fraction …; (0, 0) without."""
    nullable: bool
    unsigned: bool | None = None
    collation: int | None = None
    """The collation's number, which says the character set too."""
    name: str | None = None
    values: tuple[bytes, ...] | None = None
    """Of an ENUM or a SET, in the column's character set."""
    geometry: int | None = None
    """WKB's number of the only kind of geometry; 0: any."""
    key: bool | None = None
    """Whether it is in the primary key."""
    visible: bool | None = None
    dimension: int | None = None
    """Of a VECTOR."""


@dataclass(frozen=True)
class TableMap:
    """A table as its row events have it."""

    id: int
    schema: str
    table: str
    columns: tuple[MappedColumn, ...]
    flavour: Flavour = "MySQL"

    @property
    def name(self) -> str:
        return f"{self.schema}.{self.table}"

    @property
    def has_names(self) -> bool:
        """Whether the log tells the columns' names: ``binlog_row_metadata=FULL``."""
        return all(column.name is not None for column in self.columns)

    @classmethod
    def parse(cls, body: bytes, flavour: Flavour = "MySQL") -> TableMap:
        """From an event's body: what follows the 19 bytes of header, without the checksum.

        The flavours differ in which columns they tell character sets of.

        Raises `UndecodableError` for a body that is cut off, has bytes too many, or a type that is not known.
        """
        reader = _Reader(body)
        try:
            found = _parsed(reader, flavour)
        except (IndexError, UnicodeDecodeError) as error:
            raise UndecodableError(f"a table map that is cut off or garbled: {body[:80].hex()}…") from error
        return found


class _Reader:
    """Takes fields off the front; IndexError where there are too few bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise IndexError("cut off")
        self._at += count
        return self._data[self._at - count : self._at]

    def packed(self) -> int:
        """https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_dt_integers.html"""
        first = self.take(1)[0]
        if first < 0xFB:
            return first
        widths = {0xFC: 2, 0xFD: 3, 0xFE: 8}
        if first not in widths:
            raise IndexError("not a length")
        return int.from_bytes(self.take(widths[first]), "little")

    def counted(self) -> bytes:
        return self.take(self.packed())

    def name(self) -> str:
        """A name behind its length, with a NUL after it."""
        name = self.take(self.take(1)[0]).decode()
        self.take(1)
        return name

    def bits(self, count: int) -> list[bool]:
        """One for each column, the first in the highest bit of a byte."""
        data = self.take((count + 7) // 8)
        return [bool(data[place // 8] & 0x80 >> place % 8) for place in range(count)]


def _parsed(reader: _Reader, flavour: Flavour) -> TableMap:
    told = _OF_MARIADB if flavour == "MariaDB" else _OF_MYSQL
    number = int.from_bytes(reader.take(6), "little")
    reader.take(2)  # flags
    schema = reader.name()
    table = reader.name()
    where = f"{schema}.{table}"
    count = reader.packed()
    codes = [_code(where, code) for code in reader.take(count)]
    columns = _laid_out(where, codes, _Reader(reader.take(reader.packed())), reader.take((count + 7) // 8))
    while reader.left:
        kind, length = reader.take(1)[0], reader.packed()
        # Kinds of servers to come say something more about the columns, not something else.
        if kind in told:
            field = _Reader(reader.take(length))
            columns = told[kind](columns, field)
            if field.left:
                raise UndecodableError(f"{where}: bytes too many in field {kind} of its table map")
        else:
            reader.take(length)
    return TableMap(number, schema, table, tuple(columns), flavour)


def _code(where: str, code: int) -> Code:
    try:
        return Code(code)
    except ValueError:
        raise UndecodableError(f"{where}: its table map has a column of type {code}, which is not known") from None


def _laid_out(where: str, codes: Sequence[Code], metadata: _Reader, nulls: bytes) -> list[MappedColumn]:
    columns = []
    for place, code in enumerate(codes):
        told = metadata.take(_METADATA_BYTES.get(code, 0))
        nullable = bool(nulls[place // 8] >> place % 8 & 1)
        if code is Code.STRING:
            code, pair = _string(where, told)
        elif code in (Code.VARCHAR, Code.VARCHAR_COMPRESSED, Code.VAR_STRING):
            pair = (int.from_bytes(told, "little"), 0)
        else:
            pair = (told[0] if told else 0, told[1] if len(told) == 2 else 0)
        columns.append(MappedColumn(code, pair, nullable))
    if metadata.left:
        raise UndecodableError(f"{where}: bytes too many in the column metadata of its table map")
    return columns


def _string(where: str, told: bytes) -> tuple[Code, tuple[int, int]]:
    """The real type and its length: two bits of lengths above 255 are kept, inverted, in the byte of the type."""
    kind, length = told
    if kind & 0x30 != 0x30:
        return _code(where, kind | 0x30), (length | ((kind & 0x30) ^ 0x30) << 4, 0)
    return _code(where, kind), (length, 0)


# -- optional metadata ------------------------------------------------------------------------------------------------

Columns = list[MappedColumn]
Metadata = Callable[[Columns, _Reader], Columns]

_CHOICES = frozenset({Code.ENUM, Code.SET})


def _signedness(columns: Columns, field: _Reader) -> Columns:
    places = [place for place, column in enumerate(columns) if column.code in NUMBERS]
    bits = field.bits(len(places))
    return _with(columns, places, [{"unsigned": bit} for bit in bits])


def _visibility(columns: Columns, field: _Reader) -> Columns:
    return [replace(column, visible=bit) for column, bit in zip(columns, field.bits(len(columns)), strict=True)]


def _default_charset(columns: Columns, field: _Reader, codes: frozenset[Code]) -> Columns:
    """One collation for all, then the places of those, counted among their like, that have another."""
    places = [place for place, column in enumerate(columns) if column.code in codes]
    collations = [field.packed()] * len(places)
    while field.left:
        place = field.packed()
        collations[place] = field.packed()
    return _with(columns, places, [{"collation": collation} for collation in collations])


def _column_charset(columns: Columns, field: _Reader, codes: frozenset[Code]) -> Columns:
    places = [place for place, column in enumerate(columns) if column.code in codes]
    return _with(columns, places, [{"collation": field.packed()} for _ in places])


def _names(columns: Columns, field: _Reader) -> Columns:
    return [replace(column, name=field.counted().decode()) for column in columns]


def _values_of(code: Code) -> Metadata:
    def values(columns: Columns, field: _Reader) -> Columns:
        places = [place for place, column in enumerate(columns) if column.code is code]
        texts = [tuple(field.counted() for _ in range(field.packed())) for _ in places]
        return _with(columns, places, [{"values": text} for text in texts])

    return values


def _one_each(code: Code, attribute: str) -> Metadata:
    def numbers(columns: Columns, field: _Reader) -> Columns:
        places = [place for place, column in enumerate(columns) if column.code is code]
        return _with(columns, places, [{attribute: field.packed()} for _ in places])

    return numbers


def _key(with_prefix: bool) -> Metadata:
    def key(columns: Columns, field: _Reader) -> Columns:
        keys = set()
        while field.left:
            keys.add(field.packed())
            if with_prefix:
                field.packed()
        if keys and max(keys) >= len(columns):
            raise IndexError
        return [replace(column, key=place in keys) for place, column in enumerate(columns)]

    return key


def _with(columns: Columns, places: Sequence[int], changes: Sequence[dict[str, object]]) -> Columns:
    changed = list(columns)
    for place, change in zip(places, changes, strict=True):
        changed[place] = replace(changed[place], **change)  # type: ignore[arg-type]
    return changed


# By Optional_metadata_field_type of
# https://dev.mysql.com/doc/dev/mysql-server/latest/classmysql_1_1binlog_1_1event_1_1Table__map__event.html
_OF_MYSQL: dict[int, Metadata] = {
    1: _signedness,
    2: lambda columns, field: _default_charset(columns, field, CHARACTERS),
    3: lambda columns, field: _column_charset(columns, field, CHARACTERS),
    4: _names,
    5: _values_of(Code.SET),
    6: _values_of(Code.ENUM),
    7: _one_each(Code.GEOMETRY, "geometry"),
    8: _key(with_prefix=False),
    9: _key(with_prefix=True),
    10: lambda columns, field: _default_charset(columns, field, _CHOICES),
    11: lambda columns, field: _column_charset(columns, field, _CHOICES),
    12: _visibility,
    13: _one_each(Code.VECTOR, "dimension"),
}
_OF_MARIADB: dict[int, Metadata] = {
    **_OF_MYSQL,
    2: lambda columns, field: _default_charset(columns, field, CHARACTERS | {Code.GEOMETRY}),
    3: lambda columns, field: _column_charset(columns, field, CHARACTERS | {Code.GEOMETRY}),
}
