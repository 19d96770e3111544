"""The window of an incremental read: nothing that commits late is passed over, nothing comes twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from pydantic import JsonValue

from blocks.errors import ConfigurationError, PositionLost
from tasks.extractors.contract import Plan, ReadOptions
from tasks.extractors.postgres import bounds
from tasks.extractors.postgres.source import PostgresQuery, PostgresTable
from tests.contract import collected
from tests.servers.postgres import PostgresServer
from tests.tasks.extractors.test_postgres import block_of

EVENTS = """
CREATE TABLE events (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, kind text,
                     at timestamptz DEFAULT now(), local timestamp(0) DEFAULT now(), day date DEFAULT now());
CREATE INDEX ON events (at);
"""


@pytest.fixture
async def writer(database: PostgresServer) -> AsyncIterator[Any]:
    """A connection that writes, to a database with the table events."""
    connection = await asyncpg.connect(database.dsn())
    await connection.execute(EVENTS)
    yield connection
    await connection.close()


async def window(
    server: PostgresServer, since: JsonValue, cursor: str = "at", options: ReadOptions | None = None, **fields: Any
) -> tuple[list[int], Plan]:
    """The ids of one incremental read, and its plan."""
    source = PostgresTable(connection=block_of(server), table="public.events", cursor=cursor, **fields)
    async with source.open(options or ReadOptions(mode="incremental")) as extractor:
        plan = await extractor.plan(since)
        return sorted(int(row[0]) for row in await collected(extractor, plan)), plan


async def _settle() -> None:
    # Windows end on whole seconds.
    await asyncio.sleep(1.05)


@pytest.mark.parametrize("cursor", ["at", "local", "id"])
async def test_a_row_that_commits_late_is_not_passed_over(
    database: PostgresServer, writer: Any, cursor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row stamped before the window's end that commits after the read comes with the next window."""
    monkeypatch.setattr(bounds, "WRITERS_SECONDS", 0.2)
    await writer.execute("INSERT INTO events (kind) VALUES ('first')")
    await _settle()
    late = await asyncpg.connect(database.dsn())
    transaction = late.transaction()
    await transaction.start()
    await late.execute("INSERT INTO events (kind) VALUES ('late')")
    await asyncio.sleep(0.01)
    await writer.execute("INSERT INTO events (kind) VALUES ('after')")
    await _settle()
    before, plan = await window(database, None, cursor)
    await transaction.commit()
    await late.close()
    await _settle()
    after, _ = await window(database, plan.until, cursor)
    assert before + after == [1, 2, 3]


async def test_a_transaction_that_has_not_written_yet_counts(database: PostgresServer, writer: Any) -> None:
    """now() is the transaction's start: one that writes only after the read holds the window back as well."""
    late = await asyncpg.connect(database.dsn())
    transaction = late.transaction()
    await transaction.start()
    await late.fetchval("SELECT now()")
    await writer.execute("INSERT INTO events (kind) VALUES ('after')")
    await _settle()
    before, plan = await window(database, None)
    await late.execute("INSERT INTO events (kind) VALUES ('late')")
    await transaction.commit()
    await late.close()
    await _settle()
    after, _ = await window(database, plan.until)
    assert (before, after) == ([], [1, 2])


async def test_a_prepared_transaction_is_waited_for(
    database: PostgresServer, writer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody tells when a prepared transaction began: while it holds the table, nothing is read, and the plan says so."""
    monkeypatch.setattr(bounds, "WRITERS_SECONDS", 0.2)
    await writer.execute("BEGIN; INSERT INTO events (kind) VALUES ('prepared'); PREPARE TRANSACTION 'one'")
    await writer.execute("INSERT INTO events (kind) VALUES ('after')")
    await _settle()
    before, plan = await window(database, None)
    await writer.execute("COMMIT PREPARED 'one'")
    after, _ = await window(database, plan.until)
    assert (before, after) == ([], [1, 2])
    assert "prepared" in " ".join(plan.notes)


async def test_our_own_reads_hold_nothing_back(database: PostgresServer, writer: Any) -> None:
    """A long extract of another stream does not delay this one."""
    await writer.execute("INSERT INTO events (kind) VALUES ('first')")
    other = PostgresTable(connection=block_of(database), table="public.events")
    async with other.open(ReadOptions()) as extractor:
        await extractor.plan(None)
        await writer.execute("INSERT INTO events (kind) VALUES ('second')")
        await _settle()
        assert (await window(database, None))[0] == [1, 2]


async def test_equal_cursor_values_come_together(database: PostgresServer, writer: Any) -> None:
    """Rows of one stamp are in one window, however many there are."""
    await writer.execute("INSERT INTO events (kind) SELECT 'same' FROM generate_series(1, 500)")
    await _settle()
    rows, plan = await window(database, None, options=ReadOptions(mode="incremental", partitions=4))
    assert len(rows) == 500
    assert (await window(database, plan.until))[0] == []


async def test_a_date_cursor_waits_for_the_day_to_end(database: PostgresServer, writer: Any) -> None:
    """A day is read when it is over: more rows of today may come."""
    await writer.execute("INSERT INTO events (day) VALUES (current_date - 2), (current_date - 1), (current_date)")
    assert (await window(database, None, "day"))[0] == [1, 2]


async def test_lag_and_lookback(database: PostgresServer, writer: Any) -> None:
    """lag holds fresh rows back; lookback reads rows before the position again, and the position still moves on."""
    await writer.execute(
        "INSERT INTO events (at) SELECT now() - n * interval '1 minute' FROM generate_series(10, 1, -1) n"
    )
    held, plan = await window(database, None, lag="5 minutes 30 seconds")
    again, later = await window(database, plan.until, lookback="2 minutes 30 seconds")
    assert held == [1, 2, 3, 4, 5]
    assert again == [3, 4, 5, 6, 7, 8, 9, 10] or again == [4, 5, 6, 7, 8, 9, 10]
    assert later.until != plan.until
    assert (await window(database, None, "id", lag="3"))[0] == [1, 2, 3, 4, 5, 6, 7]


async def test_rows_without_a_cursor_value(database: PostgresServer, writer: Any) -> None:
    """NULL cursors stop the run by default; they can be left out, or sent with every run."""
    await writer.execute("INSERT INTO events (at) VALUES (now()), (NULL)")
    await _settle()
    with pytest.raises(ConfigurationError, match=r"null_cursor.*at.*exclude.*include"):
        await window(database, None)
    left_out, plan = await window(database, None, null_cursor="exclude")
    assert left_out == [1]
    assert (await window(database, None, null_cursor="include"))[0] == [1, 2]
    await writer.execute("INSERT INTO events (at) VALUES (now())")
    await _settle()
    assert (await window(database, plan.until, null_cursor="include"))[0] == [2, 3]


async def test_a_cursor_that_cannot_be_sorted_is_refused(database: PostgresServer, writer: Any) -> None:
    """json has no order: the error is the user's to mend, and is the server's own."""
    await writer.execute("ALTER TABLE events ADD doc json")
    with pytest.raises(ConfigurationError, match="ordering operator"):
        await window(database, None, "doc", null_cursor="exclude")


async def test_a_position_of_another_cursor_is_refused(database: PostgresServer, writer: Any) -> None:
    """A stream whose cursor changed stops, and names the choices."""
    await writer.execute("INSERT INTO events (kind) VALUES ('a')")
    _, plan = await window(database, None, "id")
    with pytest.raises(PositionLost, match=r"id = 1.*headrace state set"):
        await window(database, plan.until, "at")


async def test_incremental_without_a_cursor_is_refused(database: PostgresServer, writer: Any) -> None:
    """Mode incremental needs a cursor, and says so."""
    assert writer is not None
    with pytest.raises(ConfigurationError, match="field cursor"):
        await window(database, None, "")


@pytest.mark.parametrize("indexed", [True, False])
async def test_a_large_window_is_cut(database: PostgresServer, writer: Any, indexed: bool) -> None:
    """Many new rows are cut by an indexed cursor's own distribution, or by pages where there is no index."""
    await writer.execute("INSERT INTO events (kind) SELECT repeat('x', 100) FROM generate_series(1, 20000)")
    if not indexed:
        await writer.execute("ALTER TABLE events DROP CONSTRAINT events_pkey")
    await writer.execute("ANALYZE events")
    rows, plan = await window(database, None, "id", ReadOptions(mode="incremental", partitions=5))
    assert rows == list(range(1, 20_001))
    assert 4 <= len(plan.partitions) <= 6
    assert plan.resumable is indexed


async def test_a_query_is_cut_by_its_cursor(database: PostgresServer, writer: Any) -> None:
    """A query has no pages and no statistics: its slices are found by its own rows."""
    await writer.execute("INSERT INTO events (kind) SELECT 'x' FROM generate_series(1, 1000)")
    source = PostgresQuery(connection=block_of(database), query="SELECT id FROM events", cursor="id")
    for mode in ("full", "incremental"):
        async with source.open(ReadOptions(mode=mode, partitions=3)) as extractor:
            plan = await extractor.plan(None)
            assert len(plan.partitions) == 3
            assert sorted(int(r[0]) for r in await collected(extractor, plan)) == list(range(1, 1001))


async def test_partitioned_and_inherited_tables_are_read_whole(database: PostgresServer, writer: Any) -> None:
    """Leaves of every level are read, small ones together, in slices of about equal size."""
    await writer.execute(
        """CREATE TABLE logs (id int, day date) PARTITION BY RANGE (day);
           CREATE TABLE logs_1 PARTITION OF logs FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
           CREATE TABLE logs_2 PARTITION OF logs FOR VALUES FROM ('2026-02-01') TO ('2026-03-01') PARTITION BY HASH (id);
           CREATE TABLE logs_2a PARTITION OF logs_2 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
           CREATE TABLE logs_2b PARTITION OF logs_2 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
           INSERT INTO logs SELECT i, date '2026-01-01' + i % 59 FROM generate_series(1, 20000) i"""
    )
    source = PostgresTable(connection=block_of(database), table="public.logs")
    for partitions in (1, 2, 7):
        async with source.open(ReadOptions(partitions=partitions)) as extractor:
            plan = await extractor.plan(None)
            assert sorted(int(r[0]) for r in await collected(extractor, plan)) == list(range(1, 20_001))
            assert partitions - 1 <= len(plan.partitions) <= partitions + 3


async def test_a_truncate_waits_for_the_run(database: PostgresServer, writer: Any) -> None:
    """Between plan and read the table cannot be truncated, which would make it look empty."""
    await writer.execute("INSERT INTO events (kind) SELECT 'x' FROM generate_series(1, 100)")
    source = PostgresTable(connection=block_of(database), table="public.events")
    async with source.open(ReadOptions()) as extractor:
        plan = await extractor.plan(None)
        with pytest.raises(asyncpg.LockNotAvailableError):
            await writer.execute("SET lock_timeout = '100ms'; TRUNCATE events")
        assert len(await collected(extractor, plan)) == 100
    await asyncio.sleep(0.1)
    await writer.execute("TRUNCATE events")


async def test_without_the_privilege_the_plan_says_so(database: PostgresServer, writer: Any) -> None:
    """A user who does not see others' transactions is told what may be passed over, and the grant that mends it."""
    await writer.execute("INSERT INTO events (kind) VALUES ('a'); GRANT SELECT ON events TO PUBLIC")
    name = f"reader_{database.database}"
    await writer.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'reader'")
    try:
        await _settle()
        block = block_of(database).model_copy(
            update={"user": name, "password": type(block_of(database).password)("reader")}
        )
        source = PostgresTable(connection=block, table="public.events", cursor="at", null_cursor="exclude")
        async with source.open(ReadOptions(mode="incremental")) as extractor:
            plan = await extractor.plan(None)
        assert "GRANT pg_read_all_stats" in " ".join(plan.notes)
        assert len(plan.partitions) == 1
    finally:
        await writer.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


async def test_a_query_that_does_not_parse_shows_the_place(database: PostgresServer, writer: Any) -> None:
    """The database's own message and a caret under the place."""
    assert writer is not None
    source = PostgresQuery(connection=block_of(database), query="SELECT id\nFROM evnts")
    async with source.open(ReadOptions()) as extractor:
        with pytest.raises(ConfigurationError, match=r'(?s)field query.*"evnts" does not exist\n  FROM evnts\n +\^'):
            await extractor.plan(None)


@pytest.mark.parametrize(
    ("table", "told"),
    [("public.event", "did you mean public.events"), ("nowhere.events", "public.events"), ("a.b.c", "schema.table")],
)
async def test_a_wrong_table_name_is_met_with_near_ones(
    database: PostgresServer, writer: Any, table: str, told: str
) -> None:
    """The error names the field, and what may have been meant."""
    assert writer is not None
    async with PostgresTable(connection=block_of(database), table=table).open(ReadOptions()) as extractor:
        with pytest.raises(ConfigurationError, match=f"(?s)field table.*{told}"):
            await extractor.plan(None)
