"""Events of MongoDB's connector: documents in Extended JSON, whose columns are those that the stream declares.

They become BSON first, and are then written by what writes collections that are read directly: the same value, the same bytes.

https://debezium.io/documentation/reference/stable/connectors/mongodb.html#mongodb-events
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import msgspec

from blocks.errors import ConfigurationError
from blocks.s3 import CsvDialect
from tasks.extractors.bson.batches import Batches
from tasks.extractors.bson.columns import fields_of
from tasks.extractors.bson.document import Documents
from tasks.extractors.bson.extended import document, parsed
from tasks.extractors.contract import Column
from tasks.extractors.fields import Declared
from tasks.extractors.kafka.debezium.avro import AvroReader
from tasks.extractors.kafka.debezium.events import Flat, Source
from tasks.extractors.kafka.debezium.readers import Decode, Shape, narrow
from tasks.extractors.kafka.debezium.rows import Columns
from tasks.extractors.kafka.fields import COLUMNS, Part

CONNECTOR = "mongodb"


class DocumentRows:
    """See `TableRows`. A row is a document's text."""

    def __init__(self, declared: Declared, dialect: CsvDialect) -> None:
        fields = fields_of(declared)
        self.columns: tuple[Column, ...] = tuple(field.column for field in fields)
        self._made = Documents(fields, declared, dialect, canonical=False)
        self._many = Batches(self._made, fields, dialect)
        self._null = dialect.null
        self.empty = f",{self._null}" * len(fields)

    def values(self, rows: Sequence[str]) -> Columns:
        """Documents in BSON, all fields of which are written in one go."""
        return [[_bson(row) for row in rows]]

    def fields(self, columns: Columns) -> list[list[str]]:
        """One field, which is all of them with their commas."""
        with _told_as_data():
            return [self._many.lines(b"".join(columns[0]))]

    def lacking(self, _columns: Sequence[Sequence[Any]]) -> set[int]:
        """None: documents are whole."""
        return set()

    def careful(self, row: str) -> tuple[str, tuple[str, ...]]:
        """See `TableRows`."""
        return self.partial(row, frozenset()), ()

    def partial(self, row: str, absent: frozenset[str]) -> str:
        """See `TableRows`."""
        raw = _bson(row)
        with _told_as_data():
            texts = self._made.texts(raw, 0, len(raw))
        named = zip(self.columns, texts, strict=True)
        return "".join([f",{self._null if column.name in absent else text}" for column, text in named])

    def key_only(self, _row: str) -> bool:
        """See `TableRows`. A document from before its deletion is whole."""
        return False

    def told(self) -> Counter[str]:
        """See `TableRows`."""
        counted = self._made.writer.counted
        found = counted.copy()
        counted.clear()
        return found


def _bson(text: str) -> bytes:
    try:
        return document(parsed(text))
    except ValueError as error:
        raise ValueError(f"its document is no Extended JSON: {error}") from error


@contextmanager
def _told_as_data() -> Iterator[None]:
    """What a document has that the stream refuses is an error of its message, which may go to the dead letters."""
    try:
        yield
    except ConfigurationError as error:
        raise ValueError(f"{error}") from error


def shape_of(declared: Declared, dialect: CsvDialect, parts: Sequence[Part]) -> Shape:
    """The columns of every collection."""
    rows = DocumentRows(declared, dialect)
    return Shape(rows, (*(COLUMNS[part] for part in parts), *rows.columns))


def decoders(avro: AvroReader | None, key: AvroReader | None) -> tuple[Decode, Decode, Decode]:
    """Those of an event, of a ``before``, and of a key."""
    kind = narrow(CONNECTOR)
    envelope = msgspec.defstruct(
        "Envelope",
        [("op", Op), ("source", kind), ("before", str | None, None), ("after", str | None, None)],
        gc=False,
    )
    decode: Decode = msgspec.json.Decoder(envelope).decode if avro is None else _of_avro(avro, kind)
    of_key: Decode = (
        msgspec.json.Decoder(_Key).decode if key is None else lambda payload: _Key(**key.read(bytes(payload)))
    )

    def key_row(payload: Any) -> str:
        try:
            return f'{{"_id":{of_key(payload).id}}}'
        except (msgspec.DecodeError, TypeError) as error:
            raise ValueError(f'its key is not {{"id": "…"}}, as the connector writes keys: {error}') from error

    return decode, lambda found: found.before, key_row


Op = Literal["c", "r", "u", "d"]
"""What MongoDB's connector sends."""


class _Key(msgspec.Struct):
    id: str
    """The ``_id`` in relaxed Extended JSON."""


def _of_avro(avro: AvroReader, kind: type[Source]) -> Decode:
    def decode(payload: Any) -> Flat:
        found = avro.read(bytes(payload))
        source = msgspec.convert(found["source"], kind)
        op = msgspec.convert(found["op"], Op)
        return Flat(op=op, source=source, after=found["after"], before=found["before"])

    return decode
