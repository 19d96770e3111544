"""Documents → CSV records: the declared columns are compiled into one straight-line function, run once for each document.

A column's value is taken out of the document as it is read, so that what is left at the end is what no column names. Values
of the expected type are written in the function itself; all others (missing, null, of another type) take a slower call.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from blocks.errors import ConfigurationError
from blocks.s3 import CsvDialect
from tasks.extractors.columns import chosen
from tasks.extractors.contract import Column
from tasks.extractors.documents.code import Line, function
from tasks.extractors.documents.parse import json_text
from tasks.extractors.documents.paths import MISSING, Getter, Step, expression, steps
from tasks.extractors.documents.texts import Text, texts, whatever
from tasks.extractors.fields import EXTRA_COLUMN, Declared, DeclaredColumn

_MOST_NAMES = 50
"""How many names of fields that are left out are counted apart."""


@dataclass(frozen=True)
class Field:
    """A column with what is needed to fill it."""

    column: Column
    declared: DeclaredColumn | None
    """None: the column of the rest."""


class Documents:
    """Writes documents as CSV records, and counts what a person should know of it in `counted`."""

    def __init__(self, declared: Declared, dialect: CsvDialect, columns: Sequence[str] = ()) -> None:
        """``columns``: see `ReadOptions.columns`. `ConfigurationError` for paths that are none, and unknown columns."""
        self._declared = declared
        self._null = dialect.null
        self._texts = texts(dialect.binary)
        self.counted: Counter[str] = Counter()
        every = [Field(_column(field), field) for field in declared.fields]
        if declared.extra == "json":
            every.append(Field(Column(name=EXTRA_COLUMN, type="json"), None))
        if not every:
            raise ConfigurationError(
                "field fields: no column is declared, and extra does not keep the rest; declare some"
            )
        self._chosen = chosen(every, columns)
        self.columns = tuple(field.column for field in self._chosen)
        lines = tuple(self._line(field) for field in every)
        order = tuple(every.index(field) for field in self._chosen)
        self._shows_rest = any(field.declared is None for field in self._chosen)
        looks = self._shows_rest or declared.extra != "json"
        self.line: Callable[[Any], str] = function(lines, order, self._rest if looks else None, self._null)
        """The record of one document, line end included. What columns name is taken out of the document itself."""
        self._kept: list[tuple[tuple[Step, ...], Any]] = []

    def rows(self, documents: Iterable[Any]) -> Iterator[bytes]:
        """The records of documents that `parse` has read."""
        return (record.encode() for record in map(self.line, documents))

    # -- columns -------------------------------------------------------------------------------------------------

    def _line(self, field: Field) -> Line:
        declared = field.declared
        if declared is None:
            return Line(None, None, "", MISSING)
        path = steps(declared.where)
        found: Getter | None = None if path else expression(declared.where, f"fields: {declared.name}")
        # A NULL marker that may be a value has to be looked for in every value; see `code._PLAIN`.
        inline = declared.type if not self._null or "\\" in self._null else ""
        return Line(path, found, inline, self._slow(declared, path))

    def _slow(self, declared: DeclaredColumn, path: tuple[Step, ...] | None) -> Callable[[Any], str]:
        write, null = self._texts[declared.type], self._null
        never_quoted = not null and declared.type not in ("text", "json")
        default = null if declared.default is None else self._field(_default(declared, write))

        def slow(value: Any) -> str:
            if value is MISSING:
                return default
            if value is None:
                return null
            text = write(value)
            if text is None:
                return self._mistyped(declared, path, value)
            return text if never_quoted else self._field(text)

        return slow

    def _mistyped(self, declared: DeclaredColumn, path: tuple[Step, ...] | None, value: Any) -> str:
        policy, wanted = self._declared.mistyped, f"{declared.name}: not of type {declared.type}"
        if policy == "fail":
            raise ConfigurationError(
                f"field fields: {declared.name}: {_kind(value)} is not of type {declared.type}; declare another type, or "
                "choose text or null for mistyped"
            )
        self.counted[f"{wanted}, written as {'text' if policy == 'text' else 'NULL'}"] += 1
        if policy == "text":
            return self._field(whatever(value))
        if self._shows_rest and path and all(isinstance(step, str) for step in path):
            self._kept.append((path, value))
        return self._null

    def _field(self, text: str) -> str:
        """A text as PostgreSQL's COPY would quote it."""
        if text and text != self._null and _PLAIN(text):
            return text
        return '"' + text.replace('"', '""') + '"'

    # -- the rest ------------------------------------------------------------------------------------------------

    def _kept_back(self, document: Any) -> None:
        """Values that their columns do not show stay where they were."""
        for path, value in self._kept:
            place = document
            for step in path[:-1]:
                place = place.setdefault(step, {})
            place[path[-1]] = value
        self._kept.clear()

    def _rest(self, document: Any) -> str:
        """The field of what no column names, empty where there is nothing or it is not kept."""
        extra = self._declared.extra
        if extra == "json":
            if self._kept:
                self._kept_back(document)
            return self._field(json_text(document)) if document or type(document) is not dict else self._null
        names = list(document) if type(document) is dict else [_kind(document)]
        if extra == "refuse" and names:
            raise ConfigurationError(
                f"field extra: a document has {', '.join(map(repr, names[:5]))}, which no column names; declare them, or "
                "choose json or drop"
            )
        for name in names:
            self._count_dropped(name)
        return ""

    def _count_dropped(self, name: str) -> None:
        what = f"{name}: left out"
        known = what in self.counted or len(self.counted) < _MOST_NAMES
        self.counted[what if known else "further fields: left out"] += 1


_PLAIN = re.compile(r'[^",\r\n]+').fullmatch


def _column(field: DeclaredColumn) -> Column:
    nullable = not field.key
    return Column(name=field.name, type=field.type, nullable=nullable, key=field.key)


def _default(declared: DeclaredColumn, write: Text) -> str:
    """The text of a default, which came through YAML or a form: a float has lost nothing there that was not lost before."""
    value = declared.default
    text = write(str(value)) if isinstance(value, float) else write(value)
    if text is None:
        raise ConfigurationError(f"field fields: {declared.name}: the default {value!r} is not of type {declared.type}")
    return text


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", int: "an integer"}
    return "null" if value is None else kinds.get(type(value), "a number")
