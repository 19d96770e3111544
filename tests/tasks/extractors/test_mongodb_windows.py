"""The windows and slices of MongoDB reads: by any type of cursor, over ids of any types, to be gone on from exactly."""

from __future__ import annotations

import asyncio
import json
import math
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from bson.binary import Binary
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.max_key import MaxKey
from bson.min_key import MinKey
from bson.objectid import ObjectId
from bson.timestamp import Timestamp
from pydantic import JsonValue
from pymongo import monitoring

from blocks.errors import ConfigurationError, PositionLost
from blocks.mongodb import MongoDB
from tasks.extractors.contract import Plan, ReadOptions
from tasks.extractors.fields import DeclaredColumn
from tasks.extractors.mongodb import client as clients
from tasks.extractors.mongodb.extractor import MongoDBExtractor
from tasks.extractors.mongodb.order import stored
from tasks.extractors.mongodb.source import MongoDBCollection
from tests.contract import collected
from tests.servers.mongodb import MongoServer, database_of
from tests.tasks.extractors.test_mongodb import block_of

INCREMENTAL = ReadOptions(mode="incremental")
NANS = (math.nan, Decimal128("NaN"))
INFINITIES = (math.inf, Decimal128("Infinity"))
NUMBER = DeclaredColumn(name="n", type="integer")


@dataclass
class Events:
    """A collection `events` of documents that are told apart by `n`."""

    server: MongoServer

    @asynccontextmanager
    async def collection(self) -> AsyncIterator[Any]:
        async with database_of(self.server) as database:
            yield database.events

    async def add(self, *documents: dict[str, Any]) -> None:
        async with self.collection() as collection:
            await collection.insert_many(documents)

    def source(self, **fields: Any) -> MongoDBCollection:
        wanted: dict[str, Any] = {"collection": "events", "fields": (NUMBER,), "connection": block_of(self.server)}
        return MongoDBCollection(**(wanted | fields))

    async def read(
        self, since: JsonValue = None, options: ReadOptions = INCREMENTAL, **fields: Any
    ) -> tuple[list[int], Plan]:
        """The numbers of one read, sorted, and its plan, which was stored and loaded in between."""
        async with self.source(**fields).open(options) as extractor:
            plan = await extractor.plan(since)
            kept = Plan.model_validate(plan.kept())
            return sorted(int(row[0]) for row in await collected(extractor, kept)), plan


@pytest.fixture
async def events(mongodb_database: MongoServer) -> Events:
    return Events(mongodb_database)


def stamp(seconds: float) -> datetime:
    return datetime(2024, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)


def oid(seconds: int, number: int = 0) -> ObjectId:
    return ObjectId(f"{int(stamp(seconds).timestamp()):08x}{number:016x}")


CURSORS: dict[str, Any] = {
    "date": stamp,
    "objectid": oid,
    "timestamp": lambda n: Timestamp(1_700_000_000 + n, 3),
    "int": lambda n: n,
    "long": lambda n: Int64(2**40 + n),
    "double": lambda n: n + 0.5,
    "decimal": lambda n: Decimal128(f"{n}.10"),
    "mixed numbers": lambda n: [n, float(n), Int64(n), Decimal128(str(n))][n % 4],
    "string": lambda n: f"k{n:05}",
    "binary": lambda n: Binary(n.to_bytes(4, "big"), 128),
    "before 1970": lambda n: stamp(n) - timedelta(days=365 * 80),
}


@pytest.mark.parametrize("kind", CURSORS)
async def test_every_type_of_cursor(events: Events, kind: str) -> None:
    """Each window begins where the last one ended, in one slice or several; the position keeps the value's type."""
    value = CURSORS[kind]
    await events.add(*({"n": n, "meta": {"at": value(n)}} for n in range(1, 301)))
    for partitions in (1, 3):
        options = ReadOptions(mode="incremental", partitions=partitions)
        first, plan = await events.read(None, options, cursor="meta.at")
        assert (first, len(plan.partitions)) == (list(range(1, 301)), partitions)
        assert (await events.read(plan.until, options, cursor="meta.at"))[0] == []
        await events.add(*({"n": n, "meta": {"at": value(n)}} for n in range(301, 321)))
        again, later = await events.read(json.loads(json.dumps(plan.until)), options, cursor="meta.at")
        assert again == list(range(301, 321))
        assert (await events.read(later.until, options, cursor="meta.at"))[0] == []
        async with events.collection() as collection:
            await collection.delete_many({"n": {"$gt": 300}})


async def test_a_value_that_many_have_is_gone_on_from_by_id(events: Events) -> None:
    """Documents that come later with the value of the position, and a higher `_id`, are in the next window."""
    await events.add(*({"_id": n, "n": n, "at": stamp(0)} for n in range(1, 11)))
    first, plan = await events.read(cursor="at")
    await events.add(
        *({"_id": n, "n": n, "at": stamp(0)} for n in range(11, 21)), {"_id": "a", "n": 21, "at": stamp(0)}
    )
    second, later = await events.read(plan.until, cursor="at")
    assert (first, second) == (list(range(1, 11)), list(range(11, 22)))
    assert later.until == {"cursor": "at", "value": {"$date": {"$numberLong": "1704067200000"}}, "id": "a"}
    async with events.collection() as collection:
        await collection.delete_many({"_id": "a"})
    gone, still = await events.read(later.until, cursor="at")
    assert (gone, still.partitions, still.until) == ([], (), later.until)


async def test_what_is_stamped_this_second_is_waited_for(events: Events) -> None:
    """Windows of dates, ObjectIds and Timestamps end before the server's present second."""
    now = datetime.now(UTC)
    await events.add({"n": 1, "at": now - timedelta(seconds=2)}, {"n": 2, "at": now + timedelta(seconds=1)})
    before, plan = await events.read(cursor="at")
    await asyncio.sleep(2.2)
    after, _ = await events.read(plan.until, cursor="at")
    assert (before, after) == ([1], [2])
    assert "set lag" in " ".join(plan.notes).lower()


async def test_lag_and_lookback(events: Events) -> None:
    """lag holds fresh documents back; lookback reads some again, and the position still moves on."""
    now = datetime.now(UTC).replace(microsecond=0)
    await events.add(*({"_id": n, "n": n, "at": now - timedelta(minutes=11 - n)} for n in range(1, 11)))
    held, plan = await events.read(cursor="at", lag="5 minutes 30 seconds")
    again, later = await events.read(plan.until, cursor="at", lookback="2 minutes 30 seconds")
    assert held == [1, 2, 3, 4, 5]
    assert again == [3, 4, 5, 6, 7, 8, 9, 10]
    assert later.until != plan.until
    assert not plan.notes
    assert (await events.read(cursor="n", lag="3"))[0] == [1, 2, 3, 4, 5, 6, 7]
    assert (await events.read({"cursor": "n", "value": 8}, cursor="n", lookback="2"))[0] == [7, 8, 9, 10]


@pytest.mark.parametrize("kind", ["objectid", "timestamp", "double", "decimal"])
async def test_lag_and_lookback_of_other_types(events: Events, kind: str) -> None:
    """Spans of time for what holds a time, numbers for numbers."""
    value = CURSORS[kind]
    await events.add(*({"n": n, "at": value(n)} for n in range(1, 11)))
    _, plan = await events.read(cursor="at")
    await events.add({"n": 11, "at": value(11)})
    unit = " seconds" if kind in ("objectid", "timestamp") else ""
    assert (await events.read(plan.until, cursor="at", lookback=f"2{unit}"))[0] == [9, 10, 11]
    if not unit:
        assert (await events.read(cursor="at", lag="3"))[0] == list(range(1, 9))
        with pytest.raises(ConfigurationError, match=r"field lag: 'often'"):
            await events.read(cursor="at", lag="often")
    else:
        # They have whole seconds: a part of one is one.
        assert (await events.read(plan.until, cursor="at", lookback="0.5 seconds"))[0] == [10, 11]
        assert (await events.read(plan.until, cursor="at", lookback="1.5 seconds"))[0] == [9, 10, 11]
        with pytest.raises(ConfigurationError, match=r"field lookback: 'often'"):
            await events.read(plan.until, cursor="at", lookback="often")


def test_a_zone_is_refused() -> None:
    """Dates in MongoDB are moments, so there is none to say; nor is the field in the form."""
    source = {"connection": MongoDB(hosts="db1", database="shop"), "collection": "events", "cursor_timezone": ""}
    for zone in ("Europe/Berlin", ""):
        with pytest.raises(ValueError, match=r"field cursor_timezone: dates of MongoDB are in UTC; leave .* out"):
            MongoDBCollection.model_validate({**source, "cursor_timezone": zone})
    assert "cursor_timezone" not in MongoDBCollection.model_fields


async def test_documents_without_a_cursor_value(events: Events) -> None:
    """null, missing: both stop the run by default; they can be left out, or sent with every run."""
    await events.add({"n": 1, "at": stamp(1)}, {"n": 2, "at": None}, {"n": 3})
    with pytest.raises(ConfigurationError, match=r"null_cursor.*at.*exclude.*include"):
        await events.read(cursor="at")
    left_out, plan = await events.read(cursor="at", null_cursor="exclude")
    assert left_out == [1]
    assert (await events.read(cursor="at", null_cursor="include"))[0] == [1, 2, 3]
    await events.add(*({"n": n, "at": stamp(n)} for n in range(4, 24)))
    for partitions in (1, 3):
        options = ReadOptions(mode="incremental", partitions=partitions)
        read, _ = await events.read(plan.until, options, cursor="at", null_cursor="include")
        assert read == list(range(2, 24))
    full, plan = await events.read(None, ReadOptions(mode="full", partitions=3), cursor="at")
    assert full == list(range(1, 24))
    assert (await events.read(plan.until, cursor="at", null_cursor="exclude"))[0] == []


async def test_a_cursor_of_two_types_is_refused(events: Events) -> None:
    """A comparison finds values of one type alone, so others would never be read; both are named."""
    await events.add({"n": 1, "at": stamp(1)}, {"n": 2, "at": "2024-01-02"})
    with pytest.raises(ConfigurationError, match=r"field cursor: at holds values of the types string and date"):
        await events.read(cursor="at")
    assert (await events.read(cursor="at", filter='{"at": {"$type": "date"}}'))[0] == [1]


@pytest.mark.parametrize("value", [True, {"a": 1}, [1, 2]])
async def test_a_type_without_a_useful_order_is_refused(events: Events, value: Any) -> None:
    """Booleans, documents and arrays are no cursors."""
    await events.add({"n": 1, "at": value})
    with pytest.raises(ConfigurationError, match="field cursor: at holds values"):
        await events.read(cursor="at")


@pytest.mark.parametrize("nan", [*NANS, *INFINITIES], ids=["double", "decimal", "infinite double", "infinite decimal"])
async def test_nan_is_no_cursor_value(events: Events, nan: Any) -> None:
    """NaN is above and below nothing, and nothing is above Infinity: it stops the run, is left out, or is sent with every run."""
    await events.add({"n": 1, "at": nan}, {"n": 2, "at": 1.5})
    with pytest.raises(ConfigurationError, match=r"null_cursor.*NaN"):
        await events.read(cursor="at")
    left_out, plan = await events.read(cursor="at", null_cursor="exclude")
    assert left_out == [2]
    assert (await events.read(cursor="at", null_cursor="include"))[0] == [1, 2]
    await events.add({"n": 3, "at": Decimal128("2")})
    assert (await events.read(plan.until, cursor="at", null_cursor="exclude"))[0] == [3]


@pytest.mark.parametrize("nan", NANS, ids=["double", "decimal"])
async def test_nan_alone_is_no_position(events: Events, nan: Any) -> None:
    """Where no document has a cursor value but NaN there is nothing to read yet, and what comes later is read."""
    await events.add({"n": 1, "at": nan})
    with pytest.raises(ConfigurationError, match=r"null_cursor.*NaN"):
        await events.read(cursor="at")
    nothing, plan = await events.read(cursor="at", null_cursor="exclude")
    assert (nothing, plan.until) == ([], None)
    await events.add({"n": 2, "at": 1.5})
    assert (await events.read(plan.until, cursor="at", null_cursor="exclude"))[0] == [2]
    with pytest.raises(PositionLost, match=r"NaN.*headrace state set"):
        await events.read({"cursor": "at", "value": stored(nan)}, cursor="at", null_cursor="exclude")


async def test_positions_that_are_not_this_cursors_are_refused(events: Events) -> None:
    """Another cursor, another type, something else altogether: each is told with the choices."""
    await events.add({"n": 1, "at": stamp(1)})
    _, plan = await events.read(cursor="n")
    with pytest.raises(PositionLost, match=r"n = 1.*headrace state set"):
        await events.read(plan.until, cursor="at")
    with pytest.raises(PositionLost, match=r"field cursor: at now holds values of type date.*of type int"):
        await events.read({"cursor": "at", "value": 5}, cursor="at")
    with pytest.raises(PositionLost, match="MongoDB"):
        await events.read({"file": "binlog.1"}, cursor="at")
    with pytest.raises(ConfigurationError, match="field cursor"):
        await events.read()


MIXED = [
    MinKey(), None, -5, 2.5, Int64(2**60), Decimal128("3.1"), *range(10, 60), "", "a", "ü", *(f"s{n}" for n in range(50)),
    {"x": 1}, {"x": 1, "y": 2}, Binary(b"ab"), *(Binary(uuid.UUID(int=n << 100).bytes, 4) for n in range(50)),
    *(oid(n) for n in range(50)), False, True, *(stamp(n) for n in range(20)), stamp(-1e10), Timestamp(1, 2), MaxKey(),
]  # fmt: skip
IDS = {
    "mixed": MIXED,
    "objectid": [oid(n // 10, n) for n in range(200)],
    "int": list(range(-100, 100)),
    "string": [f"{n:x}" for n in range(200)],
    "uuid": [Binary(uuid.uuid5(uuid.NAMESPACE_DNS, str(n)).bytes, 4) for n in range(200)],
    "document": [{"a": n % 7, "b": n} for n in range(200)],
}


@pytest.mark.parametrize("kind", IDS)
@pytest.mark.parametrize("partitions", [2, 7])
async def test_slices_of_ids_of_any_type(events: Events, kind: str, partitions: int) -> None:
    """Every document is in one slice, whatever types its `_id` and those of the bounds have."""
    ids = IDS[kind]
    await events.add(*({"_id": value, "n": n} for n, value in enumerate(ids)))
    read, plan = await events.read(None, ReadOptions(mode="full", partitions=partitions))
    assert read == list(range(len(ids)))
    assert len(plan.partitions) == partitions
    # The bounds still hold when documents of other types come.
    if kind != "mixed":
        await events.add(*({"_id": value, "n": 1000 + n} for n, value in enumerate(MIXED) if value not in ids))
    async with events.source().open(ReadOptions(mode="full", partitions=partitions)) as extractor:
        again = await collected(extractor, plan)
    async with events.collection() as collection:
        assert len(again) == await collection.count_documents({})


@pytest.mark.parametrize("nan", NANS, ids=["double", "decimal"])
@pytest.mark.parametrize("partitions", [3, 7])
async def test_an_id_that_is_nan_is_in_one_slice(events: Events, partitions: int, nan: Any) -> None:
    """NaN sorts before all numbers, and is neither above nor below any: it is read once, and is no bound."""
    for others in (range(1, 41), [None, *range(1, 11)]):
        async with events.collection() as collection:
            await collection.delete_many({})
        await events.add(*({"_id": value, "n": n} for n, value in enumerate([nan, *others])))
        read, plan = await events.read(None, ReadOptions(mode="full", partitions=partitions))
        assert read == list(range(len(others) + 1))
        assert len(plan.partitions) == partitions
        assert "NaN" not in json.dumps([part.upper for part in plan.partitions])


async def test_a_tie_is_gone_on_from_behind_an_id_that_is_nan(events: Events) -> None:
    """Documents of the position's cursor value, with any number as `_id`, are behind the one whose `_id` is NaN."""
    await events.add({"_id": math.nan, "n": 1, "at": stamp(0)})
    first, plan = await events.read(cursor="at")
    ids = (-math.inf, -1, 5, Decimal128("7"), "a")
    await events.add(*({"_id": one, "n": n, "at": stamp(0)} for n, one in enumerate(ids, 2)))
    second, later = await events.read(plan.until, cursor="at")
    assert (first, second) == ([1], [2, 3, 4, 5, 6])
    assert (await events.read(later.until, cursor="at"))[0] == []


async def test_a_large_window_is_cut_by_itself(events: Events) -> None:
    """Without a number of partitions, as many are made as give objects of the size that is wanted."""
    await events.add(*({"_id": n, "n": n, "text": "x" * 100} for n in range(2000)))
    read, plan = await events.read(None, ReadOptions(mode="full", object_bytes=60_000))
    assert read == list(range(2000))
    assert len(plan.partitions) >= 4
    assert plan.estimated_rows == 2000
    read, window = await events.read(
        {"cursor": "_id", "value": 999}, ReadOptions(mode="incremental", object_bytes=60_000), cursor="_id"
    )
    assert read == list(range(1000, 2000))
    assert 2 <= len(window.partitions) < len(plan.partitions)


async def test_stages_and_a_filter_go_before_the_read(events: Events) -> None:
    """The cursor is one of what comes out of the stages; a stage that writes is refused."""
    await events.add(*({"_id": n, "items": [{"n": 10 * n}, {"n": 10 * n + 1}], "on": n % 2 == 0} for n in range(4)))
    stages = '[{"$unwind": "$items"}, {"$project": {"_id": 0, "n": "$items.n"}}]'
    read, plan = await events.read(None, filter='{"on": true}', pipeline=stages, cursor="n")
    assert read == [0, 1, 20, 21]
    assert (await events.read(plan.until, pipeline=stages, cursor="n"))[0] == [30, 31]
    for wrong, told in (
        ('[{"$out": "x"}]', r"\$out writes"),
        ('{"$match": {}}', "list of stages"),
        ("[nonsense", "is not Extended JSON"),
        ('[{"$nonsense": 1}]', r"\$nonsense"),
    ):
        with pytest.raises(ConfigurationError, match=told):
            await events.read(None, pipeline=wrong, cursor="n")
    with pytest.raises(ConfigurationError, match="field filter"):
        await events.read(None, filter="[1]", cursor="n")


async def test_a_pattern_beside_other_conditions(events: Events) -> None:
    """What stands in a filter beside `$regex` holds too."""
    await events.add(*({"n": n, "sku": sku} for n, sku in enumerate(["A1", "A2", "a3", "B1"])))
    full = ReadOptions(mode="full")
    for condition, wanted in (
        ('{"$regex": "^A"}', [0, 1]),
        ('{"$regex": "^A", "$options": "i"}', [0, 1, 2]),
        ('{"$regex": "^A", "$ne": "A1"}', [1]),
        ('{"$regex": "^a", "$options": "i", "$nin": ["A1", "A2"]}', [2]),
        ('{"$not": {"$regex": "^A"}}', [2, 3]),
        ('{"$in": [{"$regex": "^B"}, "A1"]}', [0, 3]),
    ):
        assert (await events.read(None, full, filter=f'{{"sku": {condition}}}'))[0] == wanted


async def test_a_view_is_read(events: Events) -> None:
    """A view has no size and no indexes, and is read all the same."""
    await events.add(*({"_id": n, "n": n} for n in range(10)))
    await events.server.create_view("seen", "events", '[{"$match": {"n": {"$gt": 4}}}]')
    for mode in ("full", "incremental"):
        options = ReadOptions(mode=mode, partitions=2)
        read, _ = await events.read(None, options, collection="seen", cursor="n")
        assert read == [5, 6, 7, 8, 9]


async def test_an_empty_collection(events: Events) -> None:
    """A full read has one partition without rows; an incremental one nothing to do, until something comes."""
    await events.add({"n": 1})
    async with events.collection() as collection:
        await collection.delete_many({})
    full, plan = await events.read(None, ReadOptions(mode="full"), cursor="n")
    assert (full, len(plan.partitions)) == ([], 1)
    none, plan = await events.read(None, cursor="n")
    assert (none, plan.partitions, plan.until) == ([], (), None)
    await events.add({"n": 2})
    assert (await events.read(plan.until, cursor="n"))[0] == [2]


async def test_only_what_is_written_is_asked_for(events: Events) -> None:
    """Where columns are chosen and `_extra` is not among them, the server sends no more than those."""
    await events.add({"_id": 1, "n": 1, "a": {"b": 2, "c": 3}, "large": "x" * 1000})
    fields = (NUMBER, DeclaredColumn(name="b", path="a.b"), DeclaredColumn(name="a", type="json"))
    async with events.source(fields=fields).open(ReadOptions(columns=("n", "b"))) as extractor:
        plan = await extractor.plan(None)
        assert '{"$project": {"_id": 0, "a.b": 1, "n": 1}}' in plan.statement
        assert await collected(extractor, plan) == [("1", "2")]


async def test_a_member_of_the_id_is_asked_for(events: Events) -> None:
    """Of an `_id` that is a document, one member alone can be a chosen column."""
    await events.add({"_id": {"region": "eu", "day": 1}, "n": 1})
    fields = (NUMBER, DeclaredColumn(name="region", path="_id.region"))
    async with events.source(fields=fields).open(ReadOptions(columns=("region", "n"))) as extractor:
        assert await collected(extractor, await extractor.plan(None)) == [("eu", "1")]


# -- snapshots --------------------------------------------------------------------------------------------------------


async def test_a_snapshot_that_is_not_to_be_had_is_told(events: Events) -> None:
    """The connection asks for snapshots and the server has none: the plan says so."""
    await events.add({"n": 1})
    block = block_of(events.server, read_concern="snapshot")
    read, plan = await events.read(None, ReadOptions(mode="full"), connection=block)
    assert read == [1]
    if events.server.instance is not None:
        assert "snapshot is not to be had" in " ".join(plan.notes)
    else:
        assert plan.snapshot


class _Sent(monitoring.CommandListener):
    """The read concerns of the aggregations that were sent."""

    def __init__(self) -> None:
        self.concerns: list[Any] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if event.command_name == "aggregate":
            self.concerns.append(event.command.get("readConcern"))

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        pass

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        pass


async def test_all_partitions_are_read_at_one_moment(events: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the server has snapshots, every partition is asked for at the cluster time of the plan.

    The server of these tests may have none: what is shown here is what is sent to one that has.
    """
    await events.add(*({"_id": n, "n": n} for n in range(100)))
    sent = _Sent()
    monkeypatch.setattr(clients.Server, "has_snapshots", property(lambda _self: True))
    arguments = type(block_of(events.server)).client_arguments
    monkeypatch.setattr(
        type(block_of(events.server)), "client_arguments", lambda self: {**arguments(self), "event_listeners": [sent]}
    )
    block = block_of(events.server, read_concern="snapshot")
    async with events.source(connection=block).open(ReadOptions(mode="full", partitions=3)) as extractor:
        assert isinstance(extractor, MongoDBExtractor)
        plan = await extractor.plan(None)
        if extractor._moment is None:
            extractor._moment = Timestamp(1_700_000_000, 1)
        planned = len(sent.concerns)
        assert len(await collected(extractor, plan)) == 100
        moment = extractor._moment
    assert [concern["level"] for concern in sent.concerns] == ["snapshot"] * len(sent.concerns)
    assert [concern["atClusterTime"] for concern in sent.concerns[planned:]] == [moment] * 3
