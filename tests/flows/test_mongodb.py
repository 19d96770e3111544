"""Runs of MongoDB streams: what is committed is the collection, once, whatever was killed or cut; no field is lost."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import string
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from bson import json_util
from bson.binary import Binary
from bson.datetime_ms import DatetimeMS
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.json_util import JSONMode, JSONOptions
from bson.objectid import ObjectId
from bson.regex import Regex
from bson.timestamp import Timestamp

from tests.flows.shops import ROWS, MongoShop
from tests.flows.test_kills import STEPS, killed_run
from tests.servers.faults import FaultProxy, TcpProxy
from tests.servers.mongodb import database_of
from tests.tasks.extractors.test_mongodb import block_of

SOAK = bool(os.environ.get("HEADRACE_SOAK"))
DOCUMENTS = 100_000 if SOAK else 5_000
KILLS = [("incremental", step, when) for step in STEPS for when in ("before", "after")]
SHORT = [("incremental", "result", "after"), ("incremental", "commit", "after"), ("full", "complete", "after")]


@pytest.mark.parametrize("mode", ["full", "incremental"])
async def test_two_runs_bring_everything_once(mongodb_shop: MongoShop, mode: str) -> None:
    """A run commits all documents; the next brings what is new (incremental) or all again (full)."""
    first = await mongodb_shop.run(mode, partitions=3)
    await mongodb_shop.add(20)
    second = await mongodb_shop.run(mode, partitions=3)
    assert (first["sequence"], second["sequence"]) == (1, 2)
    assert second["rows"] == (20 if mode == "incremental" else first["rows"] + 20)
    await mongodb_shop.assert_sound(mode)


@pytest.mark.parametrize(("mode", "step", "when"), KILLS if SOAK else SHORT)
async def test_a_killed_run_is_made_up_for(
    mongodb_shop: MongoShop, s3_faults: FaultProxy, prefect_faults: FaultProxy, mode: str, step: str, when: str
) -> None:
    """After SIGKILL at that step the next run heals: no document is lost, none is committed twice, nothing is left."""
    code = await killed_run(mongodb_shop, mode, step, when, 1, s3_faults, prefect_faults)
    assert code == -signal.SIGKILL
    await mongodb_shop.add(11)
    for _ in range(2):
        await mongodb_shop.run(mode, partitions=STEPS[step][2], parallel=1)
    await mongodb_shop.assert_sound(mode)


async def test_the_plan_of_a_killed_run_is_taken_up(
    mongodb_shop: MongoShop, s3_faults: FaultProxy, prefect_faults: FaultProxy
) -> None:
    """What a killed run finished is committed as it is, only the rest is read."""
    await killed_run(mongodb_shop, "incremental", "commit", "before", 1, s3_faults, prefect_faults)
    before = {request.path for request in s3_faults.requests(method="PUT", path="/data/")}
    await mongodb_shop.run("incremental", partitions=3)
    (commit,) = await mongodb_shop.commits()
    assert commit.resumed
    assert all(any(entry.key in path for path in before) for entry in commit.entries)
    await mongodb_shop.assert_sound("incremental")


@pytest.mark.parametrize("mode", ["full", "incremental"])
async def test_a_lost_connection(mongodb_shop: MongoShop, mongodb_wire: TcpProxy, mode: str) -> None:
    """A connection cut in the middle of a result costs another try; the commits hold every document once."""
    block = block_of(mongodb_shop.mongodb.through(mongodb_wire.port))
    mongodb_wire.cut_after(3 << 20)
    outcome = await mongodb_shop.run(mode, block=cast("Any", block), partitions=2)
    assert outcome["rows"] == ROWS
    await mongodb_shop.assert_sound(mode)


async def test_what_was_counted_is_in_the_commit(mongodb_shop: MongoShop) -> None:
    """Values of another type and fields that were dropped are told where the file is."""
    fields = [{"name": "id", "type": "integer"}, {"name": "payload", "type": "integer"}]
    await mongodb_shop.run("full", source={"fields": fields, "extra": "drop"})
    (commit,) = await mongodb_shop.commits()
    assert commit.entries[0].counted == {
        "payload: not an integer, written as text": ROWS,
        "_id: in no column, left out": ROWS,
        "updated_at: in no column, left out": ROWS,
    }


# -- no field is lost -------------------------------------------------------------------------------------------------

_WORDS = [f"field{n}" for n in range(30)] + ["päth", "with space", "a,b", 'q"q', "x" * 40]
_DECLARED: list[dict[str, Any]] = [
    {"name": "_id", "type": "integer", "key": True},
    {"name": "seen", "type": "timestamptz"},
    {"name": "kind", "default": "none"},
    {"name": "lat", "path": "geo.lat", "type": "float"},
    {"name": "city", "path": "geo.place.city"},
    {"name": "tags", "type": "json"},
    {"name": "n", "type": "integer"},
]
_CANONICAL = JSONOptions(json_mode=JSONMode.CANONICAL)


def _value(random_: random.Random, depth: int = 0) -> Any:
    text = "".join(random_.choices(string.ascii_letters + ',"\n\\é✓ ', k=random_.randrange(12)))
    makers: list[Any] = [
        lambda: text,
        lambda: random_.randrange(-(2**31), 2**31),
        lambda: Int64(random_.randrange(-(2**63), 2**63)),
        lambda: random_.choice([random_.uniform(-1e9, 1e9), 1e300, -0.0, math.inf, 2.0]),
        lambda: random_.random() < 0.5,
        lambda: None,
        lambda: DatetimeMS(random_.randrange(-(10**14), 10**15)),
        lambda: ObjectId(random_.randbytes(12)),
        lambda: Decimal128(f"{random_.randrange(10**9)}E-{random_.randrange(9)}"),
        lambda: Binary(random_.randbytes(random_.randrange(20)), random_.choice([0, 5, 128])),
        lambda: Binary(random_.randbytes(16), 4),
        lambda: Timestamp(random_.randrange(2**32), random_.randrange(2**32)),
        lambda: Regex("a.*b", "i"),
        lambda: [_value(random_, depth + 1) for _ in range(random_.randrange(4))],
        lambda: {name: _value(random_, depth + 1) for name in random_.sample(_WORDS, random_.randrange(4))},
    ]
    return random_.choice(makers if depth < 3 else makers[:13])()


def _document(number: int, random_: random.Random) -> dict[str, Any]:
    """One of a schema that drifts: fields come and go, change their order and types."""
    made: dict[str, Any] = {"seen": datetime(2024, 1, 1, tzinfo=UTC) + timedelta(seconds=number), "n": number}
    if random_.random() < 0.8:
        made["geo"] = {"lat": random_.uniform(-90, 90), "place": {"city": "Rome", "zip": number}, "more": number % 7}
    if random_.random() < 0.5:
        made["kind"] = random_.choice(["a", "", None, 'x"y'])
    if random_.random() < 0.1:
        made["geo"] = _value(random_)
    if random_.random() < 0.05:
        made[random_.choice(["n", "seen", "kind", "tags"])] = _value(random_)
    words = _WORDS[number // (DOCUMENTS // 10 + 1) :][:8]
    made |= {name: _value(random_) for name in random_.sample(words, random_.randrange(len(words)))}
    items = list(made.items())
    if random_.random() < 0.2:
        random_.shuffle(items)
    return {"_id": number, **dict(items)}


def _canonical(value: Any) -> Any:
    return json.loads(json_util.dumps(value, json_options=_CANONICAL))


def _taken(document: dict[str, Any], path: list[str]) -> Any:
    """Take a value out of a document, with the documents that are empty without it; `...` where there is none."""
    head, *rest = path
    if head not in document:
        return ...
    if not rest:
        return document.pop(head)
    inner = document[head]
    if not isinstance(inner, dict):
        return ...
    value = _taken(inner, rest)
    if value is not ... and not inner:
        del document[head]
    return value


@pytest.mark.timeout(7200 if SOAK else 300)
async def test_no_field_is_lost(mongodb_shop: MongoShop) -> None:
    """Of documents of drifting schemas every field is in its column or in `_extra`, and nothing else is there."""
    seed = random.randrange(2**32)
    random_ = random.Random(seed)
    documents = [_document(number, random_) for number in range(DOCUMENTS)]
    async with database_of(mongodb_shop.mongodb) as database:
        for at in range(0, DOCUMENTS, 5_000):
            await database.drifting.insert_many(documents[at : at + 5_000])
    source = {"collection": "drifting", "fields": _DECLARED, "json_form": "canonical"}
    outcome = await mongodb_shop.run("full", source=source, partitions=4)
    assert outcome["rows"] == DOCUMENTS
    rows = {int(row["_id"]): row for row in await mongodb_shop.committed_rows(await mongodb_shop.commits())}
    assert len(rows) == DOCUMENTS
    for document in documents:
        _compare(document, rows[document["_id"]], seed)


def _compare(document: dict[str, Any], row: dict[str, str], seed: int) -> None:
    told = f"seed {seed}, _id {document['_id']}"
    left = _canonical(document)
    for column in _DECLARED:
        value = _taken(left, column.get("path", column["name"]).split("."))
        text = row[column["name"]]
        if value is ... or value is None:
            assert text == (column.get("default", "") if value is ... else ""), told
        else:
            assert _reads_back(value, text, column.get("type", "text")), f"{told}: {column['name']} {value} {text}"
    assert (json.loads(row["_extra"]) if row["_extra"] else {}) == left, told


def _reads_back(value: Any, text: str, kind: str) -> bool:
    """Whether a column's text stands for a value, given in canonical Extended JSON."""
    if kind == "json" or isinstance(value, list) or (isinstance(value, dict) and not _scalar(value)):
        return bool(json.loads(text) == value)
    if isinstance(value, dict):
        name, inner = next(iter(value.items()))
        return bool(_PLAIN[name](inner, text))
    return text == (str(value).lower() if isinstance(value, bool) else value)


def _scalar(value: dict[str, Any]) -> bool:
    return len(value) == 1 and next(iter(value)) in _PLAIN


def _same_instant(inner: Any, text: str) -> bool:
    milliseconds = int(inner["$numberLong"])
    if not text.endswith("+00") or len(text) != 26:
        return not -62_135_596_800_000 <= milliseconds < 253_402_300_800_000
    moment = datetime.fromisoformat(text + ":00")
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1) == milliseconds


def _same_bytes(inner: Any, text: str) -> bool:
    raw = json_util.loads(json.dumps({"$binary": inner}), json_options=JSONOptions(uuid_representation=0))
    return text.replace("-", "") == bytes(raw).hex()


_PLAIN: dict[str, Any] = {
    "$numberInt": lambda inner, text: text == inner,
    "$numberLong": lambda inner, text: text == inner,
    "$numberDouble": lambda inner, text: float(text) == float(inner),
    "$numberDecimal": lambda inner, text: Decimal128(text).to_decimal() == Decimal128(inner).to_decimal(),
    "$oid": lambda inner, text: text == inner,
    "$date": _same_instant,
    "$binary": _same_bytes,
    "$timestamp": lambda inner, text: text == f"{inner['t']}:{inner['i']}",
    "$regularExpression": lambda inner, text: text == f"/{inner['pattern']}/{inner['options']}",
}
