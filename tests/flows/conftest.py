"""What the flow tests share: shops on each kind of server, and a proxy in front of the Prefect API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

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


@pytest.fixture
async def shop(database: PostgresServer, s3_server: S3Server, bucket: str, prefect_api: str) -> Shop:
    """A table of `ROWS` rows (6 MB of text that does not compress), and an empty bucket."""
    assert prefect_api
    made = Shop(database, s3_server, bucket, {"compression": "none"})
    await made.create()
    return made


@pytest.fixture
async def mysql_shop(mysql_database: MySQLServer, s3_server: S3Server, bucket: str, prefect_api: str) -> MySQLShop:
    """The same on MySQL, and on MariaDB."""
    assert prefect_api
    made = MySQLShop(cast("Any", mysql_database), s3_server, bucket, {"compression": "none"})
    await made.create()
    return made


@pytest.fixture
async def mongodb_shop(mongodb_database: MongoServer, s3_server: S3Server, bucket: str, prefect_api: str) -> MongoShop:
    """The same on MongoDB."""
    assert prefect_api
    made = MongoShop(cast("Any", mongodb_database), s3_server, bucket, {"compression": "none"})
    await made.create()
    return made


@pytest.fixture
async def prefect_faults(prefect_api: str) -> AsyncIterator[FaultProxy]:
    """A proxy in front of the Prefect API."""
    with FaultProxy(prefect_api.removesuffix("/api")) as proxy:
        yield proxy


@pytest.fixture
async def changes_shop(mysql_database: MySQLServer, s3_server: S3Server, bucket: str, prefect_api: str) -> ChangesShop:
    """Two empty tables, on MySQL and on MariaDB, and an empty bucket."""
    assert prefect_api
    made = ChangesShop(cast("Any", mysql_database), s3_server, bucket, {"compression": "none"})
    await made.create()
    return made


@pytest.fixture
async def cdc_shop(
    database: PostgresServer, kafka_server: KafkaServer, connect_server: ConnectServer, s3_server: S3Server, bucket: str,
    prefect_api: str,
) -> AsyncIterator[DebeziumShop]:  # fmt: skip
    """Two empty tables on PostgreSQL, a Kafka Connect worker with Debezium, and an empty bucket."""
    assert prefect_api
    made = DebeziumShop(
        database, s3_server, bucket, {"compression": "none"}, kafka=kafka_server, connect=connect_server
    )
    await made.create()
    yield made
    await made.stop_capturing()


@pytest.fixture
async def two_ways_shop(
    mysql_server: MySQLServer, kafka_server: KafkaServer, connect_server: ConnectServer, s3_server: S3Server, bucket: str,
    prefect_api: str,
) -> AsyncIterator[TwoWaysShop]:  # fmt: skip
    """Three empty tables on MySQL, a Kafka Connect worker with Debezium, and an empty bucket."""
    assert prefect_api
    database = await mysql_server.create_database()
    server: Any = database
    made = TwoWaysShop(server, s3_server, bucket, {"compression": "none"}, kafka=kafka_server, connect=connect_server)
    await made.create()
    yield made
    await made.stop_capturing()
    await database.drop()
