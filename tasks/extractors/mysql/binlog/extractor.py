"""Changes of MySQL and MariaDB tables: a snapshot first, then what the binary log holds, without a gap between them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

import aiomysql
from pydantic import JsonValue

from blocks.errors import ConfigurationError, PositionLost, SnapshotLost
from blocks.mysql import MySQL
from tasks.extractors.contract import (
    NOT_ASKED,
    Behind,
    Emit,
    Limits,
    Partition,
    Plan,
    ReadOptions,
    Records,
    table_output,
)
from tasks.extractors.mysql import snapshot
from tasks.extractors.mysql.binlog import parts
from tasks.extractors.mysql.binlog.position import LogPosition, Reached, joined, log_position, row_prefix
from tasks.extractors.mysql.binlog.schema import Dialects, Shapes
from tasks.extractors.mysql.binlog.server import LogServer, choices
from tasks.extractors.mysql.binlog.starts import Starts
from tasks.extractors.mysql.binlog.statements import Table
from tasks.extractors.mysql.binlog.tables import Tables
from tasks.extractors.mysql.binlog.window import Window as LogWindow
from tasks.extractors.mysql.describe import Field, Writing, ZeroDates
from tasks.extractors.mysql.describe import table as described
from tasks.extractors.mysql.forms import Form
from tasks.extractors.mysql.planner import Planner
from tasks.extractors.mysql.select import Select, Subject
from tasks.extractors.mysql.session import Session
from tasks.extractors.mysql.sql import Flavour, explained, qualified
from tasks.extractors.source import ZonedWindow

_NOT_EXACT = (
    "a snapshot that a change stream can go on from needs a moment's lock, and the server gave none. GRANT RELOAD ON *.* "
    "(MySQL 8: or BACKUP_ADMIN with LOCK TABLES on the databases) TO this user, or set snapshot: false"
)

_LISTS = 10
"""How often the tables are listed before a snapshot has them all."""


@dataclass(frozen=True)
class ChangesSubject:
    """What is followed, as the user named it."""

    block: MySQL
    tables: tuple[str, ...]
    snapshot: bool
    start: str
    zero_dates: ZeroDates
    server_id: int


class ChangesExtractor:
    """See `tasks.extractors.contract.ChangeExtractor`, and `TellsBehind`."""

    def __init__(self, subject: ChangesSubject, options: ReadOptions) -> None:
        self._subject = subject
        self._options = options
        self._tables = Tables.of(subject.tables, subject.block.database or "")
        self._snapshot: snapshot.Snapshot | None = None
        self._plan_id: str | None = None
        self._selects: dict[Table, Select] = {}
        self._is_mariadb = False
        self._one_at_a_time = asyncio.Semaphore(1)
        """A process makes CSV of one part of the log as fast as of several, and needs the memory of one."""

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
        subject = self._subject
        # The number: of what `Partition` and `Reached` mean, so that no plan of another version is taken up.
        asked = [2, subject.block.describe(), subject.tables, subject.snapshot, subject.start, subject.zero_dates]
        options = self._options.model_dump(exclude=set(NOT_ASKED))
        return hashlib.sha256(json.dumps([*asked, options]).encode()).hexdigest()[:16]

    # -- planning --------------------------------------------------------------------------------------------------

    async def plan(self, since: JsonValue) -> Plan:
        """See `Extractor.plan`. A position is a `LogPosition`."""
        position = log_position(since)
        control = await Session.open(self._subject.block)
        try:
            self._is_mariadb = control.is_mariadb
            server = await LogServer.of(control)
            blank = Plan(id=uuid.uuid4().hex, mode="changes", asked=self.asked, since=since)
            if position is not None:
                return await self._onward(server, blank, position)
            if self._subject.snapshot:
                return await self._first(control, server, blank)
            return await self._from_start(server, blank)
        except aiomysql.MySQLError as error:
            raise explained(error, "planning failed") from error
        finally:
            control.close()

    async def _onward(self, server: LogServer, blank: Plan, since: LogPosition) -> Plan:
        """From where the last run ended to where the log ends now."""
        try:
            if since.server == server.identity:
                await server.check_is_there(since)
            else:
                since = await Starts(server, partial(self._window, since.tables)).elsewhere(since)
        except PositionLost as error:
            raise PositionLost(f"{error}. {choices()}") from None
        end = await server.end(since.epoch)
        if end.place == since.place:
            return blank.model_copy(update={"until": blank.since})
        return await self._log_plan(server, blank, since, end)

    async def _from_start(self, server: LogServer, blank: Plan) -> Plan:
        end = await server.end()
        if self._subject.start == "now":
            return await self._log_plan(server, blank, end, end)
        try:
            start = await Starts(server, self._window).named(self._subject.start)
        except PositionLost as error:
            raise ConfigurationError(f"field start: {error}") from None
        if start is None:
            raise ConfigurationError(
                f"field start: {self._subject.start!r} is neither now, nor a place in the log such as {end}, nor a set of "
                "GTIDs, nor a time such as 2026-01-31 12:00:00+00"
            )
        return await self._log_plan(server, blank, start, end)

    async def _log_plan(self, server: LogServer, blank: Plan, since: LogPosition, end: LogPosition) -> Plan:
        within = parts.Within(since, end, await server.files())
        return blank.model_copy(
            update={
                "until": end.model_dump(mode="json"),
                "partitions": within.cut(self._options),
                "resumable": True,
                "estimated_bytes": within.size,
                "statement": f"the binary log of {end.server} from {since} to {end}",
            }
        )

    async def _first(self, control: Session, server: LogServer, blank: Plan) -> Plan:
        """All tables as they are at one moment, whose place in the log the changes begin at."""
        plans: dict[Table, Plan] = {}
        taken, until = await self._taken(control, server, blank, plans)
        partitions: list[Partition] = []
        notes: list[str] = []
        for table, plan in plans.items():
            partitions += [_slice(n, *table, each) for n, each in enumerate(plan.partitions, len(partitions))]
            notes += [f"{'.'.join(table)}: {note}" for note in (*plan.notes, *self._left_out(self._selects[table]))]
        self._plan_id = blank.id
        return blank.model_copy(
            update={
                "until": until.model_dump(mode="json"),
                "partitions": tuple(partitions),
                "snapshot": taken.seen,
                "estimated_rows": sum(plan.estimated_rows or 0 for plan in plans.values()),
                "estimated_bytes": sum(plan.estimated_bytes or 0 for plan in plans.values()),
                "notes": (*notes, *taken.notes),
                "statement": f"a snapshot of {len(plans)} table(s), then the binary log from {until}",
            }
        )

    async def _taken(
        self, control: Session, server: LogServer, blank: Plan, plans: dict[Table, Plan]
    ) -> tuple[snapshot.Snapshot, LogPosition]:
        """A snapshot and its place; ``plans`` gets those of all tables that are in it.

        One that is made and filled between the list and the lock is in neither: so they are listed again, until none is new.
        """
        new = await self._tables.found(control)
        for _ in range(_LISTS):
            for table in new:
                plans[table] = await self._of_table(control, blank, *table)
            if self._snapshot is not None:
                self._snapshot.close()
            slices = sum(len(plan.partitions) for plan in plans.values())
            count = min(max(1, slices), self._options.parallel)
            relations = [self._selects[table].relation for table in plans]
            as_of = await server.now()
            taken = self._snapshot = await snapshot.take(self._subject.block, control, relations, count, placed=True)
            new = [table for table in await self._tables.found(control) if table not in plans]
            if not new:
                return taken, self._place_of(taken, server, as_of)
        raise SnapshotLost(
            "tables that are followed are made all the time; leave such out, with a leading - in field tables"
        )

    def _in_the_log(self, select: Select) -> tuple[Field, ...]:
        """Columns that the log has: MariaDB leaves generated ones out of its updates."""
        return tuple(field for field in select.relation.fields if not (field.generated and self._is_mariadb))

    def _left_out(self, select: Select) -> list[str]:
        names = [field.column.name for field in select.relation.fields if field not in self._in_the_log(select)]
        return [f"generated columns are not in MariaDB's log and are left out: {', '.join(names)}"] if names else []

    async def _of_table(self, control: Session, blank: Plan, schema: str, name: str) -> Plan:
        quoted = qualified(schema, name)
        subject = Subject(self._subject.block, ZonedWindow(), self._subject.zero_dates, table=quoted)
        select = self._selects[schema, name] = await Select.of(control, subject, self._options.dialect)
        full = self._options.model_copy(update={"mode": "full"})
        return await Planner(control, subject, select, full).plan(blank.model_copy(update={"mode": "full"}))

    def _place_of(self, taken: snapshot.Snapshot, server: LogServer, as_of: int) -> LogPosition:
        place = taken.seen.get("binlog")
        if not isinstance(place, dict) or not taken.seen.get("exact"):
            raise ConfigurationError(_NOT_EXACT)
        return LogPosition(
            server=server.identity,
            file=str(place["file"]),
            position=int(str(place["position"])),
            gtids=str(place.get("gtids") or ""),
            tables=tuple(sorted(self._selects)),
            as_of=as_of,
        )

    async def behind(self, reached: JsonValue) -> Behind:
        """See `TellsBehind.behind`."""
        position = log_position(reached)
        if position is None:
            return Behind()
        control = await Session.open(self._subject.block, again=True)
        try:
            return await (await LogServer.of(control)).behind(position)
        except aiomysql.MySQLError as error:
            raise explained(error, "the server does not say where its log ends") from error
        finally:
            control.close()

    # -- reading ---------------------------------------------------------------------------------------------------

    async def capture(self, plan: Plan, partition: Partition, emit: Emit) -> JsonValue:
        """See `ChangeExtractor.capture`."""
        try:
            if parts.is_slice(partition):
                await self._table_slice(plan, partition, emit)
                return None
            async with self._one_at_a_time:
                part = parts.Part.of(partition)
                window = await self._window((part.begin or part.since).tables)
                # One of several that stops early leaves a gap before the next: their plan was made by a run without limits.
                is_all = part.begin is None and partition.upper == plan.until
                limits = self._options.limits if is_all else Limits()
                reached = await window.read(part.since, part.until, emit, limits, begin=part.begin)
            return reached.model_dump(mode="json")
        except aiomysql.MySQLError as error:
            raise explained(error, f"partition {partition.name} cannot be read") from error

    def reached(self, plan: Plan, positions: Sequence[JsonValue]) -> JsonValue:  # noqa: ARG002 - of the contract
        """See `ChangeExtractor.reached`."""
        return joined(map(Reached.model_validate, positions)).model_dump(mode="json")

    async def _window(self, known: Collection[Table] = ()) -> LogWindow:
        """``known``: tables that may be gone by now."""
        control = await Session.open(self._subject.block, again=True)
        try:
            writing = await Writing.of(control, self._options.dialect, self._subject.zero_dates)
            relations = {
                found: await described(control, qualified(*found), "", writing)
                for found in await self._tables.found(control, known)
            }
            flavour: Flavour = "MariaDB" if control.is_mariadb else "MySQL"
        finally:
            control.close()
        dialect = self._options.dialect
        shapes = Shapes(self._tables, relations, Dialects(dialect, self._subject.zero_dates, flavour))
        return LogWindow(self._subject.block, self._tables, shapes, dialect.null, self._subject.server_id)

    async def _table_slice(self, plan: Plan, partition: Partition, emit: Emit) -> None:
        lower, upper = partition.lower, partition.upper
        if (
            self._snapshot is None
            or plan.id != self._plan_id
            or not isinstance(lower, dict)
            or not isinstance(upper, dict)
        ):
            raise SnapshotLost("the snapshot went with the run that took it")
        table, number = (str(lower["schema"]), str(lower["table"])), int(str(lower["number"]))
        select = self._selects[table]
        fields = self._in_the_log(select)
        output = table_output(".".join(table), tuple(field.column for field in fields))
        until = log_position(plan.until)
        assert until is not None  # noqa: S101
        # Before everything that the log has from there on: no transaction begins within another.
        prefix = row_prefix(until.epoch, until.number, until.position - 1)
        statement = select.partition(
            plan.model_copy(update={"columns": tuple(field.column for field in fields)}),
            partition.model_copy(update={"lower": lower["slice"], "upper": upper["slice"]}),
        )
        head = (
            f"SELECT 'S' AS _op, {_instant()} AS _committed_at, "
            f"CONCAT('{prefix}{number:05d}', LPAD(@headrace := @headrace + 1, 11, '0')) AS _position, NULL AS _unchanged, "
        )
        forms = [Form.PLAIN, Form.PLAIN, Form.PLAIN, Form.TEXT, *(field.form for field in fields)]

        async def write(data: bytes) -> None:
            await emit(output, Records(data=data, count=0))

        async with self._snapshot.lent() as session:
            await session.execute("SET @headrace = 0")
            rows = await session.stream(statement.replace("SELECT ", head, 1), forms, self._options.dialect, write)
        await emit(output, Records(data=b"", count=rows))


def _instant() -> str:
    return "CONCAT(NOW(6), '+00')"


def _slice(number: int, schema: str, name: str, partition: Partition) -> Partition:
    """``number`` is the slice's own among those of all tables: its rows' positions have it."""
    slug = re.sub(r"[^a-z0-9]+", "-", f"{schema}-{name}".lower()).strip("-")
    return Partition(
        name=f"{slug}-{partition.name}",
        lower={"schema": schema, "table": name, "number": number, "slice": partition.lower},
        upper={"slice": partition.upper},
    )
