"""Row packets → CSV, a whole block at once: no Python object is made for a value.

A text row (https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_query_response_text_resultset_row.html)
is its fields one after the other, each behind its length. So the CSV is nearly there: where a length stands a comma
is wanted, where a packet begins a line ends. Both are overwritten in place by marker bytes that cannot occur in UTF-8,
and the markers are then expanded by ``bytes.translate`` and ``bytes.replace``.

A value is quoted exactly when PostgreSQL's COPY would quote it: when it holds a separator, a quote or a line end, or
equals the NULL marker. Whatever does not fit (bytes that are no UTF-8, rows larger than a block) takes `Records.record`,
which makes the same bytes value by value.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from blocks.s3 import CsvDialect
from tasks.extractors.mysql.forms import Form, conversion

Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

# Never in UTF-8 (RFC 3629, 1).
_MARKERS = 0xF8
_FILL, _OPEN, _CLOSE, _BOTH, _QUOTE, _NULL_AFTER, _NULL_CLOSED, _NULL = range(0xFF, 0xF7, -1)
_COMMA, _NEWLINE = b",\n"
_HEAD_BYTES = 4

_NULL_LENGTH = 0xFB
_WIDE = {0xFC: 2, 0xFD: 3}
"""First byte of a longer length → bytes that follow. 0xFE, eight bytes, occurs in packets of 16 MiB only."""

_PLAIN_CHARACTERS = frozenset(b"0123456789abcdef+-.: ")  # a BINARY is written as hex, and is plain too
_SPECIAL = re.compile(rb'[,"\n\r]')


class GarbledError(Exception):
    """What arrived is not what the protocol says; the connection is of no use any more."""


@dataclass(frozen=True)
class Located:
    """Where the fields of a block lie: arrays of one element per row, one array per column."""

    heads: Places
    prefixes: list[Places]
    starts: list[Places]
    ends: list[Places]
    nulls: list[Flags | None]
    """None: no row has NULL there."""
    extras: list[list[tuple[Places, Places]]]
    """For each column: in which rows and where the further bytes of longer lengths are."""

    def rows(self, block: Bytes) -> list[list[bytes | None]]:
        data = block.tobytes()
        columns = [
            [None if null else data[start:end] for start, end, null in zip(s.tolist(), e.tolist(), n, strict=True)]
            for s, e, n in zip(self.starts, self.ends, self._every_null(), strict=True)
        ]
        return [list(row) for row in zip(*columns, strict=True)]

    def _every_null(self) -> list[list[bool]]:
        none = [False] * len(self.heads)
        return [none if nulls is None else nulls.tolist() for nulls in self.nulls]


def located(block: Bytes, heads: Places, columns: int) -> Located:
    """Find the fields of the packets that begin at ``heads`` and fill the block; `GarbledError` where they do not."""
    ends_of_rows = np.append(heads[1:], len(block))
    found = Located(heads, [], [], [], [], [])
    at = heads + 4
    for _ in range(columns):
        if int(at.max()) >= len(block):
            raise GarbledError("a row ends before its last column")
        at = _field(block, at, found)
    if not np.array_equal(at, ends_of_rows):
        raise GarbledError("a row is longer or shorter than its columns")
    return found


def _field(block: Bytes, at: Places, found: Located) -> Places:
    """Note one column's fields; where the next column's begin."""
    first = block[at]
    length, start = first.astype(np.int64), at + 1
    nulls: Flags | None = None
    extras: list[tuple[Places, Places]] = []
    if int(first.max()) >= _NULL_LENGTH:
        if int(first.max()) >= 0xFE:
            raise GarbledError("a length that no field has")
        empty = first == _NULL_LENGTH
        length[empty] = 0
        nulls = empty if empty.any() else None
        for code, width in _WIDE.items():
            rows = np.flatnonzero(first == code)
            if len(rows):
                length[rows], places = _wide(block, at[rows] + 1, width)
                start[rows] += width
                extras += [(rows, place) for place in places]
    found.extras.append(extras)
    found.prefixes.append(at)
    found.starts.append(start)
    found.ends.append(start + length)
    found.nulls.append(nulls)
    return start + length


def _wide(block: Bytes, first: Places, width: int) -> tuple[Places, list[Places]]:
    """Lengths of ``width`` bytes, little-endian, and where each of their bytes lies."""
    if int(first.max()) + width > len(block):
        raise GarbledError("a length is cut off")
    places = [first + place for place in range(width)]
    value: Places = np.zeros(len(first), np.int64)
    for place, at in enumerate(places):
        value |= block[at].astype(np.int64) << (8 * place)
    return value, places


class Records:
    """Turns rows of one result into CSV records."""

    def __init__(self, forms: Sequence[Form], dialect: CsvDialect) -> None:
        self.columns = len(forms)
        self._null = dialect.null.encode()
        self._convert = [conversion(form, dialect.binary) for form in forms]
        # A number can equal a marker such as 0 or -.
        plain_is_safe = not self._null or not set(self._null) <= _PLAIN_CHARACTERS
        self._may_quote = [not (form is Form.PLAIN and plain_is_safe) for form in forms]
        # COPY quotes a lone \. too: it once was the end of the data.
        self._alone = [rb"\."] if len(forms) == 1 else []

    # -- value by value --------------------------------------------------------------------------------------------

    def record(self, values: Sequence[bytes | None]) -> bytes:
        """One record from a row's values as the server sent them."""
        return b",".join(map(self._text, values, self._convert)) + b"\n"

    def _text(self, value: bytes | None, convert: object) -> bytes:
        if value is None:
            return self._null
        text: bytes = convert(value) if callable(convert) else value
        if text == self._null or text in self._alone or _SPECIAL.search(text):
            return b'"' + text.replace(b'"', b'""') + b'"'
        return text

    # -- a block at once -------------------------------------------------------------------------------------------

    def block(self, block: Bytes, heads: Places) -> bytes:
        """The records of the packets at ``heads``, which fill the block without a gap. Overwrites the block."""
        found = located(block, heads, self.columns)
        if any(self._convert):
            block, found = self._converted(block, found)
        marked = _struck_out(block, found)
        if np.count_nonzero(block >= _MARKERS) != marked:  # a value has a byte that could be taken for a marker
            return b"".join(_plain_record(self, row) for row in found.rows(block))
        return self._expanded(block, found, self._quoted(block, found))

    def _converted(self, block: Bytes, found: Located) -> tuple[Bytes, Located]:
        """The block with the converted columns' values replaced by their text, and where everything lies now."""
        data = block.tobytes()
        grown = [np.zeros(len(found.heads), np.int64) for _ in range(self.columns)]
        texts: dict[int, list[bytes]] = {}
        for column, convert in enumerate(self._convert):
            if convert is None:
                continue
            starts, ends = found.starts[column], found.ends[column]
            texts[column] = [
                convert(data[s:e]) if e > s else b"" for s, e in zip(starts.tolist(), ends.tolist(), strict=True)
            ]
            sizes = np.fromiter(map(len, texts[column]), np.int64, len(starts))
            grown[column] = sizes - (ends - starts)
        return _respliced(data, found, texts), _moved(found, grown)

    def _quoted(self, block: Bytes, found: Located) -> list[Flags | None]:
        """Which values need quotes; None for a column where none does."""
        if not any(self._may_quote):
            return [None] * self.columns
        special = _Counted(block)
        quoted: list[Flags | None] = []
        for column, may in enumerate(self._may_quote):
            if not may:
                quoted.append(None)
                continue
            start, end = found.starts[column], found.ends[column]
            flags: Flags = special.before(start) != special.before(end)
            for text in (self._null, *self._alone):
                flags |= _equal(block, start, end, text)
            nulls = found.nulls[column]
            if nulls is not None:
                flags &= ~nulls
            quoted.append(flags if flags.any() else None)
        return quoted

    def _expanded(self, block: Bytes, found: Located, quoted: list[Flags | None]) -> bytes:
        """Markers where the packets' structure was, and then the text that each stands for."""
        none = np.zeros(len(found.heads), np.bool_)
        before: Flags | None = None
        for column in range(self.columns):
            nulls = found.nulls[column] if self._null else None
            block[found.prefixes[column]] = _separators(column == 0, before, quoted[column], nulls, none)
            before = quoted[column]
        block[found.heads[1:] + 1] = _NEWLINE
        if before is not None:  # the last column's, whose quotes end in the next row's head
            block[found.heads[1:][before[:-1]]] = _QUOTE
        # A boolean index is the quickest way to leave bytes out, ahead of bytes.translate and bytes.replace.
        text: bytes = block[block != _FILL].tobytes()
        if any(flags is not None for flags in quoted):
            text = text.replace(b'"', b'""')
        for marker, meaning in self._meanings().items():
            text = text.replace(bytes([marker]), meaning)
        closing = b'"\n' if before is not None and before[-1] else b"\n"
        return text + closing

    def _meanings(self) -> dict[int, bytes]:
        null = self._null
        return {
            _OPEN: b',"', _CLOSE: b'",', _BOTH: b'","', _QUOTE: b'"',
            _NULL_AFTER: b"," + null, _NULL_CLOSED: b'",' + null, _NULL: null,
        }  # fmt: skip


def _plain_record(records: Records, texts: Sequence[bytes | None]) -> bytes:
    """One record of values that are converted already."""
    return b",".join([records._text(text, None) for text in texts]) + b"\n"


def _struck_out(block: Bytes, found: Located) -> int:
    """Overwrite all that is structure by a marker; how many bytes that is."""
    structure = [*(found.heads + place for place in range(_HEAD_BYTES)), *found.prefixes]
    structure += [places for extras in found.extras for _, places in extras]
    for places in structure:
        block[places] = _FILL
    return sum(map(len, structure))


_ONES = np.uint64(0x0101010101010101)
_BELOW = np.array([(1 << 8 * place) - 1 for place in range(8)], np.uint64)
"""Which bytes of a word lie before one of its bytes, on a little-endian machine."""
_TOP = np.uint64(56)


class _Counted:
    """How many bytes before each place of a block make quotes necessary.

    Counted by words of eight, whose bytes are 0 or 1 and are summed up by a multiplication: a running sum over single
    bytes takes most of the time of the whole conversion.
    """

    def __init__(self, block: Bytes) -> None:
        flags = np.zeros(len(block) + 8 + -len(block) % 8, np.bool_)
        flags[: len(block)] = (block == 0x2C) | (block == 0x22) | (block == 0x0A) | (block == 0x0D)
        self._words = flags.view("<u8")
        self._until = np.zeros(len(self._words) + 1, np.int64)
        np.cumsum(((self._words * _ONES) >> _TOP).view(np.int64), out=self._until[1:])

    def before(self, places: Places) -> Places:
        word = places >> 3
        inside = ((self._words[word] & _BELOW[places & 7]) * _ONES) >> _TOP
        counted: Places = self._until[word] + inside.astype(np.int64)
        return counted


def _equal(block: Bytes, start: Places, end: Places, text: bytes) -> Flags:
    flags: Flags = (end - start) == len(text)
    rows = np.flatnonzero(flags)
    for place, byte in enumerate(text):
        rows = rows[block[start[rows] + place] == byte]
    same: Flags = np.zeros(len(start), np.bool_)
    same[rows] = True
    return same


def _separators(
    first: bool, before: Flags | None, quoted: Flags | None, nulls: Flags | None, none: Flags
) -> Bytes | int:
    """What stands where a field's length stood, for each row."""
    if before is None and quoted is None and nulls is None:
        return _FILL if first else _COMMA
    closes, opens, empty = (none if flags is None else flags for flags in (before, quoted, nulls))
    marks: Bytes = np.full(len(none), _FILL if first else _COMMA, np.uint8)
    marks[opens] = _QUOTE if first else _OPEN
    marks[closes] = _CLOSE
    marks[closes & opens] = _BOTH
    marks[empty] = _NULL if first else _NULL_AFTER
    marks[closes & empty] = _NULL_CLOSED
    return marks


def _respliced(data: bytes, found: Located, texts: dict[int, list[bytes]]) -> Bytes:
    """``data`` with the values of some columns replaced."""
    pieces: list[bytes] = []
    at = 0
    columns = sorted(texts)
    bounds = [(found.starts[column].tolist(), found.ends[column].tolist(), texts[column]) for column in columns]
    for row in range(len(found.heads)):
        for starts, ends, text in bounds:
            pieces.append(data[at : starts[row]])
            pieces.append(text[row])
            at = ends[row]
    pieces.append(data[at:])
    return np.frombuffer(bytearray(b"").join(pieces), np.uint8)


def _moved(found: Located, grown: list[Places]) -> Located:
    """The same fields after column ``c`` of each row grew by ``grown[c]`` bytes."""
    per_row = np.sum(grown, axis=0)
    shift = np.concatenate(([0], np.cumsum(per_row)[:-1]))
    moved = Located(found.heads + shift, [], [], [], found.nulls, [])
    for column, growth in enumerate(grown):
        moved.prefixes.append(found.prefixes[column] + shift)
        moved.starts.append(found.starts[column] + shift)
        moved.extras.append([(rows, places + shift[rows]) for rows, places in found.extras[column]])
        shift = shift + growth
        moved.ends.append(found.ends[column] + shift)
    return moved
