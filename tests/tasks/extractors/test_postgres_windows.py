"""The windows of incremental reads of PostgreSQL tables."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

import asyncpg
import pytest
from pydantic import SecretStr

from blocks.errors import ConfigurationError, PositionLost
from blocks.postgres import Postgres
from tasks.extractors.contract import ReadOptions
from tasks.extractors.postgres import bounds
from tasks.extractors.postgres.source import PostgresQuery, PostgresTable
from tasks.extractors.postgres.sql import Connection, explained
from tasks.loads import into_postgres
from tasks.loads.targets import Naming
from tests.contract import collected
from tests.servers.postgres import PostgresServer
from tests.tasks.extractors.test_postgres import block_of
from tests.windows import Events, Execute, WindowContract, settle


@dataclass
class PostgresEvents(Events):
    """Events in a database on PostgreSQL."""

    server: PostgresServer
    bounds: ClassVar[ModuleType] = bounds
    where_prepared_are_told = "pg_prepared_xacts"

    async def create(self) -> None:
        await self.write(
            "CREATE TABLE events (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, kind text,"
            " at timestamptz DEFAULT now(), local timestamp(0) DEFAULT now(), day date DEFAULT now())",
            "CREATE INDEX ON events (at)",
        )

    def prepared(self, statement: str) -> list[str]:
        return ["BEGIN", statement, "PREPARE TRANSACTION 'one'"]

    def commit_prepared(self) -> str:
        return "COMMIT PREPARED 'one'"

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Execute]:
        connection = await asyncpg.connect(self.server.dsn())
        try:
            yield connection.execute
        finally:
            await connection.close()

    async def waits_for_lock(self, key: int) -> None:
        """Return when a session waits for the advisory lock ``key``."""
        connection = await asyncpg.connect(self.server.dsn())
        waiting = (
            "SELECT EXISTS (SELECT FROM pg_locks JOIN pg_database d ON d.oid = database"
            " WHERE locktype = 'advisory' AND objid = $1::bigint::oid AND NOT granted AND datname = current_database())"
        )
        try:
            async with asyncio.timeout(30):
                while not await connection.fetchval(waiting, key):
                    await asyncio.sleep(0.02)
        finally:
            await connection.close()

    @asynccontextmanager
    async def reader(self, setting: str = "") -> AsyncIterator[Postgres]:
        """A user who may only read, with a setting of their own; gone at the end."""
        name = f"reader_{self.server.database}"
        await self.write(f"CREATE ROLE {name} LOGIN PASSWORD 'reader'", f"GRANT SELECT ON events TO {name}")
        try:
            if setting:
                await self.write(f"ALTER ROLE {name} SET {setting}")
            yield block_of(self.server).model_copy(update={"user": name, "password": SecretStr("reader")})
        finally:
            await self.write(f"DROP OWNED BY {name}; DROP ROLE {name}")

    def table(self, name: str = "public.events", **fields: Any) -> PostgresTable:
        return PostgresTable(connection=block_of(self.server), table=name, **fields)

    def query(self, query: str, **fields: Any) -> PostgresQuery:
        return PostgresQuery(connection=block_of(self.server), query=query, **fields)


def after_each_look(monkeypatch: pytest.MonkeyPatch, then: dict[int, Callable[[], Awaitable[object]]]) -> None:
    """Do something after a plan's first look, second look … at who writes."""
    look, looks = bounds._writers, 0

    async def looked(connection: Connection, read: list[int], prepared_only: bool) -> set[str]:
        nonlocal looks
        seen = await look(connection, read, prepared_only)
        looks += 1
        if looks in then:
            await then[looks]()
        return seen

    monkeypatch.setattr(bounds, "_writers", looked)


class TestWindows(WindowContract):
    @pytest.fixture
    async def events(self, database: PostgresServer) -> PostgresEvents:
        made = PostgresEvents(database)
        await made.create()
        return made

    async def test_a_transaction_that_has_not_written_yet_counts(self, events: PostgresEvents) -> None:
        """now() is the transaction's start: one that writes only after the read holds the window back as well."""
        async with events.session() as late:
            await late("BEGIN")
            await late("SELECT now()")
            await events.write("INSERT INTO events (kind) VALUES ('after')")
            await settle()
            before, plan = await events.window(None)
            await late("INSERT INTO events (kind) VALUES ('late')")
            await late("COMMIT")
        await settle()
        after, _ = await events.window(plan.until)
        assert (before, after) == ([], [1, 2])

    async def test_a_load_of_our_own_counts(self, events: PostgresEvents) -> None:
        """A table that `headrace load` fills is read like any other: rows of a load under way are not passed over."""
        async with into_postgres.session(block_of(events.server), Naming()) as load:
            async with load.transaction():
                await load.execute("INSERT INTO events (kind) VALUES ('loaded')")
                await settle()
                await events.write("INSERT INTO events (kind) VALUES ('after')")
                await settle()
                before, plan = await events.window(None)
            after, _ = await events.window(plan.until)
        assert (before, after) == ([], [1, 2])

    @pytest.mark.parametrize("table", ["events", "tickets", "everything"])
    async def test_an_id_that_is_drawn_before_the_insert_counts(
        self, events: PostgresEvents, table: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who has drawn from the sequence of a table's column is waited for, also where a view hides the table."""
        monkeypatch.setattr(bounds, "WRITERS_SECONDS", 0.4)
        await events.write(
            "CREATE SEQUENCE numbers",
            "CREATE TABLE tickets (id bigint PRIMARY KEY DEFAULT nextval('numbers'), kind text)",
            "CREATE VIEW everything AS SELECT id, kind FROM tickets",
        )
        target, sequence = ("events", "events_id_seq") if table == "events" else ("tickets", "numbers")
        async with events.session() as late:
            await late("BEGIN")
            await late(f"SELECT nextval('{sequence}')")
            await events.write(f"INSERT INTO {target} (kind) VALUES ('after')")
            before, plan = await events.window(None, "id", name=table, null_cursor="exclude")
            await late(f"INSERT INTO {target} (id, kind) OVERRIDING SYSTEM VALUE VALUES (1, 'late')")
            await late("COMMIT")
        after, _ = await events.window(plan.until, "id", name=table, null_cursor="exclude")
        assert (before, after) == ([], [1, 2])

    async def test_a_writer_that_is_prepared_during_the_wait_has_not_ended(
        self, events: PostgresEvents, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """PREPARE TRANSACTION changes who a writer is for the server: it is waited for all the same."""
        async with events.session() as late:
            await late("BEGIN")
            await late("INSERT INTO events (kind) VALUES ('late')")
            await events.write("INSERT INTO events (kind) VALUES ('after')")
            monkeypatch.setattr(bounds, "WRITERS_SECONDS", 0.4)
            after_each_look(monkeypatch, {1: lambda: late("PREPARE TRANSACTION 'one'")})
            before, plan = await events.window(None, "id")
        await events.write(events.commit_prepared())
        after, _ = await events.window(plan.until, "id")
        assert (before, after) == ([], [1, 2])
        assert events.where_prepared_are_told in " ".join(plan.notes)

    async def test_transactions_that_begin_during_the_wait_are_not_waited_for(
        self, events: PostgresEvents, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However many others are prepared one after the other, a plan goes on when those that it found have ended."""
        async with events.session() as found, events.session() as other:

            async def prepare(name: str) -> None:
                for statement in ("BEGIN", "INSERT INTO events (kind) VALUES ('x')", f"PREPARE TRANSACTION '{name}'"):
                    await other(statement)

            async def first() -> None:
                await prepare("one")
                await found("COMMIT")

            async def second() -> None:
                await prepare("two")
                await other("COMMIT PREPARED 'one'")

            await events.write("INSERT INTO events (kind) VALUES ('first')")
            await found("BEGIN")
            await found("INSERT INTO events (kind) VALUES ('found')")
            after_each_look(monkeypatch, {1: first, 2: second})
            assert (await events.window(None, "id"))[0] == [1]
            await other("COMMIT PREPARED 'two'")

    async def test_a_procedure_that_has_committed_counts_from_its_call(self, events: PostgresEvents) -> None:
        """statement_timestamp() stays the CALL's start in the transactions that follow a COMMIT in a procedure."""
        await events.write(
            """CREATE PROCEDURE late() LANGUAGE plpgsql AS $$ BEGIN
                 PERFORM pg_advisory_lock(1); COMMIT;
                 INSERT INTO events (kind, at) VALUES ('late', statement_timestamp()); PERFORM pg_advisory_lock(2);
               END $$"""
        )
        async with events.session() as gate, events.session() as session:
            await gate("SELECT pg_advisory_lock(1), pg_advisory_lock(2)")
            called = asyncio.ensure_future(session("CALL late()"))
            await events.waits_for_lock(1)
            await events.write("INSERT INTO events (id, kind) OVERRIDING SYSTEM VALUE VALUES (100, 'after')")
            await settle()
            await gate("SELECT pg_advisory_unlock(1)")
            await events.waits_for_lock(2)
            await settle()
            before, plan = await events.window(None)
            await gate("SELECT pg_advisory_unlock(2)")
            await called
        after, _ = await events.window(plan.until)
        assert (before, after) == ([], [1, 100])

    async def test_sessions_that_are_not_tracked_are_waited_for(
        self, events: PostgresEvents, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With track_activities = off the server does not tell when a transaction began; the plan says so."""
        monkeypatch.setattr(bounds, "WRITERS_SECONDS", 0.4)
        async with events.session() as late:
            await late("SET track_activities = off")
            await late("BEGIN")
            await late("INSERT INTO events (kind) VALUES ('late')")
            await settle()
            await events.write("INSERT INTO events (kind) VALUES ('after')")
            await settle()
            before, held = await events.window(None)
            await late("COMMIT")
            after, plan = await events.window(held.until)
        assert (before, after) == ([], [1, 2])
        assert "hold the table open" in " ".join(held.notes)
        assert "track_activities" in " ".join(plan.notes)

    async def test_an_idle_session_holds_nothing_back(self, events: PostgresEvents) -> None:
        """A session of a pool whose last statement was long ago does not delay a window."""
        async with events.session() as idle:
            await idle("SELECT now()")
            await events.write("INSERT INTO events (kind) VALUES ('first')")
            await settle()
            assert (await events.window(None))[0] == [1]

    @pytest.mark.parametrize(
        ("kind", "values", "more"),
        [
            ("numeric", ["'-Infinity'", "1", "'Infinity'", "'NaN'"], "2"),
            ("real", ["'-Infinity'", "1", "'Infinity'", "'NaN'"], "2"),
            ("timestamptz", ["'-infinity'", "now()", "'infinity'"], "now()"),
        ],
    )
    async def test_nan_and_infinite_cursors_are_as_good_as_null(
        self, events: PostgresEvents, kind: str, values: list[str], more: str
    ) -> None:
        """They stop the run by default, are left out, or come with every run; none becomes the watermark."""
        rows = ", ".join(f"({value})" for value in values)
        await events.write(f"ALTER TABLE events ADD n {kind} NOT NULL", f"INSERT INTO events (n) VALUES {rows}")
        await settle()
        with pytest.raises(ConfigurationError, match=r"(?i)null_cursor.*cursor n is NULL.* or infinity"):
            await events.window(None, "n")
        left_out, plan = await events.window(None, "n", null_cursor="exclude")
        assert left_out == [2]
        everything = list(range(1, len(values) + 1))
        for partitions in (1, 3):
            options = ReadOptions(mode="incremental", partitions=partitions)
            assert (await events.window(None, "n", options, null_cursor="include"))[0] == everything
        await events.write(f"INSERT INTO events (n) VALUES ({more})")
        await settle()
        assert (await events.window(plan.until, "n", null_cursor="exclude"))[0] == [len(values) + 1]
        with pytest.raises(PositionLost, match="nothing is behind"):
            await events.window({"cursor": "n", "value": "Infinity"}, "n")

    @pytest.mark.parametrize("cursor", ["id", "at"])
    async def test_what_a_refresh_may_lose_is_told(self, events: PostgresEvents, cursor: str) -> None:
        """Who writes to the tables behind a materialized view cannot be waited for: the plan says what lag has to be."""
        await events.write("INSERT INTO events (kind) VALUES ('a')", "CREATE MATERIALIZED VIEW seen AS TABLE events")
        _, plan = await events.window(None, cursor, name="seen", null_cursor="exclude")
        assert "seen is a materialized view" in " ".join(plan.notes)
        lag = "1" if cursor == "id" else "1 minute"
        _, plan = await events.window(None, cursor, name="seen", null_cursor="exclude", lag=lag)
        assert "materialized view" not in " ".join(plan.notes)

    async def test_tables_that_a_function_hides_are_told(self, events: PostgresEvents) -> None:
        """The server does not say which tables a function reads: the plan says that nobody is waited for."""
        await events.write(
            "CREATE FUNCTION found() RETURNS SETOF events LANGUAGE plpgsql STABLE AS"
            " $$ BEGIN RETURN QUERY SELECT * FROM events; END $$"
        )
        source = events.query("SELECT * FROM found()", cursor="id")
        async with source.open(ReadOptions(mode="incremental")) as extractor:
            plan = await extractor.plan(None)
        assert "not waited for" in " ".join(plan.notes)

    async def test_a_foreign_table_is_read_in_one_state(self, events: PostgresEvents) -> None:
        """This server's snapshot does not hold for another's rows: one reader; its writers are not seen, and the plan says so."""
        await events.write(
            "CREATE EXTENSION file_fdw",
            "CREATE SERVER far FOREIGN DATA WRAPPER file_fdw",
            "CREATE FOREIGN TABLE counted (id bigint) SERVER far OPTIONS (program 'seq 100')",
            "CREATE VIEW hidden AS SELECT * FROM counted",
        )
        for name in ("counted", "hidden"):
            source = events.table(name, cursor="id", null_cursor="exclude")
            async with source.open(ReadOptions(partitions=3)) as extractor:
                plan = await extractor.plan(None)
                assert len(plan.partitions) == 1
                assert len(await collected(extractor, plan)) == 100
            assert "several states" in " ".join(plan.notes)
            rows, plan = await events.window(None, "id", name=name, null_cursor="exclude")
            assert len(rows) == 100
            assert "counted is a foreign table" in " ".join(plan.notes)

    async def test_what_the_driver_refuses_is_told(self, events: PostgresEvents) -> None:
        """The error of a value that its type does not hold says what is wrong, whoever refuses it, the server or the driver."""
        error = asyncpg.DataError("invalid input for query argument $1")  # the driver's own, without a server's fields
        told = explained(error, "planning failed")
        assert str(told) == "planning failed: invalid input for query argument $1"
        with pytest.raises(ConfigurationError, match=r"out of range|invalid"):
            await events.window({"cursor": "id", "value": "9" * 30}, "id")

    async def test_a_cursor_that_cannot_be_sorted_is_refused(self, events: PostgresEvents) -> None:
        """json has no order: the error is the user's to mend, and is the server's own."""
        await events.write("ALTER TABLE events ADD doc json")
        with pytest.raises(ConfigurationError, match="ordering operator"):
            await events.window(None, "doc", null_cursor="exclude")

    @pytest.mark.parametrize("indexed", [True, False])
    async def test_a_large_window_is_cut(self, events: PostgresEvents, indexed: bool) -> None:
        """Many new rows are cut by an indexed cursor's own distribution, or by pages where there is no index."""
        await events.write("INSERT INTO events (kind) SELECT repeat('x', 100) FROM generate_series(1, 20000)")
        if not indexed:
            await events.write("ALTER TABLE events DROP CONSTRAINT events_pkey")
        await events.write("ANALYZE events")
        rows, plan = await events.window(None, "id", ReadOptions(mode="incremental", partitions=5))
        assert rows == list(range(1, 20_001))
        assert 4 <= len(plan.partitions) <= 6
        assert plan.resumable is indexed

    async def test_partitioned_and_inherited_tables_are_read_whole(self, events: PostgresEvents) -> None:
        """Leaves of every level are read, small ones together, in slices of about equal size."""
        await events.write(
            """CREATE TABLE logs (id int, day date) PARTITION BY RANGE (day);
               CREATE TABLE logs_1 PARTITION OF logs FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
               CREATE TABLE logs_2 PARTITION OF logs FOR VALUES FROM ('2026-02-01') TO ('2026-03-01') PARTITION BY HASH (id);
               CREATE TABLE logs_2a PARTITION OF logs_2 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
               CREATE TABLE logs_2b PARTITION OF logs_2 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
               INSERT INTO logs SELECT i, date '2026-01-01' + i % 59 FROM generate_series(1, 20000) i"""
        )
        source = events.table("public.logs")
        for partitions in (1, 2, 7):
            async with source.open(ReadOptions(partitions=partitions)) as extractor:
                plan = await extractor.plan(None)
                assert sorted(int(r[0]) for r in await collected(extractor, plan)) == list(range(1, 20_001))
                assert partitions - 1 <= len(plan.partitions) <= partitions + 3

    async def test_a_truncate_waits_for_the_run(self, events: PostgresEvents) -> None:
        """Between plan and read the table cannot be truncated, which would make it look empty."""
        await events.write("INSERT INTO events (kind) SELECT 'x' FROM generate_series(1, 100)")
        async with events.table().open(ReadOptions()) as extractor:
            plan = await extractor.plan(None)
            with pytest.raises(asyncpg.LockNotAvailableError):
                await events.write("SET lock_timeout = '100ms'; TRUNCATE events")
            assert len(await collected(extractor, plan)) == 100
        await asyncio.sleep(0.1)
        await events.write("TRUNCATE events")

    async def test_a_plan_that_is_made_again_is_read_under_its_own_snapshot(self, events: PostgresEvents) -> None:
        """No reader of a plan that could not be saved is left, for rows that came since would be missing."""

        async def refuse(_data: bytes) -> None:
            raise ConnectionResetError

        await events.write("INSERT INTO events (kind) VALUES ('first')")
        async with events.table(cursor="id").open(ReadOptions(mode="incremental")) as extractor:
            await extractor.plan(None)
            await events.write("INSERT INTO events (kind) VALUES ('second')")
            plan = await extractor.plan(None)
            with pytest.raises(ConnectionResetError):
                await extractor.read(plan, plan.partitions[0], refuse)
            assert sorted(int(row[0]) for row in await collected(extractor, plan)) == [1, 2]

    async def test_without_the_privilege_the_plan_says_so(self, events: PostgresEvents) -> None:
        """A user who does not see others' transactions is told what may be passed over, and the grant that mends it."""
        await events.write("INSERT INTO events (kind) VALUES ('a')")
        await settle()
        async with events.reader() as reader:
            source = PostgresTable(connection=reader, table="public.events", cursor="at", null_cursor="exclude")
            async with source.open(ReadOptions(mode="incremental")) as extractor:
                plan = await extractor.plan(None)
        assert "GRANT pg_read_all_stats" in " ".join(plan.notes)
        assert len(plan.partitions) == 1

    async def test_the_readers_own_time_zone_is_not_taken_for_the_servers(self, events: PostgresEvents) -> None:
        """A zone that is set for the reader alone says nothing of who writes: the error asks for theirs."""
        await events.write(f"ALTER DATABASE {events.server.database} SET timezone = 'America/Lima'")
        await events.write("INSERT INTO events (kind) VALUES ('a')")
        await settle()
        await asyncio.sleep(1)  # a stamp may be rounded up
        assert (await events.window(None, "local"))[0] == [1]
        async with events.reader("timezone = 'Asia/Tokyo'") as reader:
            source = PostgresTable(connection=reader, table="public.events", cursor="local")
            with pytest.raises(ConfigurationError, match=r"field cursor_timezone.*Asia/Tokyo.*name theirs"):
                async with source.open(ReadOptions(mode="incremental")) as extractor:
                    await extractor.plan(None)
            named = source.model_copy(update={"cursor_timezone": "America/Lima"})
            async with named.open(ReadOptions(mode="incremental")) as extractor:
                assert len((await extractor.plan(None)).partitions) == 1

    async def test_a_query_that_does_not_parse_shows_the_place(self, events: PostgresEvents) -> None:
        """The database's own message and a caret under the place."""
        async with events.query("SELECT id\nFROM evnts").open(ReadOptions()) as extractor:
            with pytest.raises(
                ConfigurationError, match=r'(?s)field query.*"evnts" does not exist\n  FROM evnts\n +\^'
            ):
                await extractor.plan(None)

    @pytest.mark.parametrize(
        ("table", "told"),
        [
            ("public.event", "did you mean public.events"),
            ("nowhere.events", "public.events"),
            ("a.b.c", "schema.table"),
        ],
    )
    async def test_a_wrong_table_name_is_met_with_near_ones(
        self, events: PostgresEvents, table: str, told: str
    ) -> None:
        """The error names the field, and what may have been meant."""
        async with events.table(table).open(ReadOptions()) as extractor:
            with pytest.raises(ConfigurationError, match=f"(?s)field table.*{told}"):
                await extractor.plan(None)
