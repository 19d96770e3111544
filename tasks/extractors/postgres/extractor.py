"""PostgreSQL tables and queries: the server writes the CSV (COPY … TO STDOUT), this passes its bytes on.

The connection that plans keeps its transaction open until the run ends. It holds the exported snapshot all partitions
read, and an ACCESS SHARE lock on every table read, as pg_dump does: a TRUNCATE or a rewriting ALTER TABLE in between
would show the rest of the partitions an empty table (https://www.postgresql.org/docs/current/mvcc-caveats.html).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import asyncpg
from pydantic import JsonValue

from blocks.errors import ConfigurationError, PositionLost, SnapshotLost
from blocks.postgres import Postgres
from tasks.extractors.contract import Mode, Partition, Plan, ReadOptions, Write
from tasks.extractors.postgres import bounds, slices
from tasks.extractors.postgres.bounds import Bound
from tasks.extractors.postgres.describe import Field, Relation, query, table
from tasks.extractors.postgres.sql import Connection, begin, connect, explained, literal
from tasks.extractors.source import Window

# A quick client gets COPY's rows 8 KiB at a time, and each costs a wake-up. After a small buffer a rest lets the
# kernel's socket buffer fill: client CPU falls by 60 % (2M rows, 600 MB), the wall time not at all.
_REST_SECONDS = 0.002
_SMALL_BYTES = 128 << 10

_UNDER_INFINITE = {
    "timestamptz": "infinity", "timestamp": "infinity", "date": "infinity",
    "int2": "32767", "int4": "2147483647", "int8": "9223372036854775807",
    "float4": "Infinity", "float8": "Infinity", "numeric": "1e1000",
    "uuid": "ffffffff-ffff-ffff-ffff-ffffffffffff",
}  # fmt: skip
_LOWEST = {
    "timestamptz": "-infinity", "timestamp": "-infinity", "date": "-infinity",
    "int2": "-32768", "int4": "-2147483648", "int8": "-9223372036854775808",
    "float4": "-Infinity", "float8": "-Infinity", "numeric": "-1e1000",
    "uuid": "00000000-0000-0000-0000-000000000000", "text": "", "varchar": "", "bpchar": "",
}  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """What is read, as the user named it."""

    block: Postgres
    window: Window
    table: str = ""
    where: str = ""
    query: str = ""
    key: tuple[str, ...] = ()

    @property
    def statement(self) -> str:
        return self.query.strip().rstrip(";").rstrip()


class PostgresExtractor:
    """See `tasks.extractors.contract.Extractor`."""

    def __init__(self, subject: Subject, options: ReadOptions) -> None:
        self._subject = subject
        self._options = options
        self._holder: Connection | None = None
        self._snapshot: str | None = None
        self._relation: Relation | None = None
        self._describing = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._holder is not None:
            # Not close(): after an error it may wait for an answer that does not come.
            self._holder.terminate()

    @property
    def asked(self) -> str:
        """See `Extractor.asked`."""
        subject = self._subject
        asked = [
            subject.block.describe(),
            subject.table,
            subject.where,
            subject.query,
            subject.window.model_dump_json(include=set(Window.model_fields)),
            self._options.model_dump_json(),
        ]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]

    # -- planning ------------------------------------------------------------------------------------------------

    async def plan(self, since: JsonValue) -> Plan:
        """See `Extractor.plan`. ``since`` and ``until`` are ``{"cursor": name, "value": text}``."""
        connection = self._holder = await connect(self._subject.block)
        try:
            self._relation = await self._describe(connection)
            return await self._planned(connection, self._relation, since)
        except asyncpg.PostgresError as error:
            raise explained(error, "planning failed", self._subject.statement) from error

    async def _describe(self, connection: Connection) -> Relation:
        subject, dialect = self._subject, self._options.dialect
        if subject.table:
            return await table(connection, subject.table, subject.where, dialect)
        return await query(connection, await self._with_bounds(connection, None, None), subject.key, dialect)

    async def _planned(self, connection: Connection, relation: Relation, since: JsonValue) -> Plan:
        cursor = self._cursor(relation)
        after = _position_of(since, self._subject.window.cursor)
        bound = await self._bound(connection, relation, cursor, after) if cursor else None
        await self._take_snapshot(connection, relation)
        until = await self._until(connection, relation, cursor, after, bound) if cursor and bound else None
        notes = list(bound.notes) if bound else []
        plan = Plan(
            id=uuid.uuid4().hex,
            asked=self.asked,
            mode=self._options.mode,
            since=since,
            until={"cursor": cursor.column.name, "value": until} if cursor and until is not None else since,
            columns=tuple(field.column for field in relation.chosen(self._options.columns)),
            snapshot=await self._snapshot_text(connection),
            resumable=self._options.mode == "incremental",
        )
        if self._options.mode == "full":
            return await self._plan_full(connection, relation, plan, notes)
        assert cursor is not None
        return await self._plan_window(connection, relation, plan, cursor, after, until, notes)

    def _cursor(self, relation: Relation) -> Field | None:
        name = self._subject.window.cursor
        if name:
            return relation.field(name, "field cursor")
        if self._options.mode == "incremental":
            raise ConfigurationError(
                "field cursor: mode incremental needs a column that grows with every change, such as updated_at or id "
                "(`headrace discover` proposes some); or choose mode full"
            )
        return None

    async def _bound(self, connection: Connection, relation: Relation, cursor: Field, after: str | None) -> Bound:
        """Where an incremental read has to stop, found before the snapshot is taken."""
        window = self._subject.window
        await begin(connection, isolation="READ COMMITTED")
        try:
            read = await bounds.relations(connection, f"SELECT * FROM {relation.origin}")
            if cursor.base in bounds.TIME_TYPES:
                zone = window.cursor_timezone or await self._server_zone(connection)
                return await bounds.time_bound(connection, cursor, zone, window.lag, read)
            highest = await self._highest(connection, relation, cursor, after, None)
            shifted = (
                f"SELECT (v.value::{cursor.cast} - {float(window.lag):g})::text FROM ({highest}) v"
                if window.lag
                else highest
            )
            bound = await bounds.value_bound(connection, shifted, read)
            return await self._with_tie_note(connection, relation, cursor, bound)
        finally:
            await connection.execute("ROLLBACK")

    async def _server_zone(self, connection: Connection) -> str:
        # reset_val: what the server, database and role configure, before this session chose UTC.
        return str(await connection.fetchval("SELECT reset_val FROM pg_settings WHERE name = 'TimeZone'"))

    async def _with_tie_note(self, connection: Connection, relation: Relation, cursor: Field, bound: Bound) -> Bound:
        if relation.oid is None or self._subject.window.lookback:
            return bound
        if await slices.is_unique(connection, relation, cursor.column.name):
            return bound
        note = (
            f"the cursor {cursor.column.name} has no unique index: a row that gets an already read value later is "
            "passed over. Set lookback where that can happen"
        )
        return Bound(bound.value, bound.exclusive, (*bound.notes, note))

    async def _take_snapshot(self, connection: Connection, relation: Relation) -> None:
        await begin(connection)
        self._snapshot = await connection.fetchval("SELECT pg_catalog.pg_export_snapshot()")
        # Planning the statement locks every table it reads, to the end of this transaction.
        read = await bounds.relations(connection, f"SELECT * FROM {relation.origin}")
        rewritten = await connection.fetchval(
            "SELECT count(*) FROM pg_catalog.pg_class WHERE oid = ANY ($1::oid[]) AND relfilenode <> 0"
            " AND relfilenode IS DISTINCT FROM pg_catalog.pg_relation_filenode(oid)",
            read,
        )
        if rewritten:  # truncated or rewritten between the snapshot and the lock: it would look empty
            raise SnapshotLost("a table was truncated or rewritten while the snapshot was taken")

    async def _snapshot_text(self, connection: Connection) -> str:
        row = await connection.fetchrow(
            "SELECT txid_current_snapshot()::text AS visible, pg_is_in_recovery() AS standby,"
            " CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END::text AS lsn"
        )
        return json.dumps({"visible": row["visible"], "lsn": row["lsn"]}) if row else ""

    async def _until(
        self, connection: Connection, relation: Relation, cursor: Field, after: str | None, bound: Bound
    ) -> str | None:
        """The highest cursor value below the bound that the snapshot shows; None: no row is new."""
        if bound.value is None:
            return None
        statement = await self._highest(connection, relation, cursor, after, bound)
        value: str | None = await connection.fetchval(statement)
        return value

    async def _highest(
        self, connection: Connection, relation: Relation, cursor: Field, after: str | None, bound: Bound | None
    ) -> str:
        name = _quoted(cursor)
        upper = bound.value if bound else None
        conditions = [f"{name} IS NOT NULL", *_parenthesised(relation.where)]
        if after is not None:
            conditions.append(f"{name} > {await literal(connection, after, cursor.cast)}")
        if upper is not None and bound is not None:
            sign = "<" if bound.exclusive else "<="
            conditions.append(f"{name} {sign} {await literal(connection, upper, cursor.cast)}")
        origin = await self._origin(connection, relation, after, upper)
        # Not max(): uuid has none before PostgreSQL 18, and what has a btree order can be sorted.
        return (
            f"SELECT {name}::text AS value FROM {origin} WHERE {' AND '.join(conditions)} ORDER BY {name} DESC LIMIT 1"
        )

    async def _origin(self, connection: Connection, relation: Relation, low: str | None, high: str | None) -> str:
        if relation.oid is not None:
            return relation.origin
        return f"(\n{await self._with_bounds(connection, low, high)}\n) AS t"

    async def _with_bounds(self, connection: Connection, low: str | None, high: str | None) -> str:
        """The user's query with ``{since}`` and ``{until}`` filled in; without a bound, the type's end."""
        statement = self._subject.statement
        if "{since}" not in statement and "{until}" not in statement:
            return statement
        cursor = await self._cursor_of_query(connection)
        lowest, highest = _LOWEST.get(cursor.base), _UNDER_INFINITE.get(cursor.base)
        for mark, value, end in (("{since}", low, lowest), ("{until}", high, highest)):
            if mark not in statement:
                continue
            if value is None and end is None:
                raise ConfigurationError(
                    f"field query: {mark} cannot be filled in for a cursor of type {cursor.column.type}, which has no "
                    "lowest or highest value; leave it out, the query is wrapped in the bounds anyway"
                )
            statement = statement.replace(
                mark, await literal(connection, value if value is not None else str(end), cursor.cast)
            )
        return statement

    async def _cursor_of_query(self, connection: Connection) -> Field:
        """The cursor's type, told by the query itself with NULL for its bounds."""
        if self._relation is not None:
            return self._relation.field(self._subject.window.cursor, "field cursor")
        if not self._subject.window.cursor:
            raise ConfigurationError("field cursor: the query has {since} or {until}; name the column they bound")
        bare = self._subject.statement.replace("{since}", "NULL").replace("{until}", "NULL")
        described = await query(connection, bare, (), self._options.dialect)
        return described.field(self._subject.window.cursor, "field cursor")

    async def _plan_full(self, connection: Connection, relation: Relation, plan: Plan, notes: list[str]) -> Plan:
        tables = await slices.leaves(connection, relation)
        rows, size = await self._estimate(
            connection, f"SELECT * FROM {relation.origin}{_where(_parenthesised(relation.where))}"
        )
        total = sum(leaf.bytes for leaf in tables) if tables else size
        wanted = self._options.partitions or -(-total // self._options.object_bytes)
        count = min(max(1, wanted), slices.MAX_PARTITIONS)
        partitions: tuple[Partition, ...] = (Partition(name="00001"),)
        if count > 1 and tables:
            partitions = slices.by_pages(tables, count)
        elif self._options.partitions > 1:
            notes.append(
                "one partition: only tables that hold rows themselves can be cut by pages (not views, queries, foreign "
                "tables, tables with row security, or servers before PostgreSQL 14)"
            )
        return plan.model_copy(
            update={
                "partitions": partitions,
                "estimated_rows": rows,
                "estimated_bytes": total,
                "notes": tuple(notes),
                "statement": await self._statement(connection, relation, plan, partitions[0]),
            }
        )

    async def _plan_window(
        self, connection: Connection, relation: Relation, plan: Plan, cursor: Field, after: str | None,
        until: str | None, notes: list[str],
    ) -> Plan:  # fmt: skip
        await self._check_nulls(connection, relation, cursor)
        if until is None:
            statement = await self._highest(connection, relation, cursor, after, None)
            return plan.model_copy(
                update={"notes": tuple(notes), "statement": statement, "estimated_rows": 0, "estimated_bytes": 0}
            )
        lower = await self._looked_back(connection, cursor, after)
        whole = Partition(name="00001", lower=lower, upper=until)
        statement = await self._statement(connection, relation, plan, whole)
        rows, size = await self._estimate(connection, statement)
        wanted = self._options.partitions or -(-size // self._options.object_bytes)
        inner: list[str] = []
        if (
            wanted > 1
            and relation.oid is not None
            and await slices.is_indexed(connection, relation, cursor.column.name)
        ):
            inner = await self._inner_bounds(connection, relation, cursor, lower, until, wanted)
        elif wanted > 1:
            notes.append("one partition: the cursor has no index, so each slice would scan the whole table")
        return plan.model_copy(
            update={
                "partitions": slices.by_cursor(lower, inner, until),
                "estimated_rows": rows,
                "estimated_bytes": size,
                "notes": tuple(notes),
                "statement": statement,
            }
        )

    async def _inner_bounds(
        self, connection: Connection, relation: Relation, cursor: Field, lower: str | None, until: str, count: int
    ) -> list[str]:
        values = await slices.histogram(connection, relation, cursor.column.name)
        inside = await connection.fetchval(
            f"SELECT array_agg(v::text ORDER BY v) FROM unnest($1::text[]::{cursor.base}[]) AS v"
            f" WHERE v < $2::text::{cursor.cast} AND ($3::text IS NULL OR v > $3::text::{cursor.cast})",
            values, until, lower,
        )  # fmt: skip
        return slices.spread(list(inside or []), min(count, slices.MAX_PARTITIONS))

    async def _check_nulls(self, connection: Connection, relation: Relation, cursor: Field) -> None:
        if self._subject.window.null_cursor != "fail" or not cursor.column.nullable:
            return
        origin = await self._origin(connection, relation, None, None)
        conditions = [f"{_quoted(cursor)} IS NULL", *_parenthesised(relation.where)]
        if await connection.fetchval(f"SELECT EXISTS (SELECT FROM {origin}{_where(conditions)})"):
            raise ConfigurationError(
                f"field null_cursor: there are rows whose cursor {cursor.column.name} is NULL; an incremental read would "
                "never bring them. Choose exclude to leave them out, or include to send them with every run"
            )

    async def _looked_back(self, connection: Connection, cursor: Field, after: str | None) -> str | None:
        lookback = self._subject.window.lookback
        if after is None or not lookback:
            return after
        unit = "interval" if cursor.base in bounds.TIME_TYPES else "numeric"
        try:
            value: str = await connection.fetchval(
                f"SELECT ($1::text::{cursor.cast} - $2::text::{unit})::{cursor.cast}::text", after, lookback
            )
        except asyncpg.PostgresError as error:
            raise explained(error, f"field lookback: {lookback!r} cannot be taken from {cursor.column.type}") from error
        return value

    async def _estimate(self, connection: Connection, statement: str) -> tuple[int, int]:
        """The planner's guess: rows, and bytes of CSV (its row width, plus a separator each column)."""
        plan: Any = json.loads(await connection.fetchval(f"EXPLAIN (FORMAT JSON) {statement}"))[0]["Plan"]
        columns = len(self._relation.fields) if self._relation else 0
        return int(plan["Plan Rows"]), int(plan["Plan Rows"]) * (int(plan["Plan Width"]) + columns)

    # -- reading -------------------------------------------------------------------------------------------------

    async def read(self, plan: Plan, partition: Partition, write: Write) -> int:
        """See `Extractor.read`. On this run's snapshot; on one of its own where an earlier run made the plan."""
        connection = await connect(self._subject.block)
        try:
            await begin(connection, snapshot=self._snapshot)
            relation = await self._relation_for(connection, plan)
            return sum(
                [
                    await self._copy(connection, s, write)
                    for s in await self._statements(connection, relation, plan, partition)
                ]
            )
        finally:
            # Not close(): after a failed or cancelled COPY it would wait for the rest of the rows.
            connection.terminate()

    async def _relation_for(self, connection: Connection, plan: Plan) -> Relation:
        async with self._describing:
            if self._relation is None:
                self._relation = await self._describe(connection)
        names = [column.name for column in plan.columns]
        found = {field.column.name: field.column for field in self._relation.fields}
        changed = [column.name for column in plan.columns if found.get(column.name, column).type != column.type]
        if missing := [name for name in names if name not in found] + changed:
            raise ConfigurationError(
                f"the columns {', '.join(missing)} were dropped or changed since this run was planned; the next run "
                "plans anew"
            )
        return self._relation

    async def _copy(self, connection: Connection, statement: str, write: Write) -> int:
        async def sink(data: bytes) -> None:
            await write(data)
            if len(data) < _SMALL_BYTES:
                await asyncio.sleep(_REST_SECONDS)

        try:
            status = await connection.copy_from_query(
                statement, output=sink, format="csv", null=self._options.dialect.null, encoding="utf8"
            )
        except asyncpg.PostgresError as error:
            raise explained(error, "reading failed", statement) from error
        return int(status.rsplit(" ", 1)[-1])

    async def _statement(self, connection: Connection, relation: Relation, plan: Plan, partition: Partition) -> str:
        return (await self._statements(connection, relation, plan, partition))[0]

    async def _statements(
        self, connection: Connection, relation: Relation, plan: Plan, partition: Partition
    ) -> list[str]:
        """The SELECTs of a partition, one for each page range, or one for its cursor range."""
        names = {column.name for column in plan.columns}
        order = [column.name for column in plan.columns]
        fields = sorted(
            (f for f in relation.fields if f.column.name in names), key=lambda f: order.index(f.column.name)
        )
        select = "SELECT " + ", ".join(field.selected for field in fields)
        filtered = _parenthesised(relation.where)
        if plan.mode == "full":
            origin = await self._origin(connection, relation, None, None)
            ranges = (
                [slices.range_origin(r) for r in partition.lower]
                if isinstance(partition.lower, list)
                else [(origin, "")]
            )
            return [f"{select} FROM {o}{_where([*([w] if w else []), *filtered])}" for o, w in ranges]
        conditions = [*filtered, await self._between(connection, relation, partition)]
        low, high = _text(partition.lower), _text(partition.upper)
        return [f"{select} FROM {await self._origin(connection, relation, low, high)}{_where(conditions)}"]

    async def _between(self, connection: Connection, relation: Relation, partition: Partition) -> str:
        cursor = relation.field(self._subject.window.cursor, "field cursor")
        name, low, high = _quoted(cursor), _text(partition.lower), _text(partition.upper)
        parts = [f"{name} > {await literal(connection, low, cursor.cast)}"] if low is not None else []
        parts += [f"{name} <= {await literal(connection, high, cursor.cast)}"] if high is not None else []
        between = " AND ".join(parts)
        if partition.name == "00001" and self._subject.window.null_cursor == "include":
            return f"({between} OR {name} IS NULL)"
        return between


def _position_of(since: JsonValue, cursor: str) -> str | None:
    """The cursor value in a position; `PositionLost` when the position is another column's."""
    if since is None:
        return None
    if not isinstance(since, dict) or "value" not in since or "cursor" not in since:
        raise PositionLost(f"the position {json.dumps(since)} was not left by a PostgreSQL read; {_CHOICES}")
    if not cursor:
        return None
    if since["cursor"] != cursor:
        raise PositionLost(
            f"field cursor: the stream has come to {since['cursor']} = {since['value']}, but its cursor is now "
            f"{cursor}; {_CHOICES}"
        )
    return _text(since["value"])


_CHOICES = (
    "choose: put the former source back; start again with `headrace state set STREAM null`; "
    'say where to go on with `headrace state set STREAM \'{"cursor": …, "value": …}\'`; or use another stream name'
)


def _text(value: JsonValue) -> str | None:
    return None if value is None else str(value)


def _quoted(field: Field) -> str:
    return 't."' + field.column.name.replace('"', '""') + '"'


def _parenthesised(where: str) -> list[str]:
    # The line break ends a trailing "--" comment of the user's.
    return [f"({where}\n)"] if where else []


def _where(conditions: list[str]) -> str:
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


__all__ = ["Mode", "PostgresExtractor", "Subject"]
