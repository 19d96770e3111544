"""Several connections that see one state of the database: their transactions begin under one short lock.

A transaction's snapshot in InnoDB cannot be handed to another connection. So as many connections as will read at once
are opened beforehand, commits are blocked for as long as it takes to begin a transaction on each of them (milliseconds),
and the slices are read on those connections alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiomysql
from pydantic import JsonValue
from pymysql.constants import ER

from blocks.errors import SnapshotLost
from blocks.mysql import MySQL
from tasks.extractors.mysql.describe import Relation
from tasks.extractors.mysql.session import Session
from tasks.extractors.mysql.sql import number_of

_BEGIN = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"

LOCK_SECONDS = 3
"""How long one kind of lock is waited for. While it waits for a long statement it holds up others, so not for long."""

_FULL = (ER.CON_COUNT_ERROR, ER.TOO_MANY_USER_CONNECTIONS, ER.USER_LIMIT_REACHED)

_ONE_CONNECTION = (
    "read over one connection: several see one state only when their transactions begin under a lock, and the server gave "
    "none ({}). GRANT RELOAD ON *.* (or LOCK TABLES on the database) TO this user to read {} slices at once"
)
_NO_SNAPSHOT = (
    "{} is stored by {}, which has no snapshots: what is written while it is read may be in it or not, "
    "and slices may show different moments. ALTER TABLE … ENGINE = InnoDB mends it"
)


@dataclass
class Snapshot:
    """Connections that see one state; each is lent to one reader at a time."""

    sessions: list[Session]
    seen: dict[str, JsonValue] = field(default_factory=dict)
    """Which state that is: server, log file and position, GTIDs."""
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._idle: asyncio.Queue[Session | None] = asyncio.Queue()
        for session in self.sessions:
            self._idle.put_nowait(session)

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[Session]:
        """A connection of its own until the exit; `SnapshotLost` once one of them was cut off."""
        session = await self._idle.get()
        try:
            if session is None:
                raise SnapshotLost("a connection was lost, and with it the snapshot that this plan reads under")
            yield session
        finally:
            # A lost one is handed on, so that nobody waits for what will not come back.
            self._idle.put_nowait(session if session is not None and session.is_usable else None)

    def close(self) -> None:
        for session in self.sessions:
            session.close()


async def take(
    block: MySQL, control: Session, relations: Sequence[Relation], count: int, *, placed: bool = False
) -> Snapshot:
    """A snapshot of these for ``count`` readers at once; for one where the server gives no lock, with a note that says so.

    ``placed``: its exact place in the log is wanted, which takes a lock for a single reader, too.
    """
    sessions: list[Session] = []
    try:
        full = await _open(block, count, sessions)
        one = len(sessions) == 1 and not placed
        snapshot = await _alone(control, sessions) if one else await _together(control, relations, sessions)
        snapshot.notes += full
    except BaseException:
        for session in sessions:
            session.close()
        raise
    for relation in relations:
        if relation.engine not in (None, "InnoDB"):
            snapshot.notes.append(_NO_SNAPSHOT.format(relation.name, relation.engine))
    return snapshot


async def _open(block: MySQL, count: int, sessions: list[Session]) -> list[str]:
    """Open so many sessions, or as many as the server has room for, with a note then."""
    while len(sessions) < count:
        try:
            sessions.append(await Session.open(block, again=True))
        except aiomysql.MySQLError as error:
            if not sessions or number_of(error) not in _FULL:
                raise
            return [
                f"{len(sessions)} of {count} slices are read at once: {error.args[-1]}. Raise the limit, or lower parallel"
            ]
    return []


async def _alone(control: Session, sessions: list[Session]) -> Snapshot:
    # Before the snapshot: a log read from there on misses nothing, and may repeat what the snapshot has.
    position = await _position(control)
    await sessions[0].execute(_BEGIN)
    exact = await _exact_position(sessions[0])
    seen = _seen(control, exact or position, exact=bool(exact), lock="none")
    return Snapshot(sessions, seen)


async def _together(control: Session, relations: Sequence[Relation], sessions: list[Session]) -> Snapshot:
    refusals: list[str] = []
    await control.execute(f"SET SESSION lock_wait_timeout = {LOCK_SECONDS}")
    for name, statements, release in _locks(control, relations):
        refused = await _locked(control, statements, release)
        if refused is not None:
            refusals.append(f"{name}: {refused.args[-1]}")
            continue
        try:
            for session in sessions:
                await session.execute(_BEGIN)
            position = await _position(control)
        finally:
            if control.is_usable:
                await control.execute(release)
        position = await _exact_position(sessions[0]) or position
        return Snapshot(sessions, _seen(control, position, exact=True, lock=name))
    for surplus in sessions[1:]:
        surplus.close()
    snapshot = await _alone(control, sessions[:1])
    snapshot.notes.append(_ONE_CONNECTION.format("; ".join(refusals), len(sessions)))
    return snapshot


def _locks(control: Session, relations: Sequence[Relation]) -> list[tuple[str, list[str], str]]:
    """What may be tried, the least obtrusive first: its name, how it is taken, how it is given back."""
    everything = ("FLUSH TABLES WITH READ LOCK", ["FLUSH TABLES WITH READ LOCK"], "UNLOCK TABLES")
    # It blocks nothing but commits, and waits for no statement.
    backup = ("BACKUP STAGE BLOCK_COMMIT", ["BACKUP STAGE START", "BACKUP STAGE BLOCK_COMMIT"], "BACKUP STAGE END")
    tables = ", ".join(f"{relation.origin.removesuffix(' AS t')} READ" for relation in relations if relation.name)
    these = ("LOCK TABLES", [f"LOCK TABLES {tables}"], "UNLOCK TABLES")
    return [*([backup] if control.is_mariadb else []), everything, *([these] if tables else [])]


async def _locked(control: Session, statements: list[str], release: str) -> aiomysql.MySQLError | None:
    for number, statement in enumerate(statements):
        refused = await control.attempt(statement)
        if refused is not None:
            if number:
                await control.execute(release)
            return refused
    return None


async def _position(control: Session) -> dict[str, JsonValue]:
    """File, position and (MySQL) GTIDs of the binary log's end; empty where there is none, or it is not for this user."""
    for statement in ("SHOW BINARY LOG STATUS", "SHOW MASTER STATUS"):
        try:
            rows = await control.rows(statement)
        except aiomysql.MySQLError:
            if not control.is_usable:
                raise
            continue
        if rows and rows[0][0]:
            return _log(str(rows[0][0]), str(rows[0][1]), rows[0][4] if len(rows[0]) > 4 else None)
    return {}


async def _exact_position(session: Session) -> dict[str, JsonValue]:
    """MariaDB tells the log position of a snapshot itself; empty elsewhere."""
    rows = await session.rows("SHOW STATUS LIKE 'binlog_snapshot_%'")
    told = {str(name).lower(): value for name, value in rows}
    file, position = told.get("binlog_snapshot_file"), told.get("binlog_snapshot_position")
    if not file or not position:
        return {}
    return _log(file, position, await _gtid_at(session, file, position))


async def _gtid_at(session: Session, file: str, position: str) -> str | None:
    # It reads the log up to there, which may take a second: never under a lock.
    try:
        return await session.value(f"SELECT BINLOG_GTID_POS('{file}', {int(position)})")
    except aiomysql.MySQLError:
        if not session.is_usable:
            raise
        return None


def _log(file: str, position: str, gtids: str | None) -> dict[str, JsonValue]:
    place: dict[str, JsonValue] = {"file": file, "position": int(position)}
    return place | ({"gtids": gtids.replace("\n", "")} if gtids else {})


def _seen(control: Session, position: dict[str, JsonValue], *, exact: bool, lock: str) -> dict[str, JsonValue]:
    """``exact``: the log position is that of the snapshot; otherwise it lies before it."""
    seen: dict[str, JsonValue] = {"server": control.version, "lock": lock}
    return seen | ({"binlog": position, "exact": exact} if position else {})
