"""Avro schemas of a registry → Connect's, and rows out of Avro's bytes.

Confluent's and Apicurio's converters keep what Connect says of a type in properties: ``connect.name``,
``connect.parameters``, ``connect.type`` (https://github.com/confluentinc/schema-registry, AvroData).
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import fastavro

from tasks.extractors.kafka.debezium.schemas import Schema

_TYPES = {"int": "int32", "long": "int64", "enum": "string", "fixed": "bytes"}
_PLAIN = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})

# Of schemas that no converter of Connect's has made.
_LOGICAL = {
    "decimal": "org.apache.kafka.connect.data.Decimal",
    "date": "org.apache.kafka.connect.data.Date",
    "time-millis": "org.apache.kafka.connect.data.Time",
    "time-micros": "io.debezium.time.MicroTime",
    "timestamp-millis": "org.apache.kafka.connect.data.Timestamp",
    "timestamp-micros": "io.debezium.time.MicroTimestamp",
    "uuid": "io.debezium.data.Uuid",
}


class AvroReader:
    """Reads the payloads of one schema; values stay as they are stored (a decimal's bytes, a date's number)."""

    def __init__(self, text: str) -> None:
        document = json.loads(text)
        self.schema: Schema = _Schemas().of(document)
        parsed = fastavro.parse_schema(_without_logical_types(document))

        def read(payload: bytes) -> Any:
            return fastavro.schemaless_reader(io.BytesIO(payload), parsed, None)

        self.read: Callable[[bytes], Any] = read


class _Schemas:
    """Resolves names: a record is told once, and named from then on."""

    def __init__(self) -> None:
        self._named: dict[str, Schema] = {}

    def of(self, document: Any, namespace: str = "", *, optional: bool = False) -> Schema:
        if isinstance(document, list):
            members = [member for member in document if member != "null"]
            if len(members) != 1:
                raise LookupError(f"a union of {len(members)} types")
            return self.of(members[0], namespace, optional=len(members) < len(document))
        if isinstance(document, str):
            if document in _PLAIN:
                return Schema(_TYPES.get(document, document), optional=optional)
            return self._named.get(document) or self._named[f"{namespace}.{document}"]
        if isinstance(document["type"], (dict, list)):
            return self.of(document["type"], namespace, optional=optional)
        return self._complex(document, document["type"], document.get("namespace", namespace), optional)

    def _field(self, part: Mapping[str, Any], namespace: str) -> Schema:
        schema = self.of(part["type"], namespace)
        return schema if part.get("default") is None else replace(schema, default=part["default"])

    def _complex(self, document: Mapping[str, Any], kind: str, namespace: str, optional: bool) -> Schema:
        if kind not in _PLAIN and kind not in ("record", "array", "map", "enum", "fixed"):
            return self.of(kind, namespace, optional=optional)
        name = document.get("connect.name") or _LOGICAL.get(document.get("logicalType", ""), "")
        parameters = {key: str(value) for key, value in (document.get("connect.parameters") or {}).items()}
        if document.get("logicalType") == "decimal":
            parameters.setdefault("scale", str(document.get("scale", 0)))
        inner = document.get("items", document.get("values"))
        schema = Schema(
            type=document.get("connect.type") or {"record": "struct"}.get(kind, _TYPES.get(kind, kind)),
            name=name or (f"{namespace}.{document['name']}" if kind == "record" else ""),
            optional=optional,
            parameters=parameters,
            fields=tuple((part["name"], self._field(part, namespace)) for part in document.get("fields", ())),
            items=None if inner is None else self.of(inner, namespace),
        )
        if kind in ("record", "enum", "fixed"):
            self._named[document["name"]] = self._named[f"{namespace}.{document['name']}"] = schema
        return schema


def _without_logical_types(document: Any) -> Any:
    if isinstance(document, dict):
        return {key: _without_logical_types(value) for key, value in document.items() if key != "logicalType"}
    return [_without_logical_types(part) for part in document] if isinstance(document, list) else document
