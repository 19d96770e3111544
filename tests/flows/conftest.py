"""What the flow tests share: shops on each kind of server, and a proxy in front of the Prefect API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol, TypeVar

import pytest

from tests.flows.cdc import DebeziumShop
from tests.flows.cdc_mysql import TwoWaysShop
from tests.flows.changes import ChangesShop
from tests.flows.shops import MongoShop, MySQLShop, Shop
from tests.servers.connect import ConnectServer
from tests.servers.faults import FaultProxy
from tests.servers.kafka import KafkaServer
from tests.servers.mongodb import MongoServer
from tests.servers.mysql import MySQLServer
from tests.servers.postgres import PostgresServer
from tests.servers.s3 import S3Server

S = TypeVar("S", bound=Shop)


class NewShop(Protocol):
    """Makes a shop of a kind on a server, and all that is in it."""

    async def __call__(self, kind: type[S], server: Any, **more: Any) -> S: ...


@pytest.fixture
def new_shop(s3_server: S3Server, bucket: str, prefect_api: str) -> NewShop:
    """With an empty bucket, and a Prefect server that runs."""
    assert prefect_api

    async def make(kind: type[S], server: Any, **more: Any) -> S:
        made = kind(server, s3_server, bucket, {"compression": "none"}, **more)
        await made.create()
        return made

    return make


@pytest.fixture
async def shop(database: PostgresServer, new_shop: NewShop) -> Shop:
    """A table of `ROWS` rows (6 MB of text that does not compress)."""
    return await new_shop(Shop, database)


@pytest.fixture
async def mysql_shop(mysql_database: MySQLServer, new_shop: NewShop) -> MySQLShop:
    """The same on MySQL, and on MariaDB."""
    return await new_shop(MySQLShop, mysql_database)


@pytest.fixture
async def mongodb_shop(mongodb_database: MongoServer, new_shop: NewShop) -> MongoShop:
    """The same on MongoDB."""
    return await new_shop(MongoShop, mongodb_database)


@pytest.fixture
async def prefect_faults(prefect_api: str) -> AsyncIterator[FaultProxy]:
    """A proxy in front of the Prefect API."""
    with FaultProxy(prefect_api.removesuffix("/api")) as proxy:
        yield proxy


@pytest.fixture
async def changes_shop(mysql_database: MySQLServer, new_shop: NewShop) -> ChangesShop:
    """Two empty tables, on MySQL and on MariaDB."""
    return await new_shop(ChangesShop, mysql_database)


@pytest.fixture
async def cdc_shop(
    database: PostgresServer, kafka_server: KafkaServer, connect_server: ConnectServer, new_shop: NewShop
) -> AsyncIterator[DebeziumShop]:
    """Two empty tables on PostgreSQL, and a Kafka Connect worker with Debezium."""
    made = await new_shop(DebeziumShop, database, kafka=kafka_server, connect=connect_server)
    yield made
    await made.stop_capturing()


@pytest.fixture
async def two_ways_shop(
    only_mysql_database: MySQLServer, kafka_server: KafkaServer, connect_server: ConnectServer, new_shop: NewShop
) -> AsyncIterator[TwoWaysShop]:
    """Three empty tables on MySQL, and a Kafka Connect worker with Debezium."""
    made = await new_shop(TwoWaysShop, only_mysql_database, kafka=kafka_server, connect=connect_server)
    yield made
    await made.stop_capturing()
