"""JSON Schemas of a registry → Connect's: https://github.com/confluentinc/schema-registry, JsonSchemaData."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.extractors.kafka.debezium.schemas import ANY, Schema

_TYPES = {
    "integer": "int64", "number": "double", "object": "struct", "float32": "float", "float64": "double",
}  # fmt: skip


def of_json_schema(document: Mapping[str, Any], root: Mapping[str, Any] | None = None) -> Schema:
    """The Connect schema that a JSON Schema was made of."""
    root = document if root is None else root
    if "$ref" in document:
        return of_json_schema(_referred(root, document["$ref"]), root)
    members = document.get("oneOf") or document.get("anyOf")
    if members:
        known = [member for member in members if member.get("type") != "null"]
        return of_json_schema({**known[0], **_own(document)}, root) if len(known) == 1 else ANY
    kind = document.get("connect.type") or document.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "any")
    properties = sorted(
        (document.get("properties") or {}).items(), key=lambda each: each[1].get("connect.index", 1 << 30)
    )
    inner = document.get("items", document.get("additionalProperties"))
    return Schema(
        type=_TYPES.get(kind, kind) if kind else "any",
        name=document.get("title") or "",
        parameters={key: str(value) for key, value in (document.get("connect.parameters") or {}).items()},
        fields=tuple((name, of_json_schema(part, root)) for name, part in properties),
        items=of_json_schema(inner, root) if isinstance(inner, Mapping) else None,
        default=document.get("default"),
    )


def _own(document: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key not in ("oneOf", "anyOf")}


def _referred(root: Mapping[str, Any], reference: str) -> Mapping[str, Any]:
    found: Any = root
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    assert isinstance(found, Mapping), reference  # noqa: S101 - what a document refers to is a schema
    return found
