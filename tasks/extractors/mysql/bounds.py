"""How far an incremental read may go without passing over a row that is not committed yet.

A row's cursor value is given when it is written and becomes visible when its transaction commits, which may be much
later. Reading up to the highest value in sight therefore loses rows. Two ways close the gap:

* a **time** cursor is held back to the start of the oldest transaction or writing statement in flight: NOW() is the
  start of its statement. InnoDB knows a transaction only once a statement reaches it, and a statement that has to wait
  for a lock on the table before that is older than its transaction: so one that has written counts as begun some
  seconds earlier (`LATE_SECONDS`);
* any **other** cursor (an AUTO_INCREMENT column, say) reads no further than the highest value seen *before* waiting until
  all transactions that were writing at that moment have ended: who comes later draws a higher value.

Both look at ``information_schema.innodb_trx``, which needs the privilege PROCESS, and before the snapshot is taken: a
transaction that ended in between is in the snapshot. Read-only transactions, such as our own, hold nothing back.

Starts of transactions are compared as moments, not as ages: InnoDB takes them from the kernel's coarse clock, which is behind
the clock of NOW() by up to a tick, so "as old as a transaction that begins now" may mean a second later than it did begin.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import aiomysql
from pymysql.constants import ER

from blocks.errors import ConfigurationError
from tasks.extractors.mysql.describe import Field
from tasks.extractors.mysql.replica import is_replica
from tasks.extractors.mysql.select import Bound
from tasks.extractors.mysql.session import Row, Session
from tasks.extractors.mysql.sql import number_of

WRITERS_SECONDS = 10.0
"""How long a plan waits for transactions that are writing."""

LATE_SECONDS = 10.0
"""How long the first statement of a transaction may have waited before InnoDB began to count.

Our own locks (see `snapshot`) hold statements up for three seconds at most, each.
"""

# The server shows innodb_trx from a cache that it renews once nobody has looked for 0.1 s: many streams that are planned at
# once would keep it from that, unless they look the more rarely the longer it takes.
_CACHE_SECONDS = 0.11
_LONGEST_PAUSE = 2.0
_CACHE_TRIES = 40

# Starts are told in the operating system's zone, whatever the session's is. An hour (or half of one) that a change of the
# clock repeats means either moment: it counts as the earlier one.
_BEGAN = "UNIX_TIMESTAMP(trx_started)"
_REPEATED = " ".join(
    f"WHEN FROM_UNIXTIME({_BEGAN} - {seconds}) = trx_started THEN {seconds}" for seconds in (3600, 1800)
)
_TRANSACTIONS = f"""
    SELECT trx_mysql_thread_id, trx_id, {_BEGAN} - CASE {_REPEATED} ELSE 0 END, trx_rows_modified, trx_query,
    trx_is_read_only FROM information_schema.innodb_trx"""

_DENIED = (ER.SPECIFIC_ACCESS_DENIED_ERROR, ER.ACCESS_DENIED_ERROR, ER.DBACCESS_DENIED_ERROR)

# What a statement that writes nothing begins with; all others count as writing: DO, of a function that writes, and
# MariaDB's SET STATEMENT … FOR INSERT as well.
_BLANK = r"\s|/\*(?!M?!).*?\*/|--[^\n]*\n|#[^\n]*\n"
_READS = re.compile(
    rf"({_BLANK}|\()*(select|show|explain|describe|desc|use|set(?!({_BLANK})+statement\b)|kill)\b",
    re.IGNORECASE | re.DOTALL,
)

_STATEMENT = ("Query", "Execute")
"""Commands of threads that run a statement, even where none is shown."""
_NO_STATEMENT = ("Sleep", "Daemon", "Binlog Dump", "Binlog Dump GTID")
"""Those of threads that run none, or the server's own; of all others what is shown counts."""

_NO_PROCESS = (
    "this user does not see other sessions' transactions: a row that is written now and commits after this run may be "
    "passed over. GRANT PROCESS ON *.* TO this user, or set lag to more than the longest transaction"
)
_REPLICA = (
    "this server is a replica: transactions in flight on the primary are not seen here. Set lag to more than the "
    "longest transaction plus the replication delay, or read from the primary"
)


Identity = tuple[int, str]
"""The thread, and what tells the transactions of one apart."""


@dataclass(frozen=True)
class Transaction:
    """One that may still write."""

    thread: int
    """0: a prepared one (XA) whose session is gone, and the start of which may be lost."""
    id: str
    began: int
    """Seconds since 1970; never later than it was."""
    writes: bool
    """It has written, or a statement of it that may write is running."""

    @property
    def identity(self) -> Identity:
        # A transaction's number changes with its first write.
        return self.thread, str(self.began) if self.thread else self.id


async def time_bound(session: Session, field: Field, zone: str, lag: timedelta) -> Bound:
    """The start of the oldest transaction in flight, less ``lag``, as a value of the cursor's type.

    It is cut to the whole second: stamps that a column's precision or an application cut are still not below it.
    """
    notes = [_REPLICA] if await is_replica(session.rows) else []
    now = oldest = int(float(await session.value("SELECT UNIX_TIMESTAMP(NOW(6))") or 0))
    seen = await _oldest(session, now)
    if seen is None:
        notes.append(_NO_PROCESS)
    else:
        left = await _wait_for(session, prepared_only=True)
        if left:
            return Bound(None, exclusive=True, notes=(*notes, _held_back(left)))
        oldest = seen
        if now - oldest > 60:
            held = timedelta(seconds=now - oldest)
            notes.append(f"held back by {held}: so old is the oldest transaction or writing statement in flight")
    value = await _local(session, field, zone, oldest - math.ceil(lag.total_seconds()))
    return Bound(value, exclusive=True, notes=tuple(notes))


async def value_bound(session: Session, highest: str) -> Bound:
    """The highest value in sight (``highest`` is the query for it), once all who may have drawn a lower one are done."""
    notes = [_REPLICA] if await is_replica(session.rows) else []
    value = await session.value(highest)
    left = await _wait_for(session, prepared_only=False)
    if left is None:
        return Bound(value, exclusive=False, notes=(*notes, _NO_PROCESS))
    if left:
        return Bound(None, exclusive=False, notes=(*notes, _held_back(left)))
    return Bound(value, exclusive=False, notes=tuple(notes))


async def _oldest(session: Session, now: int) -> int | None:
    """When the oldest transaction or writing statement in flight began, at most ``now``; None if the user may not know.

    Both in seconds since 1970.
    """
    # In this order: a statement that ends in between has reached InnoDB, so its transaction is seen, or is committed.
    running = await _running(session)
    transactions = await _transactions(session)
    if transactions is None:
        return None
    late = math.ceil(LATE_SECONDS)
    began = [other.began - late * other.writes for other in transactions if other.thread]
    return min([now, *(now - age for age in running.values()), *began])


async def _running(session: Session) -> dict[int, int]:
    """Statements that may write, by their threads, and for how many seconds they have been running at most.

    One that has not reached InnoDB yet is in no transaction.
    """
    rows = await session.rows("SHOW FULL PROCESSLIST")
    return {
        int(thread or 0): int(float(seconds or 0)) + 1  # whole seconds, cut
        for thread, user, _, _, command, seconds, _, statement, *_ in rows
        # Appliers of a replica wait for long under the command of their last statement.
        if user != "system user" and int(thread or 0) != session.id and _may_write(command or "", statement or "")
    }


def _may_write(command: str, statement: str) -> bool:
    """Of a thread in the server's list; besides clients' there are those of events (Connect), and MariaDB's bulks."""
    if command in _STATEMENT:
        return not _READS.match(statement)
    return bool(statement) and command not in _NO_STATEMENT and not _READS.match(statement)


async def _transactions(session: Session) -> list[Transaction] | None:
    """Transactions of others that may write; None without the privilege.

    One of our own that is begun for it is the proof that the list is no older than this call. It only reads: a server in
    read_only would refuse another.
    """
    async with _in_zone(session, "'SYSTEM'"):
        await session.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        try:
            for number in range(_CACHE_TRIES):
                pause = min(_LONGEST_PAUSE, 0.1 * 2**number)
                await asyncio.sleep(_CACHE_SECONDS + pause * random.random())  # noqa: S311 - spreads them, hides nothing
                try:
                    rows = await session.rows(_TRANSACTIONS)
                except aiomysql.MySQLError as error:
                    if number_of(error) in _DENIED:
                        return None
                    raise
                if any(int(thread or 0) == session.id for thread, *_ in rows):
                    return [
                        _transaction(row) for row in rows if int(row[0] or 0) != session.id and not int(row[-1] or 0)
                    ]
        finally:
            if session.is_usable:
                await session.execute("ROLLBACK")
    raise TimeoutError("information_schema.innodb_trx did not show this connection's own transaction")


def _transaction(row: Row) -> Transaction:
    thread, number, began, modified, statement, _ = row
    busy = statement is not None and not _READS.match(statement)
    return Transaction(
        thread=int(thread or 0),
        id=str(number),
        began=int(float(began or 0)),
        writes=int(modified or 0) > 0 or busy or not int(thread or 0),
    )


async def _wait_for(session: Session, *, prepared_only: bool) -> set[Identity] | None:
    """Wait until those who write now have ended; who is left after `WRITERS_SECONDS`; None without the privilege."""
    deadline = time.monotonic() + WRITERS_SECONDS
    waited_for = before = await _writers(session, prepared_only)
    while waited_for and time.monotonic() < deadline:
        now = await _writers(session, prepared_only)
        if now is None:
            return None
        waited_for, before = _left(waited_for, before or set(), now), now
    return waited_for


def _left(waited_for: set[Identity], before: set[Identity], now: set[Identity]) -> set[Identity]:
    """Those among the writers of now who are to be waited for. ``before``: who wrote at the last look.

    One whose session is gone may have ended, or be a prepared one (XA) that nothing links to it: all that are new are taken
    for it. They change no more, so a server that always prepares some is not waited for without end.
    """
    has_gone = any(thread for thread, _ in waited_for - now)
    return waited_for & now | {new for new in now - before if has_gone and not new[0]}


async def _writers(session: Session, prepared_only: bool) -> set[Identity] | None:
    # MariaDB leaves a statement out of innodb_trx while somebody else looks at it: the list of threads shows that it runs.
    running = {} if prepared_only else await _running(session)
    found = await _transactions(session)
    if found is None:
        return None
    return {
        other.identity
        for other in found
        if (other.writes or other.thread in running) and not (prepared_only and other.thread)
    }


def _held_back(left: set[Identity]) -> str:
    return (
        f"nothing is read now: {len(left)} transaction(s) that were writing have not ended after {WRITERS_SECONDS:g} s, and "
        "rows of theirs would be passed over. The next run tries again; if they are forgotten, end them (KILL; for prepared "
        "ones see XA RECOVER)"
    )


# -- the clock of the cursor ------------------------------------------------------------------------------------------


async def _local(session: Session, field: Field, zone: str, seconds: int) -> str:
    """A moment as the cursor's column would have it."""
    if field.kind == "timestamp":
        moment = datetime.fromtimestamp(seconds, UTC)
    elif zone:
        moment = datetime.fromtimestamp(seconds, await asyncio.to_thread(_zone, zone))
    else:
        moment = await _by_server(session, seconds)
    return f"{moment:%Y-%m-%d}" if field.kind == "date" else f"{moment:%Y-%m-%d %H:%M:%S}"


async def _by_server(session: Session, seconds: int) -> datetime:
    async with _in_zone(session, "@@GLOBAL.time_zone"):
        return datetime.fromisoformat(str(await session.value(f"SELECT FROM_UNIXTIME({seconds})")))


@asynccontextmanager
async def _in_zone(session: Session, zone: str) -> AsyncIterator[None]:
    await session.execute(f"SET SESSION time_zone = {zone}")
    try:
        yield
    finally:
        if session.is_usable:
            await session.execute("SET SESSION time_zone = '+00:00'")


def _zone(name: str) -> timezone | ZoneInfo:
    if offset := re.fullmatch(r"([+-])(\d\d?):(\d\d)", name):
        minutes = int(offset[2]) * 60 + int(offset[3])
        return timezone(timedelta(minutes=-minutes if offset[1] == "-" else minutes))
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigurationError(
            f"field cursor_timezone: there is no time zone {name!r}; write such as Europe/Berlin, UTC or +02:00"
        ) from None
