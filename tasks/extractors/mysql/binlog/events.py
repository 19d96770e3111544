"""What a binary log's events say, but for the rows: framing, checksums, where transactions begin and end.

Layout of events: https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_replication_binlog_event.html, and for
MariaDB https://mariadb.com/docs/server/reference/clientserver-protocol/replication-protocol.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from isal import isal_zlib

from tasks.extractors.mysql.binlog.tagged import UnknownFormatError, tagged

HEADER = 19
_HEADER = struct.Struct("<IBIIIH").unpack_from
_CHECKSUM = 4

ARTIFICIAL = 0x20
"""Flag of an event that the sender made up: it takes no place in the log."""


class GarbledLogError(Exception):
    """What arrived is no log; the connection is of no use any more."""


class Kind(IntEnum):
    """Types of events that mean something here."""

    QUERY = 2
    STOP = 3
    ROTATE = 4
    FORMAT = 15
    XID = 16
    LOAD = 18
    TABLE_MAP = 19
    INCIDENT = 26
    HEARTBEAT = 27
    ROWS_QUERY = 29
    GTID = 33
    ANONYMOUS_GTID = 34
    PREVIOUS_GTIDS = 35
    XA_PREPARE = 38
    PAYLOAD = 40
    TAGGED_GTID = 42
    MARIADB_GTID = 162
    MARIADB_GTID_LIST = 163
    MARIADB_ENCRYPTION = 164
    MARIADB_QUERY_COMPRESSED = 165


ROWS = frozenset({20, 21, 22, 23, 24, 25, 30, 31, 32, 39, 166, 167, 168, 169, 170, 171})
"""Rows events of any version; 39 has partial JSON updates, those past 160 are MariaDB's compressed ones."""

_MADE_UP = frozenset({Kind.ROTATE, Kind.FORMAT, Kind.HEARTBEAT, Kind.MARIADB_GTID_LIST})
"""Those that servers make up, with no end in the log."""


class Event(NamedTuple):
    """One event, checksum removed. There are five for each row of a small transaction, so it is of the kind that costs
    least, as is all that is made for each event.
    """

    kind: int
    timestamp: int
    """Seconds since 1970."""
    server: int
    size: int
    """Bytes that it takes in the log, checksum included."""
    flags: int
    body: bytes
    """What follows the header."""
    end: int
    """Of the event in its file, as the event has it: 32 bits; 0 for one that was made up, and for those within a
    transaction of MariaDB 11."""

    @property
    def takes_place(self) -> bool:
        """Whether it lies in the file, and was not made up for this reader."""
        return not self.flags & ARTIFICIAL and (self.end != 0 or self.kind not in _MADE_UP)


class Framing:
    """Makes events of packets' payloads; knows from the format event whether they carry checksums."""

    def __init__(self, *, checksummed: bool) -> None:
        self._checksummed = checksummed

    def event(self, payload: bytes) -> Event:
        """The event of a payload (without the leading OK byte); `GarbledLogError` where it is none."""
        if len(payload) < HEADER:
            raise GarbledLogError("an event that is shorter than its header")
        timestamp, kind, server, size, end, flags = _HEADER(payload)
        if size != len(payload):
            raise GarbledLogError(f"an event of {size} bytes of which {len(payload)} arrived")
        if kind == Kind.FORMAT:
            self._checksummed = _is_checksummed(payload)
        stop = size - _CHECKSUM if self._checksummed else size
        if self._checksummed:
            _verify(payload, stop, kind)
        return Event(kind, timestamp, server, size, flags, payload[HEADER:stop], end)

    def inner(self, data: bytes, outer: Event) -> list[Event]:
        """The events of a transaction's payload, which carry no checksums."""
        events, at = [], 0
        while at < len(data):
            if at + HEADER > len(data):
                raise GarbledLogError("an event of a transaction's payload is cut off")
            timestamp, kind, server, size, _, flags = _HEADER(data, at)
            if size < HEADER or at + size > len(data):
                raise GarbledLogError("an event of a transaction's payload is cut off")
            events.append(Event(kind, timestamp, server, size, flags, data[at + HEADER : at + size], outer.end))
            at += size
        return events


def _is_checksummed(payload: bytes) -> bool:
    """The format event's last byte before its own checksum; servers before 5.6.1 have neither."""
    version = payload[HEADER + 2 : HEADER + 52].split(b"\0")[0].decode("ascii", "replace")
    if tuple(int(part) for part in version.split("-")[0].split(".")[:3] if part.isdigit()) < (5, 6, 1):
        return False
    return payload[-_CHECKSUM - 1] == 1


def _verify(payload: bytes, stop: int, kind: int) -> None:
    told = int.from_bytes(payload[stop:], "little")
    # A format event in use has a flag set in the file that was not there when its checksum was made.
    if kind != Kind.FORMAT and isal_zlib.crc32(payload[:stop]) != told:
        raise GarbledLogError("an event does not fit its checksum")


# -- bodies ----------------------------------------------------------------------------------------------------------


class Query(NamedTuple):
    """A statement in the log."""

    schema: str
    text: str


def query(event: Event) -> Query:
    """The statement of a query event."""
    body = event.body
    try:
        schema_length = body[8]
        status = int.from_bytes(body[11:13], "little")
        # That of LOAD DATA has numbers of the file beside, whose content stands in events before.
        at = (26 if event.kind == Kind.LOAD else 13) + status
        schema = body[at : at + schema_length].decode("utf-8", "replace")
        text = body[at + schema_length + 1 :]
    except IndexError:
        raise GarbledLogError("a query event is cut off") from None
    if event.kind == Kind.MARIADB_QUERY_COMPRESSED:
        text = inflated(text)
    return Query(schema, text.decode("utf-8", "replace"))


def inflated(data: bytes) -> bytes:
    """What MariaDB compressed: a byte of which the low three bits say how many bytes of length follow, then zlib."""
    width = data[0] & 7
    size = int.from_bytes(data[1 : 1 + width], "big")
    made = isal_zlib.decompress(data[1 + width :])
    if len(made) != size:
        raise GarbledLogError("a compressed event does not have the length it says")
    return made


def rotation(event: Event) -> tuple[str, int]:
    """The file that comes next, and where in it."""
    return event.body[8:].decode("utf-8", "replace"), int.from_bytes(event.body[:8], "little")


class Begun(NamedTuple):
    """What a GTID event says of the transaction that it begins."""

    gtid: str
    """Empty: the server counts no transactions."""
    microseconds: int
    """When it was committed, since 1970."""
    precise: bool
    """False: known to the second."""
    has_end: bool = True
    """False: it is a single statement (DDL) without an end of its own."""
    prepared: bool = False
    """MariaDB: its rows count once it is committed by a later XA COMMIT."""

    def is_before(self, moment: int) -> bool:
        """Whether it was certainly committed before that many microseconds since 1970."""
        return self.microseconds < (moment if self.precise else moment // 1_000_000 * 1_000_000)


def begun(event: Event) -> Begun:
    """The transaction that a GTID event of either server begins."""
    if event.kind == Kind.MARIADB_GTID:
        return _begun_on_mariadb(event)
    if event.kind == Kind.TAGGED_GTID:
        return _begun_with_tag(event)
    body = event.body
    gno = int.from_bytes(body[17:25], "little")
    gtid = "" if event.kind == Kind.ANONYMOUS_GTID else f"{uuid_text(body[1:17])}:{gno}"
    # Behind lt_type and two sequence numbers: 55 bits of microseconds, then a bit that says the original's follows.
    if len(body) >= 49:
        return Begun(gtid, int.from_bytes(body[42:49], "little") & ((1 << 55) - 1), precise=True)
    return Begun(gtid, event.timestamp * 1_000_000, precise=False)


def _begun_with_tag(event: Event) -> Begun:
    try:
        found = tagged(event.body)
    except UnknownFormatError as error:
        raise GarbledLogError(str(error)) from error
    name = f"{uuid_text(found.source)}:{found.tag}" if found.tag else uuid_text(found.source)
    return Begun(f"{name}:{found.number}", found.microseconds, precise=True)


_STANDALONE, _PREPARED_XA = 1, 64


def _begun_on_mariadb(event: Event) -> Begun:
    sequence, domain, flags = struct.unpack_from("<QIB", event.body)
    return Begun(
        f"{domain}-{event.server}-{sequence}",
        event.timestamp * 1_000_000,
        precise=False,
        has_end=not flags & _STANDALONE,
        prepared=bool(flags & _PREPARED_XA),
    )


@lru_cache(64)  # of the few servers that a log is of
def uuid_text(data: bytes) -> str:
    text = data.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


_FIELD_END, _FIELD_SIZE, _FIELD_COMPRESSION, _FIELD_UNCOMPRESSED = range(4)
_ZSTD, _NONE = 0, 255


def payload(event: Event) -> tuple[int, bytes]:
    """How a transaction's payload is compressed, and its bytes."""
    body, at, compression = event.body, 0, _ZSTD
    while True:
        field, at = _packed(body, at)
        if field == _FIELD_END:
            return compression, body[at:]
        length, at = _packed(body, at)
        if field == _FIELD_COMPRESSION:
            compression, _ = _packed(body, at)
        at += length


def _packed(data: bytes, at: int) -> tuple[int, int]:
    """An integer of variable length, and where it ends."""
    first = data[at]
    width = {0xFC: 2, 0xFD: 3, 0xFE: 8}.get(first, 0)
    if not width:
        return first, at + 1
    return int.from_bytes(data[at + 1 : at + 1 + width], "little"), at + 1 + width
