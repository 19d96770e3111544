"""Messages of a Kafka topic, as decoders get them; where one stands is what ``_position`` is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple, overload

Headers = tuple[tuple[str, bytes | None], ...]


class Message(NamedTuple):
    """One record of a topic partition."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    """Milliseconds since the epoch; -1: none."""
    key: bytes | None
    value: bytes | None
    """None: a tombstone."""
    headers: Headers

    def position(self, index: int = 0) -> str:
        """``_position`` of the ``index``-th record that the message makes: sorts as text in the order of its partition.

        Positions of two topics, or of two partitions, have no order that means anything.

        >>> Message("shop", 3, 1234, -1, None, None, ()).position()
        'shop-00003-00000000000000001234-0000'
        """
        return f"{self.topic}-{self.partition:05d}-{self.offset:020d}-{index:04d}"

    def __str__(self) -> str:
        return f"message {self.offset} of {self.topic} [{self.partition}]"


class Batch(Sequence[Message]):
    """Messages of one partition in their order, column by column: what a decoder does not ask for is never taken out of
    the client's objects, where each part of each message costs a call."""

    def __init__(
        self,
        where: tuple[str, int],
        offsets: list[int],
        values: list[bytes | None],
        keys: list[bytes | None],
        rest: Sequence[Any],
        read: Callable[[Any], tuple[int, Headers]],
    ) -> None:
        """``read`` gives the timestamp and the headers of one of ``rest``."""
        self.topic, self.partition = where
        self.offsets, self.values, self.keys = offsets, values, keys
        self._rest, self._read = rest, read

    def __len__(self) -> int:
        return len(self.offsets)

    @overload
    def __getitem__(self, place: int) -> Message: ...
    @overload
    def __getitem__(self, place: slice) -> Batch: ...
    def __getitem__(self, place: int | slice) -> Message | Batch:
        offset, value, key, rest = self.offsets[place], self.values[place], self.keys[place], self._rest[place]
        if isinstance(place, slice):
            return Batch((self.topic, self.partition), offset, value, key, rest, self._read)  # type: ignore[arg-type]
        timestamp, headers = self._read(rest)
        return Message(self.topic, self.partition, offset, timestamp, key, value, headers)  # type: ignore[arg-type]


def batches(messages: Sequence[Message]) -> Iterator[Batch]:
    """Messages, which may be of several partitions, as batches in their order."""
    if isinstance(messages, Batch):
        yield messages
        return
    for where, group in groupby(messages, lambda message: (message.topic, message.partition)):
        found = list(group)
        yield Batch(
            where,
            [message.offset for message in found],
            [message.value for message in found],
            [message.key for message in found],
            found,
            lambda message: (message.timestamp, message.headers),
        )
