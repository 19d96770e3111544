"""A message of a Kafka topic, as decoders get it; where it stands is what ``_position`` is made of."""

from __future__ import annotations

from typing import NamedTuple


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
    headers: tuple[tuple[str, bytes | None], ...]

    def position(self, index: int = 0) -> str:
        """``_position`` of the ``index``-th record that the message makes: sorts as text in the order of its partition.

        Positions of two topics, or of two partitions, have no order that means anything.

        >>> Message("shop", 3, 1234, -1, None, None, ()).position()
        'shop-00003-00000000000000001234-0000'
        """
        return f"{self.topic}-{self.partition:05d}-{self.offset:020d}-{index:04d}"

    def __str__(self) -> str:
        return f"message {self.offset} of {self.topic} [{self.partition}]"
