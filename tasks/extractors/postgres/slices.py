"""How a plan is cut into partitions: physical page ranges of tables, or ranges of the cursor that follow the data."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import JsonValue

from tasks.extractors.contract import Partition
from tasks.extractors.postgres.describe import Field, Relation
from tasks.extractors.postgres.sql import Connection, qualified

# It reads a ctid range as a range (TID Range Scan); before, each range would cost a scan of the whole table.
_TID_RANGE_SCANS = (14, 0)

_LEAVES = """
    WITH RECURSIVE tree AS (
        SELECT $1::oid AS oid UNION ALL
        SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN tree ON i.inhparent = tree.oid)
    SELECT n.nspname::text AS schema, c.relname::text AS name, c.relkind::text AS kind,
           pg_catalog.pg_relation_size(c.oid) / current_setting('block_size')::int AS pages,
           pg_catalog.pg_table_size(c.oid) AS bytes,
           pg_catalog.has_table_privilege(c.oid, 'SELECT') AND NOT c.relrowsecurity AS direct
    FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind <> 'p'
    ORDER BY 1, 2"""

_HISTOGRAM = """
    SELECT histogram_bounds::text::text[] FROM pg_catalog.pg_stats s
    JOIN pg_catalog.pg_class c ON c.relname = s.tablename
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname = s.schemaname
    WHERE c.oid = $1 AND s.attname = $2 ORDER BY s.inherited DESC LIMIT 1"""

_INDEXED = """
    SELECT EXISTS (SELECT FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a
                   ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                   WHERE i.indrelid = $1 AND a.attname = $2 AND i.indisvalid AND i.indpred IS NULL)"""

_UNIQUE = """
    SELECT EXISTS (SELECT FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a
                   ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                   WHERE i.indrelid = $1 AND a.attname = $2 AND i.indisvalid AND i.indisunique AND i.indnkeyatts = 1)"""


@dataclass(frozen=True)
class Leaf:
    """A table that holds rows itself."""

    schema: str
    name: str
    pages: int
    bytes: int

    def range(self, low: int, high: int | None) -> JsonValue:
        return [self.schema, self.name, low, high]


def range_origin(bounds: JsonValue) -> tuple[str, list[str]]:
    """FROM and conditions for one page range ``[schema, table, first page, page after the last (None: to the end)]``."""
    if not isinstance(bounds, list):
        raise TypeError(f"not a page range: {bounds!r}")
    schema, name, low, high = bounds
    conditions = [f"t.ctid >= '({low},0)'::pg_catalog.tid"] if low else []
    if high is not None:
        conditions.append(f"t.ctid < '({high},0)'::pg_catalog.tid")
    return f"ONLY {qualified(str(schema), str(name))} AS t", conditions


async def leaves(connection: Connection, relation: Relation) -> list[Leaf]:
    """The tables to cut by pages; none where that is not possible: views, foreign tables, row security, old servers."""
    if relation.oid is None or connection.get_server_version() < _TID_RANGE_SCANS:
        return []
    rows = await connection.fetch(_LEAVES, relation.oid)
    if not all(row["kind"] in "rm" and row["direct"] for row in rows):
        return []
    return [Leaf(row["schema"], row["name"], row["pages"], row["bytes"]) for row in rows]


def by_pages(tables: list[Leaf], count: int, window: JsonValue) -> tuple[Partition, ...]:
    """About ``count`` partitions of equal size; small tables share one, a large one is cut into several.

    A table's last range has no end: the snapshot, not the page count, says what belongs to it.
    """
    total = sum(leaf.bytes for leaf in tables)
    share = max(1, -(-total // count))
    slices: list[list[JsonValue]] = []
    room = 0
    for leaf in tables:
        pieces = max(1, min(round(leaf.bytes / share), leaf.pages or 1))
        step = max(1, -(-leaf.pages // pieces))
        starts = list(range(0, max(leaf.pages, 1), step))
        for start, end in zip(starts, [*starts[1:], None], strict=True):
            size = leaf.bytes // len(starts)
            if not slices or room < size:
                slices.append([])
                room = share
            slices[-1].append(leaf.range(start, end))
            room -= size
    return tuple(Partition(name=f"{n:05d}", lower=list(s), upper=window) for n, s in enumerate(slices, 1))


async def histogram(connection: Connection, relation: Relation, cursor: Field, window: Partition) -> list[str]:
    """Values inside the window that cut the table into slices of equally many rows, from the planner's statistics."""
    values = await connection.fetchval(_HISTOGRAM, relation.oid, cursor.column.name)
    inside = await connection.fetchval(
        f"SELECT array_agg(v::text ORDER BY v) FROM unnest($1::text[]::{cursor.cast}[]) AS v"
        f" WHERE ($2::text IS NULL OR v > $2::text::{cursor.cast})"
        f" AND ($3::text IS NULL OR v < $3::text::{cursor.cast})",
        values or [], window.lower, window.upper,
    )  # fmt: skip
    return list(inside or [])


async def is_indexed(connection: Connection, relation: Relation, cursor: str) -> bool:
    return bool(await connection.fetchval(_INDEXED, relation.oid, cursor))


async def is_unique(connection: Connection, relation: Relation, cursor: str) -> bool:
    return bool(await connection.fetchval(_UNIQUE, relation.oid, cursor))
