"""Columns by name: the one that a field asks for, those that a run writes, and what was meant by one that is not there."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Protocol, TypeVar

from blocks.errors import ConfigurationError
from tasks.extractors.contract import Column


class HasColumn(Protocol):
    """A source's own idea of a column."""

    @property
    def column(self) -> Column: ...


F = TypeVar("F", bound=HasColumn)


def named(fields: Sequence[F], name: str, purpose: str) -> F:
    """The column called ``name``; `ConfigurationError` with near matches, under ``purpose``, when there is none."""
    found = next((field for field in fields if field.column.name == name), None)
    if found is None:
        raise ConfigurationError(f"{purpose}: {_no_such(name, [field.column.name for field in fields])}")
    return found


def chosen(fields: Sequence[F], columns: Sequence[str]) -> tuple[F, ...]:
    """The fields a run writes: those named, in that order, or all but those named with a leading ``-``."""
    dropped = {name[1:] for name in columns if name.startswith("-")}
    wanted = [name for name in columns if not name.startswith("-")]
    for name in (*wanted, *sorted(dropped)):
        named(fields, name, "field columns")
    those = [named(fields, name, "field columns") for name in wanted] if wanted else list(fields)
    kept = tuple(field for field in those if field.column.name not in dropped)
    if not kept:
        raise ConfigurationError("field columns: every column is left out; leave at least one")
    return kept


def _no_such(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name.lower(), [known.lower() for known in names], n=3, cutoff=0.5)
    near = [known for known in names if known.lower() in close]
    hint = f"did you mean {', '.join(near)}?" if near else f"there are: {', '.join(names[:30])}"
    return f"there is no column {name!r}; {hint}"
