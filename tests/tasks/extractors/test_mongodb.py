"""MongoDB collections pass the contract."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from blocks.mongodb import MongoDB
from tasks.extractors.contract import Extractor, ReadOptions
from tasks.extractors.fields import DeclaredColumn
from tasks.extractors.mongodb.source import MongoDBCollection
from tests.contract import ExtractorContract, SubjectUnderTest
from tests.servers.mongodb import MongoServer, database_of

ROWS = 5_000
NOTES = (None, "", 'a "quote", and\na line', "ünï✓", "\\N", "plain")
FIELDS = (
    DeclaredColumn(name="id", path="_id", type="integer", key=True),
    DeclaredColumn(name="note"),
    DeclaredColumn(name="amount", type="integer"),
    DeclaredColumn(name="updated_at", type="timestamptz"),
)


def block_of(server: MongoServer, **changes: Any) -> MongoDB:
    """The block that reaches a test's own database."""
    if server.options:
        return MongoDB(uri=server.url, database=server.database, **changes)
    place = {"hosts": f"{server.host}:{server.port}", "database": server.database}
    return MongoDB(**(place | {"user": server.user, "password": server.password} | changes))


@dataclass
class Collection:
    """A collection, read by its `_id`."""

    server: MongoServer
    can_increment: bool = True
    can_partition: bool = True
    options: dict[str, Any] = field(default_factory=lambda: {"cursor": "_id"})

    async def create(self) -> None:
        await self.add(ROWS)

    def open(self, options: ReadOptions) -> Extractor:
        return self._named("odd.names: 5").open(options)

    def misnamed(self, options: ReadOptions) -> Extractor:
        return self._named("Odd.Names").open(options)

    def _named(self, name: str) -> MongoDBCollection:
        return MongoDBCollection(connection=block_of(self.server), collection=name, fields=FIELDS, **self.options)

    async def add(self, count: int) -> None:
        last = await self.count()
        stamp = datetime.now(UTC) - timedelta(seconds=2)
        made = [
            {"_id": i, "note": NOTES[i % 6], "amount": 100, "updated_at": stamp}
            for i in range(last + 1, last + count + 1)
        ]
        async with database_of(self.server) as database:
            await database["odd.names: 5"].insert_many(made)

    async def move(self, amount: int) -> None:
        async with database_of(self.server) as database:
            for number, change in ((1, -amount), (await self.count(), amount)):
                await database["odd.names: 5"].update_one({"_id": number}, {"$inc": {"amount": change}})

    async def count(self) -> int:
        async with database_of(self.server) as database:
            return int(await database["odd.names: 5"].count_documents({}))


class TestCollection(ExtractorContract):
    @pytest.fixture
    async def subject(self, mongodb_database: MongoServer) -> Collection:
        collection = Collection(mongodb_database)
        await collection.create()
        return collection

    async def test_partitions_show_one_state(self, subject: SubjectUnderTest) -> None:
        """Where the server has no snapshots the plan says so, and that is all there is to be had."""
        async with subject.open(ReadOptions(mode="full", partitions=4)) as extractor:
            plan = await extractor.plan(None)
        assert "no single moment" in " ".join(plan.notes)
        assert plan.snapshot == {"read_concern": "local", "exact": False}


class TestByDate(TestCollection):
    """The same, by a date and `_id`."""

    @pytest.fixture
    async def subject(self, mongodb_database: MongoServer) -> Collection:
        collection = Collection(mongodb_database, options={"cursor": "updated_at"})
        await collection.create()
        return collection


class TestPipeline(TestCollection):
    """The same, through stages of the user's."""

    @pytest.fixture
    async def subject(self, mongodb_database: MongoServer) -> Collection:
        stages = '[{"$set": {"more": 1}}]'
        made = {"cursor": "_id", "filter": '{"amount": {"$lt": 1000}}', "pipeline": stages}
        collection = Collection(mongodb_database, options=made)
        await collection.create()
        return collection
