"""From events to transactions: which rows count, when they were committed, and what happens to the tables between them.

A transaction of either server is a GTID event, a BEGIN (MariaDB's GTID event is that, too), table maps and rows, and an
end: XID, COMMIT or, where tables without transactions took part, ROLLBACK. DDL is a GTID event and a statement. Rows of
an XA transaction stand before its XA PREPARE, and count from its XA COMMIT on, which may come much later, or never.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

import zstandard

from tasks.extractors.mysql.binlog.events import (
    ROWS,
    Begun,
    Event,
    Framing,
    GarbledLogError,
    Kind,
    Query,
    begun,
    payload,
    query,
)
from tasks.extractors.mysql.binlog.log import Placed

_COMMENT = re.compile(r"/\*(?!M?!).*?\*/|(?:--\s|#)[^\n]*", re.DOTALL)
_EXECUTED = re.compile(r"/\*M?!\d*|\*/")
_WRITES = re.compile(r"(INSERT|UPDATE|DELETE|REPLACE|LOAD|CALL|WITH)\b", re.IGNORECASE)
_SAVEPOINT = re.compile(r"(SAVEPOINT|ROLLBACK\s+TO(?:\s+SAVEPOINT)?)\s+(.+)", re.IGNORECASE | re.DOTALL)
_XA = re.compile(r"XA\s+(START|BEGIN|END|PREPARE|COMMIT|ROLLBACK)\s+(.+)", re.IGNORECASE | re.DOTALL)
_ZSTD, _PLAIN = 0, 255
_LONGEST_PAYLOAD = 1 << 30


class Ending(Enum):
    """How a transaction ended."""

    COMMITTED = "committed"
    ROLLED_BACK = "rolled back"
    PREPARED = "prepared"


class Start(NamedTuple):
    """A transaction begins."""

    begun: Begun
    file: str
    position: int


@dataclass(frozen=True)
class Map:
    """What the rows that follow are of."""

    event: Event


@dataclass(frozen=True)
class Rows:
    """Rows were written, changed or deleted."""

    event: Event


@dataclass(frozen=True)
class Statement:
    """A statement that is no part of a transaction's frame: DDL, or a write in the form of a statement."""

    query: Query

    @property
    def text(self) -> str:
        """Without comments; what stands in executed ones (``/*!40000 … */``) is kept."""
        return bare(self.query.text)

    @property
    def writes(self) -> bool:
        return bool(_WRITES.match(self.text))


@dataclass(frozen=True)
class Savepoint:
    """A place to go back to, or the way back to it."""

    name: str
    back: bool


@dataclass(frozen=True)
class Xa:
    """The rows that follow are of an XA transaction."""


@dataclass(frozen=True)
class Decided:
    """A prepared XA transaction is committed, or rolled back."""

    xid: str
    committed: bool


class End(NamedTuple):
    """A transaction ends; the log's position behind it."""

    ending: Ending
    position: int
    xid: str = ""


_BEGINS = frozenset({Kind.GTID, Kind.ANONYMOUS_GTID, Kind.TAGGED_GTID, Kind.MARIADB_GTID})

Step = Start | Map | Rows | Statement | Savepoint | Xa | Decided | End


@dataclass
class Transactions:
    """Follows the events of one log."""

    _framing: Framing = field(default_factory=lambda: Framing(checksummed=False))
    _open: Begun | None = None
    _has_end: bool = False
    """Whether an end follows, so that no statement is one: since BEGIN, or MariaDB's GTID event that says so."""

    @property
    def is_between(self) -> bool:
        """Whether no transaction is open."""
        return self._open is None

    def steps(self, placed: Placed) -> Iterator[Step]:
        """What an event means."""
        event = placed.event
        if event.kind in ROWS:
            yield Rows(event)
        elif event.kind == Kind.INCIDENT:
            raise GarbledLogError(
                f"{placed.file}:{placed.start}: the server says that events are missing in its log (an incident)"
            )
        elif event.kind in _BEGINS:
            self._open = begun(event)
            self._has_end = event.kind == Kind.MARIADB_GTID and self._open.has_end
            yield Start(self._open, placed.file, placed.start)
            if self._open.prepared:
                yield Xa()
        elif event.kind == Kind.PAYLOAD:
            for inner in self._framing.inner(_unpacked(event), event):
                yield from self._step(inner, placed.end)
        else:
            yield from self._step(event, placed.end)

    def _step(self, event: Event, end: int) -> Iterator[Step]:
        if event.kind == Kind.TABLE_MAP:
            yield Map(event)
        elif event.kind in ROWS:
            yield Rows(event)
        elif event.kind == Kind.XID:
            yield self._end(Ending.COMMITTED, end)
        elif event.kind == Kind.XA_PREPARE:
            one_phase, xid = _prepared(event)
            yield self._end(Ending.COMMITTED if one_phase else Ending.PREPARED, end, xid)
        elif event.kind in (Kind.QUERY, Kind.MARIADB_QUERY_COMPRESSED, Kind.LOAD):
            yield from self._query(query(event), end)

    def _query(self, found: Query, end: int) -> Iterator[Step]:
        if found.text == "BEGIN":  # of nearly every transaction
            self._has_end = True
            return
        text = bare(found.text)
        word = text.upper()
        if word == "BEGIN":
            self._has_end = True
            return
        if word in ("COMMIT", "ROLLBACK"):
            yield self._end(Ending.COMMITTED if word == "COMMIT" else Ending.ROLLED_BACK, end)
        elif named := _SAVEPOINT.fullmatch(text):
            yield Savepoint(named[2].strip().strip("`"), back=named[1].upper().startswith("ROLLBACK"))
        elif xa := _XA.fullmatch(text):
            if xa[1].upper() in ("START", "BEGIN"):
                self._has_end = True
                yield Xa()
            if xa[1].upper() in ("COMMIT", "ROLLBACK"):
                yield Decided(_xid(xa[2]), committed=xa[1].upper() == "COMMIT")
                yield self._end(Ending.COMMITTED, end)
        else:
            yield Statement(found)
            if not self._has_end:  # DDL, but for CREATE TABLE … SELECT, whose rows follow
                yield self._end(Ending.COMMITTED, end)

    def _end(self, ending: Ending, end: int, xid: str = "") -> End:
        self._open, self._has_end = None, False
        return End(ending, end, xid)


def bare(text: str) -> str:
    """A statement without comments and outer blanks."""
    return _EXECUTED.sub(" ", _COMMENT.sub(" ", text)).strip().rstrip(";").strip()


def _unpacked(event: Event) -> bytes:
    compression, data = payload(event)
    if compression == _PLAIN:
        return data
    if compression != _ZSTD:
        raise GarbledLogError(f"a transaction is compressed in a way that is not known here ({compression})")
    return zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()


def _prepared(event: Event) -> tuple[bool, str]:
    """Whether an XA PREPARE event is a commit in one phase, and the transaction's name."""
    body = event.body
    one_phase = bool(body[0])
    form, first, second = (int.from_bytes(body[at : at + 4], "little") for at in (1, 5, 9))
    data = body[13 : 13 + first + second]
    return one_phase, f"{data[:first].hex()},{data[first:].hex()},{form}"


def _xid(text: str) -> str:
    """``X'6162',X'63',1`` as `_prepared` names it."""
    parts = [part.strip() for part in text.split(",")]
    gtrid, bqual, form = [*parts, "X''", "1"][:3] if len(parts) < 3 else parts[:3]
    return f"{_hex(gtrid)},{_hex(bqual)},{int(form.split()[0])}"


def _hex(text: str) -> str:
    quoted = re.fullmatch(r"(?i:(x)|0x)?'?([^']*)'?", text)
    if quoted is None:
        raise GarbledLogError(f"an XA transaction is named {text!r}")
    return quoted[2].lower() if text[:1] in "xX0" else quoted[2].encode().hex()
