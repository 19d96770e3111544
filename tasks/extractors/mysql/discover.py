"""The tables of a database, with what one needs to know to make streams of them. From the catalog; reads no row."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import aiomysql

from blocks.mysql import MySQL
from tasks.extractors.catalog import Cursor, Found, matches, promises_changes, ranked, stream_name
from tasks.extractors.mysql.sql import close, connect, explained, fetch, identifier

# MySQL 8 gives the columns of information_schema in capitals, MariaDB as they are asked for: rows are taken by place.
_TABLES = """
    SELECT table_name, table_rows, data_length FROM information_schema.tables
    WHERE table_schema = %s AND table_type IN ('BASE TABLE', 'SYSTEM VERSIONED') ORDER BY table_name"""

# Only columns the user has some privilege on are there; which ones, roles included, is in `privileges`.
_COLUMNS = """
    SELECT table_name, column_name, data_type, is_nullable, extra, privileges FROM information_schema.columns
    WHERE table_schema = %s ORDER BY table_name, ordinal_position"""

# A prefix of a column (sub_part) is no order of its values, nor is an index of another kind.
_INDEXES = """
    SELECT table_name, index_name, column_name FROM information_schema.statistics
    WHERE table_schema = %s AND column_name IS NOT NULL AND sub_part IS NULL AND index_type = 'BTREE'
      AND (seq_in_index = 1 OR index_name = 'PRIMARY')
    ORDER BY table_name, index_name, seq_in_index"""

_TIMES = ("timestamp", "datetime")
_INTEGERS = ("tinyint", "smallint", "mediumint", "int", "bigint")


@dataclass(frozen=True)
class _Column:
    name: str
    type: str
    filled: bool
    extra: str
    readable: bool

    @property
    def counts_up(self) -> bool:
        return "auto_increment" in self.extra

    @property
    def follows_changes(self) -> bool:
        """The server itself stamps the row with every change: ON UPDATE CURRENT_TIMESTAMP."""
        return "on update" in self.extra


@dataclass(frozen=True)
class _Indexes:
    key: tuple[str, ...]
    leading: frozenset[str]
    """Columns that an index begins with."""


async def tables(block: MySQL, schema: str = "", like: str = "*") -> list[Found]:
    """The tables of the database ``schema``, the block's own by default, whose name (or ``schema.name``) matches."""
    database = schema or block.database
    connection = await connect(block)
    try:
        rows, columns, indexes = [await fetch(connection, q, [database]) for q in (_TABLES, _COLUMNS, _INDEXES)]
    except aiomysql.MySQLError as error:
        raise explained(error, "the catalog cannot be read") from error
    finally:
        await close(connection)
    of_table, indexed = _grouped(columns), _grouped(indexes)
    # Its own database's tables are named without it, so that a stream does not depend on what the database is called.
    home = "" if database == block.database else database
    return [
        _found(home, name, (count, size), [_column(*column) for column in of_table[name]], _indexes(indexed[name]))
        for name, count, size in rows
        if matches(like, database, name)
    ]


def _grouped(rows: Iterable[Sequence[Any]]) -> dict[str, list[Sequence[Any]]]:
    """Rows by their first value, without it."""
    groups: dict[str, list[Sequence[Any]]] = defaultdict(list)
    for table, *rest in rows:
        groups[table].append(rest)
    return groups


def _column(name: str, kind: str, nullable: str, extra: str, privileges: str) -> _Column:
    return _Column(name, kind.lower(), nullable == "NO", extra.lower(), "select" in privileges.lower().split(","))


def _indexes(rows: list[Sequence[str]]) -> _Indexes:
    key = tuple(column for index, column in rows if index == "PRIMARY")
    return _Indexes(key, frozenset(column for index, column in rows if index != "PRIMARY") | frozenset(key[:1]))


def _found(
    home: str, name: str, size: tuple[int | None, int | None], columns: list[_Column], indexes: _Indexes
) -> Found:
    names = [home, name] if home else [name]
    candidates = (column for column in columns if _may_be_cursor(column, indexes.key))
    return Found(
        written=".".join(_written(part) for part in names),
        stream=stream_name(*names),
        rows=size[0],
        bytes=size[1] or 0,
        readable=any(column.readable for column in columns),
        key=indexes.key,
        cursors=ranked(_cursor(column, indexes) for column in candidates),
    )


def _may_be_cursor(column: _Column, key: tuple[str, ...]) -> bool:
    if column.type in _TIMES:
        return True
    return column.type in _INTEGERS and (column.counts_up or key == (column.name,))


def _cursor(column: _Column, indexes: _Indexes) -> Cursor:
    promised = column.type in _TIMES and promises_changes(column.name)
    return Cursor(
        name=column.name,
        indexed=column.name in indexes.leading,
        filled=column.filled,
        generated=column.counts_up or column.follows_changes,
        sees_changes=column.follows_changes or promised,
    )


def _written(name: str) -> str:
    return identifier(name) if re.search(r"[`.]", name) else name
