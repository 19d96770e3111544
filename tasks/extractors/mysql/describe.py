"""What is read: the table, view or query, its columns, and the SQL expression that writes each type in the CSV dialect."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Literal

import aiomysql

from blocks.errors import ConfigurationError
from blocks.s3 import CsvDialect
from tasks.extractors import columns
from tasks.extractors.contract import Column
from tasks.extractors.mysql.forms import Form
from tasks.extractors.mysql.literals import text
from tasks.extractors.mysql.session import Session
from tasks.extractors.mysql.sql import explained, identifier, name_parts

ZeroDates = Literal["text", "null"]

INTEGERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint"})
STRINGS = frozenset({"char", "varchar", "tinytext", "text", "mediumtext", "longtext"})
BINARIES = frozenset({"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob", "vector"})
LOCAL_DATES = frozenset({"date", "datetime"})
"""Without time zone; a timestamp is in the session's."""
DATES = LOCAL_DATES | {"timestamp"}
ADDRESSES = frozenset({"inet4", "inet6"})
"""MariaDB's, as is ``uuid``."""
_GEOMETRIES = frozenset(
    {"geometry", "point", "linestring", "polygon", "geometrycollection", "geomcollection"}
    | {"multipoint", "multilinestring", "multipolygon"}
)
_PLAIN = INTEGERS | DATES | {"decimal", "double", "time", "year"}

# https://dev.mysql.com/doc/dev/mysql-server/latest/field__types_8h.html
_TYPE_CODES = {
    0: "decimal", 1: "tinyint", 2: "smallint", 3: "int", 4: "float", 5: "double", 7: "timestamp", 8: "bigint",
    9: "mediumint", 10: "date", 11: "time", 12: "datetime", 13: "year", 14: "date", 15: "varchar", 16: "bit",
    242: "vector", 245: "json", 246: "decimal", 249: "tinytext", 250: "mediumtext", 251: "longtext", 252: "text",
    253: "varchar", 254: "char", 255: "geometry",
}  # fmt: skip
_AS_BYTES = {
    "char": "binary", "varchar": "varbinary", "tinytext": "tinyblob", "text": "blob", "mediumtext": "mediumblob",
    "longtext": "longblob",
}  # fmt: skip

_COLUMNS = """
    SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, IS_NULLABLE, COLUMN_KEY, CHARACTER_SET_NAME, CHARACTER_OCTET_LENGTH,
        EXTRA LIKE '%VIRTUAL%' OR EXTRA LIKE '%STORED%' OR EXTRA LIKE '%PERSISTENT%'
    FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {} ORDER BY ORDINAL_POSITION"""

_TABLE = """
    SELECT TABLE_TYPE, ENGINE, TABLE_ROWS, DATA_LENGTH FROM information_schema.TABLES
    WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {}"""

_TABLES = """
    SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES
    WHERE TABLE_SCHEMA NOT IN ('mysql', 'information_schema', 'performance_schema', 'sys')"""


@dataclass(frozen=True)
class Field:
    """One column of the source: how it is called, typed, and written."""

    column: Column
    kind: str
    """The type without length, such as ``varchar``."""
    charset: str | None
    form: Form
    expression: str
    generated: bool = False
    """Whether it is computed from other columns; False for a query's."""

    @property
    def quoted(self) -> str:
        return f"t.{identifier(self.column.name)}"

    @property
    def selected(self) -> str:
        return f"{self.expression} AS {identifier(self.column.name)}"


@dataclass(frozen=True)
class Relation:
    """A table, view or query, and what can be read from it."""

    origin: str
    """What follows FROM; the alias is always ``t``."""
    fields: tuple[Field, ...]
    """All columns, in the source's order; invisible and generated ones too."""
    schema: str = ""
    name: str = ""
    """Both empty: a query."""
    engine: str | None = None
    """None: a view or a query."""
    rows: int = 0
    bytes: int = 0
    """What the server's statistics say."""
    where: str = ""

    @property
    def is_table(self) -> bool:
        return self.engine is not None

    def field(self, name: str, purpose: str) -> Field:
        return columns.named(self.fields, name, purpose)

    def chosen(self, names: tuple[str, ...]) -> tuple[Field, ...]:
        return columns.chosen(self.fields, names)


@dataclass(frozen=True)
class Writing:
    """What the expressions depend on."""

    binary: Literal["hex", "base64"]
    zero_dates: ZeroDates
    packet: int
    """``max_allowed_packet``: no function's result may be longer."""

    @classmethod
    async def of(cls, session: Session, dialect: CsvDialect, zero_dates: ZeroDates) -> Writing:
        return cls(dialect.binary, zero_dates, int(await session.value("SELECT @@max_allowed_packet") or 0))

    def field(
        self, column: Column, kind: str, charset: str | None, size: int | None, *, generated: bool = False
    ) -> Field:
        """How a column is written. ``size``: bytes of a string at most, bits of a BIT, digits of a query's column."""
        quoted = f"t.{identifier(column.name)}"
        expression, form = self._form(quoted, column.type.lower(), kind, size)
        return Field(column, kind, charset, form, expression, generated)

    def _form(self, quoted: str, full: str, kind: str, size: int | None) -> tuple[str, Form]:
        if kind in BINARIES:
            return self._bytes(quoted, kind, size)
        if kind in _GEOMETRIES:
            return quoted, Form.GEOMETRY
        if kind == "float":
            # FLOAT's own text has six digits. As a double it has all. (Adding zero would make 0 of -0.)
            return f"{quoted} * 1e0", Form.FLOAT
        if kind == "double" and ("(" in full or size is not None):
            # DOUBLE(M,D) shows D digits, and not all that are stored; of a query's column only the width is known.
            return f"{quoted} * 1e0", Form.PLAIN
        if kind == "bit":
            return f"LPAD(BIN({quoted} + 0), {size or 1}, '0')", Form.PLAIN
        if "zerofill" in full:
            cast = full.split(" ")[0] if kind == "decimal" else "unsigned"
            return f"CAST({quoted} AS {cast})", Form.PLAIN
        if kind in DATES:
            return self._date(quoted, kind), Form.PLAIN
        return quoted, Form.PLAIN if kind in _PLAIN else Form.TEXT

    def _bytes(self, quoted: str, kind: str, size: int | None) -> tuple[str, Form]:
        # The server is quicker at it, but turns what does not fit into a packet into NULL.
        if size is None or 2 * size > self.packet:
            return quoted, Form.BYTES
        if self.binary == "hex":
            # Only of fixed length it is never empty, and so never in need of quotes.
            return f"LOWER(HEX({quoted}))", Form.PLAIN if kind == "binary" and size else Form.TEXT
        return f"REPLACE(TO_BASE64({quoted}), x'0a', '')", Form.TEXT

    def _date(self, quoted: str, kind: str) -> str:
        written = quoted
        if kind == "timestamp":
            # An instant, so with its zone; the zero timestamp is none.
            written = f"CONCAT({quoted}, IF({quoted} = 0, '', '+00'))"
        if self.zero_dates == "null":
            written = f"IF(DAYOFMONTH({quoted}) = 0 OR MONTH({quoted}) = 0, NULL, {written})"
        return written


async def table(session: Session, name: str, where: str, writing: Writing) -> Relation:
    """The table or view called ``name``; raises `ConfigurationError` with near matches when there is none."""
    parts = name_parts(name)
    schema = parts[0] if len(parts) == 2 else await session.value("SELECT DATABASE()") or ""
    where_it_is = text(schema), text(parts[-1])
    found = await session.rows(_TABLE.format(*where_it_is))
    if not found:
        raise ConfigurationError(await _unknown_table(session, name))
    kind, engine, rows, size = found[0]
    fields = [
        writing.field(
            Column(name=str(column), type=str(full), nullable=nullable == "YES", key=key == "PRI"),
            str(data_type).lower(),
            charset,
            _size(str(full), octets),
            generated=generated == "1",
        )
        for column, data_type, full, nullable, key, charset, octets, generated in await session.rows(
            _COLUMNS.format(*where_it_is)
        )
    ]
    return Relation(
        origin=f"{identifier(schema)}.{identifier(parts[-1])} AS t",
        fields=tuple(fields),
        schema=schema,
        name=parts[-1],
        engine=engine if "VIEW" not in str(kind) else None,
        rows=int(rows or 0),
        bytes=int(size or 0),
        where=where.strip(),
    )


def _size(full: str, octets: str | None) -> int | None:
    if octets is not None:
        return int(octets)
    bits = re.fullmatch(r"bit\((\d+)\)", full)
    return int(bits[1]) if bits else None


async def _unknown_table(session: Session, name: str) -> str:
    known = [f"{schema}.{table}" for schema, table in await session.rows(_TABLES)]
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    close += [k for k in known if difflib.get_close_matches(k.split(".", 1)[1], [name.split(".")[-1]], cutoff=0.7)]
    hint = f"did you mean {', '.join(dict.fromkeys(close[:3]))}?" if close else "`headrace discover` lists the tables"
    return f"field table: there is no table or view {name!r}, or the user may not read it; {hint}"


async def query(session: Session, statement: str, key: tuple[str, ...], writing: Writing) -> Relation:
    """A query of the user's; the server's own message when it does not parse."""
    origin = f"(\n{statement}\n) AS t"
    probe = f"SELECT * FROM {origin} LIMIT 0"
    try:
        _, told = await session.described(probe)
    except aiomysql.MySQLError as error:
        raise explained(error, "field query: the server refuses it", probe) from error
    names = [name for name, _, _ in told]
    charsets = await _charsets(session, statement, names)
    fields = []
    for (name, code, length), charset in zip(told, charsets, strict=True):
        kind = _TYPE_CODES.get(code, "text")
        if charset == "binary":
            kind = _AS_BYTES.get(kind, kind)
        column = Column(name=name, type=_shown(kind, length), nullable=True, key=name in key)
        fields.append(writing.field(column, kind, charset, length))
    for name in key:
        if name not in names:
            raise ConfigurationError(f"field key: the query has no column {name!r}; it has: {', '.join(names[:30])}")
    return Relation(origin=origin, fields=tuple(fields))


async def _charsets(session: Session, statement: str, names: list[str]) -> list[str | None]:
    """The character set of each column of a query, of which no row is read."""
    wanted = ", ".join(f"CHARSET(t.{identifier(name)})" for name in names)
    rows = await session.rows(
        f"SELECT {wanted} FROM (SELECT 1) AS one LEFT JOIN (SELECT * FROM (\n{statement}\n) AS q LIMIT 0) AS t ON TRUE"
    )
    return list(rows[0])


def _shown(kind: str, length: int) -> str:
    return f"bit({length})" if kind == "bit" else kind
