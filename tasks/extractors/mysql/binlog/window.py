"""One pass over a range of the log: the rows of the followed tables, transaction by transaction."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from blocks.errors import PositionLost
from blocks.mysql import MySQL
from tasks.extractors.contract import Emit, Limits
from tasks.extractors.mysql.binlog.events import Begun, GarbledLogError, Kind
from tasks.extractors.mysql.binlog.gtids import GtidSet, gtid_list, previous_gtids
from tasks.extractors.mysql.binlog.held import HeldRows, Meter, instant
from tasks.extractors.mysql.binlog.kept import Kept
from tasks.extractors.mysql.binlog.log import FIRST, LogReader, Placed
from tasks.extractors.mysql.binlog.position import LogPosition, Prepared, Reached, number_of, row_prefix
from tasks.extractors.mysql.binlog.schema import Shapes
from tasks.extractors.mysql.binlog.server import choices
from tasks.extractors.mysql.binlog.statements import Table, drops, drops_database, emptied
from tasks.extractors.mysql.binlog.tables import Tables
from tasks.extractors.mysql.binlog.transactions import (
    Decided,
    End,
    Ending,
    Map,
    Rows,
    Savepoint,
    Start,
    Statement,
    Step,
    Transactions,
    Xa,
)
from tasks.extractors.mysql.sql import close, connect, fetch

_NO_END = 1 << 62

_SYNC_SECONDS = 5.0
"""How long what a server says to be in its log may take to be sent: it is synced first (binlog_group_commit_sync_delay)."""


class Window:
    """Reads from one position to another."""

    def __init__(self, block: MySQL, tables: Tables, shapes: Shapes, null: str, server_id: int) -> None:
        """``null``: what stands for NULL."""
        self._block, self._tables, self._shapes, self._null = block, tables, shapes, null
        self._server_id = server_id

    async def read(
        self, since: LogPosition, until: LogPosition, emit: Emit, limits: Limits, *, begin: LogPosition | None = None
    ) -> Reached:
        """Push the records to ``emit``; how far it came: to ``until``, or to where a limit was reached.

        ``begin``: where the run's part of the log begins, if others read from there to ``since``.
        """
        self._shapes.remember((begin or since).tables)
        gtids = GtidSet.parse(since.gtids or await self.gtids_at(since))
        prepared = {each.xid: each for each in since.prepared}
        if since.place == until.place:
            kept = {"gtids": str(gtids), "born": since.born, "prepared": since.prepared, "tables": since.tables}
            return Reached(position=until.model_copy(update=kept))  # nothing is read
        meter = Meter(limits)
        rows = HeldRows(self._shapes, self._tables, self._null, emit, meter)
        follower = _Follower(self, rows, gtids, prepared, since, begin)
        async with aclosing(self._events(since, until)) as events:
            async for placed in events:
                await follower.take(placed)
                # However short the time, each run comes further: what the server makes up at the start is no step.
                if follower.is_between and meter.is_full and placed.place > since.place:
                    reached = {"file": placed.file, "position": placed.end, "as_of": follower.as_of}
                    # What lies from here on may still be what these pass over.
                    kept = {"by_gtids": since.by_gtids, "not_before": since.not_before}
                    until = until.model_copy(update=reached | kept)
                    break
        if not follower.is_between:
            raise GarbledLogError(f"{until} is in the middle of a transaction")
        await rows.pass_on()
        came = {"gtids": str(gtids), "born": follower.born, "prepared": tuple(prepared.values())}
        position = until.model_copy(update={**came, "tables": tuple(self._shapes.known)})
        return Reached(position=position, decided=tuple(follower.decided), dropped=tuple(sorted(self._shapes.dropped)))

    async def gtids_at(self, place: LogPosition) -> str:
        """The GTIDs up to there: what the file begins with, and those in it."""
        if place.position == FIRST:
            return str(await self.gtids_before(place.file))
        gtids = GtidSet({})
        transactions = Transactions()
        async for placed in self._events(place.model_copy(update={"position": FIRST}), place):
            if placed.event.kind == Kind.PREVIOUS_GTIDS:
                gtids = previous_gtids(placed.event.body)
            elif placed.event.kind == Kind.MARIADB_GTID_LIST:
                gtids = gtid_list(placed.event.body)
            for step in transactions.steps(placed):
                if isinstance(step, Start) and step.begun.gtid:
                    gtids.add(step.begun.gtid)
        return str(gtids)

    async def gtids_before(self, file: str) -> GtidSet:
        """What a file begins with; an empty set where the server counts no transactions."""
        place = LogPosition(server="", file=file, position=FIRST)
        async with await LogReader.open(self._block, place.file, FIRST, server_id=self._server_id) as reader:
            async for batch in reader.events():
                for placed in batch:
                    match placed.event.kind:
                        case Kind.PREVIOUS_GTIDS:
                            return previous_gtids(placed.event.body)
                        case Kind.MARIADB_GTID_LIST:
                            return gtid_list(placed.event.body)
                        case Kind.GTID | Kind.ANONYMOUS_GTID | Kind.MARIADB_GTID:
                            return GtidSet({})
        return GtidSet({})

    def is_riddle(self, statement: Statement) -> bool:
        """Whether it empties tables of which only what stands before says what they are."""
        known = set(self._shapes.known)
        gone = emptied(statement.text, statement.query.schema, known)
        return drops_database(statement.text) or any(table in self._tables and table not in known for table in gone)

    async def recall(self, since: LogPosition, until: LogPosition) -> None:
        """Take in which tables there are behind a part of the log that others read."""
        there: dict[Table, bytes] = {}
        tables: dict[bytes, Table] = {}
        gone: set[Table] = set()
        transactions = Transactions()
        async for placed in self._events(since, until):
            for step in transactions.steps(placed):
                if isinstance(step, Map):
                    body = step.event.body
                    table = tables.get(body) or tables.setdefault(body, self._shapes.table_of(body))
                    there[table] = body
                    gone.discard(table)
                elif isinstance(step, Statement) and drops(step.text):
                    dropped = emptied(step.text, step.query.schema, [*self._shapes.known, *there])
                    gone.update(dropped)
                    for table in dropped:
                        there.pop(table, None)
        self._shapes.recall(there.values(), gone)

    async def begun_at(self, file: str) -> int:
        """When a file was begun, in seconds since 1970."""
        async with await LogReader.open(self._block, file, FIRST, server_id=self._server_id) as reader:
            async for batch in reader.events():
                for placed in batch:
                    if placed.event.kind == Kind.FORMAT:
                        return placed.event.timestamp
        raise GarbledLogError(f"{file} does not begin as a log does")

    async def find_prepared(self, xid: str, before: tuple[int, int]) -> Prepared | None:
        """Where an XA transaction was prepared, searched for backwards, a file at a time; None: not in the log any more."""
        for file in reversed(await self._files()):
            number = number_of(file)
            if number > before[0]:
                continue
            found = None
            start = Start(Begun("", 0, precise=False), file, FIRST)
            transactions = Transactions()
            place = LogPosition(server="", file=file, position=FIRST)
            end = place.model_copy(update={"position": before[1] if number == before[0] else _NO_END})
            async with aclosing(self._events(place, end, whole_file=True)) as events:
                async for placed in events:
                    for step in transactions.steps(placed):
                        if isinstance(step, Start):
                            start = step
                        elif isinstance(step, End) and step.ending is Ending.PREPARED and step.xid == xid:
                            found = Prepared(xid=xid, file=file, start=start.position, end=step.position)
            if found is not None:
                return found
        return None

    async def _files(self) -> list[str]:
        connection = await connect(self._block, again=True)
        try:
            return [str(row[0]) for row in await fetch(connection, "SHOW BINARY LOGS")]
        finally:
            await close(connection)

    async def replay(self, prepared: Prepared, rows: HeldRows) -> None:
        """The rows of an XA transaction that was prepared before, as those of the transaction that is open now."""
        transactions = Transactions()
        place = LogPosition(server="", file=prepared.file, position=prepared.start)
        async for placed in self._events(place, place.model_copy(update={"position": prepared.end})):
            for step in transactions.steps(placed):
                if isinstance(step, Map | Rows):
                    await rows.take(step)

    async def _events(
        self, since: LogPosition, until: LogPosition, *, whole_file: bool = False
    ) -> AsyncGenerator[Placed, None]:
        """Events from one place to another; `PositionLost` where the log ends before.

        ``whole_file``: the end of the file will do.
        """
        end = until.place
        file, position, goes_on = since.file, since.position, False
        came = time.monotonic()
        while True:
            reader = await LogReader.open(self._block, file, position, server_id=self._server_id)
            async with reader:
                async for batch in reader.events():
                    for placed in batch:
                        if whole_file and placed.file != since.file:
                            return
                        if goes_on and not placed.event.takes_place:
                            continue  # what a server begins with
                        yield placed
                        if placed.place >= end:
                            return
                        if (placed.file, placed.end) != (file, position):
                            file, position, came = placed.file, placed.end, time.monotonic()
            if whole_file:
                return
            if time.monotonic() - came > _SYNC_SECONDS:
                raise PositionLost(
                    f"the log ends before {until}, where it had ended when the run was planned. {choices()}"
                )
            await asyncio.sleep(0.1)
            goes_on = True


class _Follower:
    """Goes from transaction to transaction."""

    def __init__(
        self,
        window: Window,
        rows: HeldRows,
        gtids: GtidSet,
        prepared: dict[str, Prepared],
        since: LogPosition,
        begin: LogPosition | None,
    ) -> None:
        self._window, self._rows = window, rows
        self._gtids, self._prepared = gtids, prepared
        self._since, self._begin = since, begin
        self._transactions = Transactions()
        self._start: Start | None = None
        self._is_xa = self._is_known = False
        self._kept = Kept()
        self.decided: list[str] = []
        """XA transactions that were prepared before."""
        self.born = since.born
        self.as_of = since.as_of
        """When the last transaction was committed."""

    @property
    def is_between(self) -> bool:
        """Whether no transaction is open."""
        return self._transactions.is_between

    async def take(self, placed: Placed) -> None:
        """One event."""
        if placed.event.kind == Kind.FORMAT:
            self._look_at_file(placed)
        for step in self._transactions.steps(placed):
            await self._step(step)

    def _look_at_file(self, placed: Placed) -> None:
        since, born = self._since, placed.event.timestamp
        if since.born and placed.file == since.file and born != since.born:
            raise PositionLost(
                f"{placed.file} was begun at {instant(born * 1_000_000, precise=False)}, and the stream had come to "
                f"{since} in an older one of that name: the log was begun anew. {choices()}"
            )
        self.born = born
        # Table numbers are given anew when a server starts, which begins a file.
        self._rows.forget_tables()

    async def _step(self, step: Step) -> None:
        match step:
            case Start():
                self._start, self._is_xa = step, False
                self._kept.begin()
                is_counted = self._since.by_gtids and step.begun.gtid in self._gtids
                self._is_known = is_counted or step.begun.is_before(self._since.not_before)
                number = number_of(step.file)
                self._rows.begin(step.begun, row_prefix(self._since.epoch, number, step.position))
            case Xa():
                self._is_xa = True
            case Map() | Rows() | Statement() | Savepoint():
                if self._is_xa and isinstance(step, Map | Rows):
                    self._kept.add(step)
                if self._begin is not None and isinstance(step, Statement) and self._window.is_riddle(step):
                    await self._window.recall(self._begin, self._since)
                    self._begin = None
                # The numbers that maps give to tables hold beyond their transaction.
                if isinstance(step, Map) or not (self._is_xa or self._is_known):
                    await self._rows.take(step)
            case Decided(xid, committed) if not self._is_known:
                await self._decide(xid, committed=committed)
            case Decided():
                pass
            case End():
                await self._end(step)

    async def _decide(self, xid: str, *, committed: bool) -> None:
        prepared, steps = self._prepared.pop(xid, None), self._kept.taken(xid)
        if prepared is None and steps is None:
            self.decided.append(xid)
        if not committed:
            return
        if steps is not None:
            await self._rows.replay(steps)
            return
        if prepared is None:
            # Prepared before the stream began: its rows are in no snapshot.
            start = self._started()
            prepared = await self._window.find_prepared(xid, (number_of(start.file), start.position))
        if prepared is None:
            raise PositionLost(
                f"XA transaction {xid} is committed here, and was prepared where the log does not reach back to: its rows "
                f"are lost. {choices()}"
            )
        await self._window.replay(prepared, self._rows)

    def _started(self) -> Start:
        if self._start is None:
            raise GarbledLogError("a transaction ends that did not begin: the stream stands in the middle of one")
        return self._start

    async def _end(self, end: End) -> None:
        start = self._started()
        own = Prepared(xid=end.xid, file=start.file, start=start.position, end=end.position)
        if self._is_known:
            pass
        elif end.ending is Ending.PREPARED:
            self._prepared[end.xid] = own
            self._kept.keep(end.xid)
        elif end.ending is Ending.ROLLED_BACK:
            self._rows.roll_back()
        elif self._is_xa:
            self._kept.keep("")
            if (steps := self._kept.taken("")) is not None:
                await self._rows.replay(steps)
            else:
                await self._window.replay(own, self._rows)
        await self._rows.commit()
        if start.begun.gtid:
            self._gtids.add(start.begun.gtid)
        self.as_of = start.begun.microseconds
        self._start = None
