"""What a PostgreSQL database holds: tables, sizes, keys, and the columns an incremental read could go by."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

from blocks.postgres import Postgres
from tasks.extractors.postgres.sql import connect

# Cursor candidates: times named like a change, then what a sequence feeds; indexed and NOT NULL ones first.
_TABLES = """
    SELECT n.nspname::text AS schema, c.relname::text AS name, greatest(c.reltuples, 0)::bigint AS rows,
           pg_catalog.pg_total_relation_size(c.oid) AS bytes,
           ARRAY(SELECT a.attname::text FROM pg_catalog.pg_index i, pg_catalog.pg_attribute a
                 WHERE i.indrelid = c.oid AND i.indisprimary AND a.attrelid = c.oid AND a.attnum = ANY (i.indkey::int2[])
                 ORDER BY array_position(i.indkey::int2[], a.attnum)) AS key,
           ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
                 WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                   AND (a.atttypid IN ('timestamptz'::regtype, 'timestamp'::regtype)
                          AND a.attname ~* '(updat|modif|chang|last|_at$|_ts$|version)'
                        OR a.attidentity <> '' OR pg_catalog.pg_get_serial_sequence(
                             pg_catalog.format('%I.%I', n.nspname, c.relname), a.attname) IS NOT NULL)
                 ORDER BY NOT a.attname ~* '(updat|modif|chang)',
                          NOT EXISTS (SELECT FROM pg_catalog.pg_index i
                                      WHERE i.indrelid = c.oid AND i.indkey[0] = a.attnum),
                          NOT a.attnotnull, a.attnum) AS cursors
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'm', 'f') AND NOT c.relispartition
      AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'
      AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
    ORDER BY 1, 2"""


@dataclass(frozen=True)
class Found:
    """A table that can be read."""

    name: str
    rows: int
    """The planner's estimate; 0 before the first ANALYZE."""
    bytes: int
    key: tuple[str, ...]
    cursors: tuple[str, ...]
    """The likeliest first."""


async def tables(block: Postgres, schema: str = "", like: str = "*") -> list[Found]:
    """The tables the user may read, by name; ``like`` is a shell pattern over the table's name."""
    connection = await connect(block)
    try:
        rows = await connection.fetch(_TABLES)
    finally:
        await connection.close()
    return [
        Found(f"{row['schema']}.{row['name']}", row["rows"], row["bytes"], tuple(row["key"]), tuple(row["cursors"]))
        for row in rows
        if schema in ("", row["schema"]) and fnmatch.fnmatchcase(row["name"], like)
    ]
