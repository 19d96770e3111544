"""What a sample of documents has: where its fields are, of which kinds, and how often; the columns that could be declared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from tasks.extractors.catalog import FoundField, Nested
from tasks.extractors.fields import FieldType

DEPTH = 3
"""So deep documents are looked into."""
_MAX_FIELDS = 300
_NOTHING = {"null", "undefined"}
_DOCUMENTS = ({"document"}, {"object"})


@dataclass
class Seen:
    """What was seen at one path."""

    kinds: Counter[str] = field(default_factory=Counter)
    inner: dict[str, Seen] = field(default_factory=dict)

    @property
    def types(self) -> set[str]:
        """The kinds, but those that are no value."""
        return set(self.kinds) - _NOTHING

    @property
    def is_document(self) -> bool:
        """Whether its own fields are better columns than it is."""
        return self.types in _DOCUMENTS and bool(self.inner)


@dataclass
class Sample:
    """Documents that were looked at."""

    count: int = 0
    root: Seen = field(default_factory=Seen)
    _paths: int = 0

    def at(self, seen: Seen, name: str) -> Seen | None:
        """The field of that name; None when there are too many already."""
        if name not in seen.inner:
            if self._paths >= _MAX_FIELDS:
                return None
            self._paths += 1
        return seen.inner.setdefault(name, Seen())

    def fields(
        self,
        type_of: Callable[[set[str]], FieldType],
        written: Callable[[Sequence[str]], str],
        nested: Nested = "columns",
    ) -> tuple[FoundField, ...]:
        """What could be declared, in the order in which the fields were met. ``written``: a path as it is declared."""
        names: set[str] = set()
        found = []
        for path, seen in _leaves(self.root, (), nested):
            name = base = "_".join(path)
            number = 2
            while name in names:
                name, number = f"{base}_{number}", number + 1
            names.add(name)
            found.append(
                FoundField(
                    name=name,
                    path=written(path),
                    type=type_of(seen.types),
                    kinds=tuple(kind for kind, _ in seen.kinds.most_common()),
                    share=sum(seen.kinds.values()) / max(1, self.count),
                    filled=sum(seen.kinds[kind] for kind in seen.types) == self.count,
                )
            )
        return tuple(found)


def _leaves(seen: Seen, path: tuple[str, ...], nested: Nested) -> Iterable[tuple[tuple[str, ...], Seen]]:
    for name, inner in seen.inner.items():
        if inner.is_document and nested == "columns":
            yield from _leaves(inner, (*path, name), nested)
        else:
            yield (*path, name), inner
