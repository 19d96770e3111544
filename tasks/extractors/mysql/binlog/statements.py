"""What a statement in the log does to tables: which of them are empty, or gone, after it."""

from __future__ import annotations

import re
from collections.abc import Collection

Table = tuple[str, str]

_NAME = r"(?:`(?:[^`]|``)+`|[^\s`.,;()]+)"
_FULL = rf"{_NAME}(?:\s*\.\s*{_NAME})?"
_TRUNCATE = re.compile(rf"TRUNCATE\s+(?:TABLE\s+)?({_FULL})", re.IGNORECASE)
_REPLACE = re.compile(rf"CREATE\s+OR\s+REPLACE\s+TABLE\s+({_FULL})", re.IGNORECASE)
_DROP = re.compile(rf"DROP\s+(TEMPORARY\s+)?TABLES?\s+(?:IF\s+EXISTS\s+)?({_FULL}(?:\s*,\s*{_FULL})*)", re.IGNORECASE)
_DROP_DATABASE = re.compile(rf"DROP\s+(?:DATABASE|SCHEMA)\s+(?:IF\s+EXISTS\s+)?({_NAME})", re.IGNORECASE)
_PIECE = re.compile(_FULL)
_PART = re.compile(_NAME)


def emptied(statement: str, schema: str, known: Collection[Table]) -> list[Table]:
    """The tables that hold nothing after TRUNCATE, DROP TABLE, DROP DATABASE, or MariaDB's CREATE OR REPLACE TABLE.

    Of a database those in ``known``.
    """
    if found := _TRUNCATE.match(statement) or _REPLACE.match(statement):
        return [_table(found[1], schema)]
    if found := _DROP.match(statement):
        return [] if found[1] else [_table(name, schema) for name in _PIECE.findall(found[2])]
    if found := _DROP_DATABASE.match(statement):
        return sorted(table for table in known if table[0] == _plain(found[1]))
    return []


def drops(statement: str) -> bool:
    """Whether what it empties is gone then."""
    return not (_TRUNCATE.match(statement) or _REPLACE.match(statement))


def drops_database(statement: str) -> bool:
    """Whether it is a DROP DATABASE, which names no table."""
    return _DROP_DATABASE.match(statement) is not None


def _table(name: str, schema: str) -> Table:
    parts = [_plain(part) for part in _PART.findall(name)]
    return (parts[0], parts[1]) if len(parts) == 2 else (schema, parts[0])


def _plain(name: str) -> str:
    return name[1:-1].replace("``", "`") if name.startswith("`") else name
