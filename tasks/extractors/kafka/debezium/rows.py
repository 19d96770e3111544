"""Decoded rows → CSV fields: one straight-line function for each shape of a table, generated when it is first met."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from tasks.extractors.kafka.debezium.forms import Form

_PLAIN_CHARACTERS = frozenset("0123456789+-.:eTPYMDHS ")


@dataclass(frozen=True, eq=False)
class RowColumn:
    """A column that is written."""

    name: str
    form: Form
    key: bool = False
    default: Any = None
    """What is filled in for a value that is not known, decoded; None: nothing."""


class Rows:
    """Writes the rows of one shape.

    ``item``: rows are dicts (Avro), and not structs with ``c0``, ``c1``, … in the order of the columns.
    """

    def __init__(self, columns: Sequence[RowColumn], null: str, *, item: bool = False) -> None:
        self.columns, self.null, self._item = tuple(columns), null, item
        # A marker that a number could be: compared as well.
        self._always_quotes = bool(null) and (set(null) <= _PLAIN_CHARACTERS or null.isalnum())
        self.line: Callable[[Any, str], str] = self._compiled()
        """A row and what stands before it → a record: the fields of the row, each behind a comma, and a line end."""
        self.empty = f",{null}" * len(self.columns) + "\n"
        """The same of no row."""

    def quoted(self, text: str) -> str:
        """A text as it stands in a record: in quotes where COPY would put it in quotes."""
        if "," in text or '"' in text or "\n" in text or "\r" in text or text == self.null:
            return '"' + text.replace('"', '""') + '"'
        return text

    def value(self, row: Any, place: int) -> Any:
        """The decoded value of a column."""
        value = row[self.columns[place].name] if self._item else getattr(row, f"c{place}")
        form = self.columns[place].form
        if form.decoded is msgspec.Raw:
            return looked_at(value)
        return msgspec.convert(value, form.decoded) if self._item and form.is_nested and value is not None else value

    def careful(self, row: Any) -> tuple[str, tuple[str, ...]]:
        """The line of a row of which some values may not be there, and the names of those."""
        absent = [column.name for place, column in enumerate(self.columns) if self.lacks(row, place)]
        return self.partial(row, frozenset(absent)), tuple(absent)

    def lacks(self, row: Any, place: int) -> bool:
        """Whether the value of a column is not there."""
        form = self.columns[place].form
        return bool(form.unavailable) and self.value(row, place) in form.unavailable

    def partial(self, row: Any, absent: frozenset[str]) -> str:
        """The line without some of the columns."""
        texts = [
            self.null if column.name in absent else self.text(row, place) for place, column in enumerate(self.columns)
        ]
        return "," + ",".join(texts) + "\n"

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

    def _compiled(self) -> Callable[[Any, str], str]:
        names: dict[str, Any] = {"NULL": self.null, "QUOTED": self.quoted, "CONVERT": msgspec.convert}
        lines: list[str] = []
        shown: list[str] = []
        for place, column in enumerate(self.columns):
            self._column(place, column, names, lines, shown)
        source = "def function(r, head):\n" + "".join(f"    {line}\n" for line in lines)
        # The last of the columns before, `_unchanged`, is NULL in all of these.
        marker = "{NULL}" if self.null else ""
        source += f'    return f"{{head}}{marker}{"".join(shown)}\\n"\n'
        exec(source, names)  # noqa: S102 - made of numbers and of our own words, never of a name or a value
        function: Callable[[Any, str], str] = names["function"]
        return function

    def _column(self, place: int, column: RowColumn, names: dict[str, Any], lines: list[str], shown: list[str]) -> None:
        form, variable = column.form, f"v{place}"
        names.update(form.needs)
        if self._item:
            names[f"K{place}"] = column.name
        got = f"r[K{place}]" if self._item else f"r.c{place}"
        if form.decoded is msgspec.Raw:
            names["LOOKED_AT"] = looked_at
            got = f"LOOKED_AT({got})"
        if form.inline:
            text = form.inline.replace("@", variable)
        else:
            names[f"T{place}"] = form.text
            value = variable
            if self._item and form.is_nested:
                names[f"D{place}"] = form.decoded
                value = f"CONVERT({variable},D{place})"
            text = f"T{place}({value})"
        if form.plain and not self._always_quotes:
            shown.append(f",{{NULL if ({variable}:={got}) is None else {text}}}")
            return
        lines.append(f"{variable}={got}")
        lines.append(f"if {variable} is None: {variable}=NULL")
        lines.append("else:")
        if text != variable or form.plain:
            lines.append(f"    {variable}=str({text})" if form.plain else f"    {variable}={text}")
        special = " or ".join(f"{character!r} in {variable}" for character in ',"\n\r')
        word = "if" if self.null.isalnum() else "elif"
        if not self.null.isalnum():
            lines.append(f"    if {variable}.isalnum(): pass")
        lines.append(f"    {word} {special}: {variable}='\"'+{variable}.replace('\"','\"\"')+'\"'")
        lines.append(
            f"    elif {variable}==NULL: {variable}='\"'+NULL+'\"'"
            if self.null
            else f"    elif not {variable}: {variable}='\"\"'"
        )
        shown.append(f",{{{variable}}}")


def looked_at(value: Any) -> Any:
    """A value of which nothing is known; None where it is JSON's null."""
    return None if isinstance(value, msgspec.Raw) and bytes(value) == b"null" else value
