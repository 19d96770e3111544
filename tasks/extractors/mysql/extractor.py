"""MySQL and MariaDB tables and queries: rows are read as bytes from the wire and made CSV a block at a time."""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

import aiomysql
from pydantic import JsonValue
from pymysql.constants import ER

from blocks.errors import SnapshotLost
from tasks.extractors.contract import NOT_ASKED, Partition, Plan, Read, ReadOptions, Write
from tasks.extractors.mysql import snapshot
from tasks.extractors.mysql.planner import Planner
from tasks.extractors.mysql.select import Select, Subject
from tasks.extractors.mysql.session import Session
from tasks.extractors.mysql.sql import explained, number_of
from tasks.extractors.source import ZonedWindow

# A table that was there, with its columns, when the run was planned. The new plan tells what is the user's to mend.
_TABLE_CHANGED = (1412, ER.BAD_FIELD_ERROR, ER.NO_SUCH_TABLE)

_SLOW = (
    "rows are read through aiomysql's public API, about ten times slower: {}. Install the version of aiomysql that "
    "headrace was tested with"
)


class MySQLExtractor:
    """See `tasks.extractors.contract.Extractor`."""

    def __init__(self, subject: Subject, options: ReadOptions) -> None:
        self._subject = subject
        self._options = options
        self._snapshot: snapshot.Snapshot | None = None
        self._plan_id: str | None = None
        self._select: Select | None = None
        self._describing = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._snapshot is not None:
            self._snapshot.close()

    @property
    def asked(self) -> str:
        """See `Extractor.asked`."""
        subject, window = self._subject, self._subject.window.model_dump(include=set(ZonedWindow.model_fields))
        asked = [subject.block.describe(), subject.table, subject.where, subject.query, subject.zero_dates, window]
        # How many are read at once decides nothing.
        options = self._options.model_dump(exclude=set(NOT_ASKED))
        return hashlib.sha256(json.dumps([*asked, options]).encode()).hexdigest()[:16]

    async def plan(self, since: JsonValue) -> Plan:
        """See `Extractor.plan`. A position is ``{"cursor": column, "value": text}``."""
        control = await Session.open(self._subject.block)
        try:
            self._select = await Select.of(control, self._subject, self._options.dialect)
            blank = Plan(id=uuid.uuid4().hex, mode=self._options.mode, asked=self.asked, since=since)
            # Window and slices first: who commits in between is in the snapshot, and the outer slices are open.
            plan = await Planner(control, self._subject, self._select, self._options).plan(blank)
            if not plan.partitions:
                return plan
            return await self._under_snapshot(control, plan, self._select)
        except aiomysql.MySQLError as error:
            raise explained(error, "planning failed", self._subject.query) from error
        finally:
            control.close()

    async def _under_snapshot(self, control: Session, plan: Plan, select: Select) -> Plan:
        if self._snapshot is not None:
            self._snapshot.close()
        count = min(len(plan.partitions), self._options.parallel)
        taken = self._snapshot = await snapshot.take(self._subject.block, control, [select.relation], count)
        self._plan_id = plan.id
        slow = [_SLOW.format(control.unusable)] if control.unusable else []
        return plan.model_copy(update={"snapshot": taken.seen, "notes": (*plan.notes, *taken.notes, *slow)})

    async def read(self, plan: Plan, partition: Partition, write: Write) -> Read:
        """See `Extractor.read`. On this run's snapshot; on one of its own where an earlier run made the plan."""
        async with self._session(plan) as session:
            try:
                select = await self._described(session, plan)
                fields = [select.relation.field(column.name, "field columns") for column in plan.columns]
                statement = select.partition(plan, partition)
                return Read(
                    rows=await session.stream(statement, [f.form for f in fields], self._options.dialect, write)
                )
            except aiomysql.MySQLError as error:
                raise self._told(error, session, plan, partition) from error

    def _told(self, error: aiomysql.MySQLError, session: Session, plan: Plan, partition: Partition) -> Exception:
        if number_of(error) in _TABLE_CHANGED:
            return SnapshotLost(f"a table was changed since the snapshot was taken: {error.args[-1]}")
        if plan.id == self._plan_id and not session.is_usable:
            return SnapshotLost(f"partition {partition.name}: {error.args[-1]}; the snapshot went with the connection")
        return explained(error, f"partition {partition.name} cannot be read")

    @asynccontextmanager
    async def _session(self, plan: Plan) -> AsyncIterator[Session]:
        if self._snapshot is not None and plan.id == self._plan_id:
            async with self._snapshot.lent() as session:
                yield session
            return
        session = await Session.open(self._subject.block, again=True)
        try:
            await session.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
            yield session
        finally:
            session.close()

    async def _described(self, session: Session, plan: Plan) -> Select:
        async with self._describing:
            if self._select is None:
                self._select = await Select.of(session, self._subject, self._options.dialect)
        found = {field.column.name: field.column.type for field in self._select.relation.fields}
        if changed := [column.name for column in plan.columns if found.get(column.name) != column.type]:
            raise SnapshotLost(f"the columns {', '.join(changed)} were dropped or changed since this run was planned")
        return self._select
