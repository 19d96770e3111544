"""Questions to a cluster: which topics there are, and which offsets they hold. Every one blocks, so it is asked in a thread."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import IsolationLevel, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, OffsetSpec, ResourceType

from blocks.errors import ConfigurationError
from blocks.kafka import Kafka
from blocks.references import revealed
from tasks.extractors.kafka.errors import Told, asking

Place = tuple[str, int]
"""A topic and the number of a partition of it."""

EARLIEST: OffsetSpec = OffsetSpec.earliest()
LATEST: OffsetSpec = OffsetSpec.latest()
_NO_ID = "AAAAAAAAAAAAAAAAAAAAAA"
"""What brokers before 2.8 give every topic."""


@dataclass(frozen=True)
class Topic:
    """A topic as it is now."""

    name: str
    id: str
    """Another topic of the same name has another; empty where the brokers have none."""
    partitions: int


class Cluster:
    """A client that asks. Its methods raise `ConfigurationError` and `UnreachableError`."""

    def __init__(self, block: Kafka) -> None:
        self._block = block = revealed(block)
        self._told = Told()
        config = {**block.client_config(), "error_cb": self._told}
        self._admin: Any = asking(block, self._told, lambda: AdminClient(config))

    def names(self) -> list[str]:
        """All topics that the user may see, but those of the brokers themselves."""
        found = self._ask(lambda: self._admin.list_topics(timeout=self._block.timeout))
        return sorted(name for name in found.topics if not name.startswith("__"))

    def topics(self, names: Iterable[str]) -> dict[str, Topic]:
        """The topics of these names."""
        wanted = list(names)
        if not wanted:
            return {}
        asked = self._admin.describe_topics(TopicCollection(wanted), request_timeout=self._block.timeout)
        return {name: _topic(self._result(future)) for name, future in asked.items()}

    def offsets(self, places: Iterable[Place], spec: OffsetSpec) -> dict[Place, int]:
        """Of each partition the first or the next offset, or the first from a time on (-1: none).

        The next is the last stable one: behind it there may be transactions that are not ended.
        """
        wanted = {TopicPartition(*place): spec for place in places}
        if not wanted:
            return {}
        committed = IsolationLevel.READ_COMMITTED
        asked = self._admin.list_offsets(wanted, isolation_level=committed, request_timeout=self._block.timeout)
        return {(place.topic, place.partition): self._result(future).offset for place, future in asked.items()}

    def settings(self, name: str) -> Mapping[str, str]:
        """The topic's configuration."""
        resource = ConfigResource(ResourceType.TOPIC, name)
        asked = self._admin.describe_configs([resource], request_timeout=self._block.timeout)
        entries = self._result(next(iter(asked.values())))
        return {key: str(entry.value) for key, entry in entries.items()}

    def _result(self, future: Any) -> Any:
        # Callbacks, which tell the reason of an error, are called from poll alone.
        def wait() -> Any:
            try:
                return future.result(self._block.timeout + 5)
            finally:
                self._admin.poll(0)

        return self._ask(wait)

    def _ask(self, question: Any) -> Any:
        def polled() -> Any:
            try:
                return question()
            except KafkaException:
                self._admin.poll(0.2)
                raise

        return asking(self._block, self._told, polled)


def _topic(described: Any) -> Topic:
    id_ = str(described.topic_id)
    return Topic(described.name, "" if id_ == _NO_ID else id_, len(described.partitions))


def at_time(milliseconds: int) -> OffsetSpec:
    """The first offset whose message is of that time or later (since 1970)."""
    spec: OffsetSpec = OffsetSpec.for_timestamp(milliseconds)
    return spec


def no_topic(missing: Iterable[str], known: Iterable[str]) -> ConfigurationError:
    """What names topics that are not there."""
    some = ", ".join(list(known)[:20]) or "none that this user may see"
    return ConfigurationError(f"field topics: no topic is called {', '.join(map(repr, missing))}; there are: {some}")
