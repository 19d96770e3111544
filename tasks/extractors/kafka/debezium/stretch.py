"""Events of one shape that follow each other, as they are taken through the decoder: column by column, not one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from itertools import compress, repeat
from typing import Any

from tasks.extractors.contract import Output
from tasks.extractors.kafka.debezium.events import LETTERS, Source
from tasks.extractors.kafka.debezium.heads import heads
from tasks.extractors.kafka.debezium.readers import Reader
from tasks.extractors.kafka.message import Batch

MOST = 400
"""Events of a stretch: as many as a processor's own cache holds, for each column means to go through them all. With some
thousand the same work takes half as long again."""

NO_KEY = b"\xff"
"""What no key begins with."""


class Stretch:
    """Where events stand in their batch, and what they are."""

    def __init__(self, batch: Batch, places: Sequence[int], events: list[Any], end: int) -> None:
        self.batch, self.places, self.events = batch, places, events
        self.end = end
        """Where the first message stands that was not looked at."""
        self.outputs: list[Output | None] = []
        """Where they go; None: of a table that is not wanted."""
        self._left_out: list[tuple[int, str]] = []

    @property
    def left_out(self) -> Counter[str]:
        """As what events were counted that are not among these, and will not be looked at anew."""
        return Counter(what for place, what in self._left_out if place < self.end)

    @cached_property
    def ops(self) -> list[str]:
        return [event.op for event in self.events]

    @cached_property
    def sources(self) -> list[Source]:
        return [event.source for event in self.events]

    @cached_property
    def rows(self) -> list[Any]:
        return [event.after for event in self.events]

    @cached_property
    def committed(self) -> list[int]:
        """Microseconds since 1970; 0: not known."""
        micros = [source.ts_us for source in self.sources]
        if None in micros:
            pairs = zip(micros, self.sources, strict=True)
            return [(source.ts_ms or 0) * 1000 if at is None else at for at, source in pairs]
        return micros  # type: ignore[return-value]  # None is not among them

    @property
    def keys(self) -> list[bytes | None]:
        keys = self.batch.keys
        return [keys[place] for place in self.places]

    def keep(self, which: Sequence[bool], others: str) -> None:
        """Leave out the others; ``others``: as what those are counted."""
        self._left_out += [(place, others) for place, kept in zip(self.places, which, strict=True) if not kept]
        self._become(*(list(compress(each, which)) for each in (self.places, self.events, self.outputs)))

    def cut(self, at: int) -> None:
        """Leave what begins with the event of this index to be looked at anew."""
        self.end = self.places[at]
        self._become(self.places[:at], self.events[:at], self.outputs[:at])

    def _become(self, places: Sequence[int], events: list[Any], outputs: list[Output | None]) -> None:
        self.places, self.events, self.outputs = places, events, outputs
        for column in ("ops", "sources", "rows", "committed"):
            self.__dict__.pop(column, None)

    def heads(self, null: str) -> list[str]:
        """What stands before the fields of each."""
        ops, batch = self.ops, self.batch
        letters = LETTERS[ops[0]] * len(ops) if all_same(ops) else "".join([LETTERS[op] for op in ops])
        offsets = batch.offsets
        return heads(letters, self.committed, batch.topic, batch.partition, [offsets[at] for at in self.places], null)

    def without_row(self) -> set[int]:
        """The indexes of deletions, and of what else has no row as it is now."""
        if all(self.rows) and "d" not in self.ops:
            return set()
        return {index for index, event in enumerate(self.events) if event.after is None or event.op == "d"}


def all_same(values: Sequence[Any]) -> bool:
    return values.count(values[0]) == len(values)


def decoded(
    reader: Reader, batch: Batch, at: int, failures: tuple[type[Exception], ...]
) -> tuple[Stretch, Exception | None]:
    """The events from ``at`` on as far as they are of the reader's shape, and what stopped it, if it was an event."""
    places, end = _alike(reader, batch, at)
    values = [batch.values[place] for place in places]
    if reader.start or reader.end:
        first, last = len(reader.start), -reader.end or None
        values = [value[first:last] for value in values]  # type: ignore[index]  # no tombstone is among them
    events: list[Any] = []
    try:
        events.extend(map(reader.decode, values))  # what was decoded before one fails is in the list
    except failures as error:
        return Stretch(batch, places[: len(events)], events, places[len(events)]), error
    return Stretch(batch, places, events, end), None


def _alike(reader: Reader, batch: Batch, at: int) -> tuple[Sequence[int], int]:
    """The places of values that begin as the reader's do, those left out that say nothing new; and where the first stands that
    was not looked at."""
    start, key_start = reader.start, NO_KEY if reader.key_start is None else reader.key_start
    end = min(len(batch), at + reader.most)
    values, keys = batch.values[at:end], batch.keys[at:end]
    if None not in values and None not in keys:
        begin = not start or all(map(bytes.startswith, values, repeat(start)))  # type: ignore[arg-type]
        if begin and all(map(bytes.startswith, keys, repeat(key_start))):  # type: ignore[arg-type]
            return range(at, end), end
    places: list[int] = []
    for place, value, key in zip(range(at, end), values, keys, strict=True):
        if value is None:
            if reader.drops_tombstones or key is None:
                continue
            return places, place
        if not value.startswith(start) or (key is not None and not key.startswith(key_start)):
            return places, place
        places.append(place)
    return places, end
