"""How far a stream of topics has come: the next offset of every partition, and which topic it is an offset of."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field, JsonValue, ValidationError

from blocks.errors import PositionLost
from tasks.extractors.contract import Frozen
from tasks.extractors.kafka.cluster import Place


class TopicPosition(Frozen):
    """One topic."""

    id: str
    """That of the topic whose offsets these are: a topic of the same name that was made later has another."""
    offsets: tuple[int, ...]
    """By partition: the offset of the next message."""
    seen: dict[str, JsonValue] = Field(default_factory=dict)
    """By partition: what its decoder has to know to go on; see `Decoder.state`."""


class KafkaPosition(Frozen):
    """All topics of a stream."""

    topics: dict[str, TopicPosition] = Field(default_factory=dict)

    def offset(self, place: Place) -> int | None:
        """Where a partition is to be gone on with; None for one that was not there."""
        topic = self.topics.get(place[0])
        return topic.offsets[place[1]] if topic and place[1] < len(topic.offsets) else None

    def moved(self, ends: Iterable[Reached]) -> KafkaPosition:
        """The position once these partitions have come so far."""
        topics = dict(self.topics)
        for end in ends:
            topic = topics[end.topic]
            offsets = list(topic.offsets)
            offsets[end.partition] = end.offset
            seen = topic.seen if end.seen is None else {**topic.seen, str(end.partition): end.seen}
            topics[end.topic] = topic.model_copy(update={"offsets": tuple(offsets), "seen": seen})
        return KafkaPosition(topics=topics)


class Reached(Frozen):
    """How far one partition has come, or where it begins."""

    topic: str
    partition: int
    offset: int
    seen: JsonValue = None


class Range(Reached):
    """The lower bound of a plan's partition."""

    id: str
    """Of the topic."""


def kafka_position(since: JsonValue) -> KafkaPosition | None:
    """The position of a watermark; None where there is none. `PositionLost` for one that is not of topics."""
    if since is None:
        return None
    try:
        return KafkaPosition.model_validate(since)
    except ValidationError as error:
        raise PositionLost(
            f"the watermark holds {since}, which is no position in Kafka topics. A stream of mode changes has a name of its "
            "own: use another stream name, or set the position by `headrace state set`"
        ) from error


def as_json(position: Frozen) -> JsonValue:
    """As it is kept in plans and commits."""
    made: JsonValue = position.model_dump(mode="json")
    return made
