"""The tables of a database, with what one needs to know to make streams of them. From the catalog; reads no row."""

from __future__ import annotations

import re

import asyncpg

from blocks.postgres import Postgres
from tasks.extractors.catalog import Cursor, Found, matches, promises_changes, ranked, stream_name
from tasks.extractors.postgres.sql import connect, explained

# A partitioned table has no pages of its own: its leaves' rows and sizes are added up.
_TABLES = """
    WITH RECURSIVE tree AS (
        SELECT c.oid AS root, c.oid FROM pg_catalog.pg_class c WHERE c.relkind IN ('r', 'p', 'm') AND NOT c.relispartition
        UNION ALL
        SELECT t.root, i.inhrelid FROM tree t
        JOIN pg_catalog.pg_class p ON p.oid = t.oid AND p.relkind = 'p'
        JOIN pg_catalog.pg_inherits i ON i.inhparent = t.oid),
    sums AS (
        SELECT t.root, sum(greatest(c.reltuples, 0))::bigint AS rows, bool_and(c.reltuples >= 0) AS analysed,
               sum(pg_catalog.pg_table_size(c.oid))::bigint AS bytes
        FROM tree t JOIN pg_catalog.pg_class c ON c.oid = t.oid WHERE c.relkind <> 'p' GROUP BY t.root)
    SELECT c.oid, n.nspname::text AS schema, c.relname::text AS name, coalesce(s.rows, 0) AS rows,
           coalesce(s.analysed, true) AS analysed, coalesce(s.bytes, 0) AS bytes,
           pg_catalog.has_any_column_privilege(c.oid, 'SELECT') AS readable
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN sums s ON s.root = c.oid
    WHERE c.relkind IN ('r', 'p', 'm') AND NOT c.relispartition AND c.relpersistence <> 't'
      AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_toast%'
      AND ($1 = '' OR n.nspname = $1)
    ORDER BY n.nspname, c.relname"""

# A generated number grows with every row; any other integer may go anywhere.
_COLUMNS = """
    SELECT a.attrelid AS oid, a.attname::text AS name, t.typname::text AS type, a.attnotnull AS filled,
           coalesce(a.attnum = ANY (k.indkey::int2[]), false) AS key,
           pg_catalog.array_position(k.indkey::int2[], a.attnum) AS place,
           EXISTS (SELECT 1 FROM pg_catalog.pg_index i
                   WHERE i.indrelid = a.attrelid AND i.indkey[0] = a.attnum AND i.indisvalid AND i.indpred IS NULL) AS indexed,
           a.attidentity <> '' OR coalesce(pg_catalog.pg_get_expr(d.adbin, d.adrelid) LIKE 'nextval(%', false) AS generated
    FROM pg_catalog.pg_attribute a
    JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_catalog.pg_index k ON k.indrelid = a.attrelid AND k.indisprimary
    LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = ANY ($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attrelid, a.attnum"""

_TIMES = ("timestamptz", "timestamp")
_INTEGERS = ("int2", "int4", "int8")


async def tables(block: Postgres, schema: str = "", like: str = "*") -> list[Found]:
    """The tables and materialized views whose name (or ``schema.name``) matches, partitions as their whole."""
    connection = await connect(block)
    try:
        rows = await connection.fetch(_TABLES, schema)
        rows = [row for row in rows if matches(like, row["schema"], row["name"])]
        columns = await connection.fetch(_COLUMNS, [row["oid"] for row in rows])
    except asyncpg.PostgresError as error:
        raise explained(error, "the catalog cannot be read") from error
    finally:
        connection.terminate()
    of_table: dict[int, list[asyncpg.Record]] = {}
    for column in columns:
        of_table.setdefault(column["oid"], []).append(column)
    return [_found(row, of_table.get(row["oid"], [])) for row in rows]


def _found(row: asyncpg.Record, columns: list[asyncpg.Record]) -> Found:
    schema, name = row["schema"], row["name"]
    key = sorted((column for column in columns if column["key"]), key=lambda column: int(column["place"]))
    return Found(
        written=".".join(_written(part) for part in (schema, name)),
        stream=stream_name(name) if schema == "public" else stream_name(schema, name),
        rows=row["rows"] if row["analysed"] else None,
        bytes=row["bytes"],
        readable=row["readable"],
        key=tuple(column["name"] for column in key),
        cursors=ranked(_cursor(column) for column in columns if _may_be_cursor(column, len(key))),
    )


def _may_be_cursor(column: asyncpg.Record, key_size: int) -> bool:
    if column["type"] in _TIMES:
        return True
    return column["type"] in _INTEGERS and (column["generated"] or (column["key"] and key_size == 1))


def _cursor(column: asyncpg.Record) -> Cursor:
    return Cursor(
        name=column["name"],
        indexed=column["indexed"],
        filled=column["filled"],
        generated=column["generated"],
        sees_changes=column["type"] in _TIMES and promises_changes(column["name"]),
    )


def _written(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if re.search(r'[".]', name) else name
