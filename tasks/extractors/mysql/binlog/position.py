"""How far a change stream has come: a place in one server's log, and what finds that place on another server."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from pydantic import JsonValue, ValidationError

from blocks.errors import PositionLost
from tasks.extractors.contract import Frozen
from tasks.extractors.mysql.binlog.statements import Table


class Prepared(Frozen):
    """An XA transaction that was prepared before a position, and neither committed nor rolled back by then.

    Its rows stand where it was prepared, and count from where it is committed.
    """

    xid: str
    file: str
    start: int
    end: int


class LogPosition(Frozen):
    """The end of a transaction."""

    server: str
    """MySQL's server_uuid, MariaDB's server_id."""
    file: str
    position: int
    gtids: str = ""
    """All transactions up to here; empty where the server counts none."""
    born: int = 0
    """When the file was begun (seconds since 1970): another file of the same name was begun at another time."""
    epoch: int = 0
    """Grows whenever the stream goes on in a log whose files are numbered otherwise; ``_position`` begins with it."""
    prepared: tuple[Prepared, ...] = ()
    by_gtids: bool = False
    """Found by GTIDs: what lies from here on may be in ``gtids`` already, and is passed over then."""
    not_before: int = 0
    """Transactions that were committed before (microseconds since 1970) are passed over."""
    as_of: int = 0
    """What the server had committed by then (microseconds since 1970, its clock) lies before this position; 0: not known."""
    tables: tuple[Table, ...] = ()
    """Followed tables that there were by then: DROP DATABASE names none of those that it empties."""

    @property
    def number(self) -> int:
        """Of the file."""
        return number_of(self.file)

    @property
    def place(self) -> tuple[int, int]:
        """What positions of one epoch are compared by."""
        return self.number, self.position

    def __str__(self) -> str:
        return f"{self.file}:{self.position}"


@lru_cache(64)
def number_of(file: str) -> int:
    """Of a file of the log.

    >>> number_of("binlog.000003")
    3
    """
    return int(file.rpartition(".")[2])


class Reached(Frozen):
    """What reading a part of the log came to."""

    position: LogPosition
    decided: tuple[str, ...] = ()
    """XA transactions that end in this part, and were prepared before it."""
    dropped: tuple[Table, ...] = ()
    """Tables that are gone at its end, and may have been there before it."""


def joined(parts: Iterable[Reached]) -> LogPosition:
    """What several parts of the log, each from where the one before ends, come to."""
    prepared: dict[str, Prepared] = {}
    tables: set[Table] = set()
    position: LogPosition | None = None
    for part in parts:
        position = part.position
        for xid in part.decided:
            prepared.pop(xid, None)
        prepared |= {each.xid: each for each in position.prepared}
        tables = (tables - set(part.dropped)) | set(position.tables)
    if position is None:
        raise ValueError("a run of changes reads at least one part of the log")
    return position.model_copy(update={"prepared": tuple(prepared.values()), "tables": tuple(sorted(tables))})


def log_position(since: JsonValue) -> LogPosition | None:
    """The position of a watermark; None where there is none. `PositionLost` for one that is no place in a log."""
    if since is None:
        return None
    try:
        return LogPosition.model_validate(since)
    except ValidationError as error:
        raise PositionLost(
            f"the watermark holds {since}, which is no place in a MySQL log. A stream of mode changes has a name of its "
            "own: use another stream name, or set the position by `headrace state set`"
        ) from error


def row_prefix(epoch: int, number: int, position: int) -> str:
    """What the ``_position`` of all rows of the transaction that begins there begins with.

    >>> row_prefix(0, 3, 1234)
    '000-0000000003-000000001234-'
    """
    return f"{epoch:03d}-{number:010d}-{position:012d}-"
