"""What each declared column takes of a value: its type's text, or, of another type, what the stream's policy says."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pydantic import JsonValue

from blocks.errors import ConfigurationError
from blocks.s3 import CsvDialect
from tasks.extractors.bson.layout import Kind, double, int64
from tasks.extractors.bson.texts import Texts, date, instant, payload, uuid
from tasks.extractors.contract import Column
from tasks.extractors.fields import EXTRA_COLUMN, Declared, DeclaredColumn, FieldType

NULLS = (Kind.NULL, Kind.UNDEFINED)
ANY = "any"
"""The type of a column that takes plain texts of whatever there is: that of ``_id`` where nothing is declared."""

Convert = Callable[[bytes, int, int, int], str]
"""Takes the data, the kind of a value, and where it begins and ends; gives the CSV field."""

_STEP = re.compile(r"((?:[^.\[\\]|\\.)+)|\[(\d+)\]")
_DAY = 86_400_000


@dataclass(frozen=True)
class Field:
    """One column of a stream."""

    column: Column
    path: tuple[bytes, ...]
    """The names on the way to its value; numbers stand for places in arrays. Empty: it is what no other column names."""
    default: JsonValue = None


def fields_of(declared: Declared) -> tuple[Field, ...]:
    """The columns that a stream can have."""
    wanted = declared.fields or (DeclaredColumn(name="_id"),)
    keyed = any(field.key for field in wanted)
    found = [_field(field, field.key or (not keyed and field.where == "_id"), declared) for field in wanted]
    if declared.extra == "json":
        found.append(Field(Column(name=EXTRA_COLUMN, type="json"), ()))
    return tuple(found)


def _field(field: DeclaredColumn, key: bool, declared: Declared) -> Field:
    kind = field.type if declared.fields else ANY
    return Field(Column(name=field.name, type=kind, key=key), parsed(field.name, field.where), field.default)


def parsed(name: str, path: str) -> tuple[bytes, ...]:
    """``a.b[0]`` as steps; a dot or bracket that belongs to a name has a backslash before it."""
    steps, at = [], 0
    for found in _STEP.finditer(path):
        if path[at : found.start()] not in (("", ".") if at else ("",)):
            break
        word, place = found.groups()
        steps.append((place if word is None else re.sub(r"\\(.)", r"\1", word)).encode())
        at = found.end()
    if at != len(path) or not steps:
        raise ConfigurationError(
            f"field fields: the path {path!r} of {name} is not one; write such as a.b or items[0].price"
        )
    return tuple(steps)


class Writer:
    """Turns values into CSV fields, and counts what a person should know of."""

    def __init__(self, texts: Texts, dialect: CsvDialect, declared: Declared) -> None:
        self.texts = texts
        self.counted: Counter[str] = Counter()
        self.nulled = 0
        """Values that their columns do not show, as they are of another type."""
        self.null = dialect.null
        self._mistyped = declared.mistyped
        # The empty string is quoted, so that it is not NULL; so is a string that is the marker.
        self._special = re.compile(r'[",\r\n]|\A\Z' + (rf"|\A{re.escape(self.null)}\Z" if self.null else "")).search

    def quoted(self, text: str) -> str:
        return '"' + text.replace('"', '""') + '"' if self._special(text) else text

    def default(self, field: Field) -> str:
        """The CSV field of a document without the value."""
        value = field.default
        if value is None:
            return self.null
        if isinstance(value, str) and field.column.type != "json":
            return self.quoted(value)
        return self.quoted(json.dumps(value, ensure_ascii=False, separators=(",", ":")))

    def converter(self, field: Field) -> Convert:
        name, kind = field.column.name, field.column.type
        texts, quoted = self.texts, self.quoted
        plain = texts.json if kind == "json" else texts.plain
        if kind in ("json", ANY):
            return self._watched(name, lambda data, at_kind, at, end: quoted(plain(data, at_kind, at, end)))
        typed = _typed(kind, texts)

        def convert(data: bytes, at_kind: int, at: int, end: int) -> str:
            text = typed(data, at_kind, at, end)
            return self._other(name, kind, data, at_kind, at, end) if text is None else quoted(text)

        return self._watched(name, convert)

    def _watched(self, name: str, convert: Convert) -> Convert:
        texts, null, counted = self.texts, self.null, self.counted

        def watched(data: bytes, kind: int, at: int, end: int) -> str:
            if kind == Kind.NULL:
                return null
            before = texts.invalid
            text = convert(data, kind, at, end)
            if texts.invalid != before:
                counted[f"{name}: not UTF-8, bad bytes written as U+FFFD"] += 1
            return text

        return watched

    def _other(self, name: str, kind: str, data: bytes, at_kind: int, at: int, end: int) -> str:
        """A value that is not of its column's type."""
        told = f"{name}: not {'an' if kind[0] in 'aeio' else 'a'} {kind}"
        if self._mistyped == "fail":
            there = Kind(at_kind).name.lower()
            raise ConfigurationError(
                f"field mistyped: {told}, but of BSON's type {there}; choose text or null, or declare another type"
            )
        self.counted[f"{told}, written as {'text' if self._mistyped == 'text' else 'NULL'}"] += 1
        if self._mistyped == "text":
            return self.quoted(self.texts.plain(data, at_kind, at, end))
        self.nulled += 1
        return self.null


Typed = Callable[[bytes, int, int, int], str | None]
"""As `Convert`, unquoted; None where the value is of another type."""


def _typed(kind: str, texts: Texts) -> Typed:
    kinds, convert = _TYPES[kind]  # type: ignore[index]  # a FieldType but for json
    plain = texts.plain

    def typed(data: bytes, at_kind: int, at: int, end: int) -> str | None:
        if at_kind not in kinds:
            return None
        return plain(data, at_kind, at, end) if convert is None else convert(texts, data, at_kind, at, end)

    return typed


def _integer(texts: Texts, data: bytes, kind: int, at: int, end: int) -> str | None:
    """Shells store 5 as a double."""
    if kind != Kind.DOUBLE:
        return texts.plain(data, kind, at, end)
    value = double(data, at)[0]
    return str(int(value)) if value.is_integer() else None


def _day(_texts: Texts, data: bytes, _kind: int, at: int, _end: int) -> str | None:
    days, rest = divmod(int64(data, at)[0], _DAY)
    return None if rest else "".join(date(days))


def _uuid(_texts: Texts, data: bytes, _kind: int, at: int, end: int) -> str | None:
    return uuid(data[at + 5 : end]) if data[at + 4] == 4 and end - at == 21 else None


def _bytes(texts: Texts, data: bytes, _kind: int, at: int, end: int) -> str:
    return texts.binary(payload(data, at, end))


def _local(_texts: Texts, data: bytes, _kind: int, at: int, _end: int) -> str:
    return instant(int64(data, at)[0], "")


_NUMBERS = (Kind.INT32, Kind.INT64, Kind.DOUBLE, Kind.DECIMAL)
_TYPES: dict[FieldType, tuple[Iterable[int], Callable[[Texts, bytes, int, int, int], str | None] | None]] = {
    "text": ((Kind.STRING, Kind.SYMBOL), None),
    "integer": ((Kind.INT32, Kind.INT64, Kind.DOUBLE), _integer),
    "decimal": (_NUMBERS, None),
    "float": (_NUMBERS, None),
    "boolean": ((Kind.BOOLEAN,), None),
    "date": ((Kind.DATE,), _day),
    "timestamp": ((Kind.DATE,), _local),
    "timestamptz": ((Kind.DATE,), None),
    "uuid": ((Kind.BINARY,), _uuid),
    "objectid": ((Kind.OBJECTID,), None),
    "bytes": ((Kind.BINARY,), _bytes),
}
