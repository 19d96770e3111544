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
from types import TracebackType
from typing import Self

import asyncpg
from pydantic import JsonValue

from blocks.errors import SnapshotLost
from tasks.extractors.contract import NOT_ASKED, Partition, Plan, Read, ReadOptions, Write
from tasks.extractors.postgres import bounds
from tasks.extractors.postgres.planner import Planner
from tasks.extractors.postgres.select import Select, Subject
from tasks.extractors.postgres.sql import Connection, begin, connect, explained
from tasks.extractors.source import ZonedWindow

# A quick client gets COPY's rows 8 KiB at a time, and each costs a wake-up. After a small buffer a rest lets the
# kernel's socket buffer fill: client CPU falls by 60 % (2M rows, 600 MB), the wall time not at all.
_REST_SECONDS = 0.002
_SMALL_BYTES = 128 << 10

# A reader that has to be opened anew finds the lock taken only where somebody waits to change the table: let them.
_LOCK_TIMEOUT = "2s"

# Rewritten or truncated since the snapshot: the catalog as the snapshot shows it names another file than the current.
_REWRITTEN = """
    SELECT count(*) FROM pg_catalog.pg_class
    WHERE oid = ANY ($1::oid[]) AND relfilenode <> 0
      AND relfilenode IS DISTINCT FROM pg_catalog.pg_relation_filenode(oid)"""

_SEEN = """
    SELECT json_build_object(
        'visible', txid_current_snapshot()::text,
        'lsn', CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END::text)::text"""


class PostgresExtractor:
    """See `tasks.extractors.contract.Extractor`."""

    def __init__(self, subject: Subject, options: ReadOptions) -> None:
        self._subject = subject
        self._options = options
        self._holder: Connection | None = None
        self._readers: list[Connection] = []
        self._snapshot: str | None = None
        self._select: Select | None = None
        self._describing = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hang_up()

    def _hang_up(self) -> None:
        for connection in (self._holder, *self._readers):
            if connection is not None:
                # Not close(): after an error it may wait for an answer that does not come.
                connection.terminate()
        self._holder, self._readers = None, []

    @property
    def asked(self) -> str:
        """See `Extractor.asked`."""
        subject, window = self._subject, self._subject.window.model_dump(include=set(ZonedWindow.model_fields))
        asked = [subject.block.describe(), subject.table, subject.where, subject.query, window]
        # How many are read at once decides nothing.
        options = self._options.model_dump(exclude=set(NOT_ASKED))
        return hashlib.sha256(json.dumps([*asked, options]).encode()).hexdigest()[:16]

    async def plan(self, since: JsonValue) -> Plan:
        """See `Extractor.plan`. A position is ``{"cursor": column, "value": text}``."""
        # A plan that could not be saved is made again; readers of the first one have an older snapshot.
        self._hang_up()
        connection = self._holder = await connect(self._subject.block)
        try:
            self._select = await Select.of(connection, self._subject, self._options.dialect)
            planner = Planner(connection, self._subject, self._select, self._options)
            # The bound is found before the snapshot is taken: who ends in between is in the snapshot.
            bound = await planner.bound(since)
            await self._take_snapshot(connection, self._select)
            blank = Plan(id=uuid.uuid4().hex, mode=self._options.mode, asked=self.asked, since=since)
            seen = json.loads(await connection.fetchval(_SEEN))
            made = await planner.plan(blank.model_copy(update={"snapshot": seen, "joinable": self._snapshot}), bound)
            await self._open_readers(self._select, min(len(made.partitions), self._options.parallel))
        except asyncpg.PostgresError as error:
            raise explained(error, "planning failed", self._subject.query) from error
        return made

    async def _take_snapshot(self, connection: Connection, select: Select) -> None:
        await begin(connection)
        self._snapshot = await connection.fetchval("SELECT pg_catalog.pg_export_snapshot()")
        # Planning a statement locks every table it reads, to the end of this transaction.
        read = await bounds.relations(connection, await select.everything(connection))
        if await connection.fetchval(_REWRITTEN, read):
            raise SnapshotLost("a table was truncated or rewritten while the snapshot was taken")

    async def _open_readers(self, select: Select, count: int) -> None:
        """Connections that have the snapshot and their locks before the first row is read.

        A lock asked for later would queue behind whoever waits for ours to go, to alter or drop the table: a DROP would
        stop this run, and this run everybody else.
        """

        async def open_one() -> None:
            connection = await self._reader(self._snapshot)
            self._readers.append(connection)
            await bounds.relations(connection, await select.everything(connection))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(count):
                    group.create_task(open_one())
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def _reader(self, snapshot: str | None) -> Connection:
        connection = await connect(self._subject.block, again=True)
        try:
            await begin(connection, snapshot=snapshot)
            await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def read(self, plan: Plan, partition: Partition, write: Write) -> Read:
        """See `Extractor.read`. On the plan's snapshot; on one of its own where a run that died made the plan."""
        # There is none where an earlier one failed, or an earlier run made the plan.
        connection = self._readers.pop() if self._readers else await self._reader(_snapshot(plan))
        done = False
        try:
            select = await self._described(connection, plan)
            statements = await select.partition(connection, plan, partition)
            rows = sum([await self._copy(connection, statement, write) for statement in statements])
            done = True
        except asyncpg.LockNotAvailableError as error:
            raise SnapshotLost("another session waits to alter, truncate or drop a table of this plan") from error
        except asyncpg.PostgresError as error:
            raise explained(error, f"partition {partition.name} cannot be read") from error
        finally:
            if done:
                self._readers.append(connection)
            else:
                # Not close(): after a failed or cancelled COPY it would wait for the rest of the rows.
                connection.terminate()
        return Read(rows=rows)

    async def _described(self, connection: Connection, plan: Plan) -> Select:
        async with self._describing:
            if self._select is None:
                self._select = await Select.of(connection, self._subject, self._options.dialect)
        found = {field.column.name: field.column.type for field in self._select.relation.fields}
        if changed := [column.name for column in plan.columns if found.get(column.name) != column.type]:
            raise SnapshotLost(f"the columns {', '.join(changed)} were dropped or changed since this run was planned")
        return self._select

    async def _copy(self, connection: Connection, statement: str, write: Write) -> int:
        async def sink(data: bytes) -> None:
            await write(data)
            if len(data) < _SMALL_BYTES:
                await asyncio.sleep(_REST_SECONDS)

        try:
            status = await connection.copy_from_query(
                statement, output=sink, format="csv", null=self._options.dialect.null, encoding="utf8"
            )
        except asyncpg.LockNotAvailableError:
            raise
        except asyncpg.PostgresError as error:
            raise explained(error, "the server refuses to read", statement) from error
        return int(status.rsplit(" ", 1)[-1])


def _snapshot(plan: Plan) -> str | None:
    return str(plan.joinable) if plan.joinable is not None else None
