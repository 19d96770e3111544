"""Tables on MySQL whose binary log is read in two ways: by our own stream, and through Debezium and Kafka."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

from blocks.kafka_connect import KafkaConnect
from tasks.extractors.kafka.source import KafkaTopics
from tests.flows.cdc import ByCommands, run_until_come
from tests.flows.changes import ChangesShop
from tests.flows.shops import save_block
from tests.servers.connect import ConnectServer
from tests.servers.kafka import KafkaServer
from tests.tasks.extractors.kafka import block_of as kafka_block_of
from tests.tasks.extractors.test_mysql import block_of
from tests.tasks.extractors.test_mysql_types import HOSTILE, values_of

KEYS = {"orders": ("id",), "items": ("order_id", "number"), "everything": ("id",)}


@dataclass
class TwoWaysShop(ByCommands, ChangesShop):
    """Three tables; this is the stream of the log, and `through_kafka` the other."""

    kafka: KafkaServer = field(kw_only=True)
    connect: ConnectServer = field(kw_only=True)

    def __post_init__(self) -> None:
        self.through_kafka = ChangesShop(self.server, self.s3, self.bucket, self.options, f"{self.name}-k")

    @property
    def connector(self) -> str:
        return self.name

    async def create(self) -> None:
        await super().create()
        columns = ", ".join(f"c{n} {kind}" for n, (kind, *_) in enumerate(self.values))
        await self.mysql.execute(f"CREATE TABLE everything (id INT PRIMARY KEY, {columns}) CHARACTER SET utf8mb4")

    @property
    def values(self) -> list[tuple[str, str, str]]:
        """Type, value and text of each column of the table everything."""
        return values_of(self.mysql)

    async def execute_hostile(self, *statements: str) -> None:
        """In a session that takes dates which are none, and has a zone of its own."""
        await self.mysql.execute(HOSTILE, *statements)

    def topics(self) -> KafkaTopics:
        """The source whose connector `headrace cdc` makes."""
        told = {
            "connect": KafkaConnect(url=self.connect.url),
            "database": block_of(self.mysql),
            "password": self.connect.secret(self.name, self.mysql.password),
        }
        database = self.mysql.database
        return KafkaTopics(
            connection=kafka_block_of(self.kafka),
            topics=(f"{self.name}.{database}.*",),
            format="debezium",
            debezium=cast("Any", {"tables": [f"{database}.*"]}),
            capture=cast("Any", told),
        )

    async def both(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The parameters of runs of the two streams: of the log, and through Kafka."""
        ours = await self.save() | {"mode": "changes"}
        ours["source"] |= {"tables": list(KEYS)}
        other = self.through_kafka
        await save_block(other.destination(), other.name)
        await save_block(kafka_block_of(self.kafka, timeout=60), other.name)
        topics = [f"{self.name}.{self.mysql.database}.*"]
        source = {"connection": f"kafka/{other.name}", "topics": topics, "format": "debezium"}
        theirs = {"stream": other.name, "source": source, "to": f"s3-destination/{other.name}", "mode": "changes"}
        return ours, theirs

    async def catch_up(self, theirs: dict[str, Any], last: int, seconds: float = 240) -> None:
        """Runs of the stream through Kafka, until a row of each table that is written now has come through."""
        await self.mysql.execute(
            f"INSERT INTO orders (id, counter) VALUES (-{last}, 1)",
            f"INSERT INTO items (order_id, number) VALUES (-{last}, 1)",
            f"INSERT INTO everything (id) VALUES (-{last})",
        )
        async with asyncio.timeout(seconds):
            await run_until_come(self.through_kafka, theirs, KEYS, last)
