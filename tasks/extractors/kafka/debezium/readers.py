"""What decodes the values of one shape: JSON with or without a schema, Avro, an envelope or a flattened event.

A reader is made when a shape is first met, and kept. Every format's events come out in one form: ``op``, ``source``,
``before``, ``after``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from blocks.errors import ConfigurationError
from blocks.s3 import CsvDialect
from tasks.extractors.contract import Column, Output, table_output
from tasks.extractors.kafka.debezium.catalogue import schema_of
from tasks.extractors.kafka.debezium.events import Source
from tasks.extractors.kafka.debezium.forms import Form, Writing, form
from tasks.extractors.kafka.debezium.options import DebeziumOptions
from tasks.extractors.kafka.debezium.origin import Tell
from tasks.extractors.kafka.debezium.rows import RowColumn, Rows, TableRows
from tasks.extractors.kafka.debezium.schemas import ANY, Schema
from tasks.extractors.kafka.debezium.types import SourceType, of_hints, of_text
from tasks.extractors.kafka.fields import COLUMNS

Decode = Callable[[Any], Any]


@dataclass(frozen=True, eq=False)
class Shape:
    """The columns of a table at some time, and how they are written."""

    rows: TableRows
    columns: tuple[Column, ...]
    """Those of the message's parts first."""


@dataclass(frozen=True, eq=False)
class TableShape(Shape):
    """Of rows whose columns the events bring."""

    rows: Rows


@dataclass(eq=False)
class Reader:
    """Decodes values of one shape."""

    shape: Shape
    decode: Decode
    """A payload to an event."""
    row: Decode
    """A ``before`` to a row, or None."""
    of_key: Decode
    """A key's payload to a row with what the key has."""
    origin: Tell
    """A payload to where it comes from."""
    start: bytes
    """What all its values begin with; the payload follows."""
    end: int
    """How many bytes of a value follow the payload."""
    key_start: bytes | None
    """What all its keys begin with; None: they have none."""
    key_size: int
    """Where a key's payload begins, …"""
    key_end: int
    """… and how many bytes of the key follow it."""
    table: str | None = None
    """Of values without schemas: another table may have other types."""
    is_flat: bool = False
    knows_key_only: bool = False
    """Whether a ``before`` may hold nothing but the key (PostgreSQL's REPLICA IDENTITY DEFAULT)."""
    looks_up: bool = False
    """Whether an update without its document is of one that was gone when MongoDB's connector looked it up."""
    drops_tombstones: bool = True
    """False: a tombstone is all that is told of a deletion."""
    outputs: dict[str, Output] = field(default_factory=dict)
    latest: Output | None = None
    """Of the last event: a tombstone is of its table."""
    most: int = 400
    """Events that are looked at together: fewer where another table's come between them."""

    def output(self, table: str) -> Output:
        found = self.outputs.get(table)
        if found is None:
            found = self.outputs[table] = table_output(table, self.shape.columns)
        return found


class Shapes:
    """Makes shapes of schemas, and of names where there are none."""

    def __init__(self, dialect: CsvDialect, options: DebeziumOptions) -> None:
        self._dialect, self._options = dialect, options

    def of_schema(
        self,
        fields: Sequence[tuple[str, Schema]],
        table: str,
        connector: str,
        keys: Sequence[str],
        *,
        item: bool = False,
    ) -> TableShape:
        """The shape of rows that carry a schema; ``item``: they are dicts."""
        return self._made(fields, table, connector, keys, item=item)

    def of_names(self, names: Sequence[str], table: str, connector: str, keys: Sequence[str]) -> TableShape:
        """The shape of rows without a schema: types are those that were given."""
        mysql = connector in ("mysql", "mariadb")
        given = self._given(table)
        fields = [
            (
                name,
                schema_of(of_text(given[name].type, not mysql), self._options.modes, mysql=mysql)
                if name in given
                else ANY,
            )
            for name in names
        ]
        return self._made(fields, table, connector, keys)

    def _given(self, table: str) -> dict[str, Column]:
        return {column.name: column for column in self._options.tables.get(table, ())}

    def _made(
        self,
        fields: Sequence[tuple[str, Schema]],
        table: str,
        connector: str,
        keys: Sequence[str],
        *,
        item: bool = False,
    ) -> TableShape:
        writing = Writing(self._dialect, connector, self._options.modes.binary, self._options.unavailable)
        given, postgres = self._given(table), not writing.is_mysql
        row_columns, columns = [], []
        for name, schema in fields:
            told = given.get(name)
            source = of_text(told.type, postgres) if told else of_hints(schema.parameters, postgres)
            known = form(schema, source, writing)
            row_columns.append(RowColumn(name, known, name in keys, _default(schema, known)))
            columns.append(
                Column(
                    name=name, type=_shown(schema, source), nullable=told.nullable if told else schema.optional,
                    key=name in keys,
                )
            )  # fmt: skip
        rows = Rows(row_columns, self._dialect.null, item=item, may_lack=not writing.is_mysql)
        parts = [COLUMNS[part] for part in self._options.parts]
        if taken := {column.name for column in parts} & {column.name for column in columns}:
            raise ConfigurationError(
                f"field parts: {table} has a column {', '.join(sorted(taken))} of its own; leave that part of the message out"
            )
        return TableShape(rows, (*parts, *columns))


def _default(schema: Schema, known: Form) -> Any:
    """A column's default as its values are decoded."""
    if schema.default is None or known.decoded is msgspec.Raw:
        return None
    try:
        return msgspec.json.decode(msgspec.json.encode(schema.default), type=known.decoded)
    except msgspec.DecodeError:
        return None  # Avro's bytes, which it writes as text


def _shown(schema: Schema, source: SourceType | None) -> str:
    """A type's name for people: the source's own, if it is known."""
    if source is not None:
        return source.text
    if schema.type == "any":
        return "unknown"
    shown = schema.name or schema.type
    scale = schema.parameters.get("scale")
    if shown.endswith(".Decimal"):
        return f"decimal({schema.parameters.get('connect.decimal.precision', 38)},{scale})"
    return f"{_shown(schema.items, None)}[]" if schema.type == "array" and schema.items else shown


# -- JSON ---------------------------------------------------------------------------------------------------------------


def json_fields(shape: TableShape, *, strict: bool) -> tuple[list[Any], dict[str, str]]:
    """The fields ``c0``, ``c1``, … of a row's type, and their names in JSON; ``strict``: none may be missing."""
    fields: list[Any] = []
    for place, column in enumerate(shape.rows.columns):
        decoded = column.form.decoded
        is_raw = decoded is msgspec.Raw
        kind = decoded if is_raw else decoded | None
        fields.append((f"c{place}", kind) if strict else (f"c{place}", kind, _NULL if is_raw else None))
    return fields, {f"c{place}": column.name for place, column in enumerate(shape.rows.columns)}


def json_row(shape: TableShape, *, strict: bool) -> type[msgspec.Struct]:
    """The type of a row; ``strict``: other names, and missing ones, are refused."""
    fields, rename = json_fields(shape, strict=strict)
    return msgspec.defstruct("Row", fields, rename=rename, forbid_unknown_fields=strict, gc=False)


_POSTGRES_FIELDS = ("name", "schema", "table", "ts_ms", "ts_us", "lsn", "sequence")
_MYSQL_FIELDS = ("name", "db", "table", "ts_ms", "ts_us", "file", "pos", "row", "server_id")
_MONGODB_FIELDS = ("name", "db", "table", "ts_ms", "ts_us")
"""Its tables are called ``collection``."""


def narrow(connector: str) -> type[Source]:
    """The fields of a source that are looked at."""
    names = {
        "postgresql": _POSTGRES_FIELDS,
        "mysql": _MYSQL_FIELDS,
        "mariadb": _MYSQL_FIELDS,
        "mongodb": _MONGODB_FIELDS,
    }.get(connector)
    if names is None:
        return Source
    hints = Source.__annotations__
    defaults = {"name": ""}
    kinds = {"int | None": int | None, "str | None": str | None, "str": str}
    fields: list[Any] = [(name, kinds[hints[name]], defaults.get(name)) for name in names]
    rest = {name: None for name in hints if name not in names}
    rename = None
    if connector == "mongodb":
        # Documents are texts, and keys are alike: else others' events without a row would be taken for its own.
        own: Any = Literal["mongodb"]
        fields, rename = [("connector", own), ("table", str), *fields[:2], *fields[3:]], {"table": "collection"}
    # What is left out is there all the same, as None, for who asks any source.
    return msgspec.defstruct(  # type: ignore[return-value]  # it has the fields of a Source, and is none
        f"{connector}Source", fields, namespace={**rest, "of_table": Source.of_table}, rename=rename, gc=False
    )


def json_decoders(shape: TableShape, connector: str, *, strict: bool) -> tuple[Decode, Decode, Decode]:
    """Those of an event, of a ``before``, and of a key."""
    row = json_row(shape, strict=strict)
    envelope = msgspec.defstruct(
        "Envelope",
        [("op", str), ("source", narrow(connector)), ("before", msgspec.Raw, _NULL), ("after", row | None, None)],
        gc=False,
    )
    before = msgspec.json.Decoder(row | None).decode
    return (
        msgspec.json.Decoder(envelope).decode,
        lambda event: before(event.before),
        msgspec.json.Decoder(json_row(shape, strict=False)).decode,
    )


_NULL = msgspec.Raw(b"null")
