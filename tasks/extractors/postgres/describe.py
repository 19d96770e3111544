"""What is read: the relation or query, its columns, and the SQL expression that writes each type in the CSV dialect."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

import asyncpg

from blocks.errors import ConfigurationError
from blocks.s3 import CsvDialect
from tasks.extractors import columns
from tasks.extractors.contract import Column
from tasks.extractors.postgres.sql import Connection, explained, identifier, name_parts, qualified

# How a value of a built-in type is written; a type that is not here goes out as the server's own text.
_EXPRESSIONS = {
    "bool": "{0}::boolean::text",  # COPY would write t and f
    "money": "{0}::money::numeric::text",  # money's own text depends on lc_monetary
    "hstore": "{0}::json::text",
}
_BINARY = {"hex": "encode({0}, 'hex')", "base64": "translate(encode({0}, 'base64'), E'\\n', '')"}

_COLUMNS = """
    SELECT a.attname::text AS name, a.atttypid AS type_oid, a.atttypmod AS modifier,
           NOT a.attnotnull AS nullable,
           coalesce(a.attnum = ANY (i.indkey::int2[]), false) AS key
    FROM pg_catalog.pg_attribute a
    LEFT JOIN pg_catalog.pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
    WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attnum"""

# A domain is written as its base type is; the walk down a chain of domains keeps the innermost length or precision.
_TYPES = """
    WITH RECURSIVE chain AS (
        SELECT t.oid AS asked, m.modifier, t.oid, t.typtype, t.typbasetype, t.typtypmod
        FROM unnest($1::oid[], $2::int4[]) AS m (oid, modifier) JOIN pg_catalog.pg_type t ON t.oid = m.oid
        UNION ALL
        SELECT c.asked, c.modifier, t.oid, t.typtype, t.typbasetype, t.typtypmod
        FROM chain c JOIN pg_catalog.pg_type t ON t.oid = c.typbasetype WHERE c.typtype = 'd')
    SELECT c.asked, c.modifier AS asked_modifier, pg_catalog.format_type(c.asked, c.modifier) AS display,
           t.typname::text AS base, t.typtype::text AS kind,
           t.typcategory::text AS category, t.typelem <> 0 AS has_elements,
           pg_catalog.format_type(
               t.oid,
               coalesce((SELECT nullif(d.typtypmod, -1) FROM chain d
                         WHERE d.asked = c.asked AND d.modifier = c.modifier AND d.typbasetype = t.oid LIMIT 1),
                        CASE WHEN c.asked = t.oid THEN c.modifier ELSE -1 END)) AS cast_type
    FROM chain c JOIN pg_catalog.pg_type t ON t.oid = c.oid
    WHERE c.typtype <> 'd'"""


@dataclass(frozen=True)
class Field:
    """One column of the source: how it is called, typed, and written."""

    column: Column
    base: str
    """The base type's name in pg_type, such as ``timestamptz``."""
    cast: str
    """The base type with length or precision, for casts."""
    expression: str

    @property
    def selected(self) -> str:
        return f"{self.expression} AS {identifier(self.column.name)}"


@dataclass(frozen=True)
class Relation:
    """A table, view or query, and what can be read from it."""

    oid: int | None
    """None: a query."""
    origin: str
    """What follows FROM; the alias is always ``t``."""
    where: str
    fields: tuple[Field, ...]
    """All columns, in the source's order."""

    def field(self, name: str, purpose: str) -> Field:
        return columns.named(self.fields, name, purpose)

    def chosen(self, names: tuple[str, ...]) -> tuple[Field, ...]:
        return columns.chosen(self.fields, names)


async def table(connection: Connection, name: str, where: str, dialect: CsvDialect) -> Relation:
    """The table or view called ``name``; raises `ConfigurationError` with near matches when there is none."""
    parts = name_parts(name)
    quoted = ".".join(identifier(part) for part in parts)
    found = await connection.fetchrow(
        "SELECT c.oid, n.nspname::text AS schema, c.relname::text AS name, c.relkind::text AS kind"
        " FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.oid = pg_catalog.to_regclass($1)",
        quoted,
    )
    if found is None or found["kind"] not in "rpvmf":
        raise ConfigurationError(await _unknown_table(connection, name))
    rows = await connection.fetch(_COLUMNS, found["oid"])
    return Relation(
        oid=found["oid"],
        origin=f"{qualified(found['schema'], found['name'])} AS t",
        where=where.strip(),
        fields=await _fields(connection, rows, dialect),
    )


async def _unknown_table(connection: Connection, name: str) -> str:
    rows = await connection.fetch(
        "SELECT n.nspname || '.' || c.relname AS name FROM pg_catalog.pg_class c"
        " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema')"
    )
    known = [row["name"] for row in rows]
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    close += [k for k in known if k.split(".", 1)[1] == name.split(".")[-1] and k not in close]
    hint = f"did you mean {', '.join(close[:3])}?" if close else "`headrace discover` lists the tables"
    return (
        f"field table: there is no table or view {name!r} in this database, or the user may not use its schema; {hint}"
    )


async def query(connection: Connection, statement: str, key: tuple[str, ...], dialect: CsvDialect) -> Relation:
    """A query of the user's; the server's own message and position when it does not parse."""
    probe = f"SELECT * FROM (\n{statement}\n) AS t"
    try:
        prepared = await connection.prepare(probe)
    except asyncpg.PostgresError as error:
        raise explained(error, "field query: the server refuses it", probe) from error
    rows = [
        {"name": a.name, "type_oid": a.type.oid, "modifier": -1, "nullable": True, "key": a.name in key}
        for a in prepared.get_attributes()
    ]
    names = [str(row["name"]) for row in rows]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ConfigurationError(f"field query: several columns are called {', '.join(doubled)}; give each a name (AS)")
    fields = await _fields(connection, rows, dialect)
    relation = Relation(oid=None, origin=f"(\n{statement}\n) AS t", where="", fields=fields)
    for name in key:
        relation.field(name, "field key")
    return relation


async def _fields(
    connection: Connection, rows: list[asyncpg.Record] | list[dict[str, object]], dialect: CsvDialect
) -> tuple[Field, ...]:
    types = await connection.fetch(_TYPES, [row["type_oid"] for row in rows], [row["modifier"] for row in rows])
    known = {(row["asked"], row["asked_modifier"]): row for row in types}
    return tuple(_field(row, known[row["type_oid"], row["modifier"]], dialect.binary) for row in rows)


def _field(row: asyncpg.Record | dict[str, object], kind: asyncpg.Record, binary: Literal["hex", "base64"]) -> Field:
    column = Column(name=str(row["name"]), type=kind["display"], nullable=bool(row["nullable"]), key=bool(row["key"]))
    quoted = f"t.{identifier(column.name)}"
    return Field(
        column=column, base=kind["base"], cast=kind["cast_type"], expression=_form(kind, binary).format(quoted)
    )


def _form(kind: asyncpg.Record, binary: Literal["hex", "base64"]) -> str:
    if kind["base"] == "bytea":
        return _BINARY[binary]
    if kind["category"] == "A" and kind["has_elements"]:
        return "pg_catalog.to_json({0})::text"
    if kind["kind"] == "c" or kind["base"] == "record":
        return "pg_catalog.to_json({0})::text"
    return _EXPRESSIONS.get(kind["base"], "{0}")
