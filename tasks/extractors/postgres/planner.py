"""The window of a run and its partitions, from what the server knows; no row is read."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
from pydantic import JsonValue

from blocks.errors import ConfigurationError, PositionLost
from tasks.extractors import cuts
from tasks.extractors.contract import Partition, Plan, ReadOptions
from tasks.extractors.position import (
    NEEDS_CURSOR,
    null_cursor_error,
    number,
    position,
    value_after,
    zone_without_effect,
)
from tasks.extractors.postgres import bounds, slices
from tasks.extractors.postgres.bounds import Bound
from tasks.extractors.postgres.describe import Field
from tasks.extractors.postgres.select import Select, Subject, no_values
from tasks.extractors.postgres.sql import Connection, begin, explained


class Planner:
    """Plans one run on one connection."""

    def __init__(self, connection: Connection, subject: Subject, select: Select, options: ReadOptions) -> None:
        self._connection = connection
        self._window = subject.window
        self._select = select
        self._options = options
        self._notes: list[str] = []

    # -- the window ----------------------------------------------------------------------------------------------

    async def bound(self, since: JsonValue) -> Bound | None:
        """Where an incremental read has to stop; None without a cursor. To be found before the snapshot is taken."""
        cursor = self._cursor()
        if cursor is None:
            return None
        after, zone = self._after(since), await self._zone(cursor)
        if after is not None and after.lower() in ("nan", "infinity") and no_values(self._connection, cursor):
            raise PositionLost(
                f"the position {since} is one that nothing is behind; say where to go on by `headrace state set`"
            )
        await begin(self._connection, isolation="READ COMMITTED")
        try:
            return await self._bound(cursor, after, zone)
        finally:
            if not self._connection.is_closed():
                await self._connection.execute("ROLLBACK")

    async def _zone(self, cursor: Field) -> str:
        """The time zone of a cursor without one; UTC for all others."""
        chosen = self._window.cursor_timezone
        if cursor.base in bounds.LOCAL_TYPES:
            return chosen or await bounds.server_zone(self._connection)
        if chosen:
            raise zone_without_effect(cursor.column.name, cursor.column.type)
        return "UTC"

    async def _bound(self, cursor: Field, after: str | None, zone: str) -> Bound:
        connection, lag = self._connection, self._window.lag
        read = await bounds.relations(connection, await self._select.everything(connection))
        if not lag and not self._window.lookback:
            self._notes += await bounds.blind_spots(connection, cursor, read)
        if cursor.base in bounds.TIME_TYPES:
            await self._check_lag(lag)
            return await bounds.time_bound(connection, cursor, zone, lag, read)
        await self._warn_of_ties(cursor)
        highest = await self._select.highest(connection, cursor, after, None)
        if lag:
            highest = f"SELECT (h.value::{cursor.cast} - {number('lag', lag)})::text FROM ({highest}) AS h"
        return await bounds.value_bound(connection, highest, read)

    async def _check_lag(self, lag: str) -> None:
        try:
            await self._connection.fetchval("SELECT $1::text::interval", lag or "0")
        except asyncpg.PostgresError as error:
            raise explained(error, f"field lag: {lag!r} is no span of time such as '5 minutes'") from error

    async def _warn_of_ties(self, cursor: Field) -> None:
        relation = self._select.relation
        if relation.oid is None or self._window.lookback:
            return
        if not await slices.is_unique(self._connection, relation, cursor.column.name):
            self._notes.append(
                f"the cursor {cursor.column.name} has no unique index: a row that is given an already read value later "
                "is passed over. Set lookback where that can happen"
            )

    def _cursor(self) -> Field | None:
        if self._select.cursor is None and self._options.mode == "incremental":
            raise ConfigurationError(NEEDS_CURSOR)
        return self._select.cursor

    def _after(self, since: JsonValue) -> str | None:
        return value_after(since, self._window.cursor, "PostgreSQL")

    # -- the plan, under the snapshot ----------------------------------------------------------------------------

    async def plan(self, blank: Plan, bound: Bound | None) -> Plan:
        """Fill in ``blank``. A full read without a cursor leaves the position as it is."""
        cursor, after = self._select.cursor, None
        if cursor is not None and bound is not None:
            self._notes += bound.notes
            after = self._after(blank.since)
            await self._warn_of_clock(cursor, after, bound)
        until = await self._until(cursor, after, bound) if cursor and bound else None
        columns = tuple(field.column for field in self._select.relation.chosen(self._options.columns))
        reached = position(cursor.column.name, until) if cursor and until is not None else blank.since
        plan = blank.model_copy(update={"columns": columns, "until": reached})
        if self._options.mode == "full" or cursor is None:
            return await self._full(plan, cursor)
        await self._check_nulls(cursor)
        return await self._incremental(plan, cursor, after, until)

    async def _until(self, cursor: Field, after: str | None, bound: Bound) -> str | None:
        """The highest cursor value within the bound that the snapshot shows; None: no row is new."""
        if bound.value is None:
            return None
        value: str | None = await self._connection.fetchval(
            await self._select.highest(self._connection, cursor, after, bound)
        )
        return value

    async def _warn_of_clock(self, cursor: Field, after: str | None, bound: Bound) -> None:
        if after is None or bound.value is None or not bound.exclusive:
            return
        if await self._connection.fetchval(
            f"SELECT $1::text::{cursor.cast} < $2::text::{cursor.cast}", bound.value, after
        ):
            self._notes.append(
                f"nothing is read now: the window would end at {bound.value}, before the watermark {after}. Was the "
                "server's clock set back, or lag raised? Rows stamped before the watermark are passed over: set lookback, "
                "or go back with `headrace state set`"
            )

    async def _full(self, plan: Plan, cursor: Field | None) -> Plan:
        everything = await self._select.everything(self._connection)
        rows, size = await self._estimate(everything)
        tables = await slices.leaves(self._connection, self._select.relation)
        if tables:
            size = sum(leaf.bytes for leaf in tables)
        whole = Partition(name="00001")
        partitions = await self._cut(whole, cursor, tables, cuts.count(self._options, size))
        return await self._finished(plan, partitions, rows, size)

    async def _incremental(self, plan: Plan, cursor: Field, after: str | None, until: str | None) -> Plan:
        if until is None:
            statement = await self._select.highest(self._connection, cursor, after, None)
            return plan.model_copy(update={"notes": tuple(self._notes), "statement": statement})
        whole = Partition(name="00001", lower=await self._looked_back(cursor, after), upper=until)
        plan = plan.model_copy(update={"partitions": (whole,)})
        rows, size = await self._estimate((await self._select.partition(self._connection, plan, whole))[0])
        tables = await slices.leaves(self._connection, self._select.relation)
        partitions = await self._cut(whole, cursor, tables, cuts.count(self._options, size))
        return await self._finished(plan, partitions, rows, size)

    async def _cut(
        self, whole: Partition, cursor: Field | None, tables: list[slices.Leaf], count: int
    ) -> tuple[Partition, ...]:
        """Cut the window in about ``count``: by pages where all is read, by an indexed cursor, or not at all."""
        full = self._options.mode == "full"
        if count == 1:
            return (whole,)
        if tables and (full or not await self._is_indexed(cursor)):
            window: JsonValue = None if full else [whole.lower, whole.upper]
            return slices.by_pages(tables, count, window)
        if full and (far := await bounds.foreign(self._connection, await bounds.locked(self._connection))):
            self._notes.append(
                f"read in one partition: several readers would see several states of what is on another server ({', '.join(far)})"
            )
            return (whole,)
        if cursor is not None and (not full or self._options.partitions > 1):
            return cuts.ranges(whole.lower, await self._inner(cursor, whole, count), whole.upper)
        self._notes.append(
            "read in one partition: pages of a table can only be told apart in a table itself (not in a view, a query, a "
            "foreign table, one with row security, or before PostgreSQL 14). Name a cursor column to cut by its values"
        )
        return (whole,)

    async def _is_indexed(self, cursor: Field | None) -> bool:
        name = cursor.column.name if cursor else ""
        return await slices.is_indexed(self._connection, self._select.relation, name)

    async def _inner(self, cursor: Field, whole: Partition, count: int) -> list[str]:
        relation = self._select.relation
        if relation.oid is not None:
            known = await slices.histogram(self._connection, relation, cursor, whole)
            if known:
                return cuts.spread(known, count)
        statement = await self._select.quantiles(self._connection, cursor, whole, min(count, 100))
        found: list[str] | None = await self._connection.fetchval(statement)
        return [value for value in dict.fromkeys(found or []) if value is not None and value != whole.upper]

    async def _finished(self, plan: Plan, partitions: tuple[Partition, ...], rows: int, size: int) -> Plan:
        by_pages = isinstance(partitions[0].lower, list)
        plan = plan.model_copy(
            update={
                "partitions": partitions,
                # Page ranges mean something under this snapshot alone; so does a full read, in several parts.
                "resumable": plan.mode == "incremental" and not by_pages,
                "estimated_rows": rows,
                "estimated_bytes": size,
                "notes": tuple(self._notes),
            }
        )
        statement = (await self._select.partition(self._connection, plan, partitions[0]))[0]
        return plan.model_copy(update={"statement": statement})

    async def _check_nulls(self, cursor: Field) -> None:
        others = no_values(self._connection, cursor)
        if self._window.null_cursor != "fail" or not (cursor.column.nullable or others):
            return
        if await self._connection.fetchval(await self._select.without_cursor(self._connection, cursor)):
            raise null_cursor_error(cursor.column.name, " or ".join(["NULL", *others]))

    async def _looked_back(self, cursor: Field, after: str | None) -> str | None:
        lookback = self._window.lookback
        if after is None or not lookback:
            return after
        unit = "interval" if cursor.base in bounds.TIME_TYPES else "numeric"
        try:
            value: str = await self._connection.fetchval(
                f"SELECT ($1::text::{cursor.cast} - $2::text::{unit})::{cursor.cast}::text", after, lookback
            )
        except asyncpg.PostgresError as error:
            raise explained(error, f"field lookback: {lookback!r} cannot be taken from {cursor.column.type}") from error
        return value

    async def _estimate(self, statement: str) -> tuple[int, int]:
        """The server's guess: rows, and bytes of CSV (its row width, and a separator for each column)."""
        told = json.loads(await self._connection.fetchval(f"EXPLAIN (FORMAT JSON) {statement}"))
        top: dict[str, Any] = told[0]["Plan"]
        rows, width = int(top["Plan Rows"]), int(top["Plan Width"])
        return rows, rows * (width + len(self._select.relation.fields))
