"""The chain MongoDB → change stream → Debezium → Kafka → CSV: merged by key, the committed files are the collections.

The replica set is what `tests.servers.changes` is, or the one of `TEST_MONGODB_URL`.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.objectid import ObjectId

from blocks.kafka_connect import KafkaConnect
from flows.extract import extract
from tasks.extractors.kafka.source import KafkaTopics
from tests.flows.cdc import ByCommands, run_until_come
from tests.flows.changes import META
from tests.flows.conftest import NewShop
from tests.flows.loads import Into, into_duckdb
from tests.flows.shops import Row, Shop, save_block
from tests.flows.test_kafka import kill_broker, kill_connect, kill_headrace
from tests.flows.writers import while_they_write
from tests.servers.connect import ConnectServer
from tests.servers.faults import FaultProxy
from tests.servers.kafka import KafkaServer
from tests.servers.mongodb import MongoServer, database_of
from tests.tasks.extractors.kafka import block_of as kafka_block_of
from tests.tasks.extractors.test_mongodb import block_of

SOAK = bool(os.environ.get("HEADRACE_SOAK"))

pytestmark = pytest.mark.timeout(7200 if SOAK else 900)

KEYS: dict[str, tuple[str, ...]] = {"orders": ("_id",), "items": ("_id",)}
FIELDS = [
    {"name": "_id", "type": "integer"},
    {"name": "counter", "type": "integer"},
    {"name": "city", "path": "to.city"},
    {"name": "price", "type": "decimal"},
    {"name": "at", "type": "timestamptz"},
]
GONE = "updates of documents that were deleted since, passed over"


@dataclass
class CollectionsShop(ByCommands, Shop):
    """Two collections, and the stream of their changes."""

    kafka: KafkaServer = field(kw_only=True)
    connect: ConnectServer = field(kw_only=True)

    @property
    def mongodb(self) -> MongoServer:
        return cast("MongoServer", self.server)

    @property
    def connector(self) -> str:
        return self.name

    async def create(self) -> None:
        async with database_of(self.mongodb) as database:
            for name in KEYS:
                await database.create_collection(name)

    def topics(self) -> KafkaTopics:
        """The source whose connector `headrace cdc` makes."""
        told = {
            "connect": KafkaConnect(url=self.connect.url),
            "database": block_of(self.mongodb),
            "password": self.connect.secret(self.name, self.mongodb.password),
        }
        return KafkaTopics(
            connection=kafka_block_of(self.kafka),
            topics=(f"{self.name}.{self.mongodb.database}.*",),
            format="debezium",
            debezium=cast("Any", {"tables": [f"{self.mongodb.database}.*"]}),
            capture=cast("Any", told),
        )

    async def save(self, *_: Any, **__: Any) -> dict[str, Any]:
        await save_block(self.destination(), self.name)
        await save_block(kafka_block_of(self.kafka, timeout=60), self.name)
        source = {
            "connection": f"kafka/{self.name}",
            "topics": [f"{self.name}.{self.mongodb.database}.*"],
            "format": "debezium",
            "fields": FIELDS,
            "debezium": {"updates_without_document": "pass-over"},
        }
        return {"stream": self.name, "source": source, "to": f"s3-destination/{self.name}", "mode": "changes"}

    async def catch_up(self, parameters: dict[str, Any], last: int) -> None:
        """Runs, until what is written now has come through."""
        async with database_of(self.mongodb) as database:
            for name in KEYS:
                await database[name].insert_one({"_id": -last})
        await asyncio.to_thread(self.kafka.wait_for_topics, *parameters["source"]["topics"])
        async with asyncio.timeout(240):
            await run_until_come(self, parameters, KEYS, last)

    async def collections(self) -> dict[str, list[Row]]:
        """The collections as our own full read brings them."""
        found = {}
        for name in KEYS:
            full = Shop(self.server, self.s3, self.bucket, self.options)
            await save_block(full.destination(), full.name)
            await save_block(block_of(self.mongodb), full.name)
            source = {"connection": f"mongodb/{full.name}", "collection": name, "fields": FIELDS}
            parameters: dict[str, Any] = {"stream": full.name, "source": source, "to": f"s3-destination/{full.name}"}
            await extract(**parameters, mode="full")
            found[name] = await full.committed_rows(await full.commits())
        return found


@pytest.fixture
async def collections_shop(
    mongodb_replicated: MongoServer, kafka_server: KafkaServer, connect_server: ConnectServer, new_shop: NewShop
) -> AsyncIterator[CollectionsShop]:
    """Two empty collections, and a Kafka Connect worker with Debezium."""
    made = await new_shop(CollectionsShop, mongodb_replicated, kafka=kafka_server, connect=connect_server)
    yield made
    await made.stop_capturing()


@dataclass
class Writer:
    """Works on documents of its own. Each change of a document raises its counter by one."""

    shop: CollectionsShop
    first: int
    stopping: bool = False
    written: int = 0
    inserted: list[str] = field(default_factory=list)
    _there: list[int] = field(default_factory=list)
    _next: int = 0

    async def write(self) -> None:
        """Write until told to stop."""
        async with database_of(self.shop.mongodb) as database:
            while not self.stopping:
                collection = random.choice(list(KEYS))
                await self._change(database[collection])
                self.written += 1
                await asyncio.sleep(random.uniform(0.01, 0.1))

    async def _change(self, collection: Any) -> None:
        one = random.choice(self._there) if self._there else 0
        some = {"_id": {"$in": random.sample(self._there, min(20, len(self._there)))}}
        match (
            random.choice(["insert", "set", "unset", "replace", "delete", "many", "short", "again"])
            if one
            else "insert"
        ):
            case "insert":
                made = [self._document(self._new()) for _ in range(random.randint(1, 5))]
                await collection.insert_many(made)
                self._there += [document["_id"] for document in made]
            case "set":
                changes = {"to.city": random.choice(["Rome", 'a,"b"', "", None]), "at": datetime.now(UTC)}
                await collection.update_one({"_id": one}, {"$inc": {"counter": 1}, "$set": changes})
            case "unset":
                await collection.update_one({"_id": one}, {"$inc": {"counter": 1}, "$unset": {"to": 1, "tags": 1}})
            case "replace":
                await collection.replace_one({"_id": one}, self._document(one) | {"counter": 2})
            case "delete":
                await collection.delete_one({"_id": one})
            case "many":
                tags = [Int64(random.randint(0, 1 << 40)) for _ in range(random.randint(0, 5))]
                await collection.update_many(some, {"$inc": {"counter": 1}, "$set": {"tags": tags}})
            case "short":  # gone before anybody looks
                id_ = self._new()
                await collection.insert_one(self._document(id_))
                await collection.update_one({"_id": id_}, {"$set": {"counter": 2}})
                await collection.delete_one({"_id": id_})
            case "again":  # the same key, for another document
                await collection.delete_one({"_id": one})
                await collection.insert_one(self._document(one) | {"counter": 1, "again": True})

    def _document(self, id_: int) -> dict[str, Any]:
        return {
            "_id": id_,
            "counter": 1,
            "price": random.choice([Decimal128("1.50"), 2, 0.5, "free", None]),
            "at": datetime.now(UTC) - timedelta(milliseconds=random.randint(0, 10**9)),
            "to": {"city": "Rome", "zip": ["1", ObjectId()]},
            "tags": [],
        }

    def _new(self) -> int:
        self._next += 1
        return self.first + self._next


def merged(rows: list[Row]) -> dict[str, Row]:
    """The collection that records make, merged by key in their order."""
    positions = [row["_position"] for row in rows]
    assert len(set(positions)) == len(positions)
    collection: dict[str, Row] = {}
    for row in rows:
        if row["_op"] == "D":
            collection.pop(row["_id"], None)
        else:
            assert not row["_unchanged"]
            collection[row["_id"]] = {name: value for name, value in row.items() if name not in META}
    return collection


async def assert_merges(shop: CollectionsShop) -> None:
    """What is committed makes the collections as they are now, byte for byte."""
    changes = await shop.changes()
    for name, wanted in (await shop.collections()).items():
        made = merged(changes[name])
        expected = {row["_id"]: row for row in wanted}
        assert made.keys() == expected.keys(), (
            f"{name}: too many {sorted(made.keys() - expected.keys())}, missing {sorted(expected.keys() - made.keys())}"
        )
        for id_, row in expected.items():
            assert made[id_] == row
        assert len(expected) == len(wanted)


async def assert_loads(shop: CollectionsShop, into: Into) -> None:
    """So does our own loader, which takes the commits one after the other."""
    await into.load(shop.name, shop.destination())
    for name, wanted in (await shop.collections()).items():
        query = f"SELECT CAST(_id AS VARCHAR), CAST(counter AS VARCHAR), city, price FROM {name}"
        found = {tuple(value or "" for value in row) for row in await into.fetch(query)}
        assert found == {(row["_id"], row["counter"], row["city"], row["price"]) for row in wanted}


async def test_the_chain(
    collections_shop: CollectionsShop,
    s3_faults: FaultProxy,
    prefect_faults: FaultProxy,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """Writers of every kind, while Kafka Connect, the broker and headrace are each killed at random moments."""
    shop = collections_shop
    async with database_of(shop.mongodb) as database:
        for name in KEYS:
            await database[name].insert_many([{"_id": number, "counter": 1, "n": number} for number in range(100)])
    await shop.capture_changes()
    parameters = await shop.save()
    writers = [Writer(shop, 10_000_000), Writer(shop, 20_000_000)]
    killers = [kill_connect, kill_broker, kill_headrace] * (20 if SOAK else 1)
    random.shuffle(killers)

    async def killed() -> None:
        await shop.catch_up(parameters, 1)
        for kill in killers:
            await asyncio.sleep(random.uniform(0.5, 3))
            await kill(shop, parameters, s3_faults, prefect_faults)
            await extract(**parameters)

    await while_they_write(writers, killed())
    await shop.catch_up(parameters, 2)
    assert all(writer.written > 20 for writer in writers)
    await assert_merges(shop)
    await assert_loads(shop, into_duckdb(tmp_path))
    changes = await shop.changes()
    assert {row["_op"] for rows in changes.values() for row in rows} == {"S", "I", "U", "D"}
    assert (await extract(**parameters))["sequence"] is None
    counted = await shop.counted()
    assert counted.keys() <= {GONE, "price: not a decimal, written as text"}
    record_property("records", {name: len(rows) for name, rows in changes.items()})
    record_property("counted", {**counted, "kills": len(killers)})
