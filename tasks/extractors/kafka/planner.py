"""Where a run begins and ends in every partition: planned from the watermark and from what the topics hold now."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from blocks.errors import ConfigurationError, PositionLost
from tasks.extractors.kafka.cluster import EARLIEST, LATEST, Cluster, Place, Topic, at_time, no_topic
from tasks.extractors.kafka.patterns import is_meant, names_none
from tasks.extractors.kafka.positions import KafkaPosition, Range, TopicPosition, as_json

_OFFSETS = re.compile(r"\s*(?:(\d+)\s*:\s*)?(\d+)\s*")


@dataclass(frozen=True)
class Window:
    """What a run reads."""

    since: KafkaPosition
    until: KafkaPosition
    ranges: tuple[tuple[Range, int], ...]
    """What lies before the second number, of each partition that has anything new; the longest first."""
    notes: tuple[str, ...] = ()
    """What of topics that are new was not there any more."""


def window(
    cluster: Cluster, patterns: Sequence[str], start: str, since: KafkaPosition | None, *, awaited: bool = False
) -> Window:
    """Everything from ``since`` (None: ``start``) to where the topics end now. Blocks.

    ``awaited``: topics that are not there yet are no error, for a connector of the stream's own makes them.
    Raises `PositionLost` where offsets are gone that were not read, `ConfigurationError` for what the user has to mend.
    """
    names = cluster.names()
    # A first run from the latest messages, say, has to see a topic to know which those are.
    lenient = awaited and (since is not None or start.strip().lower() == "earliest")
    topics = cluster.topics(meant(patterns, names) if lenient else chosen(patterns, names))
    if since is not None:
        _same_topics(since, topics, patterns)
    places = [(topic.name, number) for topic in topics.values() for number in range(topic.partitions)]
    first, next_ = cluster.offsets(places, EARLIEST), cluster.offsets(places, LATEST)
    notes: tuple[str, ...] = ()
    if since is None:
        begin = _started(cluster, start, first, next_)
        if missing := ", ".join(not_there(patterns, names)):
            notes = (f"no topic is called {missing} yet: the connector makes one with its first message",)
    else:
        begin = {place: _begun(since, place, first) for place in places}
        notes = _late(since, first)
        _still_there(since, topics, begin, first, next_)
    begun, until = (_position(topics, offsets, since) for offsets in (begin, next_))
    found = [(_range(begun, place), next_[place]) for place in places if next_[place] > begin[place]]
    if since is None and not found and places:
        # Where the stream begins is told by a commit, also where there is nothing to read yet.
        found = [(_range(begun, places[0]), next_[places[0]])]
    found.sort(key=lambda each: each[0].offset - each[1])
    return Window(begun, until, tuple(found), notes)


def chosen(patterns: Sequence[str], names: Sequence[str]) -> list[str]:
    """The topics that the patterns name; `ConfigurationError` where there is none of a name, or none at all."""
    found = meant(patterns, names)
    if missing := not_there(patterns, names):
        raise no_topic(missing, names)
    return found


def meant(patterns: Sequence[str], names: Sequence[str]) -> list[str]:
    """Those of the topics that the patterns name."""
    if all(pattern.startswith("-") for pattern in patterns):
        raise ConfigurationError("field topics: only topics to leave out are named; name those to read, * for all")
    return [name for name in names if is_meant(name, patterns)]


def not_there(patterns: Sequence[str], names: Sequence[str]) -> list[str]:
    """The names of topics that do not exist; where no topic is meant at all, everything that was asked for.

    >>> not_there(("a", "b", "c.*"), ["a"]), not_there(("c.*", "-c.old"), ["c.old"])
    (['b'], ['c.*'])
    """
    missing = names_none(patterns, names)
    if not missing and not meant(patterns, names):
        return [pattern for pattern in patterns if not pattern.startswith("-")]
    return missing


def _begun(since: KafkaPosition, place: Place, first: Mapping[Place, int]) -> int:
    """A topic that is new begins with the first message that it still has, a partition that came to one with its very first:
    the topic did not have it when the run before ended, so all of it came since."""
    known = since.offset(place)
    if known is None:
        return 0 if place[0] in since.topics else first[place]
    return known


def _late(since: KafkaPosition, first: Mapping[Place, int]) -> tuple[str, ...]:
    """Topics that do not begin with their first message. That is no error: one that is older than the stream's topics are,
    which a new pattern names or which was renamed into it, is not told from one that was made since."""
    lost = [(place, offset) for place, offset in first.items() if offset and place[0] not in since.topics]
    return tuple(
        f"{_named(place)} is new to the stream, and its offsets 0 to {offset - 1} were removed (by retention, or by whoever may) "
        "before it was read for the first time: what stood there is not in the stream"
        for place, offset in lost
    )


# -- the first run -----------------------------------------------------------------------------------------------------


def _started(cluster: Cluster, start: str, first: Mapping[Place, int], next_: Mapping[Place, int]) -> dict[Place, int]:
    match start.strip().lower():
        case "earliest":
            return dict(first)
        case "latest":
            return dict(next_)
    if (offsets := [_OFFSETS.fullmatch(part) for part in start.split(",")]) and all(offsets):
        return _at_offsets([part for part in offsets if part], first, next_)
    found = cluster.offsets(first, at_time(_moment(start)))
    # Of a time after the last message there is none: the end, and no later than the last stable offset.
    return {place: min(offset, next_[place]) if offset >= 0 else next_[place] for place, offset in found.items()}


def _moment(text: str) -> int:
    """Milliseconds since 1970 of a time; one without an offset is in UTC."""
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ConfigurationError(
            f"field start: {text!r} is neither earliest, nor latest, nor a time such as 2026-01-31 12:00:00+00, nor an "
            "offset such as 1234, nor offsets by partition such as 0:1234, 1:5678"
        ) from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _at_offsets(
    parts: Sequence[re.Match[str]], first: Mapping[Place, int], next_: Mapping[Place, int]
) -> dict[Place, int]:
    asked = {int(part[1]) if part[1] else None: int(part[2]) for part in parts}
    if unknown := asked.keys() - {None, *(number for _, number in first)}:
        raise ConfigurationError(
            f"field start: no topic has a partition {', '.join(map(str, sorted(unknown, key=str)))}; leave it out, or name one "
            f"of 0 to {max(number for _, number in first)}"
        )
    found = {}
    for place, lowest in first.items():
        offset = asked.get(place[1], asked.get(None, lowest))
        if not lowest <= offset <= next_[place]:
            raise ConfigurationError(
                f"field start: {_named(place)} holds offsets from {lowest} to {next_[place]}, and not {offset}"
            )
        found[place] = offset
    return found


# -- what may have been lost -------------------------------------------------------------------------------------------


def _same_topics(since: KafkaPosition, topics: Mapping[str, Topic], patterns: Sequence[str]) -> None:
    for name, position in since.topics.items():
        topic, others = topics.get(name), {key: value for key, value in since.topics.items() if key != name}
        if topic is None:
            if not is_meant(name, patterns):  # any more: what was read of it stays as it is
                continue
            lost = f"topic {name} was deleted; its last messages may not have been read"
        elif position.id and topic.id and position.id != topic.id:
            lost = (
                f"topic {name} was deleted and made anew (its id was {position.id}, and is {topic.id}): the offsets of the "
                "watermark are of the former one, whose last messages may not have been read"
            )
        elif topic.partitions < len(position.offsets):
            lost = f"topic {name} had {len(position.offsets)} partitions, and has {topic.partitions}"
        else:
            continue
        raise PositionLost(f"{lost}. {_choices(KafkaPosition(topics=others))}")


def _still_there(
    since: KafkaPosition, topics: Mapping[str, Topic], begin: Mapping[Place, int], first: Mapping[Place, int],
    next_: Mapping[Place, int],
) -> None:  # fmt: skip
    lost = []
    for place, offset in begin.items():
        if offset < first[place]:
            lost.append(f"{_named(place)}: offsets {offset} to {first[place] - 1} were removed by retention")
        elif offset > next_[place]:
            lost.append(
                f"{_named(place)} ends at {next_[place]}, before the position {offset}: messages were lost there"
            )
    if lost:
        mended = {place: min(max(offset, first[place]), next_[place]) for place, offset in begin.items()}
        shown = "; ".join(lost[:5]) + (f"; and {len(lost) - 5} more" if len(lost) > 5 else "")
        raise PositionLost(f"{shown}. {_choices(_position(topics, mended, since))}")


def _named(place: Place) -> str:
    return f"{place[0]} [{place[1]}]"


def _choices(onward: KafkaPosition) -> str:
    text = json.dumps(as_json(onward), separators=(",", ":"))
    return (
        "Choose: start again from the field start (`headrace state set STREAM null`; the loader applies what comes again), or "
        f"go on with what is there, without what was lost (`headrace state set STREAM '{text}'`)"
    )


# -- positions ---------------------------------------------------------------------------------------------------------


def _position(topics: Mapping[str, Topic], offsets: Mapping[Place, int], since: KafkaPosition | None) -> KafkaPosition:
    kept = dict(since.topics) if since else {}
    for topic in topics.values():
        numbers = tuple(offsets[topic.name, number] for number in range(topic.partitions))
        seen = kept[topic.name].seen if topic.name in kept else {}
        kept[topic.name] = TopicPosition(id=topic.id, offsets=numbers, seen=seen)
    return KafkaPosition(topics=kept)


def _range(begun: KafkaPosition, place: Place) -> Range:
    topic = begun.topics[place[0]]
    return Range(
        topic=place[0],
        partition=place[1],
        offset=topic.offsets[place[1]],
        seen=topic.seen.get(str(place[1])),
        id=topic.id,
    )
