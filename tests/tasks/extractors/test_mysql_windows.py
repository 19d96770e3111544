"""The windows of incremental reads of MySQL and MariaDB tables."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import ModuleType
from typing import Any, ClassVar

import pytest
from pydantic import JsonValue

from blocks.errors import ConfigurationError
from tasks.extractors.contract import ReadOptions
from tasks.extractors.mysql import bounds
from tasks.extractors.mysql.session import Row, Session
from tasks.extractors.mysql.source import MySQLQuery, MySQLTable
from tests.servers.mysql import MySQLServer, connected, elsewhere
from tests.tasks.extractors.test_mysql import block_of
from tests.windows import NUMBERS, Events, Execute, WindowContract, settle


@dataclass
class MySQLEvents(Events):
    """Events in a database on MySQL or MariaDB."""

    server: MySQLServer
    bounds: ClassVar[ModuleType] = bounds
    where_prepared_are_told = "XA RECOVER"

    async def create(self) -> None:
        await self.write(
            "CREATE TABLE events (id BIGINT AUTO_INCREMENT PRIMARY KEY, kind TEXT,"
            " at TIMESTAMP NULL DEFAULT CURRENT_TIMESTAMP, local DATETIME(6) DEFAULT CURRENT_TIMESTAMP(6),"
            " day DATE DEFAULT (CURRENT_DATE), KEY (at))"
        )

    def prepared(self, statement: str) -> list[str]:
        xid = f"'{self.server.database}'"
        return [f"XA START {xid}", statement, f"XA END {xid}", f"XA PREPARE {xid}"]

    def commit_prepared(self) -> str:
        return f"XA COMMIT '{self.server.database}'"

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Execute]:
        async with connected(self.server) as connection, connection.cursor() as cursor:
            await cursor.execute(self.server.deep_recursion)
            yield cursor.execute

    def table(self, name: str = "events", **fields: Any) -> MySQLTable:
        return MySQLTable(connection=block_of(self.server), table=name, **fields)

    def query(self, query: str, **fields: Any) -> MySQLQuery:
        return MySQLQuery(connection=block_of(self.server), query=query, **fields)


class TestWindows(WindowContract):
    @pytest.fixture
    async def events(self, mysql_database: MySQLServer) -> MySQLEvents:
        made = MySQLEvents(mysql_database)
        await made.create()
        return made

    @pytest.mark.parametrize("way", ["statement", "DO", "event", "SET STATEMENT"])
    async def test_a_statement_that_has_not_reached_the_table_yet_counts(self, events: MySQLEvents, way: str) -> None:
        """NOW() is the statement's start: one that writes its row only after the read holds the window back as well."""
        statement = "INSERT INTO events (kind) SELECT SLEEP(2.5)"
        if way == "DO":
            body = "BEGIN DO SLEEP(2.5); INSERT INTO events (kind) VALUES ('late'); RETURN 1; END"
            await events.write(f"CREATE FUNCTION writes() RETURNS INT DETERMINISTIC MODIFIES SQL DATA {body}")
            statement = "DO writes()"
        elif way == "event":
            await events.write("SET GLOBAL event_scheduler = ON")
            statement = f"CREATE EVENT writes ON SCHEDULE AT CURRENT_TIMESTAMP DO {statement}"
        elif way == "SET STATEMENT":
            if not events.server.is_mariadb:
                return  # it has none
            statement = f"SET /* not for long */ STATEMENT max_statement_time = 60 FOR {statement}"
        slow = asyncio.create_task(events.write(statement))
        await _runs(events.server, "SLEEP|writes")
        await asyncio.sleep(0.3)
        await events.write("INSERT INTO events (id, kind) VALUES (100, 'after')")
        await settle()
        before, plan = await events.window(None)
        await slow
        await _runs(events.server, "SLEEP|writes", runs=False)
        await settle()
        after, _ = await events.window(plan.until)
        await events.write("SET GLOBAL event_scheduler = DEFAULT")
        assert before == []
        assert after in ([1, 100], [100, 101])

    @pytest.mark.parametrize("waits", ["before the look", "during the look"])
    async def test_a_statement_that_waited_for_the_table_counts(
        self, events: MySQLEvents, monkeypatch: pytest.MonkeyPatch, waits: str
    ) -> None:
        """A row stamped before InnoDB knew its transaction, which is open still, holds the window back."""
        await events.write("INSERT INTO events (kind, at) VALUES ('after', NOW() + INTERVAL 2 SECOND)")
        async with events.session() as late, events.session() as lock:
            await lock("LOCK TABLES events READ")
            await late("BEGIN")
            inserted = asyncio.ensure_future(late("INSERT INTO events (kind) VALUES ('late')"))
            await asyncio.sleep(3.1)

            async def let_go() -> None:
                await lock("UNLOCK TABLES")
                await inserted

            if waits == "before the look":
                await let_go()
            else:
                _between_looks(monkeypatch, let_go)
            before, plan = await events.window(None)
            assert inserted.done()
            await late("COMMIT")
        await settle()
        after, _ = await events.window(plan.until)
        assert before + after == [1, 2]

    async def test_a_transaction_of_the_second_before_counts(
        self, events: MySQLEvents, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A look that falls on the start of a second, when InnoDB's own clock is still in the one before."""
        monkeypatch.setattr(bounds, "LATE_SECONDS", 0)
        _look_when_a_second_begins(monkeypatch)
        since: JsonValue = None
        found: list[int] = []
        for _ in range(3):  # the two clocks are rarely, but now and then, at one
            await settle()
            async with events.session() as late:
                await late("START TRANSACTION WITH CONSISTENT SNAPSHOT")
                await late("INSERT INTO events (local) VALUES (NOW(6))")
                await events.write("INSERT INTO events (local) VALUES (NOW(6))")
                rows, plan = await events.window(since, "local")
                await late("COMMIT")
            since, found = plan.until, found + rows
        await settle()
        rows, _ = await events.window(since, "local")
        assert found + rows == [1, 2, 3, 4, 5, 6]

    async def test_many_streams_are_planned_at_once(self, events: MySQLEvents) -> None:
        """They do not keep the server from renewing what it tells all of them."""
        await events.write("INSERT INTO events (kind) VALUES ('first')")

        async def planned(number: int) -> None:
            await asyncio.sleep(number / 10)
            for _ in range(3):
                async with events.table(cursor="id").open(ReadOptions(mode="incremental")) as extractor:
                    assert (await extractor.plan(None)).partitions

        await asyncio.gather(*map(planned, range(12)))

    async def test_starts_are_told_in_the_zone_of_the_servers_machine(
        self, events: MySQLEvents, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A transaction holds back there, too; of two moments with one local time the earlier one counts."""
        monkeypatch.setattr(bounds, "LATE_SECONDS", 0)
        with elsewhere(events.server, "CET-1CEST,M3.5.0,M10.5.0/3") as server:
            there = MySQLEvents(await server.create_database())
            await there.create()
            await there.write("INSERT INTO events (kind) VALUES ('first')")
            await settle()
            async with there.session() as late:
                await late("BEGIN")
                await late("INSERT INTO events (kind) VALUES ('late')")
                await asyncio.sleep(2.1)
                before, plan = await there.window(None)
                await late("COMMIT")
            await settle()
            after, _ = await there.window(plan.until)
            assert (before, after) == ([1], [2])
            # On the last Sunday of October two becomes three twice, on that of March never.
            for local, moment in (
                ("10-25 01:59:59", "10-24 23:59:59"), ("10-25 02:00:00", "10-25 00:00:00"), ("10-25 02:59:59", "10-25 00:59:59"),
                ("10-25 03:00:00", "10-25 02:00:00"), ("03-29 01:59:59", "03-29 00:59:59"), ("03-29 03:00:00", "03-29 01:00:00"),
            ):  # fmt: skip
                assert await _began(there.server, f"2026-{local}") == datetime.fromisoformat(f"2026-{moment}+00:00")

    async def test_a_transaction_that_only_reads_delays_no_number(self, events: MySQLEvents) -> None:
        """A transaction that has written nothing draws higher numbers than those in sight, so nobody waits for it."""
        await events.write("INSERT INTO events (kind) VALUES ('first')")
        async with events.session() as idle:
            await idle("BEGIN")
            await idle("SELECT * FROM events")
            assert (await events.window(None, "id"))[0] == [1]

    async def test_a_writer_that_is_prepared_meanwhile_has_not_ended(
        self, events: MySQLEvents, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A transaction that loses its session while it is waited for is waited for still."""
        monkeypatch.setattr(bounds, "WRITERS_SECONDS", 2)
        begin, insert, *prepare = events.prepared("INSERT INTO events (kind) VALUES ('prepared')")
        async with connected(events.server) as late, late.cursor() as cursor:
            for statement in (begin, insert):
                await cursor.execute(statement)
            await events.write("INSERT INTO events (kind) VALUES ('after')")

            async def let_go() -> None:
                for statement in prepare:
                    await cursor.execute(statement)
                await late.ensure_closed()
                await _gone(events.server, late.thread_id())

            _after_first_look(monkeypatch, let_go)
            before, plan = await events.window(None, "id")
        await events.write(events.commit_prepared())
        after, _ = await events.window(plan.until, "id")
        assert (before, after) == ([], [1, 2])

    async def test_a_cursor_without_zone_is_in_the_zone_that_is_named(self, events: MySQLEvents) -> None:
        """A DATETIME written in another zone than the server's is compared with that zone's clock."""
        stamps = ", ".join(f"(UTC_TIMESTAMP() + INTERVAL 5 HOUR + INTERVAL {n} MINUTE)" for n in (29, 31))
        await events.write(f"INSERT INTO events (local) VALUES {stamps}")
        for zone in ("Asia/Kolkata", "+05:30"):
            assert (await events.window(None, "local", cursor_timezone=zone))[0] == [1]
        with pytest.raises(ConfigurationError, match=r"cursor_timezone.*Mars/Olympus"):
            await events.window(None, "local", cursor_timezone="Mars/Olympus")

    async def test_a_cursor_that_cannot_be_sorted_is_refused(self, events: MySQLEvents) -> None:
        """A type without an order to go by is named, with the types that have one."""
        await events.write("ALTER TABLE events ADD choice ENUM('b', 'a')")
        with pytest.raises(ConfigurationError, match=r"field cursor: choice is enum.*number"):
            await events.window(None, "choice")

    @pytest.mark.parametrize("cursor", ["id", "local"])
    async def test_a_large_window_is_cut(self, events: MySQLEvents, cursor: str) -> None:
        """Many new rows are cut along the cursor's index, or along the primary key where it has none."""
        numbers = f"{NUMBERS.format(20_000)} i, REPEAT('x', 50), '2026-01-01' + INTERVAL i SECOND FROM n"
        await events.write(f"INSERT INTO events (id, kind, local) {numbers}", "ANALYZE TABLE events")
        rows, plan = await events.window(None, cursor, ReadOptions(mode="incremental", partitions=5))
        assert rows == list(range(1, 20_001))
        assert len(plan.partitions) == 5
        assert plan.resumable

    async def test_text_and_bytes_are_cursors(self, events: MySQLEvents) -> None:
        """A string or bytes that grow (a ULID, say) serve as a cursor."""
        await events.write(
            "ALTER TABLE events ADD ulid VARCHAR(26) CHARACTER SET latin1 COLLATE latin1_bin, ADD raw BINARY(2)",
            f"INSERT INTO events (id, ulid, raw) {NUMBERS.format(40)} i, CONCAT('01ü', LPAD(i, 4, '0')),"
            " UNHEX(LPAD(HEX(i), 4, '0')) FROM n",
            "CREATE INDEX u ON events (ulid)",
        )
        for cursor, value in (("ulid", "01ü0030"), ("raw", "001E")):
            since: JsonValue = {"cursor": cursor, "value": value}
            for partitions in (1, 3):
                options = ReadOptions(mode="incremental", partitions=partitions)
                rows, plan = await events.window(since, cursor, options)
                assert rows == list(range(31, 41))
                assert plan.until == {"cursor": cursor, "value": {"ulid": "01ü0040", "raw": "0028"}[cursor]}

    async def test_without_the_privilege_the_plan_says_so(self, events: MySQLEvents) -> None:
        """A user who does not see others' transactions is told what may be passed over, and the grant that mends it."""
        await events.write("INSERT INTO events (kind) VALUES ('a')")
        await settle()
        reader = MySQLEvents(await events.server.create_user("SELECT ON {database}.*"))
        for cursor in ("at", "id"):
            rows, plan = await reader.window(None, cursor)
            assert rows == [1]
            assert "GRANT PROCESS" in " ".join(plan.notes)

    async def test_a_server_in_read_only_is_read(self, events: MySQLEvents, monkeypatch: pytest.MonkeyPatch) -> None:
        """By an account that may write nothing there, which sees those that may."""
        monkeypatch.setattr(bounds, "WRITERS_SECONDS", 0.4)
        reader = MySQLEvents(await events.server.create_user("SELECT ON {database}.*", "PROCESS ON *.*"))
        await events.write("INSERT INTO events (kind) VALUES ('first')", "SET GLOBAL read_only = 1")
        try:
            await settle()
            for cursor in ("at", "id"):
                rows, plan = await reader.window(None, cursor)
                assert rows == [1]
                assert "replica" in " ".join(plan.notes)
            async with events.session() as late:
                await late("BEGIN")
                await late("INSERT INTO events (kind) VALUES ('late')")
                await events.write("INSERT INTO events (kind) VALUES ('after')")
                before, plan = await reader.window(plan.until, "id")
                await late("COMMIT")
            after, _ = await reader.window(plan.until, "id")
            assert (before, after) == ([], [2, 3])
        finally:
            await events.write("SET GLOBAL read_only = 0")

    async def test_a_query_that_does_not_parse_shows_the_place(self, events: MySQLEvents) -> None:
        """The database's own message, and the field it is about."""
        for query, told in (("SELECT id\nFROM evnts", "evnts"), ("SELECT id FORM events", "FORM events")):
            async with events.query(query).open(ReadOptions()) as extractor:
                with pytest.raises(ConfigurationError, match=f"(?s)field query.*{told}"):
                    await extractor.plan(None)

    @pytest.mark.parametrize(
        ("table", "told"),
        [("event", "did you mean .*events"), ("nowhere.events", "events"), ("a.b.c", "database.table")],
    )
    async def test_a_wrong_table_name_is_met_with_near_ones(self, events: MySQLEvents, table: str, told: str) -> None:
        """The error names the field, and what may have been meant."""
        async with events.table(table).open(ReadOptions()) as extractor:
            with pytest.raises(ConfigurationError, match=f"(?s)field table.*{told}"):
                await extractor.plan(None)


@pytest.mark.parametrize(
    ("command", "statement", "counts"),
    [
        ("Query", "INSERT INTO t VALUES (1)", True),
        ("Query", "", True),
        ("Query", "/* why */ SELECT 1", False),
        ("Query", "SET sql_mode = ''", False),
        ("Query", "SET STATEMENT max_statement_time = 9 FOR DELETE FROM t", True),
        ("Execute", "DO f()", True),
        ("Bulk_execute", "INSERT INTO t VALUES (?)", True),  # executemany of MariaDB's own connectors
        ("Connect", "INSERT INTO t VALUES (1)", True),  # an event
        ("Connect", "", False),
        ("Sleep", "", False),
        ("Daemon", "InnoDB purge coordinator", False),
        ("Binlog Dump GTID", "", False),
    ],
)
def test_threads_that_may_write(command: str, statement: str, counts: bool) -> None:
    """Whatever runs a statement, but for those that are known to write nothing."""
    assert bounds._may_write(command, statement) is counts


def _between_looks(monkeypatch: pytest.MonkeyPatch, happen: Callable[[], Awaitable[None]]) -> None:
    """Let something happen when one of processes and transactions has been looked at, and the other has not."""
    rows = Session.rows
    looked: set[str] = set()

    async def watched(session: Session, statement: str) -> list[Row]:
        seen = {name for name in ("FULL PROCESSLIST", "innodb_trx") if name in statement}
        if len(looked) == 1 and seen - looked:
            await happen()
        looked.update(seen)
        return await rows(session, statement)

    monkeypatch.setattr(Session, "rows", watched)


def _after_first_look(monkeypatch: pytest.MonkeyPatch, happen: Callable[[], Awaitable[None]]) -> None:
    """Let something happen when it is known who writes."""
    rows = Session.rows
    looks = 0

    async def watched(session: Session, statement: str) -> list[Row]:
        nonlocal looks
        looks += "PROCESSLIST" in statement and "FULL" in statement
        if looks == 2:
            looks += 1
            await happen()
        return await rows(session, statement)

    monkeypatch.setattr(Session, "rows", watched)


async def _runs(server: MySQLServer, pattern: str, *, runs: bool = True) -> None:
    """Wait until the server runs such a statement, or none."""
    others = "information_schema.processlist WHERE id <> CONNECTION_ID()"
    query = f"SELECT count(*) FROM {others} AND info REGEXP '{pattern}'"
    async with asyncio.timeout(30):
        while bool(await server.fetch_value(query)) is not runs:
            await asyncio.sleep(0.02)


async def _gone(server: MySQLServer, thread: int) -> None:
    """Wait until the server has ended a session."""
    async with asyncio.timeout(30):
        while thread in {row[0] for row in await server.fetch("SHOW PROCESSLIST")}:
            await asyncio.sleep(0.02)


def _look_when_a_second_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask the server for the time when a second has just begun."""
    value = Session.value

    async def timely(session: Session, statement: str) -> str | None:
        if statement == "SELECT UNIX_TIMESTAMP(NOW(6))":
            begins = math.ceil(time.time())
            await asyncio.sleep(begins - time.time() - 0.002)
            while time.time() < begins:
                pass
        return await value(session, statement)

    monkeypatch.setattr(Session, "value", timely)


async def _began(server: MySQLServer, local: str) -> datetime:
    """What is made of a start that `innodb_trx` tells."""
    columns = f"1 trx_mysql_thread_id, 1 trx_id, TIMESTAMP('{local}') trx_started, 1 trx_rows_modified, NULL trx_query"
    told = bounds._TRANSACTIONS.replace("information_schema.innodb_trx", f"(SELECT {columns}, 0 trx_is_read_only) one")
    _, _, seconds, *_ = (await server.fetch(told))[0]
    return datetime.fromtimestamp(int(seconds), UTC)
