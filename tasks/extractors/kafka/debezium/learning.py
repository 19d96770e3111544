"""What a message is, found out when it looks like none before: its format, its table, its columns, its key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from operator import getitem
from typing import Any

import msgspec

from blocks.errors import ConfigurationError
from blocks.s3 import CsvDialect
from tasks.extractors.kafka.debezium import collections, flat, origin
from tasks.extractors.kafka.debezium.avro import AvroReader
from tasks.extractors.kafka.debezium.events import MESSAGES, OTHERS, Flat, ProbedSource, is_null, other_kind
from tasks.extractors.kafka.debezium.framing import Frame, framed
from tasks.extractors.kafka.debezium.json_schema import of_json_schema
from tasks.extractors.kafka.debezium.keys import Key, key_of
from tasks.extractors.kafka.debezium.options import DebeziumOptions
from tasks.extractors.kafka.debezium.readers import Decode, Reader, Shape, Shapes, json_decoders, json_row, narrow
from tasks.extractors.kafka.debezium.schemas import Schema, of_connect
from tasks.extractors.kafka.message import Message

_MOST_READERS = 1024
"""A compiled function and some types each."""


@dataclass(frozen=True)
class PassedOver:
    """A message that is no row of a table."""

    reason: str


class Learning:
    """Makes a reader for what is met, and keeps it."""

    def __init__(self, dialect: CsvDialect, options: DebeziumOptions) -> None:
        self._dialect, self._options = dialect, options
        self._shapes = Shapes(dialect, options)
        self._readers: dict[Any, Reader] = {}
        self._latest: dict[tuple[str, str], Reader] = {}
        """Of JSON without schemas, by topic and table."""
        self._avro: dict[int, AvroReader] = {}

    def reader(self, message: Message) -> Reader | PassedOver:
        """What decodes this message, and those like it."""
        value = message.value
        assert value is not None  # noqa: S101 - tombstones are of the shape before
        frame, key = framed(value), key_of(message.key, self._registered)
        if frame.kind == "schema":
            return self._with_schema(message, frame, key, of_connect(frame.document))
        if frame.kind == "registry":
            return self._of_registry(message, frame, key)
        return self._bare(message, frame, key)

    def _kept(self, name: Any, reader: Reader) -> Reader:
        if len(self._readers) >= _MOST_READERS:
            self._readers.clear()
        self._readers[name] = reader
        return reader

    # -- messages with a schema -------------------------------------------------------------------------------------------

    def _with_schema(
        self, message: Message, frame: Frame, key: Key, schema: Schema, avro: AvroReader | None = None
    ) -> Reader | PassedOver:
        name = (frame.start, key.start, message.topic)
        if name in self._readers:
            return self._readers[name]
        names = {field for field, _ in schema.fields}
        if schema.name in OTHERS:
            return PassedOver(OTHERS[schema.name])
        if {"op", "source", "message"} <= names:
            return PassedOver(MESSAGES)
        payload = memoryview(message.value or b"")[len(frame.start) : -frame.end or None]
        if {"op", "source", "after"} <= names:
            made = self._envelope(frame, key, schema, payload, avro)
        else:
            made = self._flat(message, frame, key, schema, avro)
        return self._kept(name, made)

    def _envelope(self, frame: Frame, key: Key, schema: Schema, payload: memoryview, avro: AvroReader | None) -> Reader:
        row = schema.field("after")
        if avro is not None:
            source = msgspec.convert(avro.read(bytes(payload))["source"], ProbedSource)
        else:
            source = _source(msgspec.json.decode(payload, type=dict[str, msgspec.Raw])["source"])
        if source.connector == collections.CONNECTOR:
            return self._of_collections(frame, key, avro)
        self._refuse_fields(source.of_table)
        if row is None or row.type != "struct":
            raise ValueError("its rows are no structs")
        shape = self._shapes.of_schema(row.fields, source.of_table, source.connector, key.names, item=avro is not None)
        if avro is None:
            decoders, tell = json_decoders(shape, source.connector, strict=False), origin.of_json()
        else:
            decoders, tell = _avro_decoders(avro, key, source.connector), origin.of_items(avro.read)
        return _reader(shape, decoders, tell, frame, key, source.connector)

    def _of_collections(self, frame: Frame, key: Key, avro: AvroReader | None = None) -> Reader:
        decoders = collections.decoders(avro, key.avro)
        tell = origin.of_json() if avro is None else origin.of_items(avro.read)
        made = _reader(self._documents, decoders, tell, frame, key, collections.CONNECTOR)
        made.looks_up = self._options.looks_up
        return made

    @cached_property
    def _documents(self) -> Shape:
        return collections.shape_of(self._options.declared, self._dialect, self._options.parts)

    def _refuse_fields(self, table: str) -> None:
        if self._options.declared.fields:
            raise ConfigurationError(
                f"field fields: events of {table} bring their columns; only MongoDB's have none: leave fields out"
            )

    def _flat(self, message: Message, frame: Frame, key: Key, schema: Schema, avro: AvroReader | None) -> Reader:
        prefix, where = self._options.prefix, flat.where_of(message.topic)
        if schema.type != "struct":
            raise ValueError(f"its value is a {schema.type}, and not a row")
        self._refuse_fields(".".join(filter(None, where)))
        names = [name for name, _ in schema.fields]
        flat.refuse_documents(names, prefix)
        added = flat.added(names, prefix)
        connector = self._options.connector or flat.connector_of(added)
        fields = [(name, part) for name, part in schema.fields if not flat.is_added(name, prefix)]
        shape = self._shapes.of_schema(
            fields, ".".join(filter(None, where)), connector, key.names, item=avro is not None
        )
        if avro is None:
            decode = flat.json_flat(shape, added, (), where, strict=False)
            decoders = (decode, _none, msgspec.json.Decoder(json_row(shape, strict=False)).decode)
            tell = origin.of_flat_json(flat.told(names, prefix))
        else:
            event, read = flat.of_row(added, where, getitem), avro.read
            decoders = (lambda payload: event(read(bytes(payload))), _none, _avro_key(key))
            tell = origin.of_flat_items(flat.told(names, prefix), read)
        return _reader(shape, decoders, tell, frame, key, connector, is_flat=True, has_deleted="deleted" in added)

    # -- a registry's -----------------------------------------------------------------------------------------------------

    def _of_registry(self, message: Message, frame: Frame, key: Key) -> Reader | PassedOver:
        schema, avro = self._registered(frame.number)
        return self._with_schema(message, frame, key, schema, avro)

    def _registered(self, number: int) -> tuple[Schema, AvroReader | None]:
        """A schema of the registry, and what reads its bytes if they are Avro's."""
        if number in self._avro:
            return self._avro[number].schema, self._avro[number]
        if self._options.schema is None:
            raise ValueError(f"it was written with schema {number} of a registry, and no registry is configured")
        text = self._options.schema(number)
        try:
            document = json.loads(text)
        except ValueError:
            raise ValueError(f"schema {number} of the registry is neither Avro nor JSON Schema") from None
        if isinstance(document, Mapping) and ("$schema" in document or document.get("type") != "record"):
            return of_json_schema(document), None
        made = self._avro[number] = AvroReader(text)
        return made.schema, made

    # -- JSON without schemas -----------------------------------------------------------------------------------------------

    def _bare(self, message: Message, frame: Frame, key: Key) -> Reader | PassedOver:
        members = msgspec.json.decode(message.value or b"", type=dict[str, msgspec.Raw])
        if (other := other_kind(members)) is not None:
            return PassedOver(other)
        if members.keys() == {"schema", "payload"} and bytes(members["schema"])[:1] == b"{":
            raise ValueError("its schema and payload do not lie as Kafka Connect's JsonConverter lays them")
        if {"op", "source"} <= members.keys() and {"before", "after"} & members.keys():
            return self._bare_envelope(message, frame, key, members)
        return self._bare_flat(message, frame, key, members)

    def _bare_envelope(self, message: Message, frame: Frame, key: Key, members: Mapping[str, msgspec.Raw]) -> Reader:
        source = _source(members["source"])
        if source.connector == collections.CONNECTOR:
            known = (message.topic, key)
            return self._readers.get(known) or self._kept(known, self._of_collections(frame, key))
        table = source.of_table
        self._refuse_fields(table)
        names = self._names_in(members, table)
        if not names and (message.topic, table) in self._latest:
            return self._latest[message.topic, table]  # a table that was emptied: no row says what it is like
        name = (message.topic, table, names, key)
        if name in self._readers:
            return self._readers[name]
        shape = self._shapes.of_names(names, table, source.connector, key.names)
        decoders = json_decoders(shape, source.connector, strict=True)
        made = _reader(shape, decoders, origin.of_json(), frame, key, source.connector)
        made.table = table
        self._latest[message.topic, table] = made
        return self._kept(name, made)

    def _names_in(self, members: Mapping[str, msgspec.Raw], table: str) -> tuple[str, ...]:
        """The columns; those that were given where the event has no row."""
        for which in ("after", "before"):
            if which in members and not is_null(members[which]):
                return tuple(msgspec.json.decode(members[which], type=dict[str, msgspec.Raw]))
        return tuple(column.name for column in self._options.tables.get(table, ()))

    def _bare_flat(self, message: Message, frame: Frame, key: Key, members: Mapping[str, msgspec.Raw]) -> Reader:
        prefix, where = self._options.prefix, flat.where_of(message.topic)
        name = (message.topic, tuple(members), key)
        if name in self._readers:
            return self._readers[name]
        flat.refuse_documents(list(members), prefix)
        added = flat.added(list(members), prefix)
        connector = self._options.connector or flat.connector_of(added)
        columns = [column for column in members if not flat.is_added(column, prefix)]
        others = [other for other in members if flat.is_added(other, prefix) and other not in added.values()]
        if not columns:
            raise ValueError("it has no columns")
        self._refuse_fields(".".join(filter(None, where)))
        shape = self._shapes.of_names(columns, ".".join(filter(None, where)), connector, key.names)
        decode = flat.json_flat(shape, added, others, where, strict=True)
        decoders = (decode, _none, msgspec.json.Decoder(json_row(shape, strict=False)).decode)
        tell = origin.of_flat_json(flat.told(list(members), prefix))
        made = _reader(shape, decoders, tell, frame, key, connector, is_flat=True, has_deleted="deleted" in added)
        return self._kept(name, made)


def _source(raw: msgspec.Raw) -> ProbedSource:
    return msgspec.json.decode(raw, type=ProbedSource)


def _none(_: Any) -> None:
    return None


def _reader(
    shape: Shape, decoders: tuple[Decode, Decode, Decode], tell: origin.Tell, frame: Frame, key: Key, connector: str,
    *, is_flat: bool = False, has_deleted: bool = True,
) -> Reader:  # fmt: skip
    decode, row, of_key = decoders
    return Reader(
        shape=shape,
        decode=decode,
        row=row,
        of_key=of_key,
        origin=tell,
        start=frame.start,
        end=frame.end,
        key_start=key.start,
        key_size=key.size,
        key_end=key.end,
        is_flat=is_flat,
        knows_key_only=connector == "postgresql",
        drops_tombstones=has_deleted,
    )


def _avro_decoders(avro: AvroReader, key: Key, connector: str) -> tuple[Decode, Decode, Decode]:
    read, kind = avro.read, narrow(connector)

    def decode(payload: memoryview) -> Flat:
        found = read(bytes(payload))
        source = msgspec.convert(found["source"], kind)
        return Flat(op=found["op"], source=source, after=found["after"], before=found["before"])

    return decode, lambda event: event.before, _avro_key(key)


def _avro_key(key: Key) -> Decode:
    read = key.avro.read if key.avro is not None else None

    def of_key(payload: memoryview) -> Any:
        if read is None:
            raise ValueError("its key is not Avro, as its value is")
        return read(bytes(payload))

    return of_key
