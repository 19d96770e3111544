"""Capture of MongoDB switched on, looked at, and off: on a real Kafka Connect with Debezium's connector.

The replica set is what `tests.servers.changes` is, or the one of `TEST_MONGODB_URL`.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from secrets import token_hex
from typing import Any

import bson
import pytest

from blocks.errors import ConfigurationError
from blocks.kafka_connect import KafkaConnect
from blocks.mongodb import MongoDB
from tasks.cdc import mongodb, settings
from tasks.extractors.kafka.source import KafkaTopics
from tests.servers.changes import ReplicaSet
from tests.servers.connect import ConnectServer
from tests.servers.kafka import KafkaServer
from tests.servers.mongodb import MongoServer, database_of
from tests.tasks.cdc import Commands
from tests.tasks.extractors.kafka import Run, block_of, run
from tests.tasks.extractors.test_mongodb import block_of as mongodb_block_of

KEPT = "the server keeps all changes from where the connector is on"


@dataclass
class Captured(Commands):
    """A stream of collections of one database."""

    database: MongoServer
    kafka: KafkaServer
    connect: ConnectServer
    name: str = field(default_factory=lambda: f"g-{token_hex(4)}")

    def source(self, *collections: str, database: Any = None, **fields: Any) -> KafkaTopics:
        password = self.connect.secret(self.name, self.database.password)
        block = database or mongodb_block_of(self.database)
        capture = {"connect": KafkaConnect(url=self.connect.url), "database": block, "password": password}
        named = [f"{self.database.database}.{name}" for name in collections or ("a",)]
        return KafkaTopics(
            connection=block_of(self.kafka),
            topics=(f"{self.name}.*",),
            format="debezium",
            debezium={"tables": named},
            capture=capture,
            **fields,
        )

    async def run(self, source: KafkaTopics, enough: Callable[[Run], bool]) -> Run:
        """A run from the beginning, once it brings enough."""
        async with asyncio.timeout(60):
            while True:
                try:
                    made = await run(source)
                    if enough(made):
                        return made
                except ConfigurationError:  # no topic yet
                    pass
                await asyncio.sleep(0.3)

    async def rows(self, source: KafkaTopics, count: int) -> dict[str, list[tuple[str, str]]]:
        """The operations and ids of all records by collection, once there are so many."""
        made = await self.run(source, lambda made: len(made.all) >= count)
        return {
            table.rpartition(".")[2]: [(row["_op"], row["_id"]) for row in rows] for table, rows in made.rows.items()
        }


@pytest.fixture
async def captured(
    mongodb_replicated: MongoServer, kafka_server: KafkaServer, connect_server: ConnectServer
) -> AsyncIterator[Captured]:
    async with database_of(mongodb_replicated) as database:
        await database.a.insert_one({"_id": 1, "note": "x"})
        await database.b.insert_one({"_id": 1})
    made = Captured(mongodb_replicated, kafka_server, connect_server)
    yield made
    if not connect_server.running:
        connect_server.start()
    await made.disable(made.source())


async def test_capture_on_and_off(captured: Captured) -> None:
    """A running connector for the collections that are meant; again changes nothing; off leaves none."""
    source = captured.source("a*", "-*.b")
    made = await captured.enable(source)
    assert made[0].startswith("1 collection(s) of mongodb://")
    assert f"connector {captured.name}: created" in made
    assert any("RUNNING, tasks: RUNNING" in line for line in made)
    assert f"connector {captured.name}: unchanged" in await captured.enable(source)
    assert not any(captured.database.password in line for line in made)
    config = captured.connect.ask("GET", f"/connectors/{captured.name}/config")
    assert config["mongodb.password"].startswith("${file:")
    assert "@" not in config["mongodb.connection.string"]

    assert await captured.rows(source, 1) == {"a": [("S", "1")]}
    async with database_of(captured.database) as database:
        await database.a.update_one({"_id": 1}, {"$set": {"note": ""}})
        await database.a.insert_one({"_id": "q"})
        await database.a.delete_one({"_id": "q"})
        await database.b.insert_one({"_id": 2})
    assert await captured.rows(source, 4) == {"a": [("S", "1"), ("U", "1"), ("I", "q"), ("D", "q")]}
    async with asyncio.timeout(30):  # until the worker has noted a place
        while KEPT not in "\n".join(status := await captured.status(source)):
            await asyncio.sleep(0.3)
    assert status[0] == f"ok: connector {captured.name}: RUNNING, tasks: RUNNING"
    assert any("can be read" in line for line in status)
    assert not any(line.startswith("error") for line in status), status

    on = await captured.enabled_after_a_stop(captured.connect, source)
    assert f"connector {captured.name}: RUNNING, tasks: RUNNING" in on

    assert await captured.disable(source) == [f"connector {captured.name}: removed"]
    assert await captured.disable(source) == [f"connector {captured.name}: there was none"]
    assert (await captured.status(source))[0].startswith("error: connector")


async def test_another_collection(captured: Captured) -> None:
    """The changes of a collection that comes to a capture are brought, and those of others are not."""
    await captured.enable(captured.source("a"))
    await captured.rows(captured.source("a"), 1)
    both = captured.source("a", "b")
    told = await captured.enable(both)
    assert f"connector {captured.name}: updated" in told
    assert any(line.startswith(f"{captured.database.database}.b is new") for line in told)
    async with database_of(captured.database) as database:
        await database.b.insert_one({"_id": 2})
        await database.a.insert_one({"_id": 2})
    assert await captured.rows(both, 3) == {"a": [("S", "1"), ("I", "2")], "b": [("I", "2")]}


async def test_a_connect_that_is_killed(captured: Captured) -> None:
    """What was written while there was no worker comes when there is one again, and nothing is missing in between."""
    source = captured.source("a")
    await captured.enable(source)
    await captured.rows(source, 1)
    captured.connect.kill()
    async with database_of(captured.database) as database:
        await database.a.insert_many([{"_id": number} for number in range(10, 50)])
    await asyncio.to_thread(captured.connect.start)
    made = await captured.run(source, lambda made: "49" in made.values("_id"))
    # What the worker had sent and not yet noted comes again (docs/debezium.md).
    assert list(dict.fromkeys(row["_id"] for row in made.all)) == ["1", *map(str, range(10, 50))]


async def test_an_update_of_what_is_gone(captured: Captured, mongodb_stand_in: ReplicaSet) -> None:
    """The connector finds no document where it was deleted before it looked: such an update is passed over, and counted."""
    source = captured.source("a")
    await captured.enable(source)
    await captured.rows(source, 1)
    mongodb_stand_in.updates_wait = 0.5
    try:
        async with database_of(captured.database) as database:
            await database.a.insert_one({"_id": 2})
            await database.a.update_one({"_id": 2}, {"$set": {"n": 1}})
            await database.a.delete_one({"_id": 2})
            await database.a.insert_one({"_id": 3})
        made = await captured.run(source, lambda made: "3" in made.values("_id"))
    finally:
        mongodb_stand_in.updates_wait = 0
    assert [(row["_op"], row["_id"]) for row in made.all] == [("S", "1"), ("I", "2"), ("D", "2"), ("I", "3")]
    assert made.counted == {"updates of documents that were deleted since, passed over": 1}


async def test_changes_that_the_server_no_longer_keeps(captured: Captured, mongodb_stand_in: ReplicaSet) -> None:
    """Status says so, with the way out, before the connector is started again."""
    source = captured.source("a")
    await captured.enable(source)
    async with database_of(captured.database) as database:
        await database.a.insert_one({"_id": 2})
        await captured.rows(source, 2)
        captured.connect.ask("PUT", f"/connectors/{captured.name}/stop")
        async with asyncio.timeout(30):
            while KEPT not in "\n".join(await captured.status(source)):
                await asyncio.sleep(0.3)
        await database.a.insert_one({"_id": 3})
    mongodb_stand_in.forget()
    status = await captured.status(source)
    assert "error: capture: the server no longer keeps the changes from where the connector is on" in status


async def test_how_far_it_is(mongodb_replicated: MongoServer, mongodb_stand_in: ReplicaSet) -> None:
    """How old the last change is that was sent, where the connector tells; and for how long the server keeps changes."""
    del mongodb_stand_in  # which lets everybody see its log
    async with mongodb.connected(mongodb_block_of(mongodb_replicated)) as database:
        await database.a.insert_one({"_id": 1})
        async with database.watch(max_await_time_ms=1) as stream:
            await stream.try_next()
            token = b64encode(bson.encode(stream.resume_token)).decode()
        now = (await database.command("hello"))["operationTime"].time
        told = await mongodb.behind(database, {"resume_token": token, "sec": now - 5, "ord": 1})
        idle = await mongodb.behind(database, {"resume_token": token, "sec": -1, "ord": -1})
        found = [finding.text async for finding in mongodb.look(database)]
    assert (told.level, told.text.partition(KEPT)[2]) == ("ok", ", the last of which it sent is 5 s old")
    assert (idle.level, idle.text.partition(KEPT)[2]) == ("ok", "")
    assert any(text.startswith("capture: changes of the last 0.") and "h are kept" in text for text in found), found


async def test_a_capture_that_moved_to_another_database(captured: Captured) -> None:
    """The connector's place is of the old one: nothing is changed, and the error says what to do."""
    source = captured.source("a")
    await captured.enable(source)
    other = await captured.database.create_database()
    async with database_of(other) as database:
        await database.a.insert_one({"_id": 1})
    moved = captured.source("a", database=mongodb_block_of(other))
    moved = moved.model_copy(update={"debezium": moved.debezium.model_copy(update={"tables": ("*",)})})
    with pytest.raises(
        ConfigurationError, match=rf"captures the database {captured.database.database}, and has a place"
    ):
        await captured.enable(moved)
    await other.drop()


async def test_what_has_to_be_mended_first(captured: Captured, mongodb_stand_in: ReplicaSet) -> None:
    """A name that fits none, a name that cannot be told, an account that may too little: nothing is made."""
    with pytest.raises(
        ConfigurationError, match=r"field debezium\.tables: no collection is like \S+\.nope; there are: \S+\.a"
    ):
        await captured.enable(captured.source("a", "nope"))
    async with database_of(captured.database) as database:
        await database["odd,name"].insert_one({"_id": 1})
    with pytest.raises(ConfigurationError, match=r"cannot be told '\S+\.odd,name'; leave it out"):
        await captured.enable(captured.source("*"))
    mongodb_stand_in.denies = True
    try:
        with pytest.raises(
            ConfigurationError, match=r"may not read the change stream.*grantRolesToUser.*role: \"read\""
        ):
            await captured.enable(captured.source())
    finally:
        mongodb_stand_in.denies = False
    assert captured.name not in captured.connect.ask("GET", "/connectors")


async def test_a_server_on_its_own(mongodb_database: MongoServer) -> None:
    """It has no change streams, and the error says how it gets them."""
    if mongodb_database.options:
        pytest.skip("needs a server on its own: unset TEST_MONGODB_URL, or leave replicaSet out of it")
    async with mongodb.connected(mongodb_block_of(mongodb_database)) as database:
        found = [finding async for finding in mongodb.look(database)]
    assert [(finding.level, "no change streams" in finding.text) for finding in found] == [("error", True)]
    assert "rs.initiate()" in found[0].way_out


CAPTURE = settings.Capture("s", "p", ("shop.orders", "shop.items"), "secret")


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (
            MongoDB(hosts="a.example, b.example:27018", replica_set="rs1", database="shop", user="u"),
            {
                "mongodb.connection.string": "mongodb://a.example,b.example:27018/?replicaSet=rs1&tls=true",
                "mongodb.user": "u", "mongodb.password": "secret", "mongodb.authsource": "admin", "mongodb.ssl.enabled": "true",
            },
        ),
        (
            MongoDB(uri="mongodb+srv://u%40x:p%2Fw@c.example/auth?retryReads=true&tlsCAFile=/x.pem&readPreference=nearest"
                        "&proxyPassword=secret&authMechanismProperties=AWS_SESSION_TOKEN:secret", database="shop"),
            {
                "mongodb.connection.string":
                    "mongodb+srv://c.example/?retryReads=true&readPreference=nearest&tls=true&replicaSet=rs0",
                "mongodb.user": "u@x", "mongodb.password": "secret", "mongodb.authsource": "auth", "mongodb.ssl.enabled": "true",
            },
        ),
        (
            MongoDB(hosts="127.0.0.1", database="shop"),
            {"mongodb.connection.string": "mongodb://127.0.0.1/?tls=false&replicaSet=rs0", "mongodb.ssl.enabled": "false"},
        ),
        (
            MongoDB(hosts="a.example", database="shop", tls="verify-ca", read_preference="secondary"),
            {
                "mongodb.connection.string": "mongodb://a.example/?readPreference=secondary&tls=true&replicaSet=rs0",
                "mongodb.ssl.enabled": "true", "mongodb.ssl.invalid.hostname.allowed": "true",
            },
        ),
        (   # the block's fields go before the string's options, TLS too; a set of tags may be given several times
            MongoDB(uri="mongodb://[::1]:27018,b.example?ssl=false;replicaSet=old&readPreference=nearest&readPreferenceTags=dc:a&"
                        "readPreferenceTags=&authMechanism=SCRAM-SHA-256", tls="verify-full", replica_set="new",
                    read_preference="secondary", user="u", database="shop"),
            {
                "mongodb.connection.string": "mongodb://[::1]:27018,b.example/?readPreferenceTags=dc%3Aa&readPreferenceTags="
                    "&replicaSet=new&readPreference=secondary&tls=true",
                "mongodb.user": "u", "mongodb.password": "secret", "mongodb.authsource": "admin", "mongodb.ssl.enabled": "true",
            },
        ),
        (   # the string says it all
            MongoDB(uri="mongodb://b.example/?tls=true&tlsAllowInvalidHostnames=true", database="shop"),
            {"mongodb.connection.string": "mongodb://b.example/?tls=true&tlsAllowInvalidHostnames=true&replicaSet=rs0"},
        ),
    ],
)  # fmt: skip
def test_how_the_connector_reaches_the_server(block: MongoDB, expected: dict[str, str]) -> None:
    """By the block's hosts and options, with the account apart, and no file of this machine."""
    made = settings.of_mongodb(block, CAPTURE, replica_set="rs0")
    assert {key: value for key, value in made.items() if key.startswith("mongodb.")} == expected
    assert made["collection.include.list"] == "shop.orders,shop.items"


async def test_an_account_without_a_password(captured: Captured) -> None:
    """What the connector could not be told is refused, with the way out."""
    block = MongoDB(uri="mongodb://CN%3Dx@db.example/?authMechanism=MONGODB-X509&tls=true", database="shop")
    with pytest.raises(
        ConfigurationError, match=r"logs in by MONGODB-X509: give mongodb\.connection\.string.*capture\.settings"
    ):
        await captured.enable(captured.source(database=block))


async def test_a_topic_that_the_stream_does_not_read(captured: Captured) -> None:
    """What would be captured for nobody is refused; signs that topics do not have are what Debezium makes of them."""
    async with database_of(captured.database) as database:
        await database["naïve"].insert_one({"_id": 1})
    source = captured.source("a", "naïve").model_copy(update={"topics": (f"{captured.name}.*.a",)})
    with pytest.raises(
        ConfigurationError, match=rf"field topics: changes of \S+naïve come in the topic {captured.name}\.\S+\.na_ve,"
    ):
        await captured.enable(source)
    assert captured.name not in captured.connect.ask("GET", "/connectors")


@pytest.mark.parametrize(
    "uri", ["mongodb://u:p/w@c.example/", "mongodb://u:p@/w@c.example", "mongodb://c.example/a@b?tls=true"]
)
def test_a_connection_string_that_cannot_be_taken_apart(uri: str) -> None:
    """Part of the password would be taken for a host, and told."""
    with pytest.raises(ValueError, match=r"a / in the user or the password is written %2F") as error:
        MongoDB(uri=uri, database="shop")
    assert "p/w" not in f"{error.value}"


def test_the_password_of_a_connection_string() -> None:
    """It is the account's, wherever it stands."""
    odd = MongoDB(uri="mongodb://us#er:p#?+w@c.example/", database="shop")
    assert (odd.account[0], odd.account[1].get_secret_value()) == ("us#er", "p#? w")
    assert odd.describe() == "mongodb://us#er@c.example/shop"
    assert odd.place() == "mongodb://c.example/?tls=true"
    assert "secret" not in repr(CAPTURE)
    block = MongoDB(uri="mongodb://u:p%2Fw@c.example/?authSource=people", database="shop")
    user, password, source = block.account
    assert (user, password.get_secret_value(), source) == ("u", "p/w", "people")
    given = block.model_copy(update={"user": "v"})  # as for our own connections, whose account it is then
    assert (given.account[0], given.account[2], given.client_arguments()["authSource"]) == ("v", "admin", "admin")
    assert "p/w" not in repr(replace(CAPTURE, password="")) + block.place()
