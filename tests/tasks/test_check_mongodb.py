"""`headrace check` of MongoDB sources: what it finds, and what it says to do."""

from __future__ import annotations

from typing import Any

import pytest

from blocks.errors import ConfigurationError
from blocks.mongodb import MongoDB
from tasks import check_mongodb
from tasks.checks import SOURCES
from tasks.extractors.contract import ReadOptions
from tasks.extractors.mongodb.source import MongoDBCollection
from tasks.findings import Finding
from tests.servers.mongodb import MongoServer, database_of
from tests.tasks.extractors.test_mongodb import block_of

INCREMENTAL = ReadOptions(mode="incremental")


@pytest.fixture
async def shop(mongodb_database: MongoServer) -> MongoServer:
    async with database_of(mongodb_database) as database:
        await database.orders.insert_one({"_id": 1, "at": 5, "seen": 5})
        await database.orders.create_index("at")
        await database.orders.create_index("seen", sparse=True)
    return mongodb_database


async def findings(server: MongoServer, options: ReadOptions = INCREMENTAL, **fields: Any) -> list[Finding]:
    wanted: dict[str, Any] = {"connection": block_of(server), "collection": "orders", "cursor": "at", "lag": "5"}
    source = MongoDBCollection(**(wanted | fields))
    return [finding async for finding in check_mongodb.look(source, options)]


def levels(found: list[Finding]) -> str:
    return " ".join(finding.level for finding in found)


async def test_everything_in_order(shop: MongoServer) -> None:
    """Server, collection, index and lag are told."""
    found = await findings(shop)
    assert levels(found) == "ok ok ok ok ok", found
    assert "answers: " in found[0].text
    assert "an index begins with at" in found[3].text
    assert SOURCES[MongoDB] is check_mongodb.look


async def test_a_cursor_without_an_index(shop: MongoServer) -> None:
    """The command that makes the index is named; a sparse one does not hold all documents."""
    found = await findings(shop, cursor="seen")
    assert levels(found) == "ok ok ok warning ok"
    assert found[3].way_out == "db.orders.createIndex({'seen': 1})"


async def test_writes_in_flight_are_not_seen(shop: MongoServer) -> None:
    """Without a lag the check says what may be passed over."""
    found = await findings(shop, lag="")
    assert levels(found) == "ok ok ok ok warning"
    assert "set lag" in found[4].way_out


async def test_what_a_full_read_shows(shop: MongoServer) -> None:
    """Whether rows show one moment is told; a snapshot that is asked for and not to be had is a warning."""
    full = ReadOptions(mode="full")
    assert levels(await findings(shop, full)) == "ok ok ok ok"
    asked = await findings(shop, full, connection=block_of(shop, read_concern="snapshot"))
    assert levels(asked) == ("ok ok ok warning" if shop.instance else "ok ok ok ok")


async def test_what_is_not_there(shop: MongoServer) -> None:
    """A collection that is missing, a cursor that is, stages that are none."""
    found = await findings(shop, collection="ordres")
    assert levels(found) == "ok error"
    assert "field collection" in found[1].text
    with pytest.raises(ConfigurationError, match="field cursor"):
        await findings(shop, cursor="")
    with pytest.raises(ConfigurationError, match=r"\$nonsense"):
        await findings(shop, pipeline='[{"$nonsense": 1}]')


async def test_a_user_who_may_not_read_is_told_the_grant(shop: MongoServer) -> None:
    """The role read on the database is what is missing."""
    if shop.instance is not None:
        pytest.skip("FerretDB asks who one is, and refuses nobody anything; set TEST_MONGODB_URL to a mongod")
    user = await shop.create_user("clusterMonitor")
    found = await findings(user)
    assert levels(found)[-5:] == "error"
    assert "grantRolesToUser" in found[-1].way_out
