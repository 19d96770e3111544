"""The packets of one text result → CSV, without any I/O: fed with what arrived, in pieces cut anywhere.

Framing: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_packets.html. Three bytes of length, one of
sequence number, then the payload; a payload of 16 MiB − 1 or more goes on in further packets, the last of which is shorter
and may be empty. A result ends with an EOF packet, or with an error packet anywhere.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NoReturn

import numpy as np
from pymysql.err import OperationalError, raise_mysql_exception

from blocks.s3 import CsvDialect
from tasks.extractors.mysql.forms import Form
from tasks.extractors.mysql.rows import Bytes, GarbledError, Records

FULL = 0xFFFFFF
"""A packet of this length is continued by the next."""

_EOF, _ERROR = 0xFE, 0xFF
_EOF_LENGTH = 5
_SERVER_MORE_RESULTS = 0x0008
_HEADER = struct.Struct("<I").unpack_from

LARGE = 1 << 20
"""A row of more bytes that is not there as a whole is gathered apart, so that the buffer need not hold it."""


class Packets:
    """One result. ``feed`` it until it is ``done``."""

    def __init__(self, forms: Sequence[Form], dialect: CsvDialect, sequence: int) -> None:
        self._records = Records(forms, dialect)
        self._sequence = sequence
        self._large: bytearray | None = None
        """The payload so far of a row that is gathered apart."""
        self._missing = 0
        """How many bytes of its current packet are still to come."""
        self._goes_on = False
        self.rows = 0
        self.warnings = 0
        self.done = False
        self.discarding = False
        """Rows are counted and thrown away."""

    def feed(self, data: bytearray, size: int) -> tuple[bytes, int]:
        """CSV records of the packets in ``data[:size]``, and how many bytes were used up.

        What was not used has to come again, at the front, with more behind it. The used part may be overwritten.
        Raises the server's own error where it sent one, `GarbledError` where the bytes make no sense.
        """
        out: list[bytes] = []
        used = 0
        while not self.done:
            if self._large is not None:
                taken = self._gather(memoryview(data)[used:size], out)
            else:
                taken = self._take(data, used, size, out)
            if not taken:
                break
            used += taken
        if self.done and used != size:
            raise GarbledError("bytes after the end of the result")
        return b"".join(out), used

    # -- whole packets ---------------------------------------------------------------------------------------------

    def _take(self, data: bytearray, start: int, size: int, out: list[bytes]) -> int:
        """Convert the rows that lie in the buffer as a whole, and look at what comes after them."""
        heads, end = _heads(data, start, size)
        if heads:
            block: Bytes = np.frombuffer(data, np.uint8, end - start, start)
            places = np.array(heads, np.int64) - start
            self._in_sequence(block[places + 3])
            if not self.discarding:
                out.append(self._records.block(block, places))
            self.rows += len(heads)
        if size - end < 4:
            return end - start
        return end - start + self._other(data, end, size)

    def _in_sequence(self, numbers: Bytes) -> None:
        expected = (self._sequence + np.arange(len(numbers))) & 0xFF
        if not np.array_equal(numbers, expected):
            raise GarbledError("packets out of sequence")
        self._sequence = (self._sequence + len(numbers)) & 0xFF

    def _other(self, data: bytearray, at: int, size: int) -> int:
        """What is not a whole row: the end, an error, a large row, or the beginning of what has not arrived."""
        length: int = _HEADER(data, at)[0] & FULL
        whole = at + 4 + length <= size
        if length == 0:
            raise GarbledError("an empty packet")
        if length == FULL or (length > LARGE and not whole):
            self._in_sequence(np.frombuffer(data, np.uint8, 1, at + 3))
            self._large, self._missing, self._goes_on = bytearray(), length, length == FULL
            return 4
        if not whole:
            return 0
        payload = bytes(data[at + 4 : at + 4 + length])
        if payload[0] == _ERROR:
            _raise(payload)
        self._in_sequence(np.frombuffer(data, np.uint8, 1, at + 3))
        self._end(payload)
        return 4 + length

    def _end(self, payload: bytes) -> None:
        if payload[0] != _EOF or len(payload) != _EOF_LENGTH:
            raise GarbledError("neither a row nor the end of the result")
        self.warnings, status = struct.unpack_from("<HH", payload, 1)
        if status & _SERVER_MORE_RESULTS:
            raise GarbledError("the statement has a second result")
        self.done = True

    # -- rows that are gathered apart ------------------------------------------------------------------------------

    def _gather(self, data: memoryview, out: list[bytes]) -> int:
        assert self._large is not None  # noqa: S101 - the caller looked
        if self._missing:
            piece = data[: self._missing]
            if not self.discarding:
                self._large += piece
            self._missing -= len(piece)
            if self._missing or self._goes_on:
                return len(piece)
            out.append(self._gathered())
            return len(piece)
        if len(data) < 4:
            return 0
        self._missing = _HEADER(data)[0] & FULL
        self._in_sequence(np.frombuffer(data, np.uint8, 1, 3))
        self._goes_on = self._missing == FULL
        if not self._missing:
            out.append(self._gathered())
        return 4

    def _gathered(self) -> bytes:
        payload, self._large = self._large, None
        self.rows += 1
        if self.discarding:
            return b""
        return self._records.record(fields(bytes(payload or b""), self._records.columns))


def _heads(data: bytearray, at: int, size: int) -> tuple[list[int], int]:
    """Where the whole row packets from ``at`` on begin, and where the first that is none does."""
    heads: list[int] = []
    add, header = heads.append, _HEADER
    # So far no packet fits that is continued by another.
    size = min(size, at + FULL)
    last = size - 4
    while at < last:
        add(at)
        at += 4 + (header(data, at)[0] & FULL)
    if at > size:
        at = heads.pop()
    # A row's first byte is a length: 0xFE only in packets of 16 MiB, 0xFF never. Looked at together, which is quicker.
    first = np.frombuffer(data, np.uint8)[np.array(heads, np.int64) + 4]
    others = np.flatnonzero(first >= _EOF)
    if len(others):
        at = heads[others[0]]
        del heads[others[0] :]
    return heads, at


def fields(payload: bytes, columns: int) -> list[bytes | None]:
    """The values of one row's payload; `GarbledError` where it does not hold just so many."""
    values: list[bytes | None] = []
    at = 0
    while at < len(payload):
        first = payload[at]
        width = {0xFB: 0, 0xFC: 2, 0xFD: 3, 0xFE: 8}.get(first, 0)
        start = at + 1 + width
        length = int.from_bytes(payload[at + 1 : start], "little") if width else first
        if first == 0xFB:
            values.append(None)
            at = start
            continue
        if first == _ERROR or start + length > len(payload):
            raise GarbledError("a field is longer than its row")
        values.append(payload[start : start + length])
        at = start + length
    if len(values) != columns:
        raise GarbledError(f"a row of {len(values)} fields, not {columns}")
    return values


def _raise(payload: bytes) -> NoReturn:
    raise_mysql_exception(payload)
    raise OperationalError(2027, f"malformed error packet {payload[:64]!r}")
