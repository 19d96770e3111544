"""How numbers, strings and bytes are written, which say nothing of themselves: the column's type in the database decides."""

from __future__ import annotations

from base64 import b64decode, b64encode, urlsafe_b64decode
from collections.abc import Callable, Sequence
from decimal import Decimal

from tasks.extractors.kafka.debezium import numbers
from tasks.extractors.kafka.debezium.form import Form, Writing
from tasks.extractors.kafka.debezium.schemas import INTEGERS, Schema
from tasks.extractors.kafka.debezium.types import SourceType

_BINARIES = frozenset(
    {"bytea", "binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"}
)  # what binary.handling.mode is about
_DECIMALS = frozenset({"numeric", "decimal", "money", "dec", "fixed"})
_TEXTS = frozenset(
    {
        "tsquery",
        "pg_lsn",
        "jsonpath",
        "box",
        "lseg",
        "path",
        "polygon",
        "circle",
        "line",
        "pg_snapshot",
        "txid_snapshot",
    }
    | {"int4multirange", "int8multirange", "nummultirange", "tsmultirange", "tstzmultirange", "datemultirange"}
)
"""Types of PostgreSQL that Debezium does not know."""
_SINGLES = frozenset({"float", "float4", "real"})


def plain(schema: Schema, source: SourceType | None, writing: Writing) -> Form | None:
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
        return Form(str, numbers.plain, plain=True, column=_digits, unavailable=unavailable, zero=("0", "0.00"))
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


def _digits(values: Sequence[str]) -> list[str] | None:
    """Decimals without an exponent, as nearly all are: as they stand."""
    return None if "".join(values).strip("0123456789.-") else list(values)
