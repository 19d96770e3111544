"""Messages of Kafka topics: planned as ranges of offsets, read partition by partition, decoded in threads."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from pydantic import JsonValue

from blocks.errors import SnapshotLost
from blocks.kafka import Kafka
from tasks.extractors.contract import NOT_ASKED, Behind, Emit, Limits, Output, Partition, Plan, ReadOptions, Records
from tasks.extractors.kafka.cluster import LATEST, Cluster
from tasks.extractors.kafka.consumer import Reader
from tasks.extractors.kafka.decoding import Decoder
from tasks.extractors.kafka.planner import Window, window
from tasks.extractors.kafka.positions import KafkaPosition, Range, Reached, as_json, kafka_position

_HOP_BYTES, _HOP_SECONDS = 1 << 20, 0.2
"""Of CSV, which are made before the event loop is gone back to, and for how long at most."""


@dataclass(frozen=True)
class TopicsSubject:
    """What is read, as the user named it."""

    block: Kafka
    topics: tuple[str, ...]
    start: str
    asked: JsonValue
    """All else that decides which records are made."""
    decoder: Callable[[JsonValue], Decoder]
    """Makes the decoder of a partition; given the state of the one before."""
    awaited: bool = False
    """The stream's own connector makes the topics, each with its first message."""


class TopicsExtractor:
    """See `tasks.extractors.contract.ChangeExtractor`."""

    def __init__(self, subject: TopicsSubject, options: ReadOptions) -> None:
        self._subject = subject
        self._options = options
        self._budget = _Budget(options.limits)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held: each partition has a client of its own while it is read."""

    @property
    def asked(self) -> str:
        """See `Extractor.asked`."""
        subject = self._subject
        asked = [subject.block.describe(), subject.topics, subject.start, subject.asked]
        options = self._options.model_dump(mode="json", exclude=set(NOT_ASKED))
        return hashlib.sha256(json.dumps([*asked, options]).encode()).hexdigest()[:16]

    async def plan(self, since: JsonValue) -> Plan:
        """See `Extractor.plan`. A position is a `KafkaPosition`."""
        position = kafka_position(since)
        found = await asyncio.to_thread(self._window, position)
        rows = sum(end - begin.offset for begin, end in found.ranges)
        return Plan(
            id=uuid.uuid4().hex,
            mode="changes",
            since=since,
            until=as_json(found.until) if found.ranges else since,
            partitions=tuple(_partition(number, *each) for number, each in enumerate(found.ranges)),
            resumable=True,
            estimated_rows=rows,
            asked=self.asked,
            statement=f"{len(found.until.topics)} topic(s) of {self._subject.block.describe()}, up to {rows:,} messages",
            notes=found.notes,
        )

    def _window(self, since: KafkaPosition | None) -> Window:
        subject = self._subject
        return window(Cluster(subject.block), subject.topics, subject.start, since, awaited=subject.awaited)

    async def capture(self, plan: Plan, partition: Partition, emit: Emit) -> JsonValue:  # noqa: ARG002 - of the contract
        """See `ChangeExtractor.capture`; the position is a `Reached`."""
        begin, end = Range.model_validate(partition.lower), int(str(partition.upper))
        if begin.offset >= end or self._budget.is_spent:
            return _reached(begin, begin.offset, begin.seen)
        async with _Reading(self._subject, begin, end) as reading:
            while not reading.has_ended and not self._budget.is_spent:
                for output, records in await reading.records():
                    self._budget.spend(records)
                    if records.count:
                        await emit(output, records)
            for output, records in await reading.rest():
                await emit(output, records)
        await asyncio.to_thread(self._check_same_topic, begin)
        return _reached(begin, reading.position, reading.seen)

    def reached(self, plan: Plan, positions: Sequence[JsonValue]) -> JsonValue:
        """See `ChangeExtractor.reached`."""
        until = KafkaPosition.model_validate(plan.until)
        return as_json(until.moved(map(Reached.model_validate, positions)))

    async def behind(self, reached: JsonValue) -> Behind:
        """See `TellsBehind.behind`: messages, markers and holes included, of the topics that were there."""
        position = KafkaPosition.model_validate(reached)
        rows = await asyncio.to_thread(self._behind, position)
        return Behind(seconds=None if rows else 0, bytes=None if rows else 0, rows=rows)

    def _behind(self, position: KafkaPosition) -> int:
        places = {
            (name, number): offset
            for name, topic in position.topics.items()
            for number, offset in enumerate(topic.offsets)
        }
        ends = Cluster(self._subject.block).offsets(places, LATEST)
        return sum(max(0, ends[place] - offset) for place, offset in places.items())

    def _check_same_topic(self, begin: Range) -> None:
        """A topic that was made anew while it was read has the same offsets, and other messages."""
        now = Cluster(self._subject.block).topics([begin.topic])[begin.topic]
        if now.id != begin.id:
            raise SnapshotLost(f"topic {begin.topic} was deleted and made anew while it was read")


class _Reading:
    """One partition that is read, in a thread of its own. Used as ``async with``; a cancel waits for the thread."""

    def __init__(self, subject: TopicsSubject, begin: Range, end: int) -> None:
        self._subject, self._begin, self._end = subject, begin, end
        self._thread = ThreadPoolExecutor(1, f"kafka-{begin.topic}-{begin.partition}")
        self._reader: Reader | None = None
        self._decoder: Decoder | None = None
        self.position, self.seen = begin.offset, begin.seen

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reader is not None:
            self._reader.stop()
        closing = asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)
        await asyncio.shield(closing)

    @property
    def has_ended(self) -> bool:
        return self.position >= self._end

    async def records(self) -> list[tuple[Output, Records]]:
        """Those of the next messages; `position` and `seen` are behind them then."""
        made, self.position, self.seen = await asyncio.get_running_loop().run_in_executor(self._thread, self._next)
        return made

    async def rest(self) -> list[tuple[Output, Records]]:
        """See `Decoder.rest`."""
        decoder = self._decoder
        return [] if decoder is None else await asyncio.get_running_loop().run_in_executor(self._thread, decoder.rest)

    def _next(self) -> tuple[list[tuple[Output, Records]], int, JsonValue]:
        begin = self._begin
        if self._reader is None or self._decoder is None:
            self._decoder = self._subject.decoder(begin.seen)
            self._reader = Reader(self._subject.block, begin.topic, begin.partition, begin.offset, self._end)
        made: list[tuple[Output, Records]] = []
        size, until = 0, time.monotonic() + _HOP_SECONDS
        while size < _HOP_BYTES and time.monotonic() < until and (messages := self._reader.batch(patient=not made)):
            found = self._decoder(messages)
            size += sum(len(records.data) for _, records in found)
            made += found
        return _joined(made), self._reader.position, self._decoder.state

    def _close(self) -> None:
        if self._reader is not None:
            self._reader.close()


class _Budget:
    """What a run may still read, all partitions together."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._ends: float | None = None
        self._rows = self._bytes = 0

    @property
    def is_spent(self) -> bool:
        limits, now = self._limits, time.monotonic()
        if self._ends is None:
            self._ends = now + (limits.seconds or float("inf"))
        rows, size = limits.rows or float("inf"), limits.bytes or float("inf")
        return now >= self._ends or self._rows >= rows or self._bytes >= size

    def spend(self, records: Records) -> None:
        self._rows += records.count
        self._bytes += len(records.data)


def _joined(made: list[tuple[Output, Records]]) -> list[tuple[Output, Records]]:
    """Records of one output that follow each other as one: each that is emitted costs the event loop a turn."""
    joined: list[tuple[Output, list[Records]]] = []
    for output, records in made:
        if not joined or joined[-1][0] is not output:
            joined.append((output, []))
        joined[-1][1].append(records)
    return [(output, parts[0] if len(parts) == 1 else _one(parts)) for output, parts in joined]


def _one(parts: Sequence[Records]) -> Records:
    counted: Counter[str] = Counter()
    for each in parts:
        counted.update(each.counted)
    return Records(
        data=b"".join([each.data for each in parts]),
        count=sum(each.count for each in parts),
        absent=frozenset().union(*(each.absent for each in parts)),
        counted=dict(counted),
    )


def _partition(number: int, begin: Range, end: int) -> Partition:
    topic = re.sub(r"[^a-z0-9]+", "-", begin.topic.lower()).strip("-")[:80]
    return Partition(name=f"{number:04d}-{topic}-{begin.partition}", lower=as_json(begin), upper=end)


def _reached(begin: Range, offset: int, seen: JsonValue) -> JsonValue:
    return as_json(Reached(topic=begin.topic, partition=begin.partition, offset=offset, seen=seen))
