"""CSV taken apart again, as extractors write it: `records` of a chunk, and their fields. For layouts that need it."""

from __future__ import annotations

import re
from collections.abc import Iterator

# Possessive: a field is taken as a whole or not at all, and nothing is tried twice.
_FIELD = re.compile(r'(?:"((?:[^"]++|"")*+)"|([^,"]*+))(,|\Z)')
_SPECIAL = re.compile(r'[",\r\n]')


def records(data: bytes) -> Iterator[bytes]:
    """The records of whole lines, each without its line end; a line feed within quotes ends none."""
    *lines, after = data.split(b"\n")
    if after:
        raise ValueError("the last record has no end")
    if b'"' not in data:
        yield from lines
        return
    parts: list[bytes] = []
    is_open = False
    for line in lines:
        is_open ^= bool(line.count(b'"') & 1)
        if parts or is_open:
            parts.append(line)
        if not is_open:
            yield b"\n".join(parts) if parts else line
            parts = []
    if parts:
        raise ValueError("a quoted field has no end")


def rows(data: bytes, null: str) -> Iterator[list[str | None]]:
    """The fields of each record as text; None for what stands, unquoted, for NULL."""
    for record in records(data):
        text = record.decode()
        if '"' in text:
            yield _fields(text, null)
        else:  # most records; several times as fast
            yield [None if plain == null else plain for plain in text.split(",")]


def _fields(text: str, null: str) -> list[str | None]:
    row: list[str | None] = []
    at = 0
    for found in _FIELD.finditer(text):
        if found.start() != at:
            break
        at = found.end()
        quoted, plain, end = found.groups()
        if quoted is not None:
            row.append(quoted.replace('""', '"'))
        else:
            row.append(None if plain == null else plain)
        if not end:
            return row
    raise ValueError(f"no CSV at character {at}: {text[at : at + 40]!r}")


def field(value: str | None, null: str) -> str:
    """A value as it stands in a record."""
    if value is None:
        return null
    if not value or value == null or _SPECIAL.search(value):
        return quoted(value)
    return value


def quoted(value: str) -> str:
    """A value in quotes."""
    return '"' + value.replace('"', '""') + '"'
