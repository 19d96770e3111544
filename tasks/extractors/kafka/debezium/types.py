"""The type a column has in its database: told by the connector (``column.propagate.source.type``), or by who asks.

It decides what Connect's types leave open: how many digits a fraction has, whether a BIT is a boolean, a string bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_TEXT = re.compile(r"([^(\[]+)(?:\((\d+)(?:\s*,\s*(-?\d+))?\))?([^(\[]*)((?:\[\])*)")

_HINT = "__debezium.source.column."

# https://www.postgresql.org/docs/current/datatype.html#DATATYPE-TABLE; as format_type() and as pg_type have them.
_NAMES = {
    "character varying": "varchar", "character": "bpchar", "bigint": "int8", "integer": "int4", "smallint": "int2",
    "double precision": "float8", "real": "float4", "bit varying": "varbit", "boolean": "bool", "decimal": "numeric",
    "timestamp without time zone": "timestamp", "timestamp with time zone": "timestamptz", "bigserial": "int8",
    "time without time zone": "time", "time with time zone": "timetz", "serial": "int4", "smallserial": "int2",
}  # fmt: skip
_SIZED = frozenset({"varchar", "bpchar", "char", "bit", "varbit", "binary", "varbinary"})
_FRACTIONAL = frozenset({"timestamp", "timestamptz", "time", "timetz", "datetime"})


@dataclass(frozen=True)
class SourceType:
    """A type's name, and what stands in parentheses behind it."""

    base: str
    """As pg_type has it, or MySQL's DATA_TYPE: ``int8``, ``timestamptz``, ``bigint``."""
    text: str
    """To show."""
    length: int | None = None
    scale: int | None = None
    unsigned: bool = False
    array: bool = False

    @property
    def digits(self) -> int | None:
        """Of the fraction of a second, where the type says so."""
        return self.length if self.base in _FRACTIONAL else None


def of_text(text: str, postgres: bool) -> SourceType:
    """Of a type as the database shows it: ``numeric(10,2)``, ``timestamp(3) without time zone``, ``int unsigned``."""
    found = _TEXT.fullmatch(text.strip().lower())
    if found is None:  # an ENUM's values, for one
        return SourceType(text.partition("(")[0].strip().lower(), text)
    name, length, scale, rest, brackets = found.groups()
    words = f"{name} {rest}".split()
    unsigned = "unsigned" in words
    name = " ".join(word for word in words if word not in ("unsigned", "zerofill", "signed", "null"))
    return SourceType(
        _NAMES.get(name, name) if postgres else name,
        text,
        None if length is None else int(length),
        None if scale is None else int(scale),
        unsigned,
        bool(brackets),
    )


def of_hints(parameters: Mapping[str, str], postgres: bool) -> SourceType | None:
    """Of the parameters of a schema; None where the connector told nothing."""
    told = parameters.get(_HINT + "type")
    if told is None:
        return None
    length, scale = (_number(parameters.get(_HINT + name)) for name in ("length", "scale"))
    bare = of_text(told.lower().lstrip("_"), postgres)
    array = told.startswith("_")
    base = bare.base
    if base in _FRACTIONAL:
        # PostgreSQL's connector tells digits as the scale, and the width as the length; MySQL's as the length.
        length = scale if postgres else length or 0
        scale = None
    return SourceType(base, _shown(bare, length, scale, array), length, scale, bare.unsigned, array)


def _shown(bare: SourceType, length: int | None, scale: int | None, array: bool) -> str:
    numbers = ""
    if bare.base in ("numeric", "decimal") and length and scale is not None and length < 131089:
        numbers = f"({length},{scale})"
    elif length is not None and (bare.base in _SIZED or (bare.base in _FRACTIONAL and length)):
        numbers = f"({length})" if length < 0x7FFFFFFF else ""
    return f"{bare.base}{numbers}{' unsigned' if bare.unsigned else ''}{'[]' if array else ''}"


def _number(text: str | None) -> int | None:
    return int(text) if text and text.lstrip("-").isdigit() else None
