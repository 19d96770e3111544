"""Reads one range of offsets of one topic partition, batch by batch. Every call blocks, so it is made in a thread.

The partition is assigned, never subscribed to: no group, no rebalance, and no offset is kept at the brokers. The end of the
range is known by positions: markers of transactions, aborted messages and compaction leave holes between offsets.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from itertools import chain
from typing import Any

from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka import Message as _Message

from blocks.kafka import Kafka
from blocks.references import revealed
from tasks.extractors.kafka.errors import PASSING, Told, UnreachableError, asking, explained
from tasks.extractors.kafka.message import Batch, Headers

_BATCH_MESSAGES = 400
"""As many as a processor's own cache holds while they are decoded. And the client's objects, which Python's garbage collector
tracks, are gone before it counts them as old: with thousands at a time it went through all that lives again and again, for
more time than all else that a message takes."""
_BATCH_BYTES = 8 << 20
_FIRST_BATCH = 32
_GROWTH = 8
"""A batch may be so many times the one before, whose messages tell how large they are."""
_POLL_SECONDS = 0.2
"""For so long a batch waits for its first message, and a read that is cancelled goes on in its thread."""

_OFFSET: Any = _Message.offset
"""It is None only where there is an error."""

_SETTINGS = {
    # Read as a member of no group, but the client insists on a name.
    "group.id": "headrace",
    "enable.auto.commit": False,
    "isolation.level": "read_committed",
    # An offset that is not there is an error, never the next best one.
    "auto.offset.reset": "error",
    "enable.partition.eof": True,
}


_TUNING = {
    "fetch.wait.max.ms": 100,
    # What waits in the client for the next batch; it is what a partition that is read costs in memory.
    "queued.max.messages.kbytes": 16 << 10,
    # How long the client rests once so much waits; by its own default a second, in which all of it is read.
    "fetch.queue.backoff.ms": 5,
    "check.crcs": True,
}
"""What the block's client_options may say otherwise."""


class Reader:
    """The messages from ``start`` on and before ``end``."""

    def __init__(self, block: Kafka, topic: str, partition: int, start: int, end: int) -> None:
        self._block = block = revealed(block)
        self._topic, self._partition = topic, partition
        self._end = end
        self._told = Told()
        self._size = _FIRST_BATCH
        self._is_stopped = False
        self.position = start
        """The offset that comes next: all before it were given."""
        config = {**_TUNING, **block.client_config(), **_SETTINGS, "error_cb": self._told}
        self._consumer: Any = asking(block, self._told, lambda: Consumer(config))
        self._consumer.assign([TopicPartition(topic, partition, start)])

    @property
    def has_ended(self) -> bool:
        return self.position >= self._end

    def batch(self, *, patient: bool = True) -> Batch:
        """Some messages, in their order; none only where the range has ended, `stop` was called, or, not ``patient``, none are
        there yet.

        Raises `SnapshotLost` where the offsets are not there any more, `UnreachableError` where nothing comes.
        """
        # Messages that are large come a few at a time, and brokers may take a while to find each other again.
        deadline = time.monotonic() + 2 * self._block.timeout
        while not self.has_ended and not self._is_stopped:
            if messages := self._taken(self._consume()):
                self._adapt(messages)
                return messages
            if not patient:
                break
            if time.monotonic() > deadline:
                raise self._stalled()
        return self._taken([])

    def _consume(self) -> list[Any]:
        """What comes first is waited for; with it goes what the client holds by then, and that is bounded by bytes. A wait
        for as many as there may be would take what comes meanwhile, however large."""
        found: list[Any] = self._consumer.consume(1, _POLL_SECONDS)
        return found + self._consumer.consume(self._size - 1, 0) if found and self._size > 1 else found

    def stop(self) -> None:
        """Let a batch that is waited for end, from another thread."""
        self._is_stopped = True

    def close(self) -> None:
        self._consumer.close()

    def _taken(self, found: list[Any]) -> Batch:
        errors = list(map(_Message.error, found))
        if any(errors):
            for each, error in zip(found, errors, strict=True):
                if error is not None:
                    self._heed(each, error)
            found = [each for each, error in zip(found, errors, strict=True) if error is None]
        offsets: list[int] = list(map(_OFFSET, found))
        if offsets and offsets[-1] >= self._end:
            past = bisect_left(offsets, self._end)
            del offsets[past:], found[past:]
            self.position = self._end
        elif offsets:
            self.position = max(self.position, offsets[-1] + 1)
        values, keys = list(map(_Message.value, found)), list(map(_Message.key, found))
        return Batch((self._topic, self._partition), offsets, values, keys, found, _rest)

    def _heed(self, event: Any, error: KafkaError) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            # A replica that lags may have its end before ours, and goes on later.
            self.position = max(self.position, min(event.offset(), self._end))
        elif error.code() not in PASSING and not error.retriable():
            raise explained(error, self._block, self._told)
        else:
            self._told(error)

    def _adapt(self, messages: Batch) -> None:
        size = sum(map(len, filter(None, chain(messages.values, messages.keys)))) // len(messages)
        self._size = max(1, min(_BATCH_MESSAGES, self._size * _GROWTH, _BATCH_BYTES // (size + 100)))

    def _stalled(self) -> Exception:
        cause = self._told.cause()
        told = f"{cause.str()}" if cause else "the brokers told no reason"
        return UnreachableError(
            f"{self._block.describe()}: nothing came of {self._topic} [{self._partition}] from offset {self.position} on, "
            f"which was to be read up to {self._end} ({told})"
        )


def _rest(message: Any) -> tuple[int, Headers]:
    """What few decoders ask for."""
    kind, at = message.timestamp()
    return at if kind else -1, tuple(message.headers() or ())
