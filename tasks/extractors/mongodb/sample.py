"""The fields of a sample of BSON documents, and what could be declared of them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tasks.extractors import seen
from tasks.extractors.bson.layout import Kind, documents, end_of
from tasks.extractors.catalog import FoundField, Nested
from tasks.extractors.fields import FieldType

_UUID = "uuid"
_NUMBERS = {"int32", "int64", "double", "decimal"}
_NESTED = {"document", "array"}
_TYPES: dict[str, FieldType] = {
    "string": "text", "symbol": "text", "boolean": "boolean", "date": "timestamptz", "objectid": "objectid",
    "binary": "bytes", _UUID: "uuid",
}  # fmt: skip


class Sample:
    """Documents that were looked at."""

    def __init__(self) -> None:
        self._sample = seen.Sample()

    @property
    def count(self) -> int:
        return self._sample.count

    def add(self, batch: bytes) -> None:
        """Look at a batch of BSON."""
        for begin, end in documents(batch):
            self._sample.count += 1
            self._look(batch, begin, end, self._sample.root, seen.DEPTH)

    def fields(self, nested: Nested = "columns") -> tuple[FoundField, ...]:
        """What could be declared, in the order in which the fields were met."""
        return self._sample.fields(_type, _written, nested)

    def _look(self, data: bytes, begin: int, end: int, parent: seen.Seen, depth: int) -> None:
        at = begin + 4
        while at < end - 1:
            kind = data[at]
            value = data.index(0, at + 1) + 1
            name = data[at + 1 : value - 1].decode("utf-8", "replace")
            at = end_of(data, kind, value)
            there = self._sample.at(parent, name)
            if there is None:
                continue
            there.kinds[_kind(data, kind, value, at)] += 1
            is_key = name == "_id" and parent is self._sample.root  # which is one column
            if kind == Kind.DOCUMENT and depth > 1 and not is_key:
                self._look(data, value, at, there, depth - 1)


def _kind(data: bytes, kind: int, at: int, end: int) -> str:
    if kind == Kind.BINARY and data[at + 4] == 4 and end - at == 21:
        return _UUID
    return Kind(kind).name.lower()


def _type(types: set[str]) -> FieldType:
    if not types:
        return "json"
    if types <= _NUMBERS:
        return "decimal" if "decimal" in types else "float" if "double" in types else "integer"
    if len(types) == 1:
        return _TYPES.get(next(iter(types)), "json")
    # Another type than text would be counted as one too many; what is nested has no other text than JSON.
    return "json" if types & _NESTED else "text"


def _written(path: Sequence[str]) -> str:
    return ".".join(re.sub(r"([.\[\\])", r"\\\1", step) for step in path)
