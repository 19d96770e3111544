"""Values of a cursor: of a document, of a moment, and so much before another one."""

from __future__ import annotations

from datetime import datetime, timedelta
from math import ceil
from typing import Any

from bson.datetime_ms import DatetimeMS
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.objectid import ObjectId
from bson.timestamp import Timestamp

from blocks.errors import ConfigurationError
from tasks.extractors.mongodb.order import type_of
from tasks.extractors.position import number


def value_of(document: dict[str, Any], path: str) -> Any:
    """A value by its path; None where there is none."""
    value: Any = document
    for step in path.split("."):
        if isinstance(value, list) and step.isdigit():
            value = value[int(step)] if int(step) < len(value) else None
        else:
            value = value.get(step) if isinstance(value, dict) else None
    return value


def at(like: Any, moment: datetime) -> Any:
    """The first value of a cursor's type at a moment."""
    seconds = int(moment.timestamp())
    if isinstance(like, ObjectId):
        return ObjectId(seconds.to_bytes(4, "big") + bytes(8))
    if isinstance(like, Timestamp):
        return Timestamp(seconds, 0)
    return DatetimeMS(seconds * 1000)


def earlier(value: Any, span: timedelta) -> Any:
    """The same place, a span of time before; of whole seconds where the type has no other, rounded up."""
    whole_seconds = ceil(span.total_seconds())
    if isinstance(value, ObjectId):
        seconds = int.from_bytes(value.binary[:4], "big") - whole_seconds
        return ObjectId(max(0, seconds).to_bytes(4, "big") + value.binary[4:])
    if isinstance(value, Timestamp):
        return Timestamp(max(0, value.time - whole_seconds), value.inc)
    return DatetimeMS(int(value) - int(span.total_seconds() * 1000))


def less(value: Any, name: str, text: str) -> Any:
    """A number, so much less as the field ``name`` says."""
    span = number(name, text)
    if isinstance(value, Decimal128):
        return Decimal128(value.to_decimal() - Decimal128(span).to_decimal())
    if isinstance(value, int):
        # MongoDB compares numbers of all types.
        return Int64(value - int(span)) if float(span).is_integer() else float(value) - float(span)
    if isinstance(value, float):
        return value - float(span)
    raise ConfigurationError(f"field {name}: {text!r} cannot be taken from a value of type {type_of(value)}")
