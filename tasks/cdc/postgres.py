"""PostgreSQL's side of a capture: the publication, the slot, and whether the server can have them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from blocks.errors import ConfigurationError
from tasks.cdc.names import meant
from tasks.extractors.postgres.sql import Connection
from tasks.findings import Finding, Findings

_TABLES = """
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS quoted, n.nspname || '.' || c.relname AS name,
    c.relreplident AS identity,
    ARRAY(SELECT quote_ident(rn.nspname) || '.' || quote_ident(r.relname)
        FROM pg_catalog.pg_class r JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace
        WHERE (r.oid = c.oid
                OR c.relkind = 'p' AND r.oid IN (SELECT t.relid FROM pg_catalog.pg_partition_tree(c.oid) t WHERE t.isleaf))
            AND r.relreplident <> 'f' AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = r.oid
                AND CASE r.relreplident WHEN 'd' THEN i.indisprimary AND i.indimmediate WHEN 'i' THEN i.indisreplident END)
        ORDER BY 1) AS keyless,
    EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        AND a.attstorage <> 'p') AS large
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p'
    AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
ORDER BY 2
"""
_SLOT = """
SELECT active, wal_status, pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), restart_lsn)::bigint AS retained,
    pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), confirmed_flush_lsn)::bigint AS behind
FROM pg_catalog.pg_replication_slots WHERE slot_name = $1
"""
_MAY_REPLICATE = """
SELECT rolsuper OR rolreplication OR EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = 'rds_replication'
    AND pg_catalog.pg_has_role(current_user, r.oid, 'MEMBER')) FROM pg_catalog.pg_roles WHERE rolname = current_user
"""
_MESSAGES_SINCE = 140_000


@dataclass(frozen=True)
class Table:
    """A table that is captured."""

    name: str
    """As Debezium calls it: ``public.orders``, without quotes."""
    quoted: str
    identity: str
    """``relreplident``: d the key, f the whole row, i an index, n nothing."""
    keyless: tuple[str, ...]
    """The table, and those of its partitions, that have no key in the log: none at all, or a deferrable one. Partitions have an
    identity of their own, whatever their table's is."""
    large: bool
    """It has columns whose values may be kept outside the row."""


@dataclass(frozen=True)
class Slot:
    """How a replication slot is."""

    active: bool
    status: str
    retained: int
    """Bytes of WAL that the server keeps for it."""
    behind: int
    """Bytes of WAL that its reader has not confirmed."""

    def __str__(self) -> str:
        told = f"{'read' if self.active else 'not read'}, {self.behind / 1e6:,.1f} MB behind"
        return f"{told}, {self.retained / 1e6:,.1f} MB of WAL retained" + (
            "" if self.status == "reserved" else f", WAL {self.status}"
        )


async def tables(connection: Connection, patterns: Sequence[str]) -> list[Table]:
    """Those that are meant; `ConfigurationError` where there is none."""
    found = [Table(row["name"], row["quoted"], row["identity"].decode() if isinstance(row["identity"], bytes)
                   else row["identity"], tuple(row["keyless"]), row["large"])
             for row in await connection.fetch(_TABLES)]  # fmt: skip
    names = set(meant(patterns, [table.name for table in found]))
    return [table for table in found if table.name in names]


async def has_messages(connection: Connection) -> bool:
    """Whether pgoutput sends messages of the log."""
    return connection.get_server_version()[0] * 10_000 >= _MESSAGES_SINCE


async def publish(connection: Connection, name: str, wanted: Iterable[Table]) -> list[str]:
    """Make the publication hold exactly these tables; the names of those that came new to one that was there."""
    # Without ONLY all tables that inherit from one would be published, too, also those that have no key. Partitions still are.
    listed = ", ".join(f"ONLY {table.quoted}" for table in wanted)
    rows = await connection.fetch(
        "SELECT schemaname || '.' || tablename AS name FROM pg_catalog.pg_publication_tables WHERE pubname = $1", name
    )
    if not await connection.fetchval("SELECT count(*) FROM pg_catalog.pg_publication WHERE pubname = $1", name):
        await connection.execute(
            f"CREATE PUBLICATION {name} FOR TABLE {listed} WITH (publish_via_partition_root = true)"
        )
        return []
    before = {row["name"] for row in rows}
    if before != {table.name for table in wanted}:
        await connection.execute(f"ALTER PUBLICATION {name} SET TABLE {listed}")
    return sorted(table.name for table in wanted if table.name not in before)


async def slot(connection: Connection, name: str) -> Slot | None:
    """The slot; None where there is none."""
    row = await connection.fetchrow(_SLOT, name)
    return (
        None if row is None else Slot(row["active"], row["wal_status"] or "", row["retained"] or 0, row["behind"] or 0)
    )


async def drop(connection: Connection, slot_: str, publication: str, seconds: float = 60) -> list[str]:
    """Remove slot and publication; what was removed. A slot that is still read is waited for."""
    removed = []
    try:
        async with asyncio.timeout(seconds):
            found = await _unread(connection, slot_)
    except TimeoutError:
        raise ConfigurationError(
            f"slot {slot_} is still read after {seconds:g} s, by another than the stream's connector; stop that (its process is "
            "active_pid in pg_replication_slots), and disable again: a slot that stays keeps WAL"
        ) from None
    if found is not None:
        await connection.execute("SELECT pg_catalog.pg_drop_replication_slot($1)", slot_)
        removed.append(f"slot {slot_}")
    if await connection.fetchval("SELECT count(*) FROM pg_catalog.pg_publication WHERE pubname = $1", publication):
        await connection.execute(f"DROP PUBLICATION {publication}")
        removed.append(f"publication {publication}")
    return removed


async def _unread(connection: Connection, name: str) -> Slot | None:
    """The slot once its reader has left it, which takes the worker a moment."""
    while True:
        found = await slot(connection, name)
        if found is None or not found.active:
            return found
        await asyncio.sleep(0.2)


async def look(connection: Connection, name: str, wanted: Sequence[Table]) -> Findings:
    """Whether the server can be captured: settings, rights, slots, and what its log has of each table."""
    level = await connection.fetchval("SHOW wal_level")
    if level != "logical":
        way_out = "ALTER SYSTEM SET wal_level = logical, then restart (RDS, Aurora: rds.logical_replication = 1)"
        yield Finding("error", f"capture: wal_level is {level}: the log does not have what changed", way_out)
    else:
        yield Finding("ok", "capture: wal_level is logical")
    if await connection.fetchval(_MAY_REPLICATE):
        yield Finding("ok", "capture: the user may replicate")
    else:
        yield Finding(
            "error", "capture: the user may not replicate", "ALTER ROLE … REPLICATION (RDS: GRANT rds_replication)"
        )
    for setting, view in (
        ("max_replication_slots", "pg_replication_slots"),
        ("max_wal_senders", "pg_stat_replication"),
    ):
        most, used = (
            int(await connection.fetchval(f"SHOW {setting}")),
            await connection.fetchval(f"SELECT count(*) FROM {view}"),
        )
        if used >= most and await slot(connection, name) is None:
            yield Finding(
                "error", f"capture: all {most} of {setting} are used", f"raise {setting}, or drop what is unused"
            )
    yield _kept(str(await connection.fetchval("SHOW max_slot_wal_keep_size")))
    for table in wanted:
        if (finding := _identity(table)) is not None:
            yield finding
    if (found := await slot(connection, name)) is not None:
        yield _slot(name, found)


def _slot(name: str, found: Slot) -> Finding:
    text = f"capture: slot {name}: {found}"
    match found.status:
        case "lost":
            return Finding("error", text, "headrace cdc disable, then enable: it begins with a new snapshot")
        case "unreserved":
            return Finding(
                "warning", text, "the next checkpoint may remove what it has not read: let the connector catch up"
            )
    return Finding("ok", text)


def _kept(size: str) -> Finding:
    if size == "-1":
        return Finding(
            "warning",
            "capture: a slot that is not read keeps WAL until the disk is full (max_slot_wal_keep_size is -1)",
            "watch `headrace cdc status`, or set max_slot_wal_keep_size: then such a slot is lost instead",
        )
    return Finding("ok", f"capture: a slot that is not read for {size} of WAL is lost (max_slot_wal_keep_size)")


def _identity(table: Table) -> Finding | None:
    full = f"ALTER TABLE {table.quoted} REPLICA IDENTITY FULL"
    if table.keyless:
        partitions = "" if table.quoted in table.keyless else f": {_some(', ', table.keyless)}"
        return Finding(
            "error",
            f"capture: {table.name} has no key in the log{partitions}: the server refuses updates and deletions once it is "
            "published",
            _some("; ", [f"ALTER TABLE {name} REPLICA IDENTITY FULL" for name in table.keyless]),
        )
    if table.identity != "f" and table.large:
        return Finding(
            "ok",
            f"capture: {table.name}: deletions bring the key alone, and updates leave out large values that stay (_unchanged); "
            f"{full} would bring them",
        )
    return None


def _some(between: str, names: Sequence[str]) -> str:
    return between.join(names[:5]) + (f"{between}and {len(names) - 5} more" if len(names) > 5 else "")
