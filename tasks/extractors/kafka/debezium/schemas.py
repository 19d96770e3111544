"""What a message says of the types of its values: Kafka Connect's schemas, which every converter's are read into.

Formats: https://github.com/apache/kafka/blob/trunk/connect/json/src/main/java/org/apache/kafka/connect/json/JsonSchema.java
and, for the names of types, https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-data-types.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

INTEGERS = frozenset({"int8", "int16", "int32", "int64"})


@dataclass(frozen=True, eq=False)
class Schema:
    """The type of a value."""

    type: str
    """boolean, int8 … int64, float (of 32 bits), double, string, bytes, array, map, struct; any: nothing is known."""
    name: str = ""
    """What the value means, such as ``io.debezium.time.Date``; of a struct what it is called."""
    optional: bool = True
    parameters: Mapping[str, str] = field(default_factory=dict)
    fields: tuple[tuple[str, Schema], ...] = ()
    """Of a struct."""
    items: Schema | None = None
    """Of an array's elements, or of a map's values."""
    default: Any = None
    """The column's, as JSON has it; what the connector fills in for values that it does not know."""

    def field(self, name: str) -> Schema | None:
        return next((schema for known, schema in self.fields if known == name), None)


ANY = Schema("any")


def of_connect(document: Mapping[str, Any]) -> Schema:
    """What stands in the message itself, beside its payload; `LookupError` or `TypeError` for what is none."""
    items = document.get("items", document.get("values"))
    return Schema(
        type=document["type"],
        name=document.get("name") or "",
        optional=document.get("optional", False),
        parameters=document.get("parameters") or {},
        fields=tuple((part["field"], of_connect(part)) for part in document.get("fields") or ()),
        items=None if items is None else of_connect(items),
        default=document.get("default"),
    )
