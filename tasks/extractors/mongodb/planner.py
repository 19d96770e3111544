"""The window of a run and its partitions, from what the server knows; no document is read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pymongo.errors
from pydantic import JsonValue

from blocks.errors import ConfigurationError, PositionLost
from tasks.extractors import cuts
from tasks.extractors.bson.columns import Field
from tasks.extractors.contract import Partition, Plan, ReadOptions
from tasks.extractors.durations import duration
from tasks.extractors.mongodb.client import Server, explained
from tasks.extractors.mongodb.cursors import at, earlier, less, value_of
from tasks.extractors.mongodb.order import NO_VALUES, Condition, Mark, between, bracket_of, is_nan, stored, type_of
from tasks.extractors.mongodb.select import Select, Subject, documents
from tasks.extractors.position import NEEDS_CURSOR, null_cursor_error, value_after

_SAMPLES = 100
"""So many ids are drawn for each slice that is wanted."""

_NO_STATE = (
    "the rows show no single moment: what moves or changes while it is read may be seen before or after. Set read_concern of the "
    "connection to snapshot (replica sets, MongoDB 5 or newer)"
)
_NO_SNAPSHOT = (
    "read_concern snapshot is not to be had: the server is not of a replica set of MongoDB 5 or newer; the rows show no "
    "single moment"
)
_UNSEEN = (
    "MongoDB does not tell of writes in flight: what is stamped before the window's end and comes after this is passed "
    "over. Set lag to more than the longest transaction, and than applications' clocks differ"
)


@dataclass(frozen=True)
class Size:
    """About how much there is; None: the server does not say (a view, or the output of stages)."""

    documents: int | None = None
    bytes: int | None = None

    @property
    def mean(self) -> int | None:
        """Bytes of one document."""
        return self.bytes // self.documents if self.documents and self.bytes else None


class Planner:
    """Plans one run."""

    def __init__(
        self, database: Any, subject: Subject, select: Select, options: ReadOptions, server: Server, session: Any
    ) -> None:
        self._database = database
        self._collection = database[subject.collection]
        self._subject = subject
        self._window = subject.window
        self._select = select
        self._options = options
        self._server = server
        self._session = session
        self._notes: list[str] = []

    async def plan(self, blank: Plan, fields: tuple[Field, ...]) -> Plan:
        """Fill in ``blank``. A full read without a cursor leaves the position as it is."""
        cursor = self._window.cursor
        if not cursor and self._options.mode == "incremental":
            raise ConfigurationError(NEEDS_CURSOR)
        size = await self.size()
        self._note_state()
        after = _after(blank.since, cursor) if cursor else None
        until = await self._until(after) if cursor else None
        incremental = blank.mode == "incremental"
        reached = self._position(cursor, until) if until is not None else blank.since
        columns = tuple(field.column for field in fields)
        plan = blank.model_copy(update={"columns": columns, "until": reached, "resumable": incremental})
        if incremental and until is None:
            return plan.model_copy(update={"notes": tuple(self._notes), "statement": self._nothing_new(after)})
        low = self._looked_back(after) if incremental else None
        return await self._cut(plan, fields, size, low, until if incremental else None)

    async def size(self) -> Size:
        """`ConfigurationError` where there is no such collection."""
        name = self._subject.collection
        try:
            # Not in the session: servers refuse to list under a snapshot.
            cursor = await self._database.list_collections(filter={"name": name})
            found = await cursor.to_list(None)
            if not found:
                raise await self._missing(name)
            if found[0].get("type", "collection") == "view":
                return Size()
            stats = await self._database.command("collStats", name)
        except pymongo.errors.PyMongoError as error:
            raise explained(error, f"collection {name}") from error
        return Size(int(stats.get("count", 0)), int(stats.get("size", 0)))

    async def _missing(self, name: str) -> ConfigurationError:
        names = sorted(await self._database.list_collection_names())
        near = [one for one in names if one.lower() == name.lower()] or names[:20]
        told = f"did you mean {near[0]}?" if len(near) == 1 else f"there are: {', '.join(near) or 'none'}"
        return ConfigurationError(f"field collection: {self._database.name} has no collection {name!r}; {told}")

    def _note_state(self) -> None:
        asked = self._subject.block.read_concern == "snapshot"
        if asked and not self._server.has_snapshots:
            self._notes.append(_NO_SNAPSHOT)
        elif not asked and self._options.mode == "full":
            self._notes.append(_NO_STATE)

    # -- the window ------------------------------------------------------------------------------------------------

    async def _until(self, after: Mark | None) -> Mark | None:
        """The highest place of the cursor that may be read up to; None: nothing is new."""
        cursor = self._window.cursor
        lowest, highest = await self._end(1), await self._end(-1)
        if highest is None:
            await self._check_nulls()
            return None
        self._check_types(lowest, highest, after)
        await self._check_nulls()
        bound = self._bound(highest)
        new = between(cursor, after, None)
        found = await self._end(-1, *new, {cursor: bound})
        return None if found is None else await self._mark(found, new)

    async def _end(self, direction: int, *conditions: Condition) -> dict[str, Any] | None:
        cursor = self._window.cursor
        there: list[Condition] = list(conditions) or [{cursor: {"$nin": NO_VALUES}}]
        found = await self._documents(*there, {"$sort": {cursor: direction}}, {"$limit": 1}, {"$project": {cursor: 1}})
        return found[0] if found else None

    async def _documents(self, *parts: dict[str, Any]) -> list[dict[str, Any]]:
        """Conditions first, stages after."""
        stages = [part for part in parts if next(iter(part)) in ("$sort", "$limit", "$project", "$count", "$sample")]
        conditions = [part for part in parts if part not in stages]
        return await documents(self._collection, self._select.pipeline(conditions, *stages), self._session)

    async def _mark(self, found: dict[str, Any], new: list[Condition]) -> Mark | None:
        """The place of a value, with the highest ``_id`` that has it: later documents of the same value are new."""
        cursor = self._window.cursor
        value = value_of(found, cursor)
        if cursor == "_id":
            return Mark(value)
        stages: list[dict[str, Any]] = [{"$sort": {"_id": -1}}, {"$limit": 1}, {"$project": {"_id": 1}}]
        last = await self._documents(*new, {cursor: value}, *stages)
        if not last:  # it is gone by now
            return None
        return Mark(value, last[0]["_id"]) if "_id" in last[0] else Mark(value)

    def _check_types(self, lowest: dict[str, Any] | None, highest: dict[str, Any], after: Mark | None) -> None:
        cursor = self._window.cursor
        ends = [value_of(end, cursor) for end in (lowest, highest) if end is not None]
        found = dict.fromkeys(type_of(end) for end in ends)
        if len(found) > 1 or not found.keys() <= _SORTED:
            raise ConfigurationError(
                f"field cursor: {cursor} holds values of the types {' and '.join(found)}; a cursor has one type, of dates, "
                "timestamps, ObjectIds, numbers, strings or bytes. Leave others out by the field filter"
            )
        if after is not None and bracket_of(after.value) != bracket_of(ends[-1]):
            raise PositionLost(
                f"field cursor: {cursor} now holds values of type {type_of(ends[-1])}, and the stream has come to one of type "
                f"{type_of(after.value)}; say where to go on by `headrace state set`, or start again"
            )

    def _bound(self, highest: dict[str, Any]) -> Condition:
        """Values up to which nothing more is to come, as far as can be told."""
        lag, value = self._window.lag, value_of(highest, self._window.cursor)
        if type_of(value) in ("date", "objectId", "timestamp"):
            if not lag:
                self._notes.append(_UNSEEN)
            # Whole seconds, as ObjectIds and Timestamps have them: those of this second may still come.
            now = self._server.now.replace(microsecond=0)
            return {"$lt": at(value, now - (duration("lag", lag) if lag else timedelta(0)))}
        self._notes += [] if lag else [_UNSEEN]
        return {"$lte": less(value, "lag", lag) if lag else value}

    def _looked_back(self, after: Mark | None) -> Mark | None:
        lookback = self._window.lookback
        if after is None or not lookback:
            return after
        value = after.value
        if type_of(value) in ("date", "objectId", "timestamp"):
            return Mark(earlier(value, duration("lookback", lookback)))
        return Mark(less(value, "lookback", lookback))

    async def _check_nulls(self) -> None:
        cursor = self._window.cursor
        if self._window.null_cursor != "fail" or self._options.mode == "full":
            return
        if await self._documents({cursor: {"$in": NO_VALUES}}, {"$limit": 1}, {"$project": {"_id": 1}}):
            raise null_cursor_error(cursor, "NULL, missing, NaN or Infinity")

    def _position(self, cursor: str, until: Mark) -> JsonValue:
        return {"cursor": cursor, **until.store()}

    def _nothing_new(self, after: Mark | None) -> str:
        return f"nothing after {after.store()}" if after else "nothing yet"

    # -- the partitions ----------------------------------------------------------------------------------------------

    async def _cut(
        self, plan: Plan, fields: tuple[Field, ...], size: Size, low: Mark | None, high: Mark | None
    ) -> Plan:
        """Cut the window, or the whole collection, in about as many slices as are wanted."""
        derived = bool(self._select.stages)
        told = Size() if derived else size
        conditions = [] if high is None else self._select.window(low, high)
        if high is not None and low is not None and size.mean and not derived:
            told = Size(await self._count(conditions), 0)
            told = Size(told.documents, (told.documents or 0) * size.mean)
        count = cuts.count(self._options, told.bytes or 0)
        partitions = await self._partitions(conditions, count, low, high)
        plan = plan.model_copy(
            update={
                "partitions": partitions,
                "estimated_rows": told.documents,
                "estimated_bytes": told.bytes,
                "notes": tuple(dict.fromkeys(self._notes)),
            }
        )
        return plan.model_copy(update={"statement": self._select.told(plan, partitions[0], fields)})

    async def _count(self, conditions: list[Condition]) -> int:
        found = await self._documents(*conditions, {"$count": "n"})
        return int(found[0]["n"]) if found else 0

    async def _partitions(
        self, conditions: list[Condition], count: int, low: Mark | None, high: Mark | None
    ) -> tuple[Partition, ...]:
        path = "_id" if high is None else self._window.cursor
        drawn = await self._quantiles(conditions, path, count) if count > 1 else []
        if high is None:
            inner: list[JsonValue] = [{"id": stored(value)} for value in drawn]
            return cuts.ranges(None, inner, None)
        kept: list[JsonValue] = [{"cursor": Mark(value).store()} for value in drawn if value != high.value]
        lower: JsonValue = None if low is None else {"cursor": low.store()}
        return cuts.ranges(lower, kept, {"cursor": high.store()})

    async def _quantiles(self, conditions: list[Condition], path: str, count: int) -> list[Any]:
        """Values that cut the documents in slices of about one size, by a sample; the server sorts it, as it sorts all."""
        sample = min(count * _SAMPLES, 20_000)
        found = await self._documents(
            *conditions, {"$sample": {"size": sample}}, {"$project": {path: 1}}, {"$sort": {path: 1}}
        )
        # By their stored form, as documents have no hash.
        drawn = [value for one in found if (value := value_of(one, path)) is not None and not is_nan(value)]
        values = {json.dumps(stored(value)): value for value in drawn}
        return [values[text] for text in cuts.spread(list(values), count)]


_SORTED = {"date", "timestamp", "objectId", "int", "string", "binData"}


def _after(since: JsonValue, cursor: str) -> Mark | None:
    if value_after(since, cursor, "MongoDB") is None or not isinstance(since, dict):
        return None
    try:
        mark = Mark.load(since)
    except (ValueError, TypeError) as error:
        raise PositionLost(f"the position {since} is not Extended JSON: {error}") from None
    if mark is not None and is_nan(mark.value):
        raise PositionLost(
            f"the position {since} is NaN, which nothing is behind; say where to go on by `headrace state set`"
        )
    return mark
