"""Conditions by the order of BSON values, whatever their types: ``$gt`` and its like compare only within one type."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import inf, isnan, nan
from typing import Any, Literal

from bson import json_util
from bson.binary import UuidRepresentation
from bson.code import Code
from bson.codec_options import DatetimeConversion
from bson.datetime_ms import DatetimeMS
from bson.dbref import DBRef
from bson.decimal128 import Decimal128
from bson.json_util import JSONMode, JSONOptions
from bson.max_key import MaxKey
from bson.min_key import MinKey
from bson.objectid import ObjectId
from bson.regex import Regex
from bson.timestamp import Timestamp
from pydantic import JsonValue

from tasks.extractors.bson.layout import BRACKETS

Condition = dict[str, Any]
Side = Literal["above", "upto"]

NANS = [nan, Decimal128("NaN")]
"""They sort before all numbers, and are neither above nor below any: a comparison finds them by equality alone."""

NO_VALUES = [None, *NANS, inf, Decimal128("Infinity")]
"""What a cursor has no place for: from Infinity on nothing would be new ever again."""

_OPTIONS = JSONOptions(
    json_mode=JSONMode.CANONICAL,
    datetime_conversion=DatetimeConversion.DATETIME_MS,
    uuid_representation=UuidRepresentation.UNSPECIFIED,
    tz_aware=False,
)
_SHOWN = JSONOptions(json_mode=JSONMode.RELAXED, uuid_representation=UuidRepresentation.UNSPECIFIED)
_PYTHON: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "bool"), ((int, float, Decimal128), "int"), (Code, "javascript"), (str, "string"), ((dict, DBRef), "object"),
    (list, "array"), (bytes, "binData"), (ObjectId, "objectId"), (DatetimeMS, "date"), (Timestamp, "timestamp"),
    (Regex, "regex"), (MinKey, "minKey"), (MaxKey, "maxKey"), (type(None), "null"),
)  # fmt: skip


def stored(value: Any) -> JsonValue:
    """A BSON value as canonical Extended JSON, which keeps its type. Of integers MongoDB compares nothing but the number."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 53:
        return int(value)
    made: JsonValue = json.loads(json_util.dumps(value, json_options=_OPTIONS))
    return made


def loaded(value: JsonValue) -> Any:
    """A BSON value from Extended JSON."""
    return json_util.loads(json.dumps(value), json_options=_OPTIONS)


def parsed(text: str) -> Any:
    """What a person wrote in Extended JSON."""
    return json.loads(text, object_pairs_hook=_pairs)


def _pairs(pairs: list[tuple[str, Any]]) -> Any:
    """An object of a person's: ``{"$regex": …}`` beside other operators is a condition, of which pymongo would drop those."""
    names = {name for name, _ in pairs}
    if "$regex" in names and names - {"$regex", "$options"}:
        return dict(pairs)
    return json_util.object_pairs_hook(pairs, _OPTIONS)


def shown(value: Any) -> str:
    """For people."""
    return str(json_util.dumps(value, json_options=_SHOWN, ensure_ascii=False, default=str))


def type_of(value: Any) -> str:
    """A name that ``$type`` knows for a value: the first of its bracket's where there are several."""
    return next(name for kinds, name in _PYTHON if isinstance(value, kinds))


def bracket_of(value: Any) -> int:
    """Where the type of a value stands in the order of types."""
    name = type_of(value)
    return next(place for place, names in enumerate(BRACKETS) if name in names)


def is_nan(value: Any) -> bool:
    """Whether a value is a number that is none."""
    return value.to_decimal().is_nan() if isinstance(value, Decimal128) else isinstance(value, float) and isnan(value)


def beyond(path: str, value: Any, side: Side, *, one_type: bool = False) -> Condition:
    """Documents whose value sorts behind ``value`` (above), or before it or like it (upto), of any type.

    ``one_type``: all values there are of this one, so others need not be looked for.
    """
    compared: Condition = {path: {"$gt" if side == "above" else "$lte": value}}
    if is_nan(value):
        compared = {path: {"$gte": -inf} if side == "above" else {"$in": NANS}}
    # MinKey and MaxKey are compared with everything.
    if one_type or isinstance(value, (MinKey, MaxKey)):
        return compared
    place = bracket_of(value)
    others = BRACKETS[place + 1 :] if side == "above" else BRACKETS[:place]
    found = [compared]
    if side == "upto" and type_of(value) == "int" and not is_nan(value):
        found.append({path: {"$in": NANS}})
    if names := [name for bracket in others for name in bracket]:
        found.append({path: {"$type": names}})
    return {"$or": found} if len(found) > 1 else compared


@dataclass(frozen=True)
class Mark:
    """A place in the order of a cursor: a value, and the ``_id`` of the last document that has it."""

    value: Any
    id: Any = ...
    """``...``: all documents that have the value."""

    @staticmethod
    def load(kept: JsonValue) -> Mark | None:
        if not isinstance(kept, dict):
            return None
        return Mark(loaded(kept["value"]), loaded(kept["id"]) if "id" in kept else ...)

    def store(self) -> dict[str, JsonValue]:
        return {"value": stored(self.value)} | ({} if self.id is ... else {"id": stored(self.id)})


def between(cursor: str, low: Mark | None, high: Mark | None) -> list[Condition]:
    """The conditions ``low < (cursor, _id) <= high``; the plain range comes first, and an index on the cursor serves it."""
    span: Condition = {}
    ties: list[Condition] = []
    if low is not None:
        span["$gt" if low.id is ... else "$gte"] = low.value
        if low.id is not ...:
            ties.append({"$or": [{cursor: {"$gt": low.value}}, beyond("_id", low.id, "above")]})
    if high is not None:
        span["$lte"] = high.value
        if high.id is not ...:
            ties.append({"$or": [{cursor: {"$lt": high.value}}, beyond("_id", high.id, "upto")]})
    return [{cursor: span}, *ties] if span else []
