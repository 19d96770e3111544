"""Events → lines of CSV: those of usual rows column by column, and one by one what lacks a row, or values of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from operator import add
from typing import Any

from blocks.s3 import CsvDialect
from tasks.extractors.kafka.debezium.options import DebeziumOptions
from tasks.extractors.kafka.debezium.origin import Origin
from tasks.extractors.kafka.debezium.readers import Reader
from tasks.extractors.kafka.debezium.stretch import Stretch
from tasks.extractors.kafka.fields import EVENT_PARTS, Fields, Part
from tasks.extractors.kafka.message import Message


def _part(fields: Fields, part: Part, options: DebeziumOptions) -> Callable[[Message, Origin], str]:
    """What writes a part of a message."""
    if part == "source":
        return lambda _message, origin: fields.text(origin.source)
    if part == "transaction":
        return lambda _message, origin: fields.text(origin.transaction)
    write = fields.of(part, hex_key=options.hex_key)
    return lambda message, _origin: write(message)


WITHOUT_DOCUMENT = (
    "an event of op u without a row or document (`after` is null): of MongoDB the connector's capture.mode has to be "
    "change_streams_update_full; where it is, the document was deleted before the connector looked it up: set "
    "debezium.updates_without_document to pass-over"
)


class Lines:
    """Writes records without their line ends. Its methods raise what decoding bytes that are no event may raise."""

    def __init__(self, dialect: CsvDialect, options: DebeziumOptions) -> None:
        fields = Fields(dialect)
        self._null = fields.null
        self._parts = [_part(fields, part, options) for part in options.parts]
        self._tells_origin = not EVENT_PARTS.isdisjoint(options.parts)

    def of(self, reader: Reader, stretch: Stretch) -> tuple[list[str], dict[int, Sequence[str]]]:
        """The records, and which columns some of them lack, by their index."""
        rows, apart = reader.shape.rows, stretch.without_row()
        usual: Sequence[int] = range(len(stretch.rows))
        if apart:
            usual = [index for index in usual if index not in apart]
        values = rows.values([stretch.rows[index] for index in usual] if apart else stretch.rows)
        if lacking := {usual[index] for index in rows.lacking(values)}:
            apart |= lacking
            usual = [index for index in usual if index not in lacking]
            values = rows.values([stretch.rows[index] for index in usual])
        heads = stretch.heads(self._null)
        leads = (
            [self.lead(reader, stretch.batch[place]) for place in stretch.places] if self._parts else [""] * len(heads)
        )
        if not apart:
            if self._parts:
                heads = list(map(add, heads, leads))
            return list(map(",".join, zip(heads, *rows.fields(values), strict=True))), {}
        lines, absent, keys = list(heads), dict[int, Sequence[str]](), stretch.keys
        for index in sorted(apart):
            text, absent[index] = self.of_one(reader, keys[index], stretch.events[index])
            lines[index] = f"{heads[index].removesuffix(self._null)}{self.names(absent[index])}{leads[index]}{text}"
        parts = zip([heads[index] + leads[index] for index in usual], *rows.fields(values), strict=True)
        for index, line in zip(usual, map(",".join, parts), strict=True):
            lines[index] = line
        return lines, absent

    def lead(self, reader: Reader, message: Message) -> str:
        """The parts of the message that are columns, each behind a comma."""
        origin = Origin()
        if self._tells_origin and message.value is not None:
            origin = reader.origin(message.value[len(reader.start) : -reader.end or None])
        try:
            return "".join([f",{part(message, origin)}" for part in self._parts])
        except UnicodeDecodeError as error:
            raise ValueError(
                f"its key is no text ({error}); set key_format: bytes, or leave the part key out"
            ) from error

    def of_one(self, reader: Reader, key: bytes | None, event: Any) -> tuple[str, tuple[str, ...]]:
        """The fields of one event, each behind a comma, and the columns that are not there."""
        rows = reader.shape.rows
        if event.after is not None and event.op != "d":
            return rows.careful(event.after)
        if event.op == "t":
            return rows.empty, ()
        if event.op == "u":
            raise ValueError(WITHOUT_DOCUMENT)
        if event.op != "d":
            raise ValueError(f"an event of op {event.op} without a row (`after` is null)")
        row = event.after if reader.is_flat else reader.row(event)
        if row is None:
            return self.of_key(reader, key)
        if reader.knows_key_only and rows.key_only(row):
            # REPLICA IDENTITY DEFAULT: the log has the key alone, and the connector fills up the rest.
            names = tuple(column.name for column in rows.columns if not column.key)
            return rows.partial(row, frozenset(names)), names
        return rows.careful(row)

    def of_key(self, reader: Reader, key: bytes | None) -> tuple[str, tuple[str, ...]]:
        """A deletion of which the key is all that is told."""
        rows = reader.shape.rows
        keys = [column.name for column in rows.columns if column.key]
        if key is None or not keys:
            raise ValueError("a deletion with neither `before` nor a key")
        row = reader.of_key(memoryview(key)[reader.key_size : len(key) - reader.key_end])
        names = tuple(column.name for column in rows.columns if not column.key)
        return rows.partial(row, frozenset(names)), names

    def names(self, names: Sequence[str]) -> str:
        """``_unchanged``."""
        if not names:
            return self._null
        text = json.dumps(names, ensure_ascii=False, separators=(",", ":"))
        return '"' + text.replace('"', '""') + '"'
