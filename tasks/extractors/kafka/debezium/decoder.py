"""Messages → records: what follows each other in one shape is decoded event by event, and written column by column.

What a message is, is found out when its first bytes are not those of the one before (see `framing`), and by
`tasks.extractors.kafka.debezium.learning`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain, compress, groupby
from typing import Any

import msgspec
from pydantic import JsonValue

from blocks.s3 import CsvDialect
from tasks.extractors.contract import Output, Records
from tasks.extractors.kafka.debezium import times
from tasks.extractors.kafka.debezium.events import GONE, LETTERS, MESSAGES
from tasks.extractors.kafka.debezium.learning import Learning, PassedOver
from tasks.extractors.kafka.debezium.lines import Lines
from tasks.extractors.kafka.debezium.options import DebeziumOptions
from tasks.extractors.kafka.debezium.positions import Deduplicator
from tasks.extractors.kafka.debezium.readers import Reader
from tasks.extractors.kafka.debezium.rows import TableRows
from tasks.extractors.kafka.debezium.stretch import MOST, NO_KEY, Stretch, all_same, decoded
from tasks.extractors.kafka.decoding import UndecodableError
from tasks.extractors.kafka.message import Batch, Message, batches

FAILURES = (msgspec.DecodeError, ValueError, LookupError, ArithmeticError, TypeError, EOFError, RecursionError)
"""What decoding bytes that are no event may raise."""

SEEN_BEFORE = "sent again by the connector, left out"
NOT_WANTED = "events of other tables, passed over"
EARLY_TOMBSTONES = "tombstones before any event, passed over"

_FEWEST = 8
"""Events that are looked at together at least."""

_EPOCH_TEXT = times.stamp(6, 6)


class DebeziumDecoder:
    """A `Decoder` of change events. A call that raises has changed nothing: neither ``state`` nor ``counted``."""

    def __init__(self, dialect: CsvDialect, options: DebeziumOptions, state: JsonValue = None) -> None:
        self._options = options
        self._null = dialect.null
        self._written = Lines(dialect, options)
        self._learning = Learning(dialect, options)
        self._seen = Deduplicator(state)
        self._last: dict[str, Reader] = {}
        """By topic: of the message before."""
        self._latest: Output | None = None
        """Of the last event of a table, also of one that was left out."""
        self._out: list[tuple[Output, list[str], set[str]]] = []
        """Lines of an output, and which columns some of them lack."""
        self.counted: Counter[str] = Counter()
        """What became of messages that made no record, since the beginning. The records of a call tell it too, from the
        first that follow on."""
        self._untold: Counter[str] = Counter()

    @property
    def state(self) -> JsonValue:
        """What a decoder that goes on behind the last message is given."""
        return self._seen.state

    def __call__(self, messages: Sequence[Message]) -> list[tuple[Output, Records]]:
        """The records in the order of the messages."""
        seen, counted, untold = self._seen.copy(), self.counted.copy(), self._untold.copy()
        self._out = []
        try:
            for batch in batches(messages):
                at = 0
                while at < len(batch):
                    at = self._next(batch, at)
        except UndecodableError:
            self._seen.restore(seen)
            self.counted, self._untold = counted, untold
            raise
        return self._told(
            [
                (output, Records(data="\n".join([*lines, ""]).encode(), count=len(lines), absent=frozenset(absent)))
                for output, lines, absent in self._out
            ]
        )

    def rest(self) -> list[tuple[Output, Records]]:
        """See `Decoder.rest`. It is told with the table of the last event; where there was none, by nothing."""
        if self._latest is None or not self._untold:
            return []
        return self._told([(self._latest, Records(data=b"", count=0))])

    def _told(self, out: list[tuple[Output, Records]]) -> list[tuple[Output, Records]]:
        if out and self._untold:
            output, records = out[-1]
            out[-1] = (output, replace(records, counted=dict(self._untold)))
            self._untold = Counter()
        return out

    def _count(self, what: str, times: int = 1) -> None:
        if times:
            self.counted[what] += times
            self._untold[what] += times

    def _add(self, output: Output | None, lines: Iterable[str], absent: Iterable[str]) -> None:
        if output is None:
            raise AssertionError("a record of a table that is not wanted")
        if not self._out or self._out[-1][0] is not output:
            self._out.append((output, [], set()))
        self._out[-1][1].extend(lines)
        self._out[-1][2].update(absent)

    def _next(self, batch: Batch, at: int) -> int:
        """Decode what begins at ``at``; where it ends."""
        reader = self._last.get(batch.topic)
        if batch.values[at] is None:
            self._tombstone(reader, batch, at)
            return at + 1
        if reader is not None:
            end = self._run(reader, batch, at, sure=False)
            if end > at:
                return end
        learned = self._learned(batch[at])
        if isinstance(learned, PassedOver):
            self._count(learned.reason)
            return at + 1
        self._last[batch.topic] = learned
        end = self._run(learned, batch, at, sure=True)
        if end == at:
            raise UndecodableError(batch[at], "neither its value nor its key can be told from others of its topic")
        return end

    def _learned(self, message: Message) -> Reader | PassedOver:
        try:
            return self._learning.reader(message)
        except FAILURES as error:
            raise UndecodableError(message, f"it is no Debezium event: {_told(error)}") from error

    def _tombstone(self, reader: Reader | None, batch: Batch, at: int) -> None:
        """A message without a value: all that is told of a deletion where events are flattened, and else nothing new."""
        if reader is not None and (reader.drops_tombstones or batch.keys[at] is None):
            return
        if reader is None or reader.latest is None:
            self._count(EARLY_TOMBSTONES)
            return
        message = batch[at]
        if message.key is None or not message.key.startswith(NO_KEY if reader.key_start is None else reader.key_start):
            raise UndecodableError(message, "a deletion whose key is of another form than those before")
        try:
            text, names = self._written.of_key(reader, message.key)
            lead = self._written.lead(reader, message)
        except FAILURES as error:
            raise UndecodableError(message, f"a deletion whose key cannot be decoded: {_told(error)}") from error
        committed_at = _EPOCH_TEXT(message.timestamp * 1000) + "+00" if message.timestamp >= 0 else self._null
        line = f"D,{committed_at},{message.position()},{self._written.names(names)}{lead}{text}"
        self._add(reader.latest, [line], names)

    # -- messages of one shape ---------------------------------------------------------------------------------------------

    def _run(self, reader: Reader, batch: Batch, at: int, *, sure: bool) -> int:
        """Decode messages of one shape from ``at`` on; where the first stands that is of another.

        ``sure``: the first is of this shape, and if it cannot be decoded it is no event.
        """
        stretch, error = decoded(reader, batch, at, FAILURES)
        if error is not None and sure and stretch.end == at:
            raise UndecodableError(batch[at], _told(error)) from error
        if not LETTERS.keys() >= set(stretch.ops):
            self._pass_over(stretch, at if sure else None)
        if stretch.events:
            self._choose(reader, stretch, at if sure else None)
        if reader.looks_up and None in stretch.rows:
            stretch.keep([event.after is not None or event.op != "u" for event in stretch.events], GONE)
        if stretch.events:
            self._keep(reader.shape.rows, stretch, *self._lines(reader, stretch, at if sure else None))
            for what, number in reader.shape.rows.told().items():
                self._count(what, number)
        for what, number in stretch.left_out.items():
            self._count(what, number)
        return stretch.end

    def _pass_over(self, stretch: Stretch, sure: int | None) -> None:
        """Take out events that are no rows, and all from the first on that is of no known kind."""
        unknown = next((index for index, op in enumerate(stretch.ops) if op not in LETTERS and op != "m"), None)
        if unknown is not None:
            if stretch.places[unknown] == sure:
                raise UndecodableError(
                    stretch.batch[sure], f"an event of op {stretch.ops[unknown]!r}, which is not known"
                )
            stretch.cut(unknown)
        stretch.keep([op != "m" for op in stretch.ops], MESSAGES)

    def _choose(self, reader: Reader, stretch: Stretch, sure: int | None) -> None:
        """Say of each event where it goes, and take out those of tables that are not wanted."""
        wanted, sources = self._options.tables_wanted, stretch.sources
        names = [(source.db, source.schema, source.table) for source in sources]
        if reader.table is not None:
            names = self._of_its_table(reader, stretch, names, sure)
            if not names:
                return
        which = {names[0]: sources[0]} if all_same(names) else dict(zip(names, sources, strict=True))
        found = {
            name: reader.output(source.of_table) if wanted is None or wanted(source.of_table) else None
            for name, source in which.items()
        }
        stretch.outputs = [found[names[0]]] * len(names) if len(found) == 1 else [found[name] for name in names]
        reader.latest = stretch.outputs[-1]
        self._latest = reader.latest or self._latest
        if None in found.values():
            stretch.keep([output is not None for output in stretch.outputs], NOT_WANTED)

    def _of_its_table(self, reader: Reader, stretch: Stretch, names: list[Any], sure: int | None) -> list[Any]:
        """Without schemas another table may have other types, and of one that has the same columns nothing else would tell."""
        first = stretch.sources[0].of_table
        if first == reader.table and all_same(names):
            reader.most = min(MOST, 2 * reader.most)
            return names
        tables = [source.of_table for source in stretch.sources]
        other = next((index for index, table in enumerate(tables) if table != reader.table), None)
        if other is None:
            return names
        if stretch.places[other] == sure:
            raise UndecodableError(stretch.batch[sure], f"it is of {first}, and not of {reader.table}")
        stretch.cut(other)
        reader.most = max(_FEWEST, 2 * other)
        return names[:other]

    def _lines(self, reader: Reader, stretch: Stretch, sure: int | None) -> tuple[list[str], dict[int, Sequence[str]]]:
        """The records, without their line ends, and which columns some of them lack, by their index.

        Where one of the events makes none, the stretch is cut there, or `UndecodableError` raised where it is the one that is
        sure to be of this shape.
        """
        reader.shape.rows.told()  # of an attempt that failed
        try:
            lines = self._written.of(reader, stretch)
        except FAILURES as error:
            # Where one is refused there are more, and each costs what stands before it a second time.
            reader.most = _FEWEST
            for index, (key, event) in enumerate(zip(stretch.keys, stretch.events, strict=True)):
                try:
                    self._written.of_one(reader, key, event)
                    self._written.lead(reader, stretch.batch[stretch.places[index]])
                except FAILURES as own:
                    if stretch.places[index] == sure:
                        raise UndecodableError(stretch.batch[sure], _told(own)) from own
                    stretch.cut(index)
                    reader.shape.rows.told()
                    return self._written.of(reader, stretch) if index else ([], {})
            raise error from None
        if reader.table is None:
            reader.most = min(MOST, 2 * reader.most)
        return lines

    def _keep(self, rows: TableRows, stretch: Stretch, lines: list[str], absent: dict[int, Sequence[str]]) -> None:
        """Add the records of events that were not seen before."""
        if not lines:
            return
        new: Sequence[int] = range(len(lines))
        if self._options.deduplicate and not self._seen.are_new(stretch, rows):
            each = zip(stretch.keys, stretch.events, stretch.committed, strict=True)
            known = [self._seen.is_new(stretch.batch, *event, rows) for event in each]
            new = list(compress(new, known))
            self._count(SEEN_BEFORE, len(lines) - len(new))
        if len(new) == len(lines) and not absent and all_same(outputs := stretch.outputs):
            self._add(outputs[0], lines, ())
            return
        for output, group in groupby(new, stretch.outputs.__getitem__):
            indexes = list(group)
            lacked = chain.from_iterable(absent[index] for index in absent.keys() & set(indexes))
            self._add(output, [lines[index] for index in indexes], lacked)


def _told(error: BaseException) -> str:
    return f"{error}" if isinstance(error, (msgspec.DecodeError, ValueError)) else f"{type(error).__name__}: {error}"
