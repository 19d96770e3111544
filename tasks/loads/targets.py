"""What a commit asks of a loader: for each table, which columns and objects, and how its rows go into what is there.

A commit in mode ``full`` replaces; one in mode ``incremental`` merges where its columns have a key and appends where they
have none; one in mode ``changes`` is applied by key, in the order of its records' positions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from blocks.errors import ConfigurationError
from tasks.commits import Commit, Entry
from tasks.extractors.contract import CHANGE_COLUMNS, Column

Action = Literal["replace", "append", "merge", "apply"]
How = Literal["by mode", "append"]

META = tuple(column.name for column in CHANGE_COLUMNS)


@dataclass(frozen=True)
class Naming:
    """How the tables of the destination are called."""

    schema: str = ""
    """Empty: the one the session is in."""
    table: str = "{table}"
    """May hold ``{stream}`` (with _ for -), ``{table}`` (the source's, or the stream's where it has but one), ``{schema}``,
    which is left out with the _ behind it where the stream has but one table."""

    def of(self, stream: str, source: str) -> str:
        """The name of the table that takes the rows of ``source``, such as ``shop.orders``; empty: the stream has one."""
        written = stream.replace("-", "_")
        schema, _, table = source.rpartition(".")
        pattern = self.table if schema else self.table.replace("{schema}_", "")
        try:
            return pattern.format(stream=written, table=table or written, schema=schema)
        except (KeyError, IndexError, ValueError):
            raise ConfigurationError(
                f"field table_name: {self.table!r} is not a name; it may hold {{stream}}, {{table}} and {{schema}}"
            ) from None


@dataclass(frozen=True)
class Shape:
    """Objects that hold the same columns."""

    columns: tuple[Column, ...]
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Target:
    """One table of the destination, and what a commit brings for it."""

    source: str
    name: str
    action: Action
    columns: tuple[Column, ...]
    """Those of the table: of all shapes, the types of the last; without `META`, unless records are appended as they are."""
    shapes: tuple[Shape, ...]
    keys: tuple[str, ...] = ()
    order: str = ""
    """The column by which the newest of several rows with one key is known; empty: there is none."""
    unchanged: tuple[str, ...] = ()
    """Columns whose former value stays where ``_unchanged`` of a record names them."""
    begins: bool = False
    """The commit holds a snapshot of the table: what was there before is not built upon."""

    @property
    def staged(self) -> tuple[str, ...]:
        """The columns of all objects."""
        return tuple(dict.fromkeys(column.name for shape in self.shapes for column in shape.columns))

    @property
    def rows(self) -> int:
        return sum(entry.rows for shape in self.shapes for entry in shape.entries)


def begins(commit: Commit) -> bool:
    """Whether a commit can be loaded whatever was loaded before it: it has all rows, by a full read or a snapshot.

    One that only comes from no position has not: its log may begin later (``start``, retention), its source have fewer rows.
    """
    return commit.mode == "full" or (commit.mode == "changes" and commit.snapshot is not None)


def targets_of(commit: Commit, naming: Naming, how: How = "by mode") -> list[Target]:
    """The tables of a commit; `ConfigurationError` where its rows cannot go into them as they are to."""
    found: dict[str, list[Entry]] = {}
    for entry in commit.entries:
        found.setdefault(entry.table, []).append(entry)
    targets = [_target(commit, source, entries, naming, how) for source, entries in found.items()]
    _check_names(targets)
    return targets


def _target(commit: Commit, source: str, entries: list[Entry], naming: Naming, how: How) -> Target:
    shapes = _shapes(commit, entries)
    last = {column.name: column for shape in shapes for column in shape.columns}
    action = _action(commit, last.values(), how)
    columns = [column for column in last.values() if action != "apply" or column.name not in META]
    keys = tuple(column.name for column in columns if column.key) if action in ("merge", "apply") else ()
    if action == "apply" and not (keys and set(META) <= last.keys()):
        raise ConfigurationError(
            f"stream {commit.stream}: {source or 'its records'} cannot be applied by key: the table needs a primary key, and "
            "the destination the layout tables. Or load the records as they are (field how: append)"
        )
    absent = {name for entry in entries for name in entry.unchanged}
    return Target(
        source=source,
        name=naming.of(commit.stream, source),
        action=action,
        columns=tuple(columns),
        shapes=shapes,
        keys=keys,
        order="_position" if action == "apply" else _cursor(commit, last),
        unchanged=tuple(column.name for column in columns if column.name in absent) if action == "apply" else (),
        begins=begins(commit),
    )


def _action(commit: Commit, columns: Iterable[Column], how: How) -> Action:
    if how == "append":
        return "append"
    match commit.mode:
        case "full":
            return "replace"
        case "changes":
            return "apply"
    return "merge" if any(column.key for column in columns) else "append"


def _cursor(commit: Commit, columns: dict[str, Column]) -> str:
    name = commit.until.get("cursor") if isinstance(commit.until, dict) else None
    return name if isinstance(name, str) and name in columns else ""


def _shapes(commit: Commit, entries: list[Entry]) -> tuple[Shape, ...]:
    """In the order in which the objects stand in the commit; one output's are in the order of its log."""
    grouped: dict[tuple[Column, ...], list[Entry]] = {}
    for entry in entries:
        grouped.setdefault(entry.columns or commit.columns, []).append(entry)
    return tuple(Shape(columns, tuple(of_it)) for columns, of_it in grouped.items())


def _check_names(targets: list[Target]) -> None:
    by_name: dict[str, str] = {}
    for target in targets:
        if (other := by_name.setdefault(target.name, target.source)) != target.source:
            raise ConfigurationError(
                f"field table_name: {other} and {target.source} would both go into {target.name}; "
                "write {schema}_{table}, which tells them apart"
            )
