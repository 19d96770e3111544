"""Events in Avro, whose schemas a real registry keeps."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from typing import Any

import fastavro
import httpx
import pytest

from blocks.errors import ConfigurationError
from tests.servers import registry as registries
from tests.servers.kafka import KafkaServer
from tests.servers.support import ServerUnavailableError, unavailable
from tests.tasks.extractors.kafka import block_of, run, topics

_VALUE = {
    "type": "record",
    "name": "Value",
    "fields": [
        {"name": "id", "type": "int"},
        {"name": "note", "type": ["null", "string"]},
        {
            "name": "at",
            "type": {"type": "long", "connect.name": "io.debezium.time.MicroTimestamp", "connect.version": 1},
        },
    ],
}
_ENVELOPE = {
    "type": "record",
    "name": "Envelope",
    "namespace": "shop.public.orders",
    "fields": [
        {"name": "before", "type": ["null", _VALUE]},
        {"name": "after", "type": ["null", "Value"]},
        {
            "name": "source",
            "type": {
                "type": "record",
                "name": "Source",
                "namespace": "io.debezium.connector.postgresql",
                "fields": [
                    {"name": "connector", "type": "string"},
                    {"name": "name", "type": "string"},
                    {"name": "ts_us", "type": "long"},
                    {"name": "db", "type": "string"},
                    {"name": "schema", "type": "string"},
                    {"name": "table", "type": "string"},
                    {"name": "lsn", "type": "long"},
                    {"name": "sequence", "type": "string"},
                ],
            },
        },
        {"name": "op", "type": "string"},
    ],
    "connect.name": "shop.public.orders.Envelope",
}


@pytest.fixture(scope="module")
def registry() -> Iterator[registries.Registry]:
    """One registry for this module."""
    try:
        with registries.started() as server:
            yield server
    except ServerUnavailableError as error:
        unavailable(error)


def written(number: int, schema: Any, row: Any) -> bytes:
    """As a registry's converter writes a message."""
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(schema), row)
    return b"\0" + number.to_bytes(4, "big") + buffer.getvalue()


def event(number: int, lsn: int, op: str, after: Any, before: Any = None) -> bytes:
    source = {"connector": "postgresql", "name": "shop", "ts_us": 1_700_000_000_000_000, "db": "d", "schema": "public"}
    source |= {"table": "orders", "lsn": lsn, "sequence": f'["1","{lsn}"]'}
    return written(number, _ENVELOPE, {"before": before, "after": after, "source": source, "op": op})


async def test_events_in_avro(kafka_server: KafkaServer, registry: registries.Registry) -> None:
    """Schemas come from the registry by their numbers; what was sent twice comes once."""
    number = registry.register("shop.public.orders-value", _ENVELOPE)
    topic = kafka_server.topic()
    row = {"id": 1, "note": None, "at": 1_700_000_000_123_456}
    events = [event(number, 1, "c", row), event(number, 2, "u", row | {"note": 'a,"b"'})]
    kafka_server.send(topic, *events, *events, event(number, 3, "d", None, row), key="k")
    block = block_of(kafka_server, registry_url=registry.url)
    made = await run(topics(kafka_server, topic, format="debezium", connection=block))
    assert [(row["_op"], row["id"], row["note"]) for row in made.rows["public.orders"][:2]] == [
        ("I", "1", ""),
        ("U", "1", 'a,"b"'),
    ]
    assert [row["_op"] for row in made.rows["public.orders"]] == ["I", "U", "D"]
    assert made.rows["public.orders"][0]["at"] == "2023-11-14 22:13:20.123456"


async def _page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What stands before a registry, and answers in its place."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 17\r\nConnection: close\r\n\r\n<p>Log in here</p>")
    await writer.drain()
    writer.close()


async def test_a_schema_that_cannot_be_had(kafka_server: KafkaServer, registry: registries.Registry) -> None:
    """No registry is named, it does not know the number, or nothing answers: errors that say which."""
    topic = kafka_server.topic()
    kafka_server.send(topic, b"\0\0\1\0\0\1")
    with pytest.raises(ConfigurationError, match="names schema 65536 of a registry; fill in registry_url"):
        await run(topics(kafka_server, topic, format="debezium"))
    block = block_of(kafka_server, registry_url=registry.url)
    with pytest.raises(ConfigurationError, match="the registry has no such schema"):
        await run(topics(kafka_server, topic, format="debezium", connection=block))
    async with asyncio.timeout(20):
        page = await asyncio.start_server(_page, "127.0.0.1", 0)
        other = block_of(kafka_server, registry_url=f"http://127.0.0.1:{page.sockets[0].getsockname()[1]}")
        for undecodable in ("fail", "dead-letter"):  # it is not the message that is wrong
            with pytest.raises(
                ConfigurationError, match=r"no registry that speaks Confluent's API; check registry_url"
            ):
                await run(topics(kafka_server, topic, format="debezium", connection=other, undecodable=undecodable))
        page.close()
    gone = block_of(kafka_server, registry_url="http://127.0.0.1:1")
    with pytest.raises(httpx.ConnectError):
        await run(topics(kafka_server, topic, format="debezium", connection=gone))
