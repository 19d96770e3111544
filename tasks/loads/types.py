"""What a source's type is to a warehouse: a few kinds of value, whichever of the sources' names it comes under.

The names are those of `Column.type`: PostgreSQL's (``format_type``), MySQL's and MariaDB's (``COLUMN_TYPE``), and the types
that columns are declared with for sources without a schema. What is not known is text: every value of the CSV is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Name = Literal[
    "boolean", "integer", "decimal", "number", "double", "date", "time", "timestamp", "timestamptz", "interval", "bytes",
    "json", "uuid", "text",
]  # fmt: skip

_ZONE = re.compile(r" (with|without) time zone$")
_ATTRIBUTES = re.compile(r"( unsigned| zerofill)+$")
_LENGTH = re.compile(r"\s*\((.*)\)$")

_NAMES: dict[str, Name] = {
    **dict.fromkeys(("boolean", "bool"), "boolean"),
    **dict.fromkeys(("smallint", "integer", "bigint", "int", "tinyint", "mediumint", "year", "oid"), "integer"),
    **dict.fromkeys(("numeric", "decimal"), "number"),
    **dict.fromkeys(("real", "double precision", "double", "float"), "double"),
    "date": "date",
    # MySQL's TIME is a span of up to 838 hours, and stays text.
    "time without time zone": "time",
    **dict.fromkeys(("datetime", "timestamp without time zone"), "timestamp"),
    # MySQL's TIMESTAMP is an instant, written in UTC.
    **dict.fromkeys(("timestamp", "timestamptz", "timestamp with time zone"), "timestamptz"),
    "interval": "interval",
    **dict.fromkeys(("bytea", "bytes", "binary", "varbinary", "blob", "tinyblob", "mediumblob", "longblob"), "bytes"),
    **dict.fromkeys(("json", "jsonb", "hstore"), "json"),
    "uuid": "uuid",
}  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """What kind of value; ``precision`` and ``scale`` of a decimal."""

    name: Name
    precision: int = 0
    scale: int = 0


def kind_of(written: str) -> Kind:
    """The kind of a source's type.

    >>> kind_of("numeric(10,2)")
    Kind(name='decimal', precision=10, scale=2)
    >>> kind_of("timestamp(3) without time zone").name
    'timestamp'
    >>> kind_of("bigint unsigned").name, kind_of("text[]").name, kind_of("enum('a','b')").name
    ('decimal', 'json', 'text')
    """
    lowered = written.strip().lower()
    if lowered.endswith("[]"):
        return Kind("json")
    if lowered == "money":
        return Kind("decimal", 19, 2)
    zone = found[0] if (found := _ZONE.search(lowered)) else ""
    bare = _ATTRIBUTES.sub("", lowered.removesuffix(zone))
    length = found[1] if (found := _LENGTH.search(bare)) else ""
    name = _LENGTH.sub("", bare)
    if name == "bigint" and "unsigned" in lowered:
        return Kind("decimal", 20, 0)
    kind = _NAMES.get(name + zone, "text")
    return _decimal(length) if kind == "number" and length else Kind(kind)


def _decimal(inner: str) -> Kind:
    precision, _, scale = inner.partition(",")
    kind = Kind("decimal", int(precision), int(scale or 0))
    # PostgreSQL has scales below 0 and above the precision, others do not.
    return kind if 0 <= kind.scale <= kind.precision else Kind("number")
