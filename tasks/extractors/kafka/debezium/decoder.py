"""Messages → records: runs of messages of one shape go through one loop, in which nothing is looked up.

What a message is, is found out when its first bytes are not those of the one before (see `framing`), and by
`tasks.extractors.kafka.debezium.learning`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
from pydantic import JsonValue

from blocks.s3 import CsvDialect
from tasks.extractors.contract import Output, Records
from tasks.extractors.kafka.debezium import times
from tasks.extractors.kafka.debezium.events import LETTERS, MESSAGES
from tasks.extractors.kafka.debezium.learning import Learning, PassedOver
from tasks.extractors.kafka.debezium.options import DebeziumOptions
from tasks.extractors.kafka.debezium.positions import Deduplicator
from tasks.extractors.kafka.debezium.readers import Reader
from tasks.extractors.kafka.decoding import UndecodableError
from tasks.extractors.kafka.message import Message

FAILURES = (msgspec.DecodeError, ValueError, LookupError, ArithmeticError, TypeError, EOFError, RecursionError)
"""What decoding bytes that are no event may raise."""

SEEN_BEFORE = "sent again by the connector, left out"
NOT_WANTED = "events of other tables, passed over"
EARLY_TOMBSTONES = "tombstones before any event, passed over"

_EPOCH_TEXT = times.stamp(6, 6)
_NO_KEY = b"\xff"
"""What no key, and no table, begins with."""


class DebeziumDecoder:
    """A `Decoder` of change events. A call that raises has changed nothing: neither ``state`` nor ``counted``."""

    def __init__(self, dialect: CsvDialect, options: DebeziumOptions, state: JsonValue = None) -> None:
        self._options = options
        self._null = dialect.null
        self._learning = Learning(dialect, options)
        self._seen = Deduplicator(state)
        self._last: dict[str, Reader] = {}
        """By topic: of the message before."""
        self._out: list[tuple[Output, Records]] = []
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
            at = 0
            while at < len(messages):
                at = self._next(messages, at)
        except UndecodableError:
            self._seen.restore(seen)
            self.counted, self._untold = counted, untold
            raise
        return self._told(self._out)

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

    def _next(self, messages: Sequence[Message], at: int) -> int:
        """Decode what begins at ``at``; where it ends."""
        message = messages[at]
        if message.value is None and message.topic not in self._last:
            self._count(EARLY_TOMBSTONES)
            return at + 1
        reader = self._last.get(message.topic)
        if reader is not None:
            end = self._run(reader, messages, at, sure=False)
            if end > at:
                return end
        learned = self._learned(message)
        if isinstance(learned, PassedOver):
            self._count(learned.reason)
            return at + 1
        self._last[message.topic] = learned
        end = self._run(learned, messages, at, sure=True)
        if end == at:
            raise UndecodableError(message, "neither its value nor its key can be told from others of its topic")
        return end

    def _learned(self, message: Message) -> Reader | PassedOver:
        try:
            return self._learning.reader(message)
        except FAILURES as error:
            raise UndecodableError(message, f"it is no Debezium event: {_told(error)}") from error

    def _run(self, reader: Reader, messages: Sequence[Message], at: int, *, sure: bool) -> int:
        """Decode messages of one shape from ``at`` on; where the first stands that is of another.

        ``sure``: the first is of this shape, and if it cannot be decoded it is no event.
        """
        topic, start, size, end = messages[at].topic, reader.start, len(reader.start), -reader.end or None
        key_start = _NO_KEY if reader.key_start is None else reader.key_start
        is_whole = not size and end is None
        decode, line, needles, careful = reader.decode, reader.shape.rows.line, reader.shape.needles, reader.careful
        first, more = needles[0] if needles else b"", needles[1:]
        deduplicate, is_new, letters, instants = self._options.deduplicate, self._seen.is_new, LETTERS, times.INSTANTS
        middle = f",{self._null}"
        last_table, last_schema, last_db = _NO_KEY, None, None
        output: Output | None = None
        partition, prefix = None, ""
        lines: list[str] = []
        absent: set[str] = set()
        add = lines.append
        seen_before = others = 0

        for place in range(at, len(messages)):
            message = messages[place]
            value, key = message.value, message.key
            if value is None:
                if message.topic != topic:
                    break
                if reader.drops_tombstones or key is None:
                    continue
                output = output or reader.latest
                if output is None:
                    self._count(EARLY_TOMBSTONES)
                    continue
                if not key.startswith(key_start):
                    raise UndecodableError(message, "a deletion whose key is of another form than those before")
                add(self._of_tombstone(reader, message, absent))
                continue
            if (
                not value.startswith(start)
                or message.topic != topic
                or (key is not None and not key.startswith(key_start))
            ):
                break
            try:
                payload = value if is_whole else value[size:end]
                event = decode(payload)
                op, source = event.op, event.source
                if source.table != last_table or source.schema != last_schema or source.db != last_db:
                    name = source.of_table
                    if op != "m" and reader.table is not None and name != reader.table:
                        if place == at and sure:
                            raise ValueError(f"it is of {name}, and not of {reader.table}")
                        break
                    self._flush(output, lines, absent)
                    wanted = self._options.tables_wanted
                    output = reader.output(name) if wanted is None or wanted(name) else None
                    reader.latest = output
                    last_table, last_schema, last_db = source.table, source.schema, source.db
                letter = letters.get(op)
                if letter is None:
                    self._count(_no_row(op))
                    continue
                if output is None:
                    others += 1
                    continue
                micros = source.ts_us
                if micros is None:
                    micros = (source.ts_ms or 0) * 1000
                if deduplicate and not is_new(message, source, op, micros):
                    seen_before += 1
                    continue
                if message.partition != partition:
                    partition = message.partition
                    prefix = message.position()[: -len("00000000000000000000-0000")]
                when = f"{instants[micros // 1000000]}.{micros % 1000000:06d}+00" if micros else self._null
                head = f"{letter},{when},{prefix}{message.offset:020d}-0000,"
                row = event.after
                if row is None or letter == "D":
                    text, names = self._without_after(reader, message, event)
                elif careful or (needles and (first in payload or (more and any(n in payload for n in more)))):
                    text, names = reader.shape.rows.careful(row)
                else:
                    add(line(row, head))
                    continue
                absent.update(names)
                add(f"{head[:-1]}{middle if not names else ',' + self._names(names)}{text}")
            except FAILURES as error:
                if place > at or not sure:
                    break  # of another shape, perhaps: it is looked at anew
                raise UndecodableError(message, _told(error)) from error
        else:
            place = len(messages)
        self._flush(output, lines, absent)
        self._count(SEEN_BEFORE, seen_before)
        self._count(NOT_WANTED, others)
        return place

    def _flush(self, output: Output | None, lines: list[str], absent: set[str]) -> None:
        if output is None or not lines:
            return
        self._out.append((output, Records(data="".join(lines).encode(), count=len(lines), absent=frozenset(absent))))
        lines.clear()
        absent.clear()

    # -- records that are not a row as it is now ---------------------------------------------------------------------------

    def _without_after(self, reader: Reader, message: Message, event: Any) -> tuple[str, tuple[str, ...]]:
        """Of a deletion, or of a table that was emptied: its fields, and the columns that are not there."""
        rows = reader.shape.rows
        if LETTERS[event.op] == "T":
            return rows.empty, ()
        if LETTERS[event.op] != "D":
            raise ValueError(f"an event of op {event.op} without a row (`after` is null)")
        row = event.after if reader.is_flat else reader.row(event)
        if row is None:
            return self._of_key(reader, message)
        if reader.knows_key_only and rows.key_only(row):
            # REPLICA IDENTITY DEFAULT: the log has the key alone, and the connector fills up the rest.
            names = tuple(column.name for column in rows.columns if not column.key)
            return rows.partial(row, frozenset(names)), names
        return rows.careful(row)

    def _of_tombstone(self, reader: Reader, message: Message, absent: set[str]) -> str:
        try:
            text, names = self._of_key(reader, message)
        except FAILURES as error:
            raise UndecodableError(message, f"a deletion whose key cannot be decoded: {_told(error)}") from error
        absent.update(names)
        committed_at = _EPOCH_TEXT(message.timestamp * 1000) + "+00" if message.timestamp >= 0 else self._null
        return f"D,{committed_at},{message.position()},{self._names(names)}{text}"

    def _of_key(self, reader: Reader, message: Message) -> tuple[str, tuple[str, ...]]:
        """A deletion of which the key is all that is told."""
        key, rows = message.key, reader.shape.rows
        keys = [column.name for column in rows.columns if column.key]
        if key is None or not keys:
            raise ValueError("a deletion with neither `before` nor a key")
        row = reader.of_key(memoryview(key)[reader.key_size : len(key) - reader.key_end])
        names = tuple(column.name for column in rows.columns if not column.key)
        return rows.partial(row, frozenset(names)), names

    def _names(self, names: Sequence[str]) -> str:
        """``_unchanged``."""
        if not names:
            return self._null
        text = json.dumps(names, ensure_ascii=False, separators=(",", ":"))
        return '"' + text.replace('"', '""') + '"'


def _no_row(op: str) -> str:
    """As what an event is counted that is no row."""
    if op != "m":
        raise ValueError(f"an event of op {op!r}, which is not known")
    return MESSAGES


def _told(error: BaseException) -> str:
    return f"{error}" if isinstance(error, (msgspec.DecodeError, ValueError)) else f"{type(error).__name__}: {error}"
