"""Topics of a real broker pass the suite of change streams: plain ones, and between transactions that are aborted."""

from __future__ import annotations

import asyncio
import json
import secrets
from dataclasses import dataclass, field
from typing import Any

import pytest
from confluent_kafka import Producer

from tasks.extractors.contract import ChangeExtractor, ReadOptions
from tests.changes_contract import ChangesContract, note
from tests.servers.kafka import KafkaServer
from tests.tasks.extractors.kafka import topics

_FIELDS = [{"name": "id", "type": "integer"}, {"name": "note"}]


def document(number: int) -> bytes:
    return json.dumps({"id": number, "note": note(number)}).encode()


@dataclass
class Topic:
    """A topic of three partitions, whose messages are JSON."""

    server: KafkaServer
    name: str = ""
    count: int = 0

    def __post_init__(self) -> None:
        self.name = self.server.topic(partitions=3)

    def open(self, options: ReadOptions) -> ChangeExtractor:
        return topics(self.server, self.name, fields=_FIELDS, parts=()).open(options)

    def misnamed(self, options: ReadOptions) -> ChangeExtractor:
        return topics(self.server, f"{self.name}s", fields=_FIELDS, parts=()).open(options)

    async def add(self, count: int) -> None:
        numbers = range(self.count + 1, self.count + count + 1)
        await asyncio.to_thread(self._send, [document(number) for number in numbers])
        self.count += count

    def order_of(self, position: str) -> str:
        return position[: -len("00000000000000000000-0000")]

    def _send(self, documents: list[bytes]) -> None:
        self.server.send(self.name, *documents)


@dataclass
class TransactionalTopic(Topic):
    """The same, written in transactions: between any two that are committed one is aborted, another stays open for a while."""

    _producers: dict[str, Producer] = field(default_factory=dict)

    def _send(self, documents: list[bytes]) -> None:
        half = len(documents) // 2
        for some in (documents[:half], documents[half:]):
            self._write(some, "commit")
            self._write([document(0)] * 3, "abort")

    def _write(self, documents: list[bytes], end: str) -> None:
        # Producers of their own, so that transactions of several lie among one another in the log.
        producer = self._producers.get(end) or self._made(end)
        producer.begin_transaction()
        for each in documents:
            producer.produce(self.name, each)
            producer.poll(0)
        assert producer.flush(30) == 0
        (producer.commit_transaction if end == "commit" else producer.abort_transaction)(30)

    def _made(self, end: str) -> Producer:
        settings: dict[str, Any] = {"transactional.id": f"{self.name}-{end}-{secrets.token_hex(4)}"}
        producer = self._producers[end] = self.server.producer(**settings)
        producer.init_transactions(30)
        return producer


class TestTopic(ChangesContract):
    @pytest.fixture
    def subject(self, kafka_server: KafkaServer) -> Topic:
        return Topic(kafka_server)


class TestTransactionalTopic(ChangesContract):
    @pytest.fixture
    def subject(self, kafka_server: KafkaServer) -> Topic:
        return TransactionalTopic(kafka_server)
