"""Reads one range of offsets of one topic partition, batch by batch. Every call blocks, so it is made in a thread.

The partition is assigned, never subscribed to: no group, no rebalance, and no offset is kept at the brokers. The end of the
range is known by positions: markers of transactions, aborted messages and compaction leave holes between offsets.
"""

from __future__ import annotations

import time
from typing import Any

from confluent_kafka import Consumer, KafkaError, TopicPartition

from blocks.kafka import Kafka
from blocks.references import revealed
from tasks.extractors.kafka.errors import PASSING, Told, UnreachableError, asking, explained
from tasks.extractors.kafka.message import Message

_BATCH_MESSAGES = 5_000
_BATCH_BYTES = 8 << 20
_FIRST_BATCH = 32
_GROWTH = 8
"""A batch may be so many times the one before, whose messages tell how large they are."""
_POLL_SECONDS = 0.2
"""For so long a batch waits to become full, and a read that is cancelled goes on in its thread."""

_SETTINGS = {
    # Read as a member of no group, but the client insists on a name.
    "group.id": "headrace",
    "enable.auto.commit": False,
    "isolation.level": "read_committed",
    # An offset that is not there is an error, never the next best one.
    "auto.offset.reset": "error",
    "enable.partition.eof": True,
    "fetch.wait.max.ms": 100,
    # What waits in the client for the next batch; it is what a partition that is read costs in memory.
    "queued.max.messages.kbytes": 16 << 10,
    "check.crcs": True,
}


class Reader:
    """The messages from ``start`` on and before ``end``."""

    def __init__(self, block: Kafka, topic: str, partition: int, start: int, end: int) -> None:
        self._block = block = revealed(block)
        self._topic, self._partition = topic, partition
        self._end = end
        self._told = Told()
        self._size = _FIRST_BATCH
        self.position = start
        """The offset that comes next: all before it were given."""
        config = {**block.client_config(), **_SETTINGS, "error_cb": self._told}
        self._consumer: Any = asking(block, self._told, lambda: Consumer(config))
        self._consumer.assign([TopicPartition(topic, partition, start)])

    @property
    def has_ended(self) -> bool:
        return self.position >= self._end

    def batch(self) -> list[Message]:
        """Some messages, in their order; none only where the range has ended.

        Raises `SnapshotLost` where the offsets are not there any more, `UnreachableError` where nothing comes.
        """
        # Messages that are large come a few at a time, and brokers may take a while to find each other again.
        deadline = time.monotonic() + 2 * self._block.timeout
        while not self.has_ended:
            if messages := self._taken(self._consumer.consume(self._size, _POLL_SECONDS)):
                self._adapt(messages)
                return messages
            if time.monotonic() > deadline:
                raise self._stalled()
        return []

    def close(self) -> None:
        self._consumer.close()

    def _taken(self, found: list[Any]) -> list[Message]:
        messages: list[Message] = []
        topic, partition, end = self._topic, self._partition, self._end
        for each in found:
            error = each.error()
            if error is not None:
                self._heed(each, error)
                continue
            offset = each.offset()
            if offset >= end:
                self.position = end
                break
            kind, at = each.timestamp()
            headers = each.headers()
            messages.append(
                Message(
                    topic,
                    partition,
                    offset,
                    at if kind else -1,
                    each.key(),
                    each.value(),
                    tuple(headers) if headers else (),
                )
            )
        if messages and self.position < end:
            self.position = max(self.position, messages[-1].offset + 1)
        return messages

    def _heed(self, event: Any, error: KafkaError) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            # A replica that lags may have its end before ours, and goes on later.
            self.position = max(self.position, min(event.offset(), self._end))
        elif error.code() not in PASSING and not error.retriable():
            raise explained(error, self._block, self._told)
        else:
            self._told(error)

    def _adapt(self, messages: list[Message]) -> None:
        size = sum(len(message.value or b"") + len(message.key or b"") for message in messages) // len(messages)
        self._size = max(1, min(_BATCH_MESSAGES, self._size * _GROWTH, _BATCH_BYTES // (size + 100)))

    def _stalled(self) -> Exception:
        cause = self._told.cause()
        told = f"{cause.str()}" if cause else "the brokers told no reason"
        return UnreachableError(
            f"{self._block.describe()}: nothing came of {self._topic} [{self._partition}] from offset {self.position} on, "
            f"which was to be read up to {self._end} ({told})"
        )
