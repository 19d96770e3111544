"""The fields of a sample of documents: where they are, of which types, and how often; what could be declared of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tasks.extractors.catalog import FoundField
from tasks.extractors.fields import FieldType
from tasks.extractors.mongodb.layout import Kind, documents, end_of

_DEPTH = 3
_MAX_FIELDS = 300
_UUID = "uuid"
_NUMBERS = {"int32", "int64", "double", "decimal"}
_NESTED = {"document", "array"}
_TYPES: dict[str, FieldType] = {
    "string": "text", "symbol": "text", "boolean": "boolean", "date": "timestamptz", "objectid": "objectid",
    "binary": "bytes", _UUID: "uuid",
}  # fmt: skip


@dataclass
class Seen:
    """What was seen at one path."""

    kinds: Counter[str] = field(default_factory=Counter)
    inner: dict[str, Seen] = field(default_factory=dict)

    @property
    def types(self) -> set[str]:
        return set(self.kinds) - {"null", "undefined"}

    @property
    def is_document(self) -> bool:
        """Whether its own fields are better columns than it is."""
        return self.types == {"document"} and bool(self.inner)


@dataclass
class Sample:
    """Documents that were looked at."""

    count: int = 0
    root: Seen = field(default_factory=Seen)
    _paths: int = 0

    def add(self, batch: bytes) -> None:
        """Look at a batch of BSON."""
        for begin, end in documents(batch):
            self.count += 1
            self._look(batch, begin, end, self.root, _DEPTH)

    def fields(self) -> tuple[FoundField, ...]:
        """What could be declared, in the order in which the fields were met."""
        names: set[str] = set()
        return tuple(self._field(path, seen, names) for path, seen in _leaves(self.root, ()))

    def _look(self, data: bytes, begin: int, end: int, seen: Seen, depth: int) -> None:
        at = begin + 4
        while at < end - 1:
            kind = data[at]
            value = data.index(0, at + 1) + 1
            name = data[at + 1 : value - 1].decode("utf-8", "replace")
            at = end_of(data, kind, value)
            if name not in seen.inner and self._paths >= _MAX_FIELDS:
                continue
            self._paths += name not in seen.inner
            there = seen.inner.setdefault(name, Seen())
            there.kinds[_kind(data, kind, value, at)] += 1
            if kind == Kind.DOCUMENT and depth > 1:
                self._look(data, value, at, there, depth - 1)

    def _field(self, path: tuple[str, ...], seen: Seen, names: set[str]) -> FoundField:
        name = base = "_".join(path)
        number = 2
        while name in names:
            name, number = f"{base}_{number}", number + 1
        names.add(name)
        return FoundField(
            name=name,
            path=".".join(_escaped(step) for step in path),
            type=_type(seen.types),
            kinds=tuple(kind for kind, _ in seen.kinds.most_common()),
            share=sum(seen.kinds.values()) / max(1, self.count),
            filled=sum(seen.kinds[kind] for kind in seen.types) == self.count,
        )


def _leaves(seen: Seen, path: tuple[str, ...]) -> Iterable[tuple[tuple[str, ...], Seen]]:
    for name, inner in seen.inner.items():
        if inner.is_document:
            yield from _leaves(inner, (*path, name))
        else:
            yield (*path, name), inner


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


def _escaped(step: str) -> str:
    return re.sub(r"([.\[\\])", r"\\\1", step)
