"""Messages that are no events of a database: JSON documents, text or bytes, each a record of its topic's table.

A message without a value (a tombstone, by which a compacted topic says that a key is gone) is a record with ``_op`` D.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Literal

from blocks.errors import ConfigurationError
from blocks.s3 import CsvDialect
from tasks.extractors.contract import CHANGE_COLUMNS, Column, Output, Records
from tasks.extractors.documents import DocumentError, Documents, parse
from tasks.extractors.fields import Declared
from tasks.extractors.kafka.decoding import UndecodableError
from tasks.extractors.kafka.fields import COLUMNS, Fields, MessagePart
from tasks.extractors.kafka.message import Message

Format = Literal["json", "text", "bytes"]


@dataclass(frozen=True)
class Plain:
    """How messages are read, and which of their parts become columns."""

    format: Format
    parts: tuple[MessagePart, ...]
    hex_key: bool
    declared: Declared


class PlainDecoder:
    """See `tasks.extractors.kafka.decoding.Decoder`."""

    state = None

    def __init__(self, dialect: CsvDialect, plain: Plain) -> None:
        self._fields = fields = Fields(dialect)
        self._plain = plain
        self._documents = Documents(plain.declared, dialect) if plain.format == "json" else None
        value = self._documents.columns if self._documents else (Column(name="value", type=plain.format),)
        self._columns = (*CHANGE_COLUMNS, *(COLUMNS[part] for part in plain.parts), *value)
        self._parts = [fields.of(part, hex_key=plain.hex_key) for part in plain.parts]
        self._nothing = ",".join([fields.null] * len(value))
        self._value = self._writer()
        self._outputs: dict[str, Output] = {}

    def rest(self) -> list[tuple[Output, Records]]:
        """See `Decoder.rest`: each message is a record."""
        return []

    def __call__(self, messages: Sequence[Message]) -> list[tuple[Output, Records]]:
        """Records of each topic in the order of its messages."""
        # One partition's messages are of one topic; what is counted belongs to them all.
        by_topic = groupby(messages, attrgetter("topic"))
        return [(self._output(topic), self._records(list(group))) for topic, group in by_topic]

    def _records(self, messages: list[Message]) -> Records:
        counted = self._documents.counted if self._documents else None
        before = dict(counted) if counted else {}
        try:
            data = "".join([self._line(message) for message in messages]).encode()
        except UndecodableError:
            if counted is not None:
                counted.clear()
                counted.update(before)
            raise
        told = {what: times - before.get(what, 0) for what, times in (counted or {}).items()}
        return Records(data=data, count=len(messages), counted={what: times for what, times in told.items() if times})

    def _line(self, message: Message) -> str:
        fields, value = self._fields, message.value
        try:
            parts = "".join([f"{part(message)}," for part in self._parts])
            written = self._nothing if value is None else self._value(value)
        except (DocumentError, UnicodeDecodeError, ConfigurationError) as error:
            raise UndecodableError(message, f"it is not {_NAMES[self._plain.format]}: {error}") from error
        op = "D" if value is None else "I"
        return f"{op},{fields.instant(message.timestamp)},{message.position()},{fields.null},{parts}{written}\n"

    def _writer(self) -> Callable[[bytes], str]:
        fields, documents = self._fields, self._documents
        if documents is not None:
            return lambda value: documents.line(parse(value))[:-1]
        if self._plain.format == "bytes":
            return fields.binary
        return lambda value: fields.text(value.decode())

    def _output(self, topic: str) -> Output:
        if topic not in self._outputs:
            self._outputs[topic] = Output(name=topic, table=topic, columns=self._columns)
        return self._outputs[topic]


_NAMES: dict[Format, str] = {"json": "JSON that fits the columns", "text": "UTF-8", "bytes": "a message"}
