"""The records of the transaction that is open, until it is known how it ends, and those of committed ones on their way.

Small transactions are passed on together: what takes records does much for each call, and little for each byte.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache
from itertools import groupby

from tasks.extractors.contract import CHANGE_COLUMNS, Emit, Limits, Output, Records
from tasks.extractors.mysql.binlog.events import Begun, GarbledLogError
from tasks.extractors.mysql.binlog.schema import Shapes
from tasks.extractors.mysql.binlog.statements import drops, emptied
from tasks.extractors.mysql.binlog.tables import Tables
from tasks.extractors.mysql.binlog.transactions import Map, Rows, Savepoint, Statement

_HELD_BYTES = 4 << 20
"""Records of one transaction that are held until it is known how it ends; of a larger one the first are passed on."""

_TOGETHER_BYTES = 256 << 10
"""Records of committed transactions that are passed on together."""


class Meter:
    """Counts what is committed."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._rows = self._bytes = 0
        self._ends = time.monotonic() + limits.seconds if limits.seconds else None

    def add(self, records: Records) -> None:
        self._rows += records.count
        self._bytes += len(records.data)

    @property
    def is_full(self) -> bool:
        """Whether a limit is reached."""
        limits = self._limits
        return (
            bool(limits.rows and self._rows >= limits.rows)
            or bool(limits.bytes and self._bytes >= limits.bytes)
            or bool(self._ends and time.monotonic() >= self._ends)
        )


class HeldRows:
    """Takes what happens in a transaction, and passes its records on some time after it was committed."""

    def __init__(self, shapes: Shapes, tables: Tables, null: str, emit: Emit, meter: Meter) -> None:
        self._shapes, self._tables, self._null, self._emit = shapes, tables, null, emit
        self._meter = meter
        self._committed: list[tuple[Output, Records]] = []
        self._committed_bytes = 0
        self._held: list[tuple[Output, Records]] = []
        self._held_bytes = 0
        self._has_passed_on = False
        self._savepoints: dict[str, int] = {}
        self._committed_at = self._prefix = ""
        self._ordinal = 0

    def forget_tables(self) -> None:
        """Numbers of tables mean other tables from now on."""
        self._shapes.forget()

    def begin(self, begun: Begun, prefix: str) -> None:
        """A transaction begins."""
        self._committed_at = instant(begun.microseconds, precise=begun.precise)
        self._prefix = prefix
        self._ordinal = 0
        self._has_passed_on = False
        self._savepoints = {}

    async def take(self, step: Map | Rows | Statement | Savepoint) -> None:
        """What happens in it."""
        match step:
            case Map(event):
                self._shapes.learn(event)
            case Rows(event):
                made = self._shapes.records(event, self._committed_at, self._next_prefix())
                if made is not None:
                    await self._hold(*made)
            case Statement():
                await self._statement(step)
            case Savepoint(name, back):
                self._savepoint(name, back=back)

    async def replay(self, steps: list[Map | Rows]) -> None:
        """What has happened before counts from now on."""
        for step in steps:
            await self.take(step)

    def _next_prefix(self) -> str:
        self._ordinal += 1
        return f"{self._prefix}{self._ordinal:07d}-"

    async def _statement(self, statement: Statement) -> None:
        schema = statement.query.schema
        if statement.writes:
            self._shapes.refuse_if_followed(statement)
            return
        for table in emptied(statement.text, schema, self._shapes.known):
            if table in self._tables:
                output = self._shapes.last_output(table)
                nulls = f",{self._null}" * (len(output.columns) - len(CHANGE_COLUMNS) + 1)
                line = f"T,{self._committed_at},{self._next_prefix()}{0:08d}{nulls}\n"
                await self._hold(output, Records(data=line.encode(), count=1))
                if drops(statement.text):
                    self._shapes.dropped.add(table)

    async def _hold(self, output: Output, records: Records) -> None:
        if not records.count:
            return
        self._held.append((output, records))
        self._held_bytes += len(records.data)
        if self._held_bytes > _HELD_BYTES:
            self._count_in()
            await self.pass_on()
            self._has_passed_on = True

    def _count_in(self) -> None:
        """What is held is committed, or too much to wait until it is."""
        for _, records in self._held:
            self._meter.add(records)
        self._committed += self._held
        self._committed_bytes += self._held_bytes
        self._held, self._held_bytes = [], 0

    async def pass_on(self) -> None:
        """Pass on what is committed; records of one output that follow each other in one piece."""
        committed, self._committed, self._committed_bytes = self._committed, [], 0
        for (output, absent), group in groupby(committed, key=lambda each: (each[0], each[1].absent)):
            made = [records for _, records in group]
            data = b"".join([records.data for records in made])
            await self._emit(output, Records(data, sum(records.count for records in made), absent))

    def _savepoint(self, name: str, *, back: bool) -> None:
        if not back:
            self._savepoints[name] = len(self._held)
            return
        if self._has_passed_on:
            raise GarbledLogError(f"a transaction larger than can be held goes back to its savepoint {name}")
        if name not in self._savepoints:
            raise GarbledLogError(f"a transaction goes back to a savepoint {name} that it does not have")
        del self._held[self._savepoints[name] :]

    def roll_back(self) -> None:
        """None of it counts."""
        if self._has_passed_on:
            raise GarbledLogError("a transaction larger than can be held is rolled back in the log")
        self._held, self._held_bytes = [], 0

    async def commit(self) -> None:
        """All of it counts."""
        self._count_in()
        if self._committed_bytes > _TOGETHER_BYTES:
            await self.pass_on()


def instant(microseconds: int, *, precise: bool) -> str:
    """A moment since 1970 as a ``timestamptz`` is written.

    >>> instant(1_500_000, precise=True), instant(1_000_000, precise=False)
    ('1970-01-01 00:00:01.500000+00', '1970-01-01 00:00:01+00')
    """
    seconds, rest = divmod(microseconds, 1_000_000)
    return f"{_second(seconds)}.{rest:06d}+00" if precise else f"{_second(seconds)}+00"


@lru_cache(64)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
