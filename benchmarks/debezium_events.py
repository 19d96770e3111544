"""Debezium's events of a table of orders, as its PostgreSQL connector (3.6) writes them: about 600 bytes without their
schemas, about 5 kB with them; and the size of the CSV that they become, counted by another way than headrace's."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

TOPIC = "shop.public.orders"
TYPES = {
    "id": "bigint", "customer": "text", "status": "text", "price": "numeric(10,2)", "at": "timestamp", "note": "text",
    "tags": "jsonb",
}  # fmt: skip
HEADER = ",".join(["_op,_committed_at,_position,_unchanged", *TYPES]) + "\n"

_STATUS = ("new", "paid", "shipped", "returned")
_NOTES = (None, "left at the neighbour's, second floor", 'said "behind the door", please', "no answer at the first try")
_BEGIN = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
_MICROS = 1_700_000_000_000_000


def row(number: int) -> dict[str, Any]:
    return {
        "id": number,
        "customer": f"customer {number % 9973}",
        "status": _STATUS[number % 4],
        "price": f"{number % 100_000 / 100:.2f}",
        "at": _MICROS + number * 211,
        "note": _NOTES[number % 7 % 4],
        "tags": '["a", "b"]',
    }


def event(number: int) -> bytes:
    """Ten rows to a transaction, each row an insert."""
    micros, lsn = _MICROS + number // 10 * 2110, 27_000_000 + number * 144
    source = {
        "version": "3.6.3.Final", "connector": "postgresql", "name": "shop", "ts_ms": micros // 1000, "snapshot": "false",
        "db": "shop", "sequence": f'["{lsn - number % 10 * 144}","{lsn}"]', "ts_us": micros, "ts_ns": micros * 1000,
        "schema": "public", "table": "orders", "txId": 700 + number // 10, "lsn": lsn, "xmin": None, "origin": None,
        "origin_lsn": None,
    }  # fmt: skip
    made = {
        "before": None, "after": row(number), "source": source, "transaction": None, "op": "c", "ts_ms": micros // 1000 + 50,
        "ts_us": micros + 50_123, "ts_ns": (micros + 50_123) * 1000,
    }  # fmt: skip
    return compact(made)


def compact(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def key(number: int) -> bytes:
    return b'{"id":%d}' % number


def with_schema(schema: bytes, payload: bytes) -> bytes:
    """As Connect's JsonConverter writes it with schemas.enable."""
    return b'{"schema":' + schema + b',"payload":' + payload + b"}"


def csv_size(number: int) -> int:
    """Bytes of the record, by the csv module."""
    out, values = io.StringIO(), row(number)
    at = _BEGIN + timedelta(microseconds=number * 211)
    fraction = f".{at.microsecond:06d}".rstrip("0").rstrip(".")
    values["at"] = f"{at:%Y-%m-%d %H:%M:%S}{fraction}"
    csv.writer(out, lineterminator="\n").writerow(values.values())
    head = f"I,2023-11-14 22:13:20.000000+00,{TOPIC}-00000-{0:020d}-0000,,"
    return len(head) + len(out.getvalue().encode())


# -- the schemas --------------------------------------------------------------------------------------------------------


def _field(name: str, kind: str, meaning: str = "", **more: Any) -> dict[str, Any]:
    known = {"type": kind, "optional": name not in ("id", "op")}
    named = {"name": meaning, "version": 1} if meaning else {}
    return known | named | more | {"field": name}


def _of_source(name: str, kind: str, source: str, meaning: str = "") -> dict[str, Any]:
    length = {"__debezium.source.column.length": "10", "__debezium.source.column.scale": "2"} if name == "price" else {}
    told = {"__debezium.source.column.name": name}
    return _field(name, kind, meaning, parameters={"__debezium.source.column.type": source} | length | told)


def _struct(name: str, fields: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {"type": "struct", "fields": fields, "optional": True, "name": name} | more


_ROW = [
    _of_source("id", "int64", "INT8"),
    _of_source("customer", "string", "TEXT"),
    _of_source("status", "string", "TEXT"),
    _of_source("price", "string", "NUMERIC"),
    _of_source("at", "int64", "TIMESTAMP", "io.debezium.time.MicroTimestamp"),
    _of_source("note", "string", "TEXT"),
    _of_source("tags", "string", "JSONB", "io.debezium.data.Json"),
]
_SNAPSHOTS = "true,first,first_in_data_collection,last_in_data_collection,last,false,incremental"
_TIMES = [_field(name, "int64") for name in ("ts_ms", "ts_us", "ts_ns")]
_SOURCE = [
    *(_field(name, "string") for name in ("version", "connector", "name")),
    _TIMES[0],
    _field("snapshot", "string", "io.debezium.data.Enum", parameters={"allowed": _SNAPSHOTS}, default="false"),
    *(_field(name, "string") for name in ("db", "sequence")),
    *_TIMES[1:],
    *(_field(name, "string") for name in ("schema", "table")),
    *(_field(name, "int64") for name in ("txId", "lsn", "xmin")),
    _field("origin", "string"),
    _field("origin_lsn", "int64"),
]
_TRANSACTION = [_field("id", "string"), _field("total_order", "int64"), _field("data_collection_order", "int64")]
SCHEMA = compact(
    _struct(
        f"{TOPIC}.Envelope",
        [
            _struct(f"{TOPIC}.Value", _ROW, field="before"),
            _struct(f"{TOPIC}.Value", _ROW, field="after"),
            _struct("io.debezium.connector.postgresql.Source", _SOURCE, field="source"),
            _struct("event.block", _TRANSACTION, field="transaction"),
            _field("op", "string"),
            *_TIMES,
        ],
    )
)
KEY_SCHEMA = compact(_struct(f"{TOPIC}.Key", [_field("id", "int64")]))
