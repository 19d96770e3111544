"""What the tests of topics share: a source of a broker, and all records of a run of it."""

from __future__ import annotations

from typing import Any

from pydantic import JsonValue

from blocks.kafka import Kafka
from blocks.kafka_connect import KafkaConnect
from blocks.postgres import Postgres
from blocks.s3 import CsvDialect
from tasks.extractors.contract import Limits, ReadOptions
from tasks.extractors.kafka.source import KafkaTopics
from tests.changes_contract import Row, Run, captured
from tests.servers.kafka import PASSWORD, USER, KafkaServer

__all__ = ["Row", "Run", "a_capture", "block_of", "captured", "run", "secured_block_of", "topics"]


def block_of(server: KafkaServer, **fields: Any) -> Kafka:
    """The block that reaches a broker in clear."""
    return Kafka(**({"bootstrap_servers": server.bootstrap, "tls": "disable", "timeout": 15} | fields))


def secured_block_of(server: KafkaServer, **fields: Any) -> Kafka:
    """The block that logs in over TLS."""
    account = {"sasl": "SCRAM-SHA-512", "user": USER, "password": PASSWORD}
    return Kafka(
        **({"bootstrap_servers": server.secured, "tls_ca_file": str(server.ca_file), "timeout": 15} | account | fields)
    )


def topics(server: KafkaServer, *names: str, **fields: Any) -> KafkaTopics:
    """A source of these topics."""
    return KafkaTopics(connection=fields.pop("connection", None) or block_of(server), topics=names, **fields)


def a_capture() -> Any:
    """A connector's description, as that of a stream whose topics it makes. Nothing of it is there."""
    return {
        "connect": KafkaConnect(url="http://127.0.0.1:9"),
        "database": Postgres(host="localhost", user="u", database="d"),
    }


async def run(
    source: KafkaTopics, since: JsonValue = None, *, limits: Limits | None = None, dialect: CsvDialect | None = None
) -> Run:
    """One run: a plan, and all of its partitions."""
    options = ReadOptions(mode="changes", limits=limits or Limits(), dialect=dialect or CsvDialect())
    async with source.open(options) as extractor:
        plan = await extractor.plan(since)
        return await captured(extractor, plan)
