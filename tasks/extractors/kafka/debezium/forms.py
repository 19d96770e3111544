"""How a value of each type is decoded, and which text it becomes: the same that a SELECT of its column gives.

What is exact and what is not, for each type and each setting of the connector: docs/debezium.md.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import msgspec

from tasks.extractors.kafka.debezium import arrays, numbers
from tasks.extractors.kafka.debezium.form import UNAVAILABLE, Binary, Form, Text, Writing
from tasks.extractors.kafka.debezium.plain_forms import plain
from tasks.extractors.kafka.debezium.schemas import INTEGERS, Schema
from tasks.extractors.kafka.debezium.time_forms import STAMPS, temporal
from tasks.extractors.kafka.debezium.types import SourceType

__all__ = ["UNAVAILABLE", "Binary", "Form", "Writing", "form"]


class VariableScaleDecimal(msgspec.Struct, gc=False):
    """A number that has its own scale."""

    scale: int
    value: bytes

    def text(self) -> str:
        return numbers.decimal(int.from_bytes(self.value, "big", signed=True), self.scale)


class Geometry(msgspec.Struct, gc=False):
    """A geometry, or a point."""

    wkb: bytes | None = None
    x: float | str = 0.0
    y: float | str = 0.0


def form(schema: Schema, source: SourceType | None, writing: Writing) -> Form:
    """How values of this type are read and written."""
    if source is not None and source.array and schema.type == "array":
        source = replace(source, array=False)
    for make in (temporal, _special, _composite, plain):
        if (found := make(schema, source, writing)) is not None:
            return found
    placeholder = writing.unavailable
    return Form(msgspec.Raw, _raw, unavailable=(msgspec.Raw(msgspec.json.encode(placeholder)),))


def _raw(value: Any) -> str:
    """A value of which nothing is known, as JSON has it; a string without its quotes."""
    if isinstance(value, msgspec.Raw):
        document = bytes(value)
        return str(msgspec.json.decode(document)) if document[:1] == b'"' else document.decode()
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


# -- types of Debezium's own --------------------------------------------------------------------------------------------


def _special(schema: Schema, source: SourceType | None, writing: Writing) -> Form | None:
    name = schema.name
    if name == "org.apache.kafka.connect.data.Decimal":
        return _decimal(int(schema.parameters.get("scale", "0")))
    if name == "io.debezium.data.Bits":
        return _bits(schema, source)
    if name == "io.debezium.data.Enum" and writing.is_mysql:
        # What comes out of the log has a comma within a label escaped, what comes out of a snapshot has not.
        return Form(str, lambda value: value.replace("\\,", ","))
    if name == "io.debezium.data.Json":
        text: Text = str
        if source is not None and source.base == "hstore":
            text = arrays.hstore_of_json
        elif writing.connector == "mysql":
            text = arrays.mysql_document
        return Form(str, text, inline="@" if text is str else "", unavailable=(writing.unavailable,), zero=("{}",))
    return None


def _decimal(scale: int) -> Form:
    def text(value: bytes) -> str:
        return numbers.decimal(int.from_bytes(value, "big", signed=True), scale)

    inline = "INT(@,'big',signed=True)"
    if scale:
        unit = f"{10**scale}"
        inline = f"(f'{{w//{unit}}}.{{w%{unit}:0{scale}d}}' if (w:={inline})>=0 else NEGATIVE(w,{scale}))"
    needs = {"INT": int.from_bytes, "NEGATIVE": numbers.decimal}
    return Form(bytes, text, plain=True, inline=inline if scale >= 0 else "", needs=needs, zero=(b"\0",))


_MOST_BITS = 83886080
"""Of a BIT of PostgreSQL; one VARYING without a length has two thousand million."""


def _bits(schema: Schema, source: SourceType | None) -> Form:
    """The lowest byte is first. Of how many digits a BIT VARYING is, an event does not say."""
    width = int(schema.parameters.get("length", "0"))
    if width > _MOST_BITS or (source is not None and source.base == "varbit"):
        width = 0
    return Form(bytes, lambda value: f"{int.from_bytes(value, 'little'):0{width}b}", plain=True, zero=(b"\0",))


def _composite(schema: Schema, source: SourceType | None, writing: Writing) -> Form | None:
    if schema.type == "array":
        return _array(schema, source, writing)
    if schema.type == "map":
        placeholder = writing.unavailable
        return Form(dict[str, str | None], arrays.hstore, unavailable=({placeholder: placeholder},), is_nested=True)
    if schema.type != "struct":
        return None
    if schema.name == "io.debezium.data.VariableScaleDecimal":
        return Form(VariableScaleDecimal, VariableScaleDecimal.text, plain=True, is_nested=True)
    if schema.name.startswith("io.debezium.data.geometry."):
        return _geometry(schema, writing)
    return None


def _geometry(schema: Schema, writing: Writing) -> Form | None:
    if schema.field("wkb") is None:
        return None
    if writing.is_mysql:
        return Form(Geometry, lambda value: writing.of_bytes(value.wkb or b""), is_nested=True)
    if schema.name.endswith(".Point"):
        real = numbers.real(single=False, mysql=False)
        return Form(Geometry, lambda value: f"({real(value.x)},{real(value.y)})", is_nested=True)
    # PostGIS's own text: with the SRID within, in capitals.
    return Form(Geometry, lambda value: (value.wkb or b"").hex().upper(), is_nested=True)


def _array(schema: Schema, source: SourceType | None, writing: Writing) -> Form | None:
    if schema.items is None:
        return None
    if writing.is_mysql and schema.name == "io.debezium.data.FloatVector":
        return Form(list[float], lambda value: writing.of_bytes(struct.pack(f"<{len(value)}f", *value)), is_nested=True)
    single = schema.name == "io.debezium.data.DoubleVector"  # of PostgreSQL, where they are single too
    items = replace(schema.items, type="float") if single else schema.items
    element = form(items, source, writing)
    return Form(
        list.__class_getitem__(element.decoded if element.decoded is msgspec.Raw else element.decoded | None),
        arrays.array(_element(items, element, source)),
        unavailable=_unavailable_array(items, writing.unavailable),
        is_nested=True,
    )


def _unavailable_array(items: Schema, placeholder: str) -> tuple[Any, ...]:
    if items.type == "string":
        return ([placeholder],)
    if items.type == "bytes" and not items.name:
        return ([placeholder.encode()],)
    return (list(placeholder.encode()),) if items.type in INTEGERS and not items.name else ()


def _element(schema: Schema, element: Form, source: SourceType | None) -> Text:
    """The JSON text of an array's element, as to_json() has it."""
    if element.decoded is msgspec.Raw:
        return lambda value: msgspec.json.encode(value).decode()
    if schema.type == "array" or schema.name == "io.debezium.data.Json" or (schema.type == "boolean" and not source):
        return element.text
    if _is_numeric(schema, source):
        return arrays.number(element.text)
    if schema.name in STAMPS or schema.name in ("io.debezium.time.ZonedTimestamp", "io.debezium.time.IsoTimestamp"):
        return arrays.iso(element.text)
    if schema.type == "boolean":
        return element.text if source and source.base == "bool" else arrays.quoted(element.text)
    if schema.type == "bytes" and not schema.name:
        return lambda value: f'"\\\\x{value.hex()}"'
    return arrays.quoted(element.text)


def _is_numeric(schema: Schema, source: SourceType | None) -> bool:
    return (
        schema.name in ("org.apache.kafka.connect.data.Decimal", "io.debezium.data.VariableScaleDecimal")
        or (not schema.name and schema.type in INTEGERS | {"float", "double"})
        or (schema.type == "string" and source is not None and source.base == "numeric")
    )
