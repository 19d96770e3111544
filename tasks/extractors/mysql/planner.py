"""The window of a run and its partitions, from what the server knows; no row is read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from blocks.errors import ConfigurationError
from tasks.extractors import cuts
from tasks.extractors.contract import Partition, Plan, ReadOptions
from tasks.extractors.durations import duration
from tasks.extractors.mysql import bounds, literals, slices
from tasks.extractors.mysql.candidates import CUTTABLE
from tasks.extractors.mysql.describe import DATES, INTEGERS, LOCAL_DATES, STRINGS, Field
from tasks.extractors.mysql.select import Bound, Select, Subject
from tasks.extractors.mysql.session import Session
from tasks.extractors.position import (
    NEEDS_CURSOR,
    null_cursor_error,
    number,
    position,
    value_after,
    zone_without_effect,
)

_ONE_PARTITION = (
    "read in one partition: {}. Add a key that begins with numbers, strings, bytes, dates, UUIDs or addresses; for a view or "
    "query name a cursor column to cut by its values"
)

_NUMBERS = INTEGERS | {"decimal", "year"}


@dataclass(frozen=True)
class _Window:
    """What of the cursor is read: ``low < cursor <= high``; without a cursor, or in mode full, everything."""

    low: str | None = None
    high: str | None = None


class Planner:
    """Plans one run on one connection."""

    def __init__(self, session: Session, subject: Subject, select: Select, options: ReadOptions) -> None:
        self._session = session
        self._window = subject.window
        self._select = select
        self._options = options
        self._notes: list[str] = []
        self._indexes: list[slices.Index] = []

    async def plan(self, blank: Plan) -> Plan:
        """Fill in ``blank``. A full read without a cursor leaves the position as it is."""
        cursor = self._select.cursor
        if cursor is None and self._options.mode == "incremental":
            raise ConfigurationError(NEEDS_CURSOR)
        columns = tuple(field.column for field in self._select.relation.chosen(self._options.columns))
        self._indexes = await slices.indexes(self._session, self._select.relation)
        after = value_after(blank.since, self._window.cursor, "MySQL") if cursor else None
        until = await self._until(cursor, after) if cursor else None
        reached = position(cursor.column.name, until) if cursor and until is not None else blank.since
        plan = blank.model_copy(update={"columns": columns, "until": reached, "resumable": blank.mode == "incremental"})
        if cursor is None or plan.mode == "full":
            return await self._cut(plan, cursor, _Window())
        await self._check_nulls(cursor)
        if until is None:
            statement = self._select.highest(cursor, after, None)
            return plan.model_copy(update={"notes": tuple(self._notes), "statement": statement})
        return await self._cut(plan, cursor, _Window(self._looked_back(cursor, after), until))

    # -- the window ----------------------------------------------------------------------------------------------

    async def _until(self, cursor: Field, after: str | None) -> str | None:
        """The highest cursor value that is safe to read up to; None: no row is new."""
        bound = await self._bound(cursor, after)
        self._notes += bound.notes
        if bound.value is None:
            return None
        return await self._session.value(self._select.highest(cursor, after, bound))

    async def _bound(self, cursor: Field, after: str | None) -> Bound:
        lag = self._window.lag
        if self._window.cursor_timezone and cursor.kind not in LOCAL_DATES:
            raise zone_without_effect(cursor.column.name, cursor.column.type)
        if cursor.kind in DATES:
            held = duration("lag", lag) if lag else timedelta(0)
            return await bounds.time_bound(self._session, cursor, self._window.cursor_timezone, held)
        self._warn_of_ties(cursor)
        bound = await bounds.value_bound(self._session, self._select.highest(cursor, after, None))
        if not lag or bound.value is None:
            return bound
        return Bound(self._less(cursor, bound.value, "lag", lag), bound.exclusive, bound.notes)

    def _warn_of_ties(self, cursor: Field) -> None:
        if not self._select.relation.is_table or self._window.lookback:
            return
        unique = any(i.unique and i.columns == 1 and i.fields == (cursor,) for i in self._indexes)
        if not unique:
            self._notes.append(
                f"the cursor {cursor.column.name} has no unique index: a row that is given an already read value later "
                "is passed over. Set lookback where that can happen"
            )

    def _looked_back(self, cursor: Field, after: str | None) -> str | None:
        lookback = self._window.lookback
        if after is None or not lookback:
            return after
        if cursor.kind not in DATES:
            return self._less(cursor, after, "lookback", lookback)
        moment = datetime.fromisoformat(after) - duration("lookback", lookback)
        return f"{moment:%Y-%m-%d}" if cursor.kind == "date" else moment.isoformat(" ")

    def _less(self, cursor: Field, value: str, name: str, text: str) -> str:
        if cursor.kind not in _NUMBERS:
            raise ConfigurationError(f"field {name}: {text!r} cannot be taken from {cursor.column.type}")
        return f"{Decimal(value) - Decimal(number(name, text)):f}"

    async def _check_nulls(self, cursor: Field) -> None:
        if self._window.null_cursor != "fail" or not cursor.column.nullable:
            return
        if await self._session.value(self._select.without_cursor(cursor)) == "1":
            raise null_cursor_error(cursor.column.name)

    # -- the partitions --------------------------------------------------------------------------------------------

    async def _cut(self, plan: Plan, cursor: Field | None, window: _Window) -> Plan:
        """Cut the window in about as many slices as are wanted."""
        relation = self._select.relation
        rows, size = relation.rows, relation.bytes
        count = cuts.count(self._options, size)
        partitions = await self._partitions(cursor, window, count)
        plan = plan.model_copy(
            update={
                "partitions": partitions,
                "estimated_rows": rows if relation.is_table else None,
                "estimated_bytes": size if relation.is_table else None,
                "notes": tuple(self._notes),
            }
        )
        return plan.model_copy(update={"statement": self._select.partition(plan, partitions[0])})

    async def _partitions(self, cursor: Field | None, window: _Window, count: int) -> tuple[Partition, ...]:
        whole = slices.cursor_ranges(window.low, [], window.high)
        if count == 1:
            return whole
        along = self._along(cursor) if window.high is not None else None
        if cursor is not None and along is not None:
            return slices.cursor_ranges(window.low, await self._inner_values(cursor, along, window, count), window.high)
        keys = [index for index in self._indexes if index.unique and not index.nullable]
        if key := next((index for index in keys if index.fields), None):
            inner = await slices.Cutter(self._session, self._select.relation, key).bounds(count)
            return slices.key_ranges(key, inner, window.low, window.high)
        if cursor is not None and not self._select.relation.is_table and self._options.partitions > 1:
            return slices.cursor_ranges(window.low, await self._quantiles(cursor, window, count), window.high)
        self._notes.append(_uncut(keys))
        return whole

    def _along(self, cursor: Field | None) -> slices.Index | None:
        """An index that begins with the cursor."""
        return next((index for index in self._indexes if index.fields[:1] == (cursor,)), None)

    async def _inner_values(self, cursor: Field, index: slices.Index, window: _Window, count: int) -> list[str]:
        alone = replace(index, fields=(cursor,))
        limits = [f"{cursor.quoted} IS NOT NULL", *self._select.between(cursor, window.low, window.high)]
        found = await slices.Cutter(self._session, self._select.relation, alone, limits).bounds(count)
        values = [await self._as_cursor(cursor, point[0]) for point in found]
        return [value for value in values if value != window.high]

    async def _as_cursor(self, cursor: Field, value: str) -> str:
        """A key's value as the cursor's: strings are bytes in their own character set there, and text here."""
        if cursor.kind not in STRINGS or not cursor.charset:
            return value
        return str(await self._session.value(f"SELECT {literals.of_charset(value, cursor.charset)}"))

    async def _quantiles(self, cursor: Field, window: _Window, count: int) -> list[str]:
        statement = self._select.quantiles(cursor, window.low, window.high, min(count, 100))
        found = [str(row[0]) for row in await self._session.rows(statement)]
        # The last is the end of the window itself.
        return list(dict.fromkeys(found))[:-1]


def _uncut(keys: list[slices.Index]) -> str:
    """Why there is one partition, of a table with these keys."""
    if not keys:
        return _ONE_PARTITION.format("there is no primary key, or unique key without NULLs")
    first = keys[0].first
    what = f"the beginnings of {first.column.type}" if first.kind in CUTTABLE else first.column.type
    return _ONE_PARTITION.format(
        f"the key {keys[0].name} begins with {first.column.name}, and tables are not cut by {what}"
    )
