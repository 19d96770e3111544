"""ROW events → CSV records, the same bytes for the same value as a SELECT of the table gives.

https://dev.mysql.com/doc/dev/mysql-server/latest/classmysql_1_1binlog_1_1event_1_1Rows__event.html
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Collection, Iterable, Sequence
from itertools import chain, repeat
from typing import NamedTuple

from blocks.s3 import CsvDialect
from tasks.extractors.contract import Records
from tasks.extractors.mysql.binlog.columns import LogColumn, written
from tasks.extractors.mysql.binlog.images import FAILURES, Image, Mode, Writing
from tasks.extractors.mysql.binlog.layouts import Layout
from tasks.extractors.mysql.binlog.table_map import MappedColumn, TableMap, UndecodableError
from tasks.extractors.mysql.binlog.updates import RowEvent, Updates
from tasks.extractors.mysql.binlog.values import layout
from tasks.extractors.mysql.describe import ZeroDates

LEADING = ("_op", "_committed_at", "_position", "_unchanged")
"""The columns before those of the table."""

PARTIAL_UPDATE = 39

# https://dev.mysql.com/doc/dev/mysql-server/latest/namespacemysql_1_1binlog_1_1event.html, Log_event_type;
# MariaDB's compressed ones from 166 on: log_event.h. → operation, version of the header, whether rows are compressed.
_KINDS = {
    23: ("I", 1, False), 24: ("U", 1, False), 25: ("D", 1, False),
    30: ("I", 2, False), 31: ("U", 2, False), 32: ("D", 2, False),
    166: ("I", 1, True), 167: ("U", 1, True), 168: ("D", 1, True),
    169: ("I", 2, True), 170: ("U", 2, True), 171: ("D", 2, True),
}  # fmt: skip
ROW_EVENTS = frozenset({*_KINDS, PARTIAL_UPDATE})

# 0.35 ms and some kilobytes for each; a table of many nullable columns has more patterns than are ever met twice.
_MOST_FUNCTIONS = 512

_SPECIAL = re.compile(r'[,"\r\n]').search
_PLAIN_CHARACTERS = frozenset("0123456789+-.:e ")


class Head(NamedTuple):
    """What all records of an event share; neither text may need quotes in CSV."""

    committed_at: str
    """When the transaction was committed, as a timestamp is written."""
    position: str
    """Of the event: sorts in the order of the log, and no other event has it."""


class Decoder:
    """Decodes the row events of one table map.

    ``columns`` are those of the table (see `log_columns`), ``names`` those that are written, in that order: all where
    it is left out. Raises `UndecodableError` for a column that it does not know how to decode.
    """

    def __init__(
        self,
        table_map: TableMap,
        columns: Sequence[LogColumn],
        dialect: CsvDialect,
        zero_dates: ZeroDates = "text",
        *,
        names: Sequence[str] | None = None,
        most_functions: int = _MOST_FUNCTIONS,
    ) -> None:
        if len(columns) != len(table_map.columns):
            raise UndecodableError(f"{table_map.name}: {len(columns)} columns, and {len(table_map.columns)} in the log")
        self._table, self._flavour = table_map.name, table_map.flavour
        self._columns = tuple(columns)
        pairs = zip(table_map.columns, columns, strict=True)
        null = _view(dialect.null)
        self._writing = Writing(
            names=tuple(column.name for column in columns),
            layouts=tuple(self._layout(mapped, column, dialect, zero_dates) for mapped, column in pairs),
            nullable=tuple(column.nullable for column in table_map.columns),
            places=tuple(written(columns, names)),
            null=null,
            always_quotes=bool(null) and set(null) <= _PLAIN_CHARACTERS,
        )
        self._keys = frozenset(place for place, column in enumerate(columns) if column.key)
        self._images: dict[tuple[bytes, frozenset[int]], Image] = {}
        self._pairs: dict[tuple[str, bytes], tuple[Image, Image]] = {}
        self._functions_left = most_functions

    def _layout(self, mapped: MappedColumn, column: LogColumn, dialect: CsvDialect, zero_dates: ZeroDates) -> Layout:
        try:
            return layout(mapped, column, dialect, zero_dates, self._flavour)
        except FAILURES as error:
            raise UndecodableError(
                f"{self._table}, column {column.name}: {column.type} (in the log {mapped.code.name}"
                f"{f', character set {column.charset}' if column.charset else ''}) cannot be decoded: {error}"
            ) from error

    def records(self, kind: int, body: bytes, head: Head) -> Records:
        """The records of an event: ``body`` is what follows its header of 19 bytes, without the checksum.

        Raises `UndecodableError` for what cannot be decoded. A body that was cut between two of its rows cannot be told
        from one of fewer rows: compare the size in the event's header, and the checksum, before.

        Columns that some record's image did not hold (``absent``) are named in its ``_unchanged``, and written as NULL. In
        an update they are what they were. In an event of insertions, which has some under ``binlog_row_image=MINIMAL``,
        they have the column's default, which is not in the log. In a deletion followed by the insertion of the row under
        another key, the insertion has what the row had before.
        """
        if _SPECIAL(head.committed_at) or _SPECIAL(head.position):
            raise ValueError(f"not for a CSV without quotes: {head}")
        try:
            event = self._taken_apart(kind, body)
        except FAILURES as error:
            raise UndecodableError(f"{self._table}: a row event that is cut off or garbled: {error}") from error
        if event.operation == "U":
            return self._updates(event, head)
        return self._rows(event, head)

    # -- the event's own header ----------------------------------------------------------------------------------------

    def _taken_apart(self, kind: int, body: bytes) -> RowEvent:
        if kind == PARTIAL_UPDATE:
            raise UndecodableError(
                f"{self._table}: the log holds parts of JSON values only (a PARTIAL_UPDATE_ROWS_EVENT); unset "
                "binlog_row_value_options=PARTIAL_JSON on the server, and start from a new snapshot"
            )
        if kind not in _KINDS:
            raise UndecodableError(f"{self._table}: an event of type {kind} is none of rows")
        operation, version, compressed = _KINDS[kind]
        at = 8  # table id and flags
        if version == 2:
            # What else is told of the rows, partitions for one; its length counts itself.
            at += int.from_bytes(body[at : at + 2], "little")
            if at < 10:
                raise ValueError("a header that is too short")
        columns, at = _packed(body, at)
        if columns != len(self._columns):
            raise UndecodableError(
                f"{self._table}: rows of {columns} columns, and its table map has {len(self._columns)}"
            )
        width = (columns + 7) // 8
        end = at + (2 * width if operation == "U" else width)
        before, after = self._pairs.get((operation, body[at:end])) or self._pair(operation, body[at:end], width)
        if end >= len(body):
            raise ValueError("no rows")
        data, start = (_uncompressed(body[end:]), 0) if compressed else (body, end)
        return RowEvent(operation, version, data, start, before, after)

    def _pair(self, operation: str, bitmaps: bytes, width: int) -> tuple[Image, Image]:
        """The images before and after of events whose bitmaps of columns are these."""
        apart = [bitmaps[at : at + width] for at in range(0, len(bitmaps), width)]
        held = [self._held(bitmap) for bitmap in apart]
        # What an update's images share of the key says whether it changed the key.
        keys = self._keys.intersection(*held) if operation == "U" else frozenset()
        images = [self._image(bitmap, places, keys) for bitmap, places in zip(apart, held, strict=True)]
        found = self._pairs[operation, bitmaps] = images[0], images[-1]
        return found

    def _held(self, bitmap: bytes) -> list[int]:
        bits = int.from_bytes(bitmap, "little")
        held = [place for place in range(len(self._columns)) if bits >> place & 1]
        if not held:
            raise UndecodableError(
                f"{self._table}: rows of which the log holds no column, and so not how many they are; set "
                "binlog_row_image=FULL on the server, and start from a new snapshot"
            )
        return held

    def _image(self, bitmap: bytes, held: list[int], keys: frozenset[int]) -> Image:
        image = self._images.get((bitmap, keys))
        if image is None:
            image = self._images[bitmap, keys] = Image(self._writing, held, keys, self._has_room)
        return image

    def _has_room(self) -> bool:
        """Whether one more function may be kept."""
        self._functions_left -= 1
        return self._functions_left >= 0

    # -- rows ----------------------------------------------------------------------------------------------------------

    def _rows(self, event: RowEvent, head: Head) -> Records:
        image, data, at, end = event.before, event.data, event.start, len(event.data)
        view, width = data.decode("latin-1"), image.bitmap
        known, make = image.functions(Mode.LINE).get, image.function
        begin, middle = self._begin(event.operation, head), self._unchanged(image.absent)
        lines: list[str] = []
        add = lines.append
        row = at
        try:
            while at < end:
                row = at
                nulls = data[at : at + width]
                at, line = (known(nulls) or make(Mode.LINE, nulls))(data, view, at + width)
                add(line)
        except FAILURES as error:
            raise self._failed(image, data, row, error) from error
        if at != end:
            raise self._failed(image, data, row, None)
        pieces = chain.from_iterable(zip(repeat(begin), _numbers(len(lines)), repeat(middle), lines))
        return self._made(pieces, len(lines), image.absent)

    def _updates(self, event: RowEvent, head: Head) -> Records:
        before, after = event.before, event.after
        absent = [place for place in after.absent if place in set(before.absent)]
        self._check_generated(event, absent)
        updates = Updates(self._writing, event, absent, *(self._begin(operation, head) for operation in "UDI"))
        updates.unchanged, updates.unchanged_before = self._unchanged(absent), self._unchanged(before.absent)
        try:
            # What the image after lacks is taken from the one before; which is not looked into where nothing is.
            (updates.run if absent == after.absent else updates.run_completing)()
        except FAILURES as error:
            raise self._failed(updates.image, event.data, updates.row, error) from error
        if updates.at != len(event.data):
            raise self._failed(updates.image, event.data, updates.row, None)
        return self._made(updates.lines, len(updates.lines), updates.absent)

    def _check_generated(self, event: RowEvent, absent: Sequence[int]) -> None:
        """MariaDB 11.8 keeps generated columns out of updates, changed or not, and 10.11 virtual ones out of MINIMAL images.

        That it is MariaDB its version of the event tells; what MySQL leaves out has not changed.
        """
        lost = [self._columns[place].name for place in absent if self._columns[place].generated]
        if event.version == 1 and lost:
            names = ", ".join(lost)
            raise UndecodableError(
                f"{self._table}, column {names}: generated columns are not in the log of an update on this MariaDB; leave "
                f"them out (field columns: {', '.join('-' + name for name in lost)})"
            )

    def _begin(self, operation: str, head: Head) -> str:
        values = (operation, head.committed_at)
        return ",".join(self._writing.quoted(value) for value in values) + f",{head.position}"

    def _unchanged(self, absent: Sequence[int]) -> str:
        """What stands behind the number of a record."""
        if not absent:
            return "," + self._writing.null
        names = json.dumps([self._columns[place].name for place in absent], ensure_ascii=False, separators=(",", ":"))
        return "," + self._writing.quoted(_view(names))

    def _made(self, pieces: Iterable[str], count: int, absent: Collection[int]) -> Records:
        names = frozenset([self._columns[place].name for place in absent]) if absent else frozenset()
        return Records("".join(pieces).encode("latin-1"), count, names)

    def _failed(self, image: Image, data: bytes, row: int, error: Exception | None) -> UndecodableError:
        reason = image.failure(data, row)
        told = f" ({error})" if error and str(error) not in reason else ""
        return UndecodableError(f"{self._table}: a row at byte {row} of its event cannot be decoded, {reason}{told}")


_NUMBERS = [f"{place:08d}" for place in range(1 << 10)]


def _numbers(count: int) -> Iterable[str]:
    """The numbers of an event's records as their positions end; most events have few."""
    return _NUMBERS if count <= len(_NUMBERS) else (f"{place:08d}" for place in range(count))


def _view(text: str) -> str:
    """The str whose characters are the bytes of a text in UTF-8."""
    return text.encode().decode("latin-1")


def _packed(body: bytes, at: int) -> tuple[int, int]:
    """A number as the protocol packs it, and where it ends."""
    widths = {0xFC: 2, 0xFD: 3}
    first = body[at]
    if first not in widths:
        return first, at + 1
    end = at + 1 + widths[first]
    return int.from_bytes(body[at + 1 : end], "little"), end


def _uncompressed(data: bytes) -> bytes:
    """https://mariadb.com/docs/server/server-management/server-monitoring-logs/binary-log/compressing-events-to-reduce-size-of-the-binary-log;
    a byte says by which algorithm and how many bytes say, with the highest first, how long it was.
    """
    width, algorithm = data[0] & 7, data[0] >> 4 & 7
    if not data[0] & 0x80 or algorithm:
        raise ValueError(f"compressed by an algorithm that is not known ({data[0]:#x})")
    size = int.from_bytes(data[1 : 1 + width], "big")
    rows = zlib.decompress(data[1 + width :])
    if len(rows) != size:
        raise ValueError(f"{len(rows)} bytes were compressed, and not {size}")
    return rows
