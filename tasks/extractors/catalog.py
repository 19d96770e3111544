"""What `headrace discover` finds, whatever the database: tables, the columns that may tell what is new, proposals."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

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
class Found:
    """One table."""

    written: str
    """Quoted where it has to be: what goes into the field ``table``."""
    stream: str
    """A name for its stream."""
    rows: int | None
    """The server's estimate; None: the table was never analysed."""
    bytes: int
    readable: bool
    key: tuple[str, ...]
    cursors: tuple[Cursor, ...]
    """The best first: see `ranked`."""
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
    named = found.source or (f"table: {json.dumps(found.written, ensure_ascii=False)}",)
    source = [f"connection: {connection}", *named]
    if cursor:
        source.append(f"cursor: {json.dumps(cursor.name, ensure_ascii=False)}{_remark(cursor)}")
    lines += [f"      stream: {stream}", "      source:", *(f"        {line}" for line in source)]
    lines += [
        f"      to: {destination}",
        f"      mode: {'changes' if found.source else 'incremental' if cursor else 'full'}",
    ]
    return "\n".join(lines)


def _remark(cursor: Cursor) -> str:
    said = [] if cursor.sees_changes else ["brings new rows only, not changed ones"]
    said += [] if cursor.indexed else ["has no index"]
    said += [] if cursor.filled else ["may be NULL: see null_cursor"]
    return f"  # {'; '.join(said)}" if said else ""
