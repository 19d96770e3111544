"""What `headrace discover` finds in a MongoDB database, and that what it proposes runs."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml
from bson.binary import Binary
from bson.decimal128 import Decimal128
from bson.int64 import Int64

from blocks.errors import ConfigurationError
from tasks.extractors.catalog import Found, deployment
from tasks.extractors.contract import ReadOptions
from tasks.extractors.mongodb.discover import collections
from tasks.extractors.mongodb.source import MongoDBCollection
from tests.contract import collected
from tests.flows.test_cli import headrace
from tests.servers.mongodb import MongoServer, database_of
from tests.tasks.extractors.test_mongodb import block_of


def order(number: int) -> dict[str, Any]:
    made: dict[str, Any] = {
        "number": number if number % 2 else Int64(number),
        "price": Decimal128("1.5") if number % 3 else 2,
        "weight": number * 0.5,
        "uid": Binary(secrets.token_bytes(16), 4),
        "raw": b"x",
        "geo": {"city": "Rome", "at": {"lat": 1.5, "deep": {"er": 1}}},
        "items": [{"n": 1}],
        "a.b": "dot",
        "mixed": number if number % 5 else "text",
        "nested or not": {"a": 1} if number % 5 else "text",
        "updated_at": datetime.now(UTC) - timedelta(seconds=60),
        "created": datetime.now(UTC),
        "nothing": None,
    }
    if number % 20 == 0:
        made["rare"] = True
    return made


@pytest.fixture
async def shop(mongodb_database: MongoServer) -> MongoServer:
    async with database_of(mongodb_database) as database:
        await database.orders.insert_many([order(number) for number in range(400)])
        await database.orders.create_index([("updated_at", -1), ("number", 1)])
        await database.orders.create_index("rare", sparse=True)
        await database.empty.insert_one({"_id": "x"})
        await database.empty.delete_many({})
    return mongodb_database


async def found_in(server: MongoServer, **arguments: Any) -> dict[str, Found]:
    return {one.written: one for one in await collections(block_of(server), **arguments)}


async def test_collections_with_sizes_and_sampled_fields(shop: MongoServer) -> None:
    """Fields come with their types and how often they occur, those of documents by their paths."""
    found = await found_in(shop)
    assert list(found) == ["empty", "orders"]
    orders = found["orders"]
    assert (orders.rows, orders.key, orders.readable) == (400, ("_id",), True)
    assert orders.bytes > 400 * 100
    fields = {field.path: field for field in orders.fields}
    assert {path: field.type for path, field in fields.items()} == {
        "_id": "objectid",
        "number": "integer",
        "price": "decimal",
        "weight": "float",
        "uid": "uuid",
        "raw": "bytes",
        "geo.city": "text",
        "geo.at.lat": "float",
        "geo.at.deep": "json",
        "items": "json",
        r"a\.b": "text",
        "mixed": "text",
        "nested or not": "json",
        "updated_at": "timestamptz",
        "created": "timestamptz",
        "nothing": "json",
        "rare": "boolean",
    }
    assert set(fields["number"].kinds) == {"int32", "int64"}
    assert fields["weight"].share == 1
    assert 0 < fields["rare"].share < 0.2
    assert not fields["nothing"].filled
    assert not found["empty"].fields


async def test_nested_documents_as_json(shop: MongoServer) -> None:
    """One column for each, where that is asked for. An _id that is a document is one column always: it is the key."""
    async with database_of(shop) as database:
        await database.pairs.insert_one({"_id": {"a": 1, "b": 2}, "at": {"day": datetime.now(UTC)}})
    found = await found_in(shop, nested="json")
    fields = {field.path: field.type for field in found["orders"].fields}
    assert (fields["geo"], fields["nested or not"]) == ("json", "json")
    assert not [path for path in fields if path.startswith("geo.")]
    assert {field.path: field.type for field in found["pairs"].fields} == {"_id": "json", "at": "json"}
    flat = (await found_in(shop, like="pairs"))["pairs"]
    assert {field.path: field.type for field in flat.fields} == {"_id": "json", "at.day": "timestamptz"}
    assert [cursor.name for cursor in found["pairs"].cursors] == [cursor.name for cursor in flat.cursors] == ["at.day"]
    assert '{name: "_id", type: "json", key: true}' in deployment(flat, "pairs", "mongodb/shop", "s3-destination/lake")


async def test_cursor_candidates(shop: MongoServer) -> None:
    """Dates that promise to follow changes and have an index come first; an ObjectId brings new documents only."""
    orders = (await found_in(shop))["orders"]
    assert orders.told == "indexes: (_id), (updated_at -1, number), (rare) of some documents"
    assert [str(cursor) for cursor in orders.cursors] == ["updated_at", "_id", "created (no index)"]
    assert orders.proposed is not None
    assert orders.proposed.name == "updated_at"


async def test_only_what_is_asked_for(shop: MongoServer) -> None:
    """A pattern narrows the list; another database is another connection's."""
    assert list(await found_in(shop, like="ord*")) == ["orders"]
    with pytest.raises(ConfigurationError, match="reads one database"):
        await found_in(shop, schema="elsewhere")


async def test_what_is_proposed_can_be_read(shop: MongoServer) -> None:
    """The columns that are proposed for prefect.yaml hold all of every document."""
    entry = deployment((await found_in(shop))["orders"], "orders", "mongodb/shop", "s3-destination/lake")
    ((proposed,),) = [yaml.safe_load("deployments:\n" + entry)["deployments"]]
    source = proposed["parameters"]["source"]
    assert (source["collection"], source["cursor"]) == ("orders", "updated_at")
    assert {"name": "_id", "type": "objectid", "key": True} in source["fields"]
    reader = MongoDBCollection(**{**source, "connection": block_of(shop)})
    async with reader.open(ReadOptions(mode=proposed["parameters"]["mode"])) as extractor:
        plan = await extractor.plan(None)
        rows = await collected(extractor, plan)
    assert len(rows) == 400
    extra = [column.name for column in plan.columns].index("_extra")
    assert {row[extra] for row in rows} == {""}


async def test_the_command(shop: MongoServer, prefect_api: str) -> None:
    """`headrace discover` shows collections and fields, and deployments to paste."""
    assert prefect_api
    name = f"m-{secrets.token_hex(4)}"
    await block_of(shop).asave(name)
    told = await headrace("discover", f"mongodb/{name}")
    assert told.exit_code == 0, told.output
    for words in ("orders", "updated_at", "fields of orders", "geo.at.lat", "drawn at random"):
        assert words in told.stdout
    pasted = await headrace("discover", f"mongodb/{name}", "--yaml", "--like", "orders")
    assert yaml.safe_load(pasted.stdout)["deployments"][0]["parameters"]["source"]["fields"]
    assert "of 400 documents drawn at random" in pasted.stdout
