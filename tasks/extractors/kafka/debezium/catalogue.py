"""Types of the database and settings of the connector → the schema that a message without one would have had.

https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-data-types and its sister page
for MySQL.
"""

from __future__ import annotations

from dataclasses import replace

from tasks.extractors.kafka.debezium.options import Modes
from tasks.extractors.kafka.debezium.schemas import ANY, Schema
from tasks.extractors.kafka.debezium.types import SourceType

_CONNECT = "org.apache.kafka.connect.data."
_DEBEZIUM = "io.debezium."

_BYTES = Schema("struct", fields=(("wkb", Schema("bytes")),))
_GEOMETRY = replace(_BYTES, name=_DEBEZIUM + "data.geometry.Geometry")
_POINT = replace(_BYTES, name=_DEBEZIUM + "data.geometry.Point")

_STRINGS = frozenset(
    {
        "varchar",
        "bpchar",
        "text",
        "citext",
        "name",
        "char",
        "inet",
        "cidr",
        "macaddr",
        "macaddr8",
        "int4range",
        "int8range",
    }
    | {"numrange", "tsrange", "tstzrange", "daterange", "tinytext", "mediumtext", "longtext", "enum", "set"}
    | {"uuid", "xml", "ltree", "tsvector", "inet4", "inet6"}
)
_INTEGERS = {
    "int2": "int16", "int4": "int32", "int8": "int64", "oid": "int64", "tinyint": "int16", "smallint": "int16",
    "mediumint": "int32", "int": "int64", "bigint": "int64",
}  # fmt: skip
_BINARIES = frozenset({"bytea", "binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"})
_GEOMETRIES = frozenset(
    {"geometry", "geography", "linestring", "polygon", "geometrycollection", "geomcollection", "multipoint"}
    | {"multilinestring", "multipolygon"}
)


def schema_of(source: SourceType, modes: Modes, *, mysql: bool) -> Schema:
    """The schema of a column; `ANY` for a type that is not known here."""
    if source.array:
        return Schema("array", items=schema_of(replace(source, array=False), modes, mysql=mysql))
    base = source.base
    if base == "bigint" and source.unsigned and modes.bigint_unsigned != "long":
        return Schema("string") if modes.bigint_unsigned == "string" else _decimal(0)
    if base in _INTEGERS:
        return Schema(_INTEGERS[base])
    if base in _STRINGS and not (mysql and base == "polygon"):
        return Schema("string")
    if base in _BINARIES:
        return Schema("bytes" if modes.binary == "bytes" else "string")
    for make in (_number, _time, _document):
        if (found := make(source, modes, mysql)) is not None:
            return found
    return ANY


def _decimal(scale: int) -> Schema:
    return Schema("bytes", _CONNECT + "Decimal", parameters={"scale": str(scale)})


def _number(source: SourceType, modes: Modes, _mysql: bool) -> Schema | None:
    base = source.base
    if base in ("float4", "float"):
        return Schema("float")
    if base in ("float8", "double", "real"):
        return Schema("double")
    if base in ("bit", "varbit"):
        length = source.length or (1 if base == "bit" else 0)
        bits = Schema("bytes", _DEBEZIUM + "data.Bits", parameters={"length": str(length)})
        return Schema("boolean") if length == 1 else bits
    if base in ("bool", "boolean"):
        return Schema("boolean")
    if base not in ("numeric", "decimal", "money"):
        return None
    if modes.decimal != "precise":
        return Schema(modes.decimal)
    if base == "money":
        return _decimal(2)
    if base == "numeric" and source.length is None:
        return Schema("struct", _DEBEZIUM + "data.VariableScaleDecimal")
    return _decimal(source.scale or 0)


def _time(source: SourceType, modes: Modes, mysql: bool) -> Schema | None:
    base = source.base
    if base == "year":
        return Schema("int32", _DEBEZIUM + "time.Year")
    if base == "interval":
        return Schema("string", _DEBEZIUM + "time.Interval") if modes.interval == "string" else _of("MicroDuration")
    if base == "timestamptz" or (mysql and base == "timestamp"):
        return Schema("string", _DEBEZIUM + "time.ZonedTimestamp")
    if base == "timetz":
        return Schema("string", _DEBEZIUM + "time.ZonedTime")
    kind = {"date": "Date", "time": "Time", "timestamp": "Timestamp", "datetime": "Timestamp"}.get(base)
    if kind is None:
        return None
    if modes.time == "isostring":
        return Schema("string", f"{_DEBEZIUM}time.Iso{kind}")
    if modes.time == "connect":
        return Schema("int64", _CONNECT + kind)
    if kind == "Date":
        return _of(kind)
    if modes.time == "nanoseconds":
        return _of(f"Nano{kind}")
    digits = source.length if source.length is not None else 0 if mysql else 6
    micros = (
        modes.time == "microseconds"
        or digits > 3
        or (kind == "Time" and (mysql or modes.time == "adaptive_time_microseconds"))
    )
    return _of(f"Micro{kind}" if micros else kind)


def _of(kind: str) -> Schema:
    return Schema("int64", f"{_DEBEZIUM}time.{kind}")


def _document(source: SourceType, modes: Modes, mysql: bool) -> Schema | None:
    base = source.base
    if base == "hstore" and modes.hstore == "map":
        return Schema("map", items=Schema("string"))
    if base in ("json", "jsonb", "hstore"):
        return Schema("string", _DEBEZIUM + "data.Json")
    if base == "point":
        return _POINT
    if base in _GEOMETRIES:
        return _GEOMETRY
    if base == "vector":
        return Schema(
            "array", _DEBEZIUM + "data." + ("FloatVector" if mysql else "DoubleVector"), items=Schema("float")
        )
    return None
