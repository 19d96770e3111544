"""The suite every incremental table passes: subclass `WindowContract`, provide the fixture `events`, inherit the tests.

Their SQL is what all databases understand.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import ModuleType
from typing import Any, ClassVar

import pytest
from pydantic import JsonValue

from blocks.errors import ConfigurationError, PositionLost
from tasks.extractors.contract import Plan, ReadOptions
from tasks.extractors.mysql.source import MySQLQuery, MySQLTable
from tasks.extractors.postgres.source import PostgresQuery, PostgresTable
from tests.contract import collected

Execute = Callable[[str], Awaitable[object]]
"""Sends one statement over a connection, and waits for its end."""

NUMBERS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) SELECT"


class Events(ABC):
    """A table ``events``: id (counted by the database), kind, at (indexed) and local (stamped by it), day."""

    bounds: ClassVar[ModuleType]
    """Where `WRITERS_SECONDS` is."""

    where_prepared_are_told: ClassVar[str]

    @abstractmethod
    def prepared(self, statement: str) -> list[str]:
        """The statements that prepare a transaction of one statement."""

    @abstractmethod
    def commit_prepared(self) -> str: ...

    @abstractmethod
    def session(self) -> AbstractAsyncContextManager[Execute]:
        """A connection, closed at the end."""

    @abstractmethod
    def table(self, name: str = "events", **fields: Any) -> MySQLTable | PostgresTable: ...

    @abstractmethod
    def query(self, query: str, **fields: Any) -> MySQLQuery | PostgresQuery: ...

    async def write(self, *statements: str) -> None:
        """Run statements over one connection."""
        async with self.session() as execute:
            for statement in statements:
                await execute(statement)

    async def window(
        self, since: JsonValue, cursor: str = "at", options: ReadOptions | None = None, **fields: Any
    ) -> tuple[list[int], Plan]:
        """The ids of one incremental read, and its plan."""
        source = self.table(cursor=cursor, **fields)
        async with source.open(options or ReadOptions(mode="incremental")) as extractor:
            plan = await extractor.plan(since)
            return sorted(int(row[0]) for row in await collected(extractor, plan)), plan


async def settle() -> None:
    """Wait until what was written can be read: windows end on whole seconds."""
    await asyncio.sleep(1.05)


class WindowContract:
    """Nothing that commits late is passed over, nothing comes twice."""

    @pytest.mark.parametrize("cursor", ["at", "local", "id"])
    async def test_a_row_that_commits_late_is_not_passed_over(
        self, events: Events, cursor: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A row stamped before the window's end that commits after the read comes with the next window."""
        monkeypatch.setattr(events.bounds, "WRITERS_SECONDS", 0.4)
        # None would be too few: the stamp may be of the second before the one in which InnoDB knew of the transaction.
        monkeypatch.setattr(events.bounds, "LATE_SECONDS", 1, raising=False)
        await events.write("INSERT INTO events (kind) VALUES ('first')")
        await settle()
        await asyncio.sleep(1.5)  # a stamp may be rounded up
        async with events.session() as late:
            await late("BEGIN")
            await late("INSERT INTO events (kind) VALUES ('late')")
            await asyncio.sleep(0.01)
            await events.write("INSERT INTO events (kind) VALUES ('after')")
            await settle()
            before, plan = await events.window(None, cursor)
            await late("COMMIT")
        await settle()
        after, _ = await events.window(plan.until, cursor)
        assert before + after == [1, 2, 3]
        assert before == ([1] if cursor != "id" else [])

    async def test_a_prepared_transaction_is_waited_for(self, events: Events, monkeypatch: pytest.MonkeyPatch) -> None:
        """While a prepared transaction that no session holds is there, nothing is read, and the plan says so."""
        monkeypatch.setattr(events.bounds, "WRITERS_SECONDS", 0.4)
        await events.write(*events.prepared("INSERT INTO events (kind) VALUES ('prepared')"))
        await events.write("INSERT INTO events (kind) VALUES ('after')")
        await settle()
        before, plan = await events.window(None)
        await events.write(events.commit_prepared())
        after, _ = await events.window(plan.until)
        assert (before, after) == ([], [1, 2])
        assert events.where_prepared_are_told in " ".join(plan.notes)

    async def test_our_own_reads_hold_nothing_back(self, events: Events) -> None:
        """A long extract of another stream does not delay this one."""
        await events.write("INSERT INTO events (kind) VALUES ('first')")
        async with events.table().open(ReadOptions()) as extractor:
            await extractor.plan(None)
            await events.write("INSERT INTO events (kind) VALUES ('second')")
            await settle()
            for cursor in ("at", "id"):
                assert (await events.window(None, cursor))[0] == [1, 2]

    async def test_equal_cursor_values_come_together(self, events: Events) -> None:
        """Rows of one stamp are in one window, however many there are."""
        await events.write(f"INSERT INTO events (kind) {NUMBERS.format(500)} 'same' FROM n")
        await settle()
        rows, plan = await events.window(None, options=ReadOptions(mode="incremental", partitions=4))
        assert len(rows) == 500
        assert (await events.window(plan.until))[0] == []

    async def test_a_date_cursor_waits_for_the_day_to_end(self, events: Events) -> None:
        """A day is read when it is over: more rows of today may come."""
        days = ", ".join(f"(CURRENT_DATE - INTERVAL '{n}' DAY)" for n in (2, 1, 0))
        await events.write(f"INSERT INTO events (day) VALUES {days}")
        assert (await events.window(None, "day"))[0] == [1, 2]

    async def test_lag_and_lookback(self, events: Events) -> None:
        """lag holds fresh rows back; lookback reads rows before the position again, and the position still moves on."""
        stamps = ", ".join(f"(NOW() - INTERVAL '{n}' MINUTE)" for n in range(10, 0, -1))
        await events.write(f"INSERT INTO events (at) VALUES {stamps}")
        held, plan = await events.window(None, lag="5 minutes 30 seconds")
        again, later = await events.window(plan.until, lookback="2 minutes 30 seconds")
        assert held == [1, 2, 3, 4, 5]
        assert again == [3, 4, 5, 6, 7, 8, 9, 10]
        assert later.until != plan.until
        assert (await events.window(None, "id", lag="3"))[0] == [1, 2, 3, 4, 5, 6, 7]
        assert (await events.window({"cursor": "id", "value": "8"}, "id", lookback="2"))[0] == [7, 8, 9, 10]

    async def test_what_is_no_duration_is_refused(self, events: Events) -> None:
        """The field is named, with what was written."""
        since: JsonValue = {"cursor": "at", "value": "2026-01-01 00:00:00"}
        await events.write("INSERT INTO events (at) VALUES (NOW() - INTERVAL '1' MINUTE)")
        with pytest.raises(ConfigurationError, match=r"field lag.*'often'"):
            await events.window(since, lag="often")
        with pytest.raises(ConfigurationError, match=r"field lookback.*'often'"):
            await events.window(since, lookback="often")

    async def test_rows_without_a_cursor_value(self, events: Events) -> None:
        """NULL cursors stop the run by default; they can be left out, or sent with every run."""
        await events.write("INSERT INTO events (at) VALUES (NOW()), (NULL)")
        await settle()
        with pytest.raises(ConfigurationError, match=r"null_cursor.*at.*exclude.*include"):
            await events.window(None)
        left_out, plan = await events.window(None, null_cursor="exclude")
        assert left_out == [1]
        assert (await events.window(None, null_cursor="include"))[0] == [1, 2]
        await events.write("INSERT INTO events (at) VALUES (NOW())")
        await settle()
        for partitions in (0, 3):
            options = ReadOptions(mode="incremental", partitions=partitions)
            assert (await events.window(plan.until, null_cursor="include", options=options))[0] == [2, 3]

    async def test_a_position_of_another_cursor_is_refused(self, events: Events) -> None:
        """A stream whose cursor changed stops, and names the choices."""
        await events.write("INSERT INTO events (kind) VALUES ('a')")
        _, plan = await events.window(None, "id")
        with pytest.raises(PositionLost, match=r"id = 1.*headrace state set"):
            await events.window(plan.until, "at")

    @pytest.mark.parametrize("cursor", ["id", "at"])
    async def test_a_zone_without_effect_is_refused(self, events: Events, cursor: str) -> None:
        """A time zone for a cursor that is no time, or has its zone already."""
        with pytest.raises(ConfigurationError, match=f"field cursor_timezone: the cursor {cursor} is of type .*leave"):
            await events.window(None, cursor, cursor_timezone="Europe/Berlin")

    async def test_incremental_without_a_cursor_is_refused(self, events: Events) -> None:
        """Mode incremental needs a cursor, and says so."""
        with pytest.raises(ConfigurationError, match="field cursor"):
            await events.window(None, "")

    async def test_a_query_is_cut_by_its_cursor(self, events: Events) -> None:
        """A query has no keys, pages or statistics: its slices are found by its own rows."""
        await events.write(f"INSERT INTO events (kind) {NUMBERS.format(1000)} 'x' FROM n")
        source = events.query("SELECT id FROM events", cursor="id")
        for mode in ("full", "incremental"):
            async with source.open(ReadOptions(mode=mode, partitions=3)) as extractor:
                plan = await extractor.plan(None)
                assert len(plan.partitions) == 3
                assert sorted(int(r[0]) for r in await collected(extractor, plan)) == list(range(1, 1001))
