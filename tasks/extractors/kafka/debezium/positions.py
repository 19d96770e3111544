"""Where an event stands in its source's log, and which events a connector has sent before.

A connector that was killed goes on from the offset it stored last, and sends what came after it again: behind what it
had sent before, in the same order, at the same places of the source's log. So an event is **left out** when

- its place is not behind the last one that was seen of its connector in its topic partition, and
- its transaction was not committed later than all that were seen, and
- (MySQL) it is of a server that events were seen of.

Whatever was sent again fulfils all three. An event that was not seen fulfils them only where the source's log was set back
(another server took over, a backup was restored) *and* the clock with it; where only the log was, the second or third
condition fails, and the places are counted from there on. What has no place of its own is never left out: rows of a
snapshot, which a connector that is killed within its snapshot sends again from the start (a loader that merges by
key ends with the later ones), events of connectors that tell no place, and those of tables without a key that share the very
last place (rows of one COPY). Nor is what does not say its connector, or when it was committed: flattened events without
``source.name`` may be of two connectors, each with places of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, repeat
from operator import lt
from typing import Any

import msgspec
from pydantic import JsonValue

from tasks.extractors.kafka.debezium.events import Source
from tasks.extractors.kafka.debezium.rows import TableRows
from tasks.extractors.kafka.debezium.stretch import Stretch, all_same
from tasks.extractors.kafka.message import Batch

Place = tuple[int, ...]

_MOST_AT_ONE_PLACE = 4096
"""PostgreSQL gives one place to all rows that a COPY wrote into one page, which are at most some hundred."""


def source_order(source: Source, op: str) -> Place | None:
    """What compares as the events of one connector follow each other; None for those without a place.

    PostgreSQL: the end of the transaction before (0: not known, as of the first one), and the place of the change;
    transactions are sent as they were committed, so the place of the change alone goes back and forth. MySQL: file,
    place and row. A changed key makes a deletion and an insertion at one place.
    """
    rank = 1 if op == "c" else 0
    if op == "r":
        return None
    if source.lsn is not None and source.sequence is not None:
        # ["27235064","27235100"], of which the first may be null.
        before = source.sequence[2 : source.sequence.find(",") - 1]
        return (int(before) if before.isdigit() else 0, source.lsn, rank)
    if source.file is not None and source.pos is not None:
        number = source.file.rpartition(".")[2]
        return (int(number), source.pos, source.row or 0, rank) if number.isdigit() else None
    return None


def ascend(sources: Sequence[Source]) -> bool:
    """Whether each stands behind the one before, as far as that can be told without taking all places apart."""
    places: Any
    if sources[0].sequence is not None:
        texts = [source.sequence or "" for source in sources]
        comma = texts[0].find(",")
        if comma < 1 or set(map(str.find, texts, repeat(","))) != {comma}:
            return False
        first, last = texts[0], texts[-1]
        whole = first.endswith(f',"{sources[0].lsn}"]') and last.endswith(f',"{sources[-1].lsn}"]')
        if whole and first[1] == last[1] and len(set(map(len, texts))) == 1:
            # All numbers in them are of one width, so they compare as those do; null sorts behind any number.
            return all(map(lt, texts, islice(texts, 1, None)))
        # Of one width: they compare as the numbers in them do. "null" is compared with itself alone.
        before = [text[:comma] for text in texts]
        if before[-1] == "[null" != before[0]:
            return False
        places = [(text, source.lsn) for text, source in zip(before, sources, strict=True)]
    else:
        if len({source.file for source in sources}) > 1:
            return False
        places = [(source.pos, source.row or 0) for source in sources]
    try:
        return all(map(lt, places, islice(places, 1, None)))
    except TypeError:
        return False  # some have none


@dataclass(slots=True)
class _Seen:
    """What is known of one connector in one topic partition."""

    last: Place
    latest: int
    """When the latest of all transactions was committed, in microseconds since 1970."""
    servers: frozenset[int]
    key: bytes | None
    """Of the last event, …"""
    keys: frozenset[str] = field(default=frozenset())
    """… and digests of those before it at the same place."""


class Deduplicator:
    """Says of each event whether it was seen before. Its state is some numbers for a topic partition and a connector."""

    def __init__(self, state: JsonValue = None) -> None:
        self._seen = _read(state)

    @property
    def state(self) -> dict[str, JsonValue]:
        """What `Deduplicator` takes to go on."""
        return {json.dumps(where): _written(seen) for where, seen in self._seen.items()}

    def copy(self) -> Any:
        """To go back to by `restore`."""
        return {where: replace(seen) for where, seen in self._seen.items()}

    def restore(self, copied: Any) -> None:
        self._seen = copied

    def are_new(self, stretch: Stretch, rows: TableRows) -> bool:
        """Whether none of these events was seen, told at once: each stands behind the one before, and the first behind the
        last that was seen. False: not known, `is_new` tells of each, and nothing has changed."""
        ops, sources = stretch.ops, stretch.sources
        if "r" in ops:
            return all_same(ops)  # rows of a snapshot have no place
        if 0 in stretch.committed:
            return False
        seen = self._seen.get((stretch.batch.topic, stretch.batch.partition, sources[0].name))
        if seen is None or not all_same([source.name for source in sources]) or not ascend(sources):
            return False
        first, last = source_order(sources[0], ops[0]), source_order(sources[-1], ops[-1])
        if first is None or last is None or first <= seen.last:
            return False
        seen.last, seen.keys = last, _NONE
        seen.key = _own(stretch.batch.keys[stretch.places[-1]], stretch.events[-1], rows)
        seen.latest = max(seen.latest, *stretch.committed)
        servers = {source.server_id or 0 for source in sources} if sources[0].file is not None else _NO_SERVERS
        if not servers <= seen.servers:
            seen.servers |= servers
        return True

    def is_new(self, batch: Batch, key: bytes | None, event: Any, committed: int, rows: TableRows) -> bool:
        """Whether the event was not seen. ``committed``: microseconds since 1970; ``rows``: what has the event's row."""
        source = event.source
        place = source_order(source, event.op)
        if place is None or not source.name or not committed:
            return True
        key = _own(key, event, rows)
        where = (batch.topic, batch.partition, source.name)
        seen = self._seen.get(where)
        server = source.server_id or 0
        if seen is not None and place > seen.last:
            seen.last, seen.key, seen.keys = place, key, _NONE
            if committed > seen.latest:
                seen.latest = committed
            if server not in seen.servers:
                seen.servers |= {server}
            return True
        if seen is None or committed > seen.latest or server not in seen.servers:
            # Of a log that was not seen before, or is another now.
            self._seen[where] = _Seen(place, committed, frozenset((server,)), key)
            return True
        return place == seen.last and _is_new_there(seen, key)


_NONE: frozenset[str] = frozenset()
_NO_SERVERS = frozenset({0})


def _own(key: bytes | None, event: Any, rows: TableRows) -> bytes | None:
    """What tells events at one place apart. That of a table that was emptied has no key, and there is one for each table. Of
    rows that one COPY wrote several may have one key, where it is not the table's own (``message.key.columns``)."""
    if key is None:
        return event.source.of_table.encode() if event.op == "t" else None
    if event.op != "c" or event.source.lsn is None or event.after is None:
        return key
    return key + msgspec.json.encode(rows.values([event.after]))


def _is_new_there(seen: _Seen, key: bytes | None) -> bool:
    """Whether an event at the last place is another one: by its key."""
    if key is None:
        return True
    digest = _digest(key)
    if key == seen.key or digest in seen.keys:
        return False
    if seen.key is not None and len(seen.keys) < _MOST_AT_ONE_PLACE:
        seen.keys |= {_digest(seen.key)}
    seen.key = key
    return True


def _digest(key: bytes) -> str:
    return hashlib.blake2b(key, digest_size=8).hexdigest()


def _written(seen: _Seen) -> JsonValue:
    keys = seen.keys | {_digest(seen.key)} if seen.key is not None else seen.keys
    told: dict[str, Any] = {"last": list(seen.last), "latest": seen.latest}
    return told | {"servers": sorted(seen.servers), "keys": sorted(keys)}


def _read(state: JsonValue) -> dict[tuple[str, int, str], _Seen]:
    if state is None:
        return {}
    if not isinstance(state, dict):
        raise TypeError(f"not the state of a Deduplicator: {state!r}")
    found: dict[tuple[str, int, str], _Seen] = {}
    for where, told in state.items():
        known: Any = told
        topic, partition, name = json.loads(where)
        found[topic, partition, name] = _Seen(
            tuple(known["last"]), known["latest"], frozenset(known["servers"]), None, frozenset(known["keys"])
        )
    return found
