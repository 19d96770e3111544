"""Events of MongoDB's connector → CSV, in this process alone: headrace's decoder beside `json`, `bson.json_util` and csv.writer.

    python -m benchmarks.documents_decode [events]

Some 850 bytes each, as the connector writes them without schemas; seconds of the processor, the best of three.
"""

from __future__ import annotations

import csv
import io
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

from bson import json_util

from blocks.s3 import CsvDialect
from tasks.extractors.fields import Declared
from tasks.extractors.kafka.debezium import DebeziumOptions, debezium_decoder
from tasks.extractors.kafka.message import Message

FIELDS = [
    {"name": "_id", "type": "objectid"}, {"name": "name", "path": "customer.name"}, {"name": "email", "path": "customer.email"},
    {"name": "total", "type": "decimal"}, {"name": "n", "type": "integer"}, {"name": "count", "type": "integer"},
    {"name": "ratio", "type": "float"}, {"name": "at", "type": "timestamptz"}, {"name": "note"},
    {"name": "active", "type": "boolean"},
]  # fmt: skip
SOURCE = {
    "version": "3.6.1.Final", "connector": "mongodb", "name": "docs", "ts_ms": 1_796_041_046_721, "snapshot": "false",
    "db": "shop", "sequence": None, "ts_us": 1_796_041_046_721_000, "ts_ns": 1_796_041_046_721_000_000, "collection": "orders",
    "ord": 1, "lsid": None, "txnNumber": None, "wallTime": 1_796_041_046_721,
}  # fmt: skip


def event(number: int) -> Message:
    """An insertion, as the connector writes it."""
    document = {
        "_id": {"$oid": f"{number:024x}"},
        "customer": {"name": f"name {number}", "email": "a@shop.example", "tags": ["a", "b", "c"]},
        "total": {"$numberDecimal": f"{number / 100:.2f}"},
        "n": {"$numberLong": str(number)},
        "count": number,
        "ratio": number / 7,
        "at": {"$date": 1_767_323_045_678 + number},
        "note": "some words that nobody reads " * 4,
        "active": True,
    }
    value = {"before": None, "after": json.dumps(document), "updateDescription": None, "source": SOURCE, "op": "c"}
    key = json.dumps({"id": json.dumps(document["_id"])})
    return Message("docs.shop.orders", 0, number, 1, key.encode(), json.dumps(value).encode(), ())


def by_headrace(messages: Sequence[Message], fields: list[dict[str, str]]) -> int:
    decode = debezium_decoder(CsvDialect(), DebeziumOptions(declared=Declared.model_validate({"fields": fields})))
    made = [decode(messages[at : at + 2000]) for at in range(0, len(messages), 2000)]
    return sum(records.count for outputs in made for _, records in outputs)


def by_json_util(messages: Sequence[Message], fields: list[dict[str, str]]) -> int:
    """Values as Python has them; no look at types, deletions or the rest of the document."""
    text = io.StringIO()
    writer = csv.writer(text)
    paths = [field.get("path", field["name"]).split(".") for field in fields]
    for message in messages:
        found = json.loads(message.value or b"")
        document = json_util.loads(found["after"])
        row = [found["op"], found["source"]["ts_us"], message.offset]
        for path in paths:
            value = document
            for step in path:
                value = value.get(step)
            row.append(value)
        writer.writerow(row if paths else [*row, document["_id"], json_util.dumps(document)])
    return text.getvalue().count("\r\n")


def seconds(run: Callable[[], int], rows: int) -> float:
    """Of the processor; all events have to come out."""
    began = time.process_time()
    assert run() == rows
    return time.process_time() - began


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    messages = [event(number) for number in range(rows)]
    for name, fields in (("ten declared columns", FIELDS), ("_id and _extra", list[dict[str, str]]())):
        ours = min(seconds(partial(by_headrace, messages, fields), rows) for _ in range(3))
        theirs = min(seconds(partial(by_json_util, messages, fields), rows) for _ in range(3))
        print(
            f"{name}: headrace {rows / ours:,.0f} events/s, json_util + csv {rows / theirs:,.0f} ({theirs / ours:.1f} x)"
        )


if __name__ == "__main__":
    main()
