"""How far an incremental read may go without passing over a row that is not committed yet.

A row's cursor value is given when it is written and becomes visible when its transaction commits, which may be much
later. Reading up to the highest value in sight therefore loses rows. Two ways close the gap:

* a **time** cursor is held back to the start of the oldest transaction or statement that may still write: ``now()`` in a
  transaction is its start, ``clock_timestamp()`` is later, so whatever it writes is stamped at or after that;
* any **other** cursor (an identity column, say) reads no further than the highest value seen *before* waiting until
  all transactions that had the table open for writing, or had drawn from its sequence, at that moment have ended: who comes
  later draws a higher value.

Both look at the server *before* the snapshot is taken: a transaction that ended in between is in the snapshot.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from blocks.errors import ConfigurationError
from tasks.extractors.postgres.describe import Field
from tasks.extractors.postgres.sql import APPLICATION, Connection

LOCAL_TYPES = frozenset({"timestamp", "date"})
"""Times without time zone."""
TIME_TYPES = LOCAL_TYPES | {"timestamptz"}

# A backend takes its transaction's start time an instant before it shows it in pg_stat_activity; on a busy machine it may be
# interrupted between the two. So long ago is the end of the window, which is a whole second, when it is looked at.
_SETTLE_SECONDS = 0.25

WRITERS_SECONDS = 10.0
"""How long a plan waits for transactions that hold the table open for writing."""

# A procedure that has committed goes on in a younger transaction, and its statement_timestamp() is still the CALL's start.
# (A background worker's query_start may be as old as itself.) Backends that write no rows of users' tables, or only read
# (ours), hold nothing back.
_OLDEST = f"""
    SELECT min(least(xact_start, CASE WHEN state = 'active' AND backend_type = 'client backend' THEN query_start END))
             AS oldest,
           (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user)
             OR pg_catalog.pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS may_see,
           count(*) FILTER (WHERE state = 'disabled') AS untracked
    FROM pg_catalog.pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
      AND backend_type NOT IN ('walsender', 'autovacuum worker')
      AND application_name IS DISTINCT FROM '{APPLICATION}'"""

# Who has one of the relations open for writing; a prepared transaction has no process. The lock table is open to all.
_WRITERS = """
    SELECT DISTINCT virtualtransaction::text AS writer, pid IS NULL AS prepared
    FROM pg_catalog.pg_locks
    WHERE locktype = 'relation' AND granted AND relation = ANY ($1::oid[])
      AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
      AND mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
      AND pid IS DISTINCT FROM pg_backend_pid()"""

_UNSEEN = "this user does not see when other sessions' transactions began"
_GRANT = "GRANT pg_read_all_stats TO this user"
_UNTRACKED = "sessions with track_activities = off do not tell when their transactions began"
_TRACK = "Set it on for all roles"

_REPLICA = (
    "this server is a replica: transactions in flight on the primary are not seen here. Set lag to more than the longest "
    "transaction plus the replication delay, or read from the primary"
)

_PREPARED = "prepared "

_ZONES_OF_OUR_OWN = ("user", "database user", "client")
"""Where pg_settings has a setting from that does not hold for other users."""

# What the relations' columns count with: sequences that belong to them (serial, identity), or that their defaults name.
_SEQUENCES = """
    SELECT array_agg(DISTINCT s.oid)
    FROM (SELECT objid FROM pg_catalog.pg_depend
          WHERE refobjid = ANY ($1::oid[]) AND refclassid = 'pg_catalog.pg_class'::regclass
            AND classid = 'pg_catalog.pg_class'::regclass AND deptype IN ('a', 'i')
          UNION ALL
          SELECT d.refobjid FROM pg_catalog.pg_attrdef a
          JOIN pg_catalog.pg_depend d ON d.objid = a.oid AND d.classid = 'pg_catalog.pg_attrdef'::regclass
          WHERE a.adrelid = ANY ($1::oid[]) AND d.refclassid = 'pg_catalog.pg_class'::regclass) AS used (oid)
    JOIN pg_catalog.pg_class s ON s.oid = used.oid AND s.relkind = 'S'"""

_OWN_RELATIONS = """
    SELECT array_agg(DISTINCT relation) FROM pg_catalog.pg_locks
    WHERE pid = pg_backend_pid() AND locktype = 'relation' AND relation >= 16384"""

_OF_KIND = """
    SELECT array_agg(oid::regclass::text ORDER BY oid::regclass::text) FROM pg_catalog.pg_class
    WHERE relkind::text = $1 AND oid = ANY ($2::oid[])"""


@dataclass(frozen=True)
class Bound:
    """Rows below it (``exclusive``) or up to it are complete."""

    value: str | None
    """Text of the cursor's type; None: nothing may be read now."""
    exclusive: bool
    notes: tuple[str, ...] = ()


async def relations(connection: Connection, statement: str) -> list[int]:
    """The tables a statement reads, views resolved: those locked for this transaction when the server plans the statement."""
    await connection.execute(f"EXPLAIN {statement}")
    return await locked(connection)


async def locked(connection: Connection) -> list[int]:
    """The tables that this transaction has touched."""
    return list(await connection.fetchval(_OWN_RELATIONS) or [])


async def foreign(connection: Connection, read: list[int]) -> list[str]:
    """The foreign tables among the relations. Their rows are another server's: no snapshot of this one holds for them."""
    return list(await connection.fetchval(_OF_KIND, "f", read) or [])


async def blind_spots(connection: Connection, field: Field, read: list[int]) -> list[str]:
    """Notes of writers that no look at this server shows, for lag or lookback to make up for."""
    notes = [
        f"{name} is a foreign table: transactions in flight on its own server are not seen here. Set lag or "
        "lookback to more than what may be in flight there, or read from that server"
        for name in await foreign(connection, read)
    ]
    notes += [
        f"{name} is a materialized view: what was not committed when it was refreshed comes with a later refresh, and may be "
        "passed over. Set lag or lookback to more than what is written between two refreshes and in the longest transaction"
        for name in await connection.fetchval(_OF_KIND, "m", read) or []
    ]
    if not read and field.base not in TIME_TYPES:
        notes.append(
            "the tables behind this query are not seen (does a function read them?), so transactions that write to them are "
            "not waited for. Set lag or lookback to more than what they may write at a time, or name the tables in the query"
        )
    return notes


async def server_zone(connection: Connection) -> str:
    """The time zone that server and database configure. To be asked outside of our transactions, which choose UTC."""
    zone = await connection.fetchrow("SELECT reset_val, source FROM pg_catalog.pg_settings WHERE name = 'TimeZone'")
    if zone is None:  # every server has the setting
        raise RuntimeError("pg_settings gave no TimeZone")
    if zone["source"] in _ZONES_OF_OUR_OWN:
        raise ConfigurationError(
            f"field cursor_timezone: the time zone {zone['reset_val']} is set for this user ({zone['source']}), and says "
            "nothing of the zone of those who write the cursor; name theirs, such as Europe/Berlin or UTC"
        )
    return str(zone["reset_val"])


async def time_bound(connection: Connection, field: Field, zone: str, lag: str, read: list[int]) -> Bound:
    """The start of the oldest transaction or statement in flight, less ``lag``, as a value of the cursor's type.

    It is cut to the whole second, and cast to the column's own precision: stamps that an application cut to
    milliseconds or that ``timestamp(0)`` rounded are still not below it.
    """
    before = await connection.fetchval("SELECT clock_timestamp()")
    await asyncio.sleep(max(0.0, _SETTLE_SECONDS - before.microsecond / 1e6))
    seen = await connection.fetchrow(_OLDEST)
    if seen is None:  # an aggregate always gives a row
        raise RuntimeError("pg_stat_activity gave no row")
    sees_all = seen["may_see"] and not seen["untracked"]
    # now() of a writer whose start pg_stat_activity does not tell us, or of a prepared one (which is not in it), is unknown:
    # such a transaction is waited for instead.
    left = await _wait_for_writers(connection, read, prepared_only=sees_all)
    if left:
        return Bound(None, exclusive=True, notes=(_held_back(left),))
    oldest = min(before, seen["oldest"] or before)
    notes = [] if sees_all else [_not_seen(may_see=seen["may_see"])]
    notes += [_REPLICA] if await connection.fetchval("SELECT pg_is_in_recovery()") else []
    if (before - oldest).total_seconds() > 60:
        notes.append(
            f"held back to {oldest:%Y-%m-%d %H:%M:%S}+00, the start of the oldest transaction or statement in flight"
        )
    local = "" if field.base == "timestamptz" else " AT TIME ZONE $2::text"
    value = await connection.fetchval(
        f"SELECT (date_trunc('second', $1::timestamptz - $3::text::interval){local})::{field.cast}::text"
        + ("" if local else ", $2::text"),
        oldest,
        zone,
        lag or "0",
    )
    return Bound(value, exclusive=True, notes=tuple(notes))


async def value_bound(connection: Connection, highest: str, read: list[int]) -> Bound:
    """The highest value in sight (``highest`` is the query for it), once all who may have drawn a lower one are done.

    nextval() locks its sequence as a writer locks its table, to the end of the transaction.
    """
    watched = read + list(await connection.fetchval(_SEQUENCES, read) or [])
    value = await connection.fetchval(highest)
    left = await _wait_for_writers(connection, watched, prepared_only=False)
    if left:
        return Bound(None, exclusive=False, notes=(_held_back(left),))
    return Bound(value, exclusive=False)


async def _wait_for_writers(connection: Connection, read: list[int], *, prepared_only: bool) -> set[str]:
    """Wait until those who write to the relations now have ended; who is left after `WRITERS_SECONDS`."""
    deadline = time.monotonic() + WRITERS_SECONDS
    now = waited_for = await _writers(connection, read, prepared_only)
    while waited_for and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
        before, now = now, await _writers(connection, read, prepared_only)
        gone = {writer for writer in waited_for - now if not writer.startswith(_PREPARED)}
        # PREPARE TRANSACTION gives a transaction another identity: one that is new may be one that seems to have ended.
        turned = {writer for writer in now - before if writer.startswith(_PREPARED)} if gone else set()
        waited_for = waited_for & now | turned
    return waited_for


async def _writers(connection: Connection, read: list[int], prepared_only: bool) -> set[str]:
    rows = await connection.fetch(_WRITERS, read)
    wanted = [row for row in rows if row["prepared"] or not prepared_only]
    return {f"{_PREPARED if row['prepared'] else ''}{row['writer']}" for row in wanted}


def _not_seen(*, may_see: bool) -> str:
    what, way_out = (_UNTRACKED, _TRACK) if may_see else (_UNSEEN, _GRANT)
    return f"{what}: a transaction that first writes after this run but began before it may be passed over. {way_out}, or set lag"


def _held_back(left: set[str]) -> str:
    prepared = any(writer.startswith(_PREPARED) for writer in left)
    what = "prepared transactions (see pg_prepared_xacts)" if prepared else "open transactions"
    return (
        f"nothing is read now: {len(left)} of the {what} still hold the table open for writing after {WRITERS_SECONDS:g} s, and "
        "rows of theirs would be passed over. The next run tries again; end them if they are forgotten"
    )
