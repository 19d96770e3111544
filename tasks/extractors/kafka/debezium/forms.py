"""How a value of each type is decoded, and which text it becomes: the same that a SELECT of its column gives.

What is exact and what is not, for each type and each setting of the connector: docs/debezium.md.
"""

from __future__ import annotations

import struct
from base64 import b64decode, b64encode, urlsafe_b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Literal

import msgspec

from blocks.s3 import CsvDialect
from tasks.extractors.kafka.debezium import arrays, numbers, times
from tasks.extractors.kafka.debezium.schemas import INTEGERS, Schema
from tasks.extractors.kafka.debezium.types import SourceType

Text = Callable[[Any], str]
Binary = Literal["bytes", "base64", "base64-url-safe", "hex"]

UNAVAILABLE = "__debezium_unavailable_value"


@dataclass(frozen=True, eq=False)
class Form:
    """How a column's values are decoded and written."""

    decoded: Any
    """The type that msgspec decodes them to."""
    text: Text
    plain: bool = False
    """Whether nothing in a text ever needs quotes."""
    inline: str = ""
    """An expression of ``@`` that gives the text as well, and faster."""
    needs: Mapping[str, Any] = field(default_factory=dict)
    """What it refers to."""
    unavailable: tuple[Any, ...] = ()
    """Decoded values that stand for one that the log does not have."""
    zero: tuple[Any, ...] = ()
    """Decoded values that stand for an unknown one in a column that cannot be NULL, beside 0, empty and false."""
    is_nested: bool = False
    """Whether Avro's values have to be made into the decoded type."""


@dataclass(frozen=True)
class Writing:
    """What forms depend on, beside the types."""

    dialect: CsvDialect
    connector: str
    """``postgresql``, ``mysql``, ``mariadb``, or another: those are written as PostgreSQL's are."""
    binary: Binary = "bytes"
    unavailable: str = UNAVAILABLE

    @property
    def is_mysql(self) -> bool:
        return self.connector in ("mysql", "mariadb")

    @property
    def is_postgres(self) -> bool:
        return self.connector == "postgresql"

    def of_bytes(self, value: bytes) -> str:
        return value.hex() if self.dialect.binary == "hex" else b64encode(value).decode()

    def digits(self, source: SourceType | None) -> int | None:
        """Of a fraction of a second; None where zeros at its end are left out."""
        return source.digits if source and self.is_mysql else None


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
    for make in (_temporal, _special, _composite, _plain):
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


# -- times ------------------------------------------------------------------------------------------------------------

_DATES = frozenset({"io.debezium.time.Date", "org.apache.kafka.connect.data.Date"})
_CLOCKS = {
    "io.debezium.time.Time": 3, "org.apache.kafka.connect.data.Time": 3,
    "io.debezium.time.MicroTime": 6, "io.debezium.time.NanoTime": 9,
}  # fmt: skip
_STAMPS = {
    "io.debezium.time.Timestamp": 3, "org.apache.kafka.connect.data.Timestamp": 3,
    "io.debezium.time.MicroTimestamp": 6, "io.debezium.time.NanoTimestamp": 9,
}  # fmt: skip
_DURATIONS = {"io.debezium.time.MicroDuration": 6, "io.debezium.time.NanoDuration": 9}


def _temporal(schema: Schema, source: SourceType | None, writing: Writing) -> Form | None:
    name, digits = schema.name, writing.digits(source)
    if name in _DATES:
        return Form(int, times.day, plain=True, inline="DAYS[@]", needs={"DAYS": times.DAYS})
    if name in _CLOCKS:
        return Form(int, times.clock(_CLOCKS[name], digits), plain=True)
    if name in _STAMPS:
        return Form(int, times.stamp(_STAMPS[name], digits), plain=True)
    if name in _DURATIONS:
        return Form(int, times.duration(_DURATIONS[name]), plain=True)
    if name == "io.debezium.time.Year":
        # MySQL's years begin with 1901, but for 0000, which the log has as the one before.
        return Form(int, lambda value: "0000" if value == 1900 else f"{value:04d}", plain=True)
    if name == "io.debezium.time.Interval":
        return Form(str, times.interval, plain=True, zero=("P0Y0M0DT0H0M0S", "P0Y0M0DT0H0M0.0S"))
    texts = {
        "io.debezium.time.ZonedTimestamp": times.iso_stamp(digits, zoned=True),
        "io.debezium.time.IsoTimestamp": times.iso_stamp(digits, zoned=False),
        "io.debezium.time.ZonedTime": times.iso_clock(digits, zoned=True),
        "io.debezium.time.IsoTime": times.iso_clock(digits, zoned=False),
        "io.debezium.time.IsoDate": times.iso_day,
    }
    if name not in texts:
        return None
    zero = ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000000Z", "1970-01-01Z", "00:00:00Z")
    return Form(str, texts[name], plain=True, zero=zero)


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
        inline = f"(f'{{@//{unit}}}.{{@%{unit}:0{scale}d}}' if (@:={inline})>=0 else NEGATIVE(@,{scale}))"
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
    if schema.name in _STAMPS or schema.name in ("io.debezium.time.ZonedTimestamp", "io.debezium.time.IsoTimestamp"):
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


# -- plain types --------------------------------------------------------------------------------------------------------

_BINARIES = frozenset(
    {"bytea", "binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"}
)  # what binary.handling.mode is about
_DECIMALS = frozenset({"numeric", "decimal", "money", "dec", "fixed"})
_TEXTS = frozenset(
    {"tsquery", "pg_lsn", "jsonpath", "box", "lseg", "path", "polygon", "circle", "line", "pg_snapshot", "txid_snapshot"}
    | {"int4multirange", "int8multirange", "nummultirange", "tsmultirange", "tstzmultirange", "datemultirange"}
)
"""Types of PostgreSQL that Debezium does not know."""
_SINGLES = frozenset({"float", "float4", "real"})


def _plain(schema: Schema, source: SourceType | None, writing: Writing) -> Form | None:
    if schema.type in INTEGERS:
        return _integer(source, writing)
    if schema.type in ("float", "double"):
        return _real(schema, source, writing)
    if schema.type == "boolean":
        as_bit = writing.is_mysql or (source is not None and source.base in ("bit", "varbit"))
        yes, no = ("'1'", "'0'") if as_bit else ("'true'", "'false'")
        words = (no[1:-1], yes[1:-1])
        return Form(bool, lambda value: words[value], plain=True, inline=f"({yes} if @ else {no})")
    if schema.type == "string":
        return _string(source, writing)
    if schema.type == "bytes":
        return _bytes(source, writing)
    return None


def _integer(source: SourceType | None, writing: Writing) -> Form:
    if writing.is_mysql and source is not None and source.unsigned and source.base == "bigint":
        # ``bigint.unsigned.handling.mode=long`` leaves the sixty-fourth bit to be taken for a sign.
        return Form(int, lambda value: str(value % (1 << 64)), plain=True, inline=f"(@ if @>=0 else @+{1 << 64})")
    return Form(int, str, plain=True, inline="@")


def _real(schema: Schema, source: SourceType | None, writing: Writing) -> Form:
    base = source.base if source else ""
    single = schema.type == "float" or base in _SINGLES
    text = numbers.real(single, writing.is_mysql)
    if base in _DECIMALS and source is not None and source.scale is not None:
        # A decimal that the connector was told to make a double of: its scale at least is known.
        scale = max(source.scale, 0)
        text = lambda value: value if isinstance(value, str) else f"{Decimal(repr(value)):.{scale}f}"  # noqa: E731
    return Form(float | str, text, plain=True)


def _string(source: SourceType | None, writing: Writing) -> Form:
    base = source.base if source else ""
    unavailable = (writing.unavailable,)
    if base in _DECIMALS:
        return Form(str, numbers.plain, plain=True, unavailable=unavailable, zero=("0", "0.00"))
    if base in _BINARIES and writing.binary != "bytes":
        decode: Callable[[str], bytes] = {
            "hex": bytes.fromhex, "base64": b64decode, "base64-url-safe": urlsafe_b64decode,
        }[writing.binary]  # fmt: skip
        encoded = {
            "hex": writing.unavailable.encode().hex(), "base64": b64encode(writing.unavailable.encode()).decode(),
        }  # fmt: skip
        marks = (*unavailable, encoded.get(writing.binary, encoded["base64"].replace("+", "-").replace("/", "_")))
        return Form(str, lambda value: writing.of_bytes(decode(value)), unavailable=marks)
    return Form(str, str, inline="@", unavailable=unavailable)


def _bytes(source: SourceType | None, writing: Writing) -> Form:
    unavailable = (writing.unavailable.encode(),)
    if writing.is_postgres and source is not None and source.base in _TEXTS:
        # ``include.unknown.datatypes``: PostgreSQL's text of the value.
        return Form(bytes, bytes.decode, unavailable=unavailable)
    inline = "@.hex()" if writing.dialect.binary == "hex" else ""
    return Form(bytes, writing.of_bytes, inline=inline, unavailable=unavailable)
