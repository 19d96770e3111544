"""What `headrace discover` finds of a cluster: its topics, how much they hold, and what their messages look like."""

from __future__ import annotations

import asyncio
import fnmatch
import json
from collections.abc import Mapping

import msgspec

from blocks.kafka import Kafka
from tasks.extractors.catalog import Found, stream_name
from tasks.extractors.kafka.cluster import EARLIEST, LATEST, Cluster, Place, Topic
from tasks.extractors.kafka.consumer import Reader
from tasks.extractors.kafka.message import Message

_SAMPLED = 20
"""Messages of a topic: its last ones."""
_SHOWN = 8
"""Partitions whose offsets are told."""


async def topics(block: Kafka, _schema: str, like: str) -> list[Found]:
    """The topics whose name is like the pattern. Bytes are estimated from a sample."""
    return await asyncio.to_thread(_topics, block, like)


def _topics(block: Kafka, like: str) -> list[Found]:
    cluster = Cluster(block)
    found = cluster.topics(name for name in cluster.names() if fnmatch.fnmatchcase(name, like))
    return [_found(block, cluster, topic) for topic in found.values()]


def _found(block: Kafka, cluster: Cluster, topic: Topic) -> Found:
    places = [(topic.name, number) for number in range(topic.partitions)]
    first, next_ = cluster.offsets(places, EARLIEST), cluster.offsets(places, LATEST)
    count = sum(next_[place] - first[place] for place in places)
    _, fullest = max(places, key=lambda place: next_[place] - first[place])
    end = next_[topic.name, fullest]
    sample = _sample(block, topic.name, fullest, max(first[topic.name, fullest], end - _SAMPLED), end)
    size = sum(len(message.key or b"") + len(message.value or b"") for message in sample)
    looks = guessed(sample)
    return Found(
        written=topic.name,
        stream=stream_name(topic.name),
        rows=count,
        bytes=count * size // len(sample) if sample else 0,
        readable=True,
        key=(),
        cursors=(),
        source=(f"topics: {json.dumps([topic.name])}", f"format: {looks}"),
        told=f"{topic.partitions} partition(s), offsets {_offsets(first, next_)}, {f'looks like {looks}' if sample else 'empty'}",
    )


def _offsets(first: Mapping[Place, int], next_: Mapping[Place, int]) -> str:
    """Where each partition begins, and the offset that its next message gets; of many partitions the first few."""
    each = [f"{first[place]}-{next_[place]}" for place in sorted(first)]
    return " ".join(each[:_SHOWN]) + (" …" if len(each) > _SHOWN else "")


def _sample(block: Kafka, topic: str, partition: int, start: int, end: int) -> list[Message]:
    if start >= end:
        return []
    reader = Reader(block, topic, partition, start, end)
    try:
        found: list[Message] = []
        while not reader.has_ended:
            found += reader.batch()
        return found
    finally:
        reader.close()


def guessed(messages: list[Message]) -> str:
    """The format that fits most of the messages.

    >>> guessed([Message("t", 0, 0, -1, None, b'{"before":null,"after":{},"op":"c","source":{}}', ())])
    'debezium'
    """
    looks = [_looks(message.value) for message in messages if message.value is not None]
    return max(sorted(set(looks)), key=looks.count, default="json")


def _looks(value: bytes) -> str:
    if value[:1] == b"\0" and len(value) > 5:  # a number of a schema, as registries have them
        return "debezium"
    try:
        document = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "bytes" if _is_binary(value) else "text"
    if not isinstance(document, dict):
        return "json"
    event = document["payload"] if document.keys() == {"schema", "payload"} else document
    is_event = isinstance(event, dict) and {"before", "after", "op", "source"} <= event.keys()
    return "debezium" if is_event else "json"


def _is_binary(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return True
    return False
