"""How a table is cut into slices of about equally many rows: by ranges of a key, found without reading the table.

Between the first key and the last, keys are looked up near evenly spaced values, and the server's own estimate says
how many rows lie between two of them (two dives into the index). Where many do, the next round looks closer. So the
slices follow the data: gaps of snowflake ids cost a round, not empty partitions. The bounds are keys that exist; which
rows a slice has is for the server's comparison alone to say, and the outer ends are open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise

from pydantic import JsonValue

from tasks.extractors.contract import Partition
from tasks.extractors.mysql.candidates import CUTTABLE, between
from tasks.extractors.mysql.describe import Field, Relation
from tasks.extractors.mysql.literals import text
from tasks.extractors.mysql.select import key_shown, past, within
from tasks.extractors.mysql.session import Session
from tasks.extractors.mysql.sql import identifier

_ROUNDS = 12
_FINE = 4
"""Segments per slice that are aimed at."""
_UNIONS = 50
"""Most statements sent as one."""

_INDEXES = """
    SELECT INDEX_NAME, NON_UNIQUE, COLUMN_NAME, SUB_PART, NULLABLE FROM information_schema.STATISTICS
    WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {} AND INDEX_TYPE = 'BTREE' AND COLUMN_NAME IS NOT NULL
    ORDER BY INDEX_NAME <> 'PRIMARY', NON_UNIQUE, INDEX_NAME, SEQ_IN_INDEX"""

Point = tuple[str, ...]


@dataclass(frozen=True)
class Index:
    """An index, with as many of its leading columns as slices can be bounded by."""

    name: str
    fields: tuple[Field, ...]
    """May be empty."""
    unique: bool
    nullable: bool
    columns: int
    """How many columns it has in all."""
    first: Field


@dataclass(frozen=True)
class Segment:
    """The rows with ``low < key <= high``, of which the server estimates so many."""

    low: Point
    high: Point
    rows: int


async def indexes(session: Session, relation: Relation) -> list[Index]:
    """The indexes of a table, the primary key first; none of a view or query."""
    if not relation.is_table:
        return []
    rows = await session.rows(_INDEXES.format(text(relation.schema), text(relation.name)))
    found = []
    for name, grouped in groupby(rows, key=lambda row: str(row[0])):
        parts = list(grouped)
        fields: list[Field] = []
        for _, _, column, prefix, _ in parts:
            field = relation.field(str(column), "index")
            if prefix is not None or field.kind not in CUTTABLE:
                break
            fields.append(field)
        nullable = any(part[4] == "YES" for part in parts)
        first = relation.field(str(parts[0][2]), "index")
        found.append(Index(name, tuple(fields), parts[0][1] == "0", nullable, len(parts), first))
    return found


class Cutter:
    """Finds the inner bounds of slices of one table along one index."""

    def __init__(self, session: Session, relation: Relation, index: Index, conditions: Sequence[str] = ()) -> None:
        self._session = session
        self._key = index.fields
        self._origin = f"{relation.origin} FORCE INDEX ({identifier(index.name)})"
        # Told to use an index by force, MySQL does not dive into it to count.
        self._counted = f"{relation.origin} USE INDEX ({identifier(index.name)})"
        # What limits the rows that count, such as the window of the cursor, where it is the key.
        self._conditions = list(conditions)

    async def bounds(self, count: int) -> list[Point]:
        """At most ``count - 1`` keys that cut the rows into equal parts, and about how many rows there are."""
        ends = [*await self._nearest("ASC"), *await self._nearest("DESC")]
        if len(set(ends)) < 2:
            return []
        segments = await self._measured(ends)
        for _ in range(_ROUNDS):
            finer = await self._finer(segments, count)
            if len(finer) == len(segments):
                break
            segments = finer
        return _quantiles(segments, count)

    async def _nearest(self, order: str) -> list[Point]:
        """The first or last key of all."""
        return [_point(row) for row in await self._session.rows(self._first(self._conditions, order, shown=True))]

    async def _finer(self, segments: list[Segment], count: int) -> list[Segment]:
        """The segments, those with too many rows cut up."""
        most = max(1, sum(segment.rows for segment in segments) // (count * _FINE))
        finer: list[Segment] = []
        for segment in segments:
            inside = await self._inside(segment) if segment.rows > most else []
            points = [segment.low, *inside, segment.high]
            finer += await self._measured(points) if inside else [segment]
        return finer

    async def _inside(self, segment: Segment) -> list[Point]:
        """Keys inside a segment, in the server's order."""
        column = next(n for n, (low, high) in enumerate(zip(segment.low, segment.high, strict=True)) if low != high)
        key, shared = self._key[: column + 1], segment.low[:column]
        probes = [(*shared, value) for value in between(key[-1], segment.low[column], segment.high[column])]
        limits = [*within(self._key, segment.low, segment.high), *self._conditions]
        found: list[Point] = []
        for part in _chunks(probes):
            looks = [
                look
                for probe in part
                for look in (
                    self._first([*limits, past(key, probe, ">", ">=")], "ASC"),
                    self._first([*limits, past(key, probe, "<", "<")], "DESC"),
                )
            ]
            found += [_point(row) for row in await self._session.rows(self._sorted(looks))]
        if len(probes) > _UNIONS:
            found = [_point(row) for row in await self._session.rows(self._again(found))] if found else []
        return [point for point in dict.fromkeys(found) if point not in (segment.low, segment.high)]

    def _first(self, conditions: Sequence[str], order: str, *, shown: bool = False) -> str:
        what = ", ".join(key_shown(field) if shown else field.quoted for field in self._key)
        by = ", ".join(f"{field.quoted} {order}" for field in self._key)
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        return f"SELECT {what} FROM {self._origin}{where} ORDER BY {by} LIMIT 1"

    def _sorted(self, looks: Sequence[str]) -> str:
        """What several looks find, without doubles."""
        union = " UNION ".join(f"({look})" for look in looks)
        by = ", ".join(field.quoted for field in self._key)
        return f"SELECT {', '.join(map(key_shown, self._key))} FROM ({union}) AS t ORDER BY {by}"

    def _again(self, points: Sequence[Point]) -> str:
        """Look the points up once more, to have them in the server's order."""
        exactly = " OR ".join(
            "(" + " AND ".join([*within(self._key, None, point), past(self._key, point, ">", ">=")]) + ")"
            for point in dict.fromkeys(points)
        )
        by = ", ".join(field.quoted for field in self._key)
        shown = ", ".join(map(key_shown, self._key))
        return f"SELECT {shown} FROM {self._origin} WHERE {exactly} GROUP BY {by} ORDER BY {by}"

    async def _measured(self, points: Sequence[Point]) -> list[Segment]:
        """The segments between the points, with the server's estimates."""
        measured: list[Segment] = []
        for part in _chunks(list(pairwise(points))):
            statements = [
                f"SELECT 1 FROM {self._counted} WHERE {' AND '.join([*within(self._key, low, high), *self._conditions])}"
                for low, high in part
            ]
            rows = await self._session.estimates(" UNION ALL ".join(statements))
            measured += [Segment(low, high, rows.get(n, 0)) for n, (low, high) in enumerate(part, 1)]
        return measured


def _quantiles(segments: Sequence[Segment], count: int) -> list[Point]:
    sums = list(accumulate(max(segment.rows, 1) for segment in segments))
    total = sums[-1]
    picked: list[Point] = []
    for number in range(1, count):
        # The segment's end that is nearest to this share of the rows.
        nearest = min(range(len(sums) - 1), key=lambda n: abs(sums[n] * count - number * total), default=None)
        if nearest is not None:
            picked.append(segments[nearest].high)
    return list(dict.fromkeys(picked))


def key_ranges(index: Index, inner: Sequence[Point], low: str | None, high: str | None) -> tuple[Partition, ...]:
    """Partitions along a key, all with the same window of the cursor; the outer ends of the key are open."""
    names: list[JsonValue] = [field.column.name for field in index.fields]
    ends: list[JsonValue] = [None, *(_json(point) for point in inner), None]
    return tuple(
        Partition(
            name=f"{n:05d}",
            lower={"cursor": low, "key": names, "values": first},
            upper={"cursor": high, "values": last},
        )
        for n, (first, last) in enumerate(pairwise(ends), 1)
    )


def cursor_ranges(low: str | None, inner: Sequence[str], high: str | None) -> tuple[Partition, ...]:
    """Partitions along the cursor itself."""
    ends = [low, *inner, high]
    return tuple(
        Partition(name=f"{n:05d}", lower={"cursor": first}, upper={"cursor": last})
        for n, (first, last) in enumerate(pairwise(ends), 1)
    )


def _json(point: Point) -> JsonValue:
    return list(point)


def _point(row: Sequence[str | None]) -> Point:
    return tuple(str(value) for value in row)


def _chunks(items: list[tuple[str, ...]] | list[tuple[Point, Point]]) -> list[list]:  # type: ignore[type-arg]
    return [items[at : at + _UNIONS] for at in range(0, len(items), _UNIONS)]
