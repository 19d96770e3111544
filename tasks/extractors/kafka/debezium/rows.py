"""Decoded rows → CSV fields, column by column: one function for each shape of a table, generated when it is first met.

A column of some thousand values costs a fraction of as many calls: whether any text of it needs quotes, or is NULL, or stands
for a value that is not there, is asked once of them all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from tasks.extractors.kafka.debezium.forms import Form

Columns = list[list[Any]]

_PLAIN_CHARACTERS = frozenset("0123456789+-.:eTPYMDHS ")


@dataclass(frozen=True, eq=False)
class RowColumn:
    """A column that is written."""

    name: str
    form: Form
    key: bool = False
    default: Any = None
    """What is filled in for a value that is not known, decoded; None: nothing."""


class Named(Protocol):
    """A column, as far as others than its rows ask."""

    @property
    def name(self) -> str: ...
    @property
    def key(self) -> bool: ...


class TableRows(Protocol):
    """Writes the rows of one shape."""

    empty: str
    """The fields of no row, each behind a comma."""

    @property
    def columns(self) -> Sequence[Named]:
        """What is written, in its order."""
        ...

    @property
    def values(self) -> Callable[[Sequence[Any]], Columns]:
        """Rows → their decoded values, …"""
        ...

    @property
    def fields(self) -> Callable[[Columns], list[list[str]]]:
        """… and those → their fields: a list for each column, or for several with their commas."""
        ...

    def lacking(self, columns: Sequence[Sequence[Any]], /) -> set[int]:
        """Which of the rows lack a value; given what `values` has made of them."""
        ...

    def careful(self, row: Any) -> tuple[str, tuple[str, ...]]:
        """The fields of a row of which some values may not be there, each behind a comma, and the names of those."""
        ...

    def partial(self, row: Any, absent: frozenset[str]) -> str:
        """The fields, each behind a comma, without some of the columns."""
        ...

    def key_only(self, row: Any, /) -> bool:
        """Whether a row holds nothing but its key."""
        ...

    def told(self) -> Counter[str]:
        """What a person should know of the rows that were written since the last call."""
        ...


class Rows:
    """See `TableRows`. Of rows whose columns the events bring.

    ``item``: rows are dicts (Avro), and not structs with ``c0``, ``c1``, … in the order of the columns.
    """

    def __init__(self, columns: Sequence[RowColumn], null: str, *, item: bool = False, may_lack: bool = True) -> None:
        """``may_lack``: values may be missing that the log does not have."""
        self.columns, self.null, self._item = tuple(columns), null, item
        self._lacking = [place for place, column in enumerate(columns) if may_lack and column.form.unavailable]
        # A marker that a number could be: compared as well.
        self._always_quotes = bool(null) and (set(null) <= _PLAIN_CHARACTERS or null.isalnum())
        self.values, self.fields = self._compiled()
        """Rows → their decoded values; and those → their fields: a list for each column."""
        self.empty = f",{null}" * len(self.columns)

    def quoted(self, text: str) -> str:
        """A text as it stands in a record: in quotes where COPY would put it in quotes."""
        if "," in text or '"' in text or "\n" in text or "\r" in text or text == self.null:
            return '"' + text.replace('"', '""') + '"'
        return text

    def told(self) -> Counter[str]:
        """See `TableRows`. Nothing: their values are of their types."""
        return Counter()

    def value(self, row: Any, place: int) -> Any:
        """The decoded value of a column."""
        value = row[self.columns[place].name] if self._item else getattr(row, f"c{place}")
        form = self.columns[place].form
        if form.decoded is msgspec.Raw:
            return looked_at(value)
        return msgspec.convert(value, form.decoded) if self._item and form.is_nested and value is not None else value

    def careful(self, row: Any) -> tuple[str, tuple[str, ...]]:
        """The fields of a row of which some values may not be there, and the names of those."""
        absent = [column.name for place, column in enumerate(self.columns) if self.lacks(row, place)]
        return self.partial(row, frozenset(absent)), tuple(absent)

    def lacks(self, row: Any, place: int) -> bool:
        """Whether the value of a column is not there."""
        form = self.columns[place].form
        return bool(form.unavailable) and self.value(row, place) in form.unavailable

    def lacking(self, columns: Sequence[Sequence[Any]]) -> set[int]:
        """Which of the rows lack a value; given what `values` has made of them."""
        found: set[int] = set()
        for place in self._lacking:
            form, values = self.columns[place].form, columns[place]
            if self._item and form.is_nested:
                values = [value if value is None else msgspec.convert(value, form.decoded) for value in values]
            for mark in form.unavailable:
                if mark in values:
                    found.update(index for index, value in enumerate(values) if value == mark)
        return found

    def partial(self, row: Any, absent: frozenset[str]) -> str:
        """The fields, each behind a comma, without some of the columns."""
        texts = [
            self.null if column.name in absent else self.text(row, place) for place, column in enumerate(self.columns)
        ]
        return "".join([f",{text}" for text in texts])

    def text(self, row: Any, place: int) -> str:
        """The field of one column."""
        value, form = self.value(row, place), self.columns[place].form
        if value is None:
            return self.null
        text = form.text(value)
        return text if form.plain and not self._always_quotes else self.quoted(text)

    def key_only(self, row: Any) -> bool:
        """Whether a row holds nothing but its key: the rest is NULL, or what stands for nothing."""
        values = [(column, self.value(row, place)) for place, column in enumerate(self.columns) if not column.key]
        return len(values) < len(self.columns) and not any(
            value and value not in column.form.zero and value != column.default for column, value in values
        )

    # -- the function ---------------------------------------------------------------------------------------------------

    def _compiled(self) -> tuple[Callable[[Sequence[Any]], Columns], Callable[[Columns], list[list[str]]]]:
        names: dict[str, Any] = {
            "NULL": self.null,
            "TEXTS": self.texts,
            "LOOKED_AT": looked_at,
            "CONVERT": msgspec.convert,
        }
        values, fields = [], []
        for place, column in enumerate(self.columns):
            names[f"K{place}"] = column.name
            got = f"r[K{place}]" if self._item else f"r.c{place}"
            values.append(
                f"[LOOKED_AT({got}) for r in rows]" if column.form.decoded is msgspec.Raw else f"[{got} for r in rows]"
            )
            fields.append(self._shown(place, column.form, names))
        source = f"def values(rows):\n    return [{', '.join(values)}]\n"
        source += "def fields(columns):\n"
        source += "".join([f"    c = columns[{place}]\n    f{place} = {field}\n" for place, field in enumerate(fields)])
        source += f"    return [{', '.join([f'f{place}' for place, _ in enumerate(fields)])}]\n"
        exec(source, names)  # noqa: S102 - made of numbers and of our own words, never of a name or a value
        return names["values"], names["fields"]

    def _shown(self, place: int, form: Form, names: dict[str, Any]) -> str:
        """The expression for the fields that those become."""
        names.update(form.needs)
        text = form.inline.replace("@", "v")
        if not text:
            names[f"T{place}"] = form.text
            value = "v"
            if self._item and form.is_nested:
                names[f"D{place}"] = form.decoded
                value = f"CONVERT(v,D{place})"
            text = f"T{place}({value})"
        if form.plain:
            none = "None" if self._always_quotes else "NULL"
            found = f'[{none} if v is None else f"{{{text}}}" for v in c]'
            if form.column:
                names[f"C{place}"] = form.column
                found = f"(None if None in c else C{place}(c)) or {found}"
            return f"TEXTS({found})" if self._always_quotes else found
        return "TEXTS(c)" if text == "v" else f"TEXTS([None if v is None else {text} for v in c])"

    def texts(self, values: list[str | None]) -> list[str]:
        """Fields of texts: in quotes where COPY would put them in quotes."""
        null, holes = self.null, None in values
        known: list[str] = values  # type: ignore[assignment]  # where there are holes, it is the next line's
        if holes:
            known = ["" if value is None else value for value in values]
        every = "\0".join(known)
        if '"' in every or "," in every or "\n" in every or "\r" in every or null in values:
            if '"' in every:
                is_apart = every.count("\0") == len(known) - 1
                doubled = every.replace('"', '""').split("\0")
                known = doubled if is_apart else [value.replace('"', '""') for value in known]
            known = [
                f'"{text}"' if '"' in text or "," in text or "\n" in text or "\r" in text or text == null else text
                for text in known
            ]
        return [null if value is None else text for value, text in zip(values, known, strict=True)] if holes else known


def looked_at(value: Any) -> Any:
    """A value of which nothing is known; None where it is JSON's null."""
    return None if isinstance(value, msgspec.Raw) and bytes(value) == b"null" else value
