"""What `headrace discover` finds, whatever the database: tables, the columns that may tell what is new, proposals."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Nested = Literal["columns", "json"]
"""What nested objects are proposed as: a column for each of their members (``a_b``), or one column of JSON for each object."""

_CHANGED = re.compile(r"updat|modif|chang|mtime|touched|synced", re.IGNORECASE)


@dataclass(frozen=True)
class Cursor:
    """A column that may tell what is new."""

    name: str
    indexed: bool
    filled: bool
    """NOT NULL."""
    generated: bool
    """The server itself gives the values, in ascending order."""
    sees_changes: bool
    """It moves when a row changes, by what its definition says or its name promises; others bring new rows only."""

    def __str__(self) -> str:
        lacks = [word for word, there in (("no index", self.indexed), ("nullable", self.filled)) if not there]
        return self.name + (f" ({', '.join(lacks)})" if lacks else "")


@dataclass(frozen=True)
class FoundField:
    """A field of sampled documents, as a column that could be declared of it."""

    name: str
    path: str
    type: str
    """Of the column."""
    kinds: tuple[str, ...]
    """The source's own types, the most frequent first."""
    share: float
    """Of the documents that have it."""
    filled: bool
    """All of them have a value there."""


@dataclass(frozen=True)
class Found:
    """One table, or collection."""

    written: str
    """Quoted where it has to be: what goes into the field ``table`` (``kind``)."""
    stream: str
    """A name for its stream."""
    rows: int | None
    """The server's estimate; None: the table was never analysed."""
    bytes: int
    readable: bool
    key: tuple[str, ...]
    cursors: tuple[Cursor, ...]
    """The best first: see `ranked`."""
    kind: str = "table"
    """The source's field that names it."""
    fields: tuple[FoundField, ...] = ()
    """Of a source without a schema: what a sample of so many documents has."""
    sampled: int = 0
    drawn: str = "drawn at random"
    """How the sample was taken."""
    also: tuple[str, ...] = ()
    """Further lines of the source in a deployment."""
    source: tuple[str, ...] = ()
    """The lines that name it in a deployment, where ``table: …`` does not: a source of changes."""
    told: str = ""
    """What else there is to say of it."""

    @property
    def proposed(self) -> Cursor | None:
        """The cursor to begin with: one that sees changes and has no gaps, or else the first of the candidates."""
        changing = (cursor for cursor in self.cursors if cursor.sees_changes and cursor.filled)
        return next(changing, self.cursors[0] if self.cursors else None)


def matches(like: str, schema: str, name: str) -> bool:
    """Whether a table's name, or ``schema.name``, is like the pattern."""
    return fnmatch.fnmatchcase(name, like) or fnmatch.fnmatchcase(f"{schema}.{name}", like)


def promises_changes(name: str) -> bool:
    """Whether a time column called so is commonly set whenever its row changes."""
    return _CHANGED.search(name) is not None


def ranked(cursors: Iterable[Cursor]) -> tuple[Cursor, ...]:
    """The best first: indexed, then NOT NULL, then those that see changes."""
    return tuple(
        sorted(cursors, key=lambda one: (not one.indexed, not one.filled, not one.sees_changes, not one.generated))
    )


def stream_name(*parts: str) -> str:
    """A stream's name made of a table's: ``order_items`` → ``order-items``."""
    return re.sub(r"[^0-9a-z]+", "-", "-".join(parts).lower()).strip("-") or "table"


def deployment(found: Found, stream: str, connection: str, destination: str) -> str:
    """An entry of the list ``deployments`` in `prefect.yaml`."""
    cursor = found.proposed
    lines = [f"  - name: {stream}", "    entrypoint: flows/extract.py:extract"]
    lines += ["    work_pool: {name: default}", "    tags: [headrace]"]
    lines += ["    concurrency_limit: {limit: 1, collision_strategy: CANCEL_NEW}", "    parameters:"]
    named = found.source or (f"{found.kind}: {json.dumps(found.written, ensure_ascii=False)}",)
    source = [f"connection: {connection}", *named, *found.also]
    if cursor:
        source.append(f"cursor: {json.dumps(cursor.name, ensure_ascii=False)}{_remark(cursor)}")
    source += _declared(found)
    lines += [f"      stream: {stream}", "      source:", *(f"        {line}" for line in source)]
    lines += [
        f"      to: {destination}",
        f"      mode: {'changes' if found.source else 'incremental' if cursor else 'full'}",
    ]
    return "\n".join(lines)


def _declared(found: Found) -> list[str]:
    """The fields of a sample, as columns: frozen here, so that the CSV keeps its shape whatever comes."""
    if not found.fields:
        return []
    return [
        f"fields:  # of {found.sampled:,} documents {found.drawn}; other fields go into _extra",
        *(f"  - {_column(field, found)}" for field in found.fields),
    ]


def _column(field: FoundField, found: Found) -> str:
    declared: dict[str, object] = {"name": field.name}
    declared |= {"path": field.path} if field.path != field.name else {}
    declared |= {"type": field.type} if field.type != "text" else {}
    declared |= {"key": True} if (field.path,) == found.key else {}
    inner = ", ".join(f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in declared.items())
    said = [f"in {field.share:.0%}"] if field.share < 1 else []
    said += [f"types: {', '.join(field.kinds)}"] if len(field.kinds) > 1 else []
    return f"{{{inner}}}" + (f"  # {'; '.join(said)}" if said else "")


def _remark(cursor: Cursor) -> str:
    said = [] if cursor.sees_changes else ["brings new rows only, not changed ones"]
    said += [] if cursor.indexed else ["has no index"]
    said += [] if cursor.filled else ["may be NULL: see null_cursor"]
    return f"  # {'; '.join(said)}" if said else ""
