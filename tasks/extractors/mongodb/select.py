"""The aggregations that a stream is read by, and those that plan it: filter, the user's stages, the slice, the fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pymongo.errors
from pydantic import JsonValue

from blocks.errors import ConfigurationError
from blocks.mongodb import MongoDB
from tasks.extractors.bson.columns import Field
from tasks.extractors.contract import Partition, Plan
from tasks.extractors.fields import Declared
from tasks.extractors.mongodb.client import OPTIONS, explained
from tasks.extractors.mongodb.order import (
    NO_VALUES,
    Condition,
    Mark,
    between,
    beyond,
    bracket_of,
    loaded,
    parsed,
    shown,
)
from tasks.extractors.source import Window

Stage = dict[str, Any]

_WRITING = ("$out", "$merge")


@dataclass(frozen=True)
class Subject:
    """What a stream reads."""

    block: MongoDB
    collection: str
    window: Window
    declared: Declared
    filter: str
    pipeline: str
    canonical: bool


def subject_of(source: Any) -> Subject:
    """What a `MongoDBCollection` reads."""
    return Subject(
        block=source.connection,
        collection=source.collection,
        window=source,
        declared=source,
        filter=source.filter,
        pipeline=source.pipeline,
        canonical=source.json_form == "canonical",
    )


class Select:
    """Composes the aggregations of one stream.

    ``projects``: the user has chosen columns, so the server may leave out the rest; otherwise it has to be told of.
    """

    def __init__(self, subject: Subject, *, projects: bool = False) -> None:
        self._projects = projects
        self.cursor = subject.window.cursor
        self.filter = _filter(subject.filter)
        self.stages = _stages(subject.pipeline)
        self._null_cursor = subject.window.null_cursor
        self._collection = subject.collection

    def pipeline(self, conditions: Sequence[Condition], *stages: Stage) -> list[Stage]:
        """The documents for which all conditions hold, and what becomes of them."""
        if self.stages:
            return [*_match([self.filter]), *self.stages, *_match(conditions), *stages]
        return [*_match([self.filter, *conditions]), *stages]

    def partition(self, plan: Plan, partition: Partition, fields: Sequence[Field]) -> list[Stage]:
        """The documents of a slice, with no more of them than is written."""
        kept = projection(fields) if self._projects else {}
        return self.pipeline(self._slice(plan, partition), *([{"$project": kept}] if kept else []))

    def told(self, plan: Plan, partition: Partition, fields: Sequence[Field]) -> str:
        """The same for people."""
        return f"db.{self._collection}.aggregate({shown(self.partition(plan, partition, fields))})"

    def window(self, low: Mark | None, high: Mark | None) -> list[Condition]:
        """``low < cursor <= high``, with the documents without a cursor value where they are wanted."""
        conditions = between(self.cursor, low, high)
        if conditions and self._null_cursor == "include":
            return [{"$or": [_all(conditions), {self.cursor: {"$in": NO_VALUES}}]}]
        return conditions

    def _slice(self, plan: Plan, partition: Partition) -> list[Condition]:
        lower, upper = _ends(partition)
        if plan.mode == "full":
            return _by_id(lower, upper)
        low, high = Mark.load(lower.get("cursor")), Mark.load(upper.get("cursor"))
        if partition == plan.partitions[0]:
            return self.window(low, high)
        return between(self.cursor, low, high)


def _by_id(lower: dict[str, JsonValue], upper: dict[str, JsonValue]) -> list[Condition]:
    conditions = []
    # Between two values of one type there is no other; outer slices take what is of another type.
    inner = "id" in lower and "id" in upper and _alike(lower["id"], upper["id"])
    if "id" in lower:
        conditions.append(beyond("_id", loaded(lower["id"]), "above", one_type=inner))
    if "id" in upper:
        conditions.append(beyond("_id", loaded(upper["id"]), "upto", one_type=inner))
    return conditions


def _alike(one: JsonValue, other: JsonValue) -> bool:
    return bracket_of(loaded(one)) == bracket_of(loaded(other))


def _ends(partition: Partition) -> tuple[dict[str, JsonValue], dict[str, JsonValue]]:
    return (
        partition.lower if isinstance(partition.lower, dict) else {},
        partition.upper if isinstance(partition.upper, dict) else {},
    )


def projection(fields: Sequence[Field]) -> Stage:
    """What the server is asked to leave out, where no column takes the rest of a document."""
    if any(not field.path for field in fields):
        return {}
    paths = {_wanted(field.path) for field in fields}
    if any(not path or "$" in path for path in paths):
        return {}
    # A path and one below it collide.
    outer = sorted(path for path in paths if not any(path.startswith(f"{other}.") for other in paths))
    has_id = any(path.split(".")[0] == "_id" for path in outer)
    return ({} if has_id else {"_id": 0}) | dict.fromkeys(outer, 1)


def _wanted(path: Sequence[bytes]) -> str:
    """The path up to the first place in an array, which a projection does not know."""
    steps: list[str] = []
    for step in path:
        if step.isdigit() or b"." in step:
            break
        steps.append(step.decode())
    return ".".join(steps)


def _match(conditions: Sequence[Condition]) -> list[Stage]:
    wanted = [condition for condition in conditions if condition]
    return [{"$match": _all(wanted)}] if wanted else []


def _all(conditions: Sequence[Condition]) -> Condition:
    return conditions[0] if len(conditions) == 1 else {"$and": list(conditions)}


def _filter(text: str) -> Condition:
    found = _parsed("filter", text) if text.strip() else {}
    if not isinstance(found, dict):
        raise ConfigurationError('field filter: write a document such as {"status": "paid"}')
    return found


def _stages(text: str) -> list[Stage]:
    found = _parsed("pipeline", text) if text.strip() else []
    if not isinstance(found, list) or not all(isinstance(stage, dict) and len(stage) == 1 for stage in found):
        raise ConfigurationError('field pipeline: write a list of stages such as [{"$unwind": "$items"}]')
    if writing := [name for stage in found for name in stage if name in _WRITING]:
        raise ConfigurationError(f"field pipeline: {writing[0]} writes into the database; leave it out")
    return found


def _parsed(field: str, text: str) -> Any:
    try:
        return parsed(text)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"field {field}: is not Extended JSON: {error}") from None


async def documents(collection: Any, pipeline: list[Stage], session: Any = None) -> list[dict[str, Any]]:
    """All that an aggregation of few documents gives."""
    cursor = collection.with_options(codec_options=OPTIONS).aggregate(pipeline, session=session, allowDiskUse=True)
    try:
        found: list[dict[str, Any]] = await cursor.to_list(None)
    except pymongo.errors.PyMongoError as error:
        raise explained(error, "planning failed") from error
    return found
