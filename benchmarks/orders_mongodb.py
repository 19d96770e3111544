"""The documents that MongoDB contenders extract: `orders` as in `benchmarks.orders`, with two fields inside another."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import md5
from math import sqrt
from typing import Any
from uuid import UUID

from bson.binary import Binary
from bson.decimal128 import Decimal128

STEP = 20_000
STATES = ("new", "paid", "packed", "shipped", "returned")
FIELDS: list[dict[str, Any]] = [
    {"name": "id", "path": "_id", "type": "integer", "key": True},
    {"name": "customer_id", "type": "integer"},
    {"name": "status"},
    {"name": "email"},
    {"name": "total", "type": "decimal"},
    {"name": "weight", "type": "float"},
    {"name": "note"},
    {"name": "paid", "type": "boolean"},
    {"name": "updated_at", "type": "timestamptz"},
    {"name": "channel", "path": "attrs.channel"},
    {"name": "ref", "path": "attrs.ref"},
    {"name": "uid", "type": "uuid"},
]
HEADER = ",".join([*(field["name"] for field in FIELDS), "_extra"]) + "\n"
_BEGIN = datetime(2024, 1, 1, tzinfo=UTC)


def document(i: int) -> dict[str, Any]:
    """Every value comes from the number alone. What would be NULL in a table is missing here, or null."""
    figures = md5(str(i).encode()).hexdigest()
    made: dict[str, Any] = {
        "_id": i,
        "customer_id": i * 7919 % 500_000,
        "status": STATES[i % 5],
        "total": Decimal128(f"{i * 104729 % 10_000_000 / 100:.2f}"),
        "weight": None if i % 13 == 0 else sqrt(i),
        "paid": i % 3 == 0,
        "updated_at": _BEGIN + timedelta(seconds=i % 31_536_000, milliseconds=i % 1000),
        "attrs": {"channel": "web", "ref": figures[:12]},
        "uid": Binary(UUID(figures).bytes, 4),
    }
    if i % 11:
        made["email"] = f"user{i * 7919 % 500_000}@example.com"
    if i % 8:
        made["note"] = _note(i, figures)
    return made


def _note(i: int, figures: str) -> str:
    odd = {
        1: "",
        2: f'Leave it with "Mr. Smith", the porter, {figures}; ring twice, please.',
        3: f"two\nlines {figures}\nand a third, for the courier: behind the house",
        4: f"größer, schöner → 日本語 😀 {figures}",
    }
    return odd.get(i % 8, f"plain words about order {i} with nothing to quote in them at all {figures}{figures}")


def batches(rows: int) -> Iterator[list[dict[str, Any]]]:
    for first in range(1, rows + 1, STEP):
        yield [document(i) for i in range(first, min(first + STEP, rows + 1))]


def csv_size(made: dict[str, Any]) -> int:
    """Bytes of a document's record in headrace's dialect, counted without any of its code."""
    attrs, weight = made["attrs"], made["weight"]
    stamp = made["updated_at"]
    values = [
        str(made["_id"]),
        str(made["customer_id"]),
        made["status"],
        made.get("email"),
        str(made["total"]),
        None if weight is None else repr(weight).removesuffix(".0"),
        made.get("note"),
        "true" if made["paid"] else "false",
        f"{stamp:%Y-%m-%d %H:%M:%S}.{stamp.microsecond // 1000:03}+00",
        attrs["channel"],
        attrs["ref"],
        str(UUID(bytes=bytes(made["uid"]))),
        None,
    ]
    return sum(_size(value) for value in values) + len(values)


def _size(value: str | None) -> int:
    if value is None:
        return 0
    quotes = 2 + value.count('"') if value == "" or set(value) & set(',"\n\r') else 0
    return len(value.encode()) + quotes
