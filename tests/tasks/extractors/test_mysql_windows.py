"""The window of an incremental read: nothing that commits late is passed over, nothing comes twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from pydantic import JsonValue

from blocks.errors import ConfigurationError, PositionLost
from tasks.extractors.contract import Plan, ReadOptions
from tasks.extractors.mysql import bounds
from tasks.extractors.mysql.session import Row, Session
from tasks.extractors.mysql.source import MySQLQuery, MySQLTable
from tests.contract import collected
from tests.servers.mysql import MySQLServer, connected
from tests.tasks.extractors.test_mysql import block_of

EVENTS = """
CREATE TABLE events (id BIGINT AUTO_INCREMENT PRIMARY KEY, kind TEXT, at TIMESTAMP NULL DEFAULT CURRENT_TIMESTAMP,
                     local DATETIME(6) DEFAULT CURRENT_TIMESTAMP(6), day DATE DEFAULT (CURRENT_DATE), KEY (at))"""

_NUMBERS = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) SELECT"


@pytest.fixture
async def writer(mysql_database: MySQLServer) -> AsyncIterator[Any]:
    """A connection that writes, to a database with the table events."""
    await mysql_database.execute(EVENTS)
    async with connected(mysql_database) as connection:
        await _run(connection, f"SET @@{_recursion(mysql_database)} = 100000")
        yield connection


def _recursion(server: MySQLServer) -> str:
    return "max_recursive_iterations" if server.is_mariadb else "cte_max_recursion_depth"


async def _run(connection: Any, *statements: str) -> None:
    async with connection.cursor() as cursor:
        for statement in statements:
            await cursor.execute(statement)


async def window(
    server: MySQLServer, since: JsonValue, cursor: str = "at", options: ReadOptions | None = None, **fields: Any
) -> tuple[list[int], Plan]:
    """The ids of one incremental read, and its plan."""
    source = MySQLTable(connection=block_of(server), table="events", cursor=cursor, **fields)
    async with source.open(options or ReadOptions(mode="incremental")) as extractor:
        plan = await extractor.plan(since)
        return sorted(int(row[0]) for row in await collected(extractor, plan)), plan


async def _settle() -> None:
    # Windows end on whole seconds.
    await asyncio.sleep(1.05)


@pytest.mark.parametrize("cursor", ["at", "local", "id"])
async def test_a_row_that_commits_late_is_not_passed_over(
    mysql_database: MySQLServer, writer: Any, cursor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row stamped before the window's end that commits after the read comes with the next window."""
    monkeypatch.setattr(bounds, "WRITERS_SECONDS", 0.4)
    monkeypatch.setattr(bounds, "LATE_SECONDS", 0)
    await _run(writer, "INSERT INTO events (kind) VALUES ('first')")
    await _settle()
    async with connected(mysql_database) as late:
        await _run(late, "BEGIN", "INSERT INTO events (kind) VALUES ('late')")
        await _run(writer, "INSERT INTO events (kind) VALUES ('after')")
        await _settle()
        before, plan = await window(mysql_database, None, cursor)
        await _run(late, "COMMIT")
    await _settle()
    after, _ = await window(mysql_database, plan.until, cursor)
    assert before + after == [1, 2, 3]
    assert before == ([1] if cursor != "id" else [])


async def test_a_statement_that_has_not_reached_the_table_yet_counts(mysql_database: MySQLServer, writer: Any) -> None:
    """NOW() is the statement's start: one that writes its row only after the read holds the window back as well."""
    async with connected(mysql_database) as late:
        slow = asyncio.create_task(_run(late, "INSERT INTO events (kind) SELECT SLEEP(2.5)"))
        await asyncio.sleep(0.3)
        await _run(writer, "INSERT INTO events (kind) VALUES ('after')")
        await _settle()
        before, plan = await window(mysql_database, None)
        await slow
    await _settle()
    after, _ = await window(mysql_database, plan.until)
    assert sorted(before + after) == [1, 2]
    assert before == []


@pytest.mark.parametrize("waits", ["before the look", "during the look"])
async def test_a_statement_that_waited_for_the_table_counts(
    mysql_database: MySQLServer, writer: Any, monkeypatch: pytest.MonkeyPatch, waits: str
) -> None:
    """A row stamped before InnoDB knew its transaction, which is open still, holds the window back."""
    async with connected(mysql_database) as late, connected(mysql_database) as lock:
        await _run(
            lock, "INSERT INTO events (kind, at) VALUES ('after', NOW() + INTERVAL 2 SECOND)", "LOCK TABLES events READ"
        )
        await _run(late, "BEGIN")
        inserted = asyncio.create_task(_run(late, "INSERT INTO events (kind) VALUES ('late')"))
        await asyncio.sleep(3.1)

        async def let_go() -> None:
            await _run(lock, "UNLOCK TABLES")
            await inserted

        if waits == "before the look":
            await let_go()
        else:
            _between_looks(monkeypatch, let_go)
        before, plan = await window(mysql_database, None)
        assert inserted.done()
        await _run(late, "COMMIT")
    await _settle()
    after, _ = await window(mysql_database, plan.until)
    assert before + after == [1, 2]


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


async def test_a_prepared_transaction_is_waited_for(
    mysql_database: MySQLServer, writer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a prepared transaction that no session holds is there, nothing is read, and the plan says so."""
    monkeypatch.setattr(bounds, "WRITERS_SECONDS", 0.4)
    xid = f"'{mysql_database.database}'"
    async with connected(mysql_database) as other:
        await _run(other, f"XA START {xid}", "INSERT INTO events (kind) VALUES ('prepared')", f"XA END {xid}",
                   f"XA PREPARE {xid}")  # fmt: skip
    await _run(writer, "INSERT INTO events (kind) VALUES ('after')")
    await _settle()
    before, plan = await window(mysql_database, None)
    await _run(writer, f"XA COMMIT {xid}")
    after, _ = await window(mysql_database, plan.until)
    assert (before, after) == ([], [1, 2])
    assert "XA RECOVER" in " ".join(plan.notes)


async def test_our_own_reads_hold_nothing_back(mysql_database: MySQLServer, writer: Any) -> None:
    """A long extract of another stream does not delay this one."""
    await _run(writer, "INSERT INTO events (kind) VALUES ('first')")
    other = MySQLTable(connection=block_of(mysql_database), table="events")
    async with other.open(ReadOptions()) as extractor:
        await extractor.plan(None)
        await _run(writer, "INSERT INTO events (kind) VALUES ('second')")
        await _settle()
        assert (await window(mysql_database, None))[0] == [1, 2]
        assert (await window(mysql_database, None, "id"))[0] == [1, 2]


async def test_a_transaction_that_only_reads_delays_no_number(mysql_database: MySQLServer, writer: Any) -> None:
    """A transaction that has written nothing draws higher numbers than those in sight, so nobody waits for it."""
    await _run(writer, "INSERT INTO events (kind) VALUES ('first')")
    async with connected(mysql_database) as idle:
        await _run(idle, "BEGIN", "SELECT * FROM events")
        assert (await window(mysql_database, None, "id"))[0] == [1]


async def test_equal_cursor_values_come_together(mysql_database: MySQLServer, writer: Any) -> None:
    """Rows of one stamp are in one window, however many there are."""
    await _run(writer, f"INSERT INTO events (kind) {_NUMBERS.format(500)} 'same' FROM n")
    await _settle()
    rows, plan = await window(mysql_database, None, options=ReadOptions(mode="incremental", partitions=4))
    assert len(rows) == 500
    assert (await window(mysql_database, plan.until))[0] == []


async def test_a_date_cursor_waits_for_the_day_to_end(mysql_database: MySQLServer, writer: Any) -> None:
    """A day is read when it is over: more rows of today may come."""
    await _run(writer, "INSERT INTO events (day) VALUES (CURRENT_DATE - INTERVAL 2 DAY), "
                       "(CURRENT_DATE - INTERVAL 1 DAY), (CURRENT_DATE)")  # fmt: skip
    assert (await window(mysql_database, None, "day"))[0] == [1, 2]


async def test_a_cursor_without_zone_is_in_the_zone_that_is_named(mysql_database: MySQLServer, writer: Any) -> None:
    """A DATETIME written in another zone than the server's is compared with that zone's clock."""
    await _run(writer, "INSERT INTO events (local) VALUES (UTC_TIMESTAMP() + INTERVAL 5 HOUR + INTERVAL 29 MINUTE), "
                       "(UTC_TIMESTAMP() + INTERVAL 5 HOUR + INTERVAL 31 MINUTE)")  # fmt: skip
    for zone in ("Asia/Kolkata", "+05:30"):
        assert (await window(mysql_database, None, "local", cursor_timezone=zone))[0] == [1]
    with pytest.raises(ConfigurationError, match=r"cursor_timezone.*Mars/Olympus"):
        await window(mysql_database, None, "local", cursor_timezone="Mars/Olympus")


async def test_lag_and_lookback(mysql_database: MySQLServer, writer: Any) -> None:
    """lag holds fresh rows back; lookback reads rows before the position again, and the position still moves on."""
    await _run(writer, f"INSERT INTO events (id, at) {_NUMBERS.format(10)} i, NOW() - INTERVAL 11 - i MINUTE FROM n")
    held, plan = await window(mysql_database, None, lag="5 minutes 30 seconds")
    again, later = await window(mysql_database, plan.until, lookback="2 minutes 30 seconds")
    assert held == [1, 2, 3, 4, 5]
    assert again == [3, 4, 5, 6, 7, 8, 9, 10]
    assert later.until != plan.until
    assert (await window(mysql_database, None, "id", lag="3"))[0] == [1, 2, 3, 4, 5, 6, 7]
    assert (await window(mysql_database, {"cursor": "id", "value": "8"}, "id", lookback="2"))[0] == [7, 8, 9, 10]
    with pytest.raises(ConfigurationError, match=r"field lag.*'often'"):
        await window(mysql_database, plan.until, lag="often")
    with pytest.raises(ConfigurationError, match=r"field lookback.*'often'"):
        await window(mysql_database, plan.until, lookback="often")


async def test_rows_without_a_cursor_value(mysql_database: MySQLServer, writer: Any) -> None:
    """NULL cursors stop the run by default; they can be left out, or sent with every run."""
    await _run(writer, "INSERT INTO events (at) VALUES (NOW()), (NULL)")
    await _settle()
    with pytest.raises(ConfigurationError, match=r"null_cursor.*at.*exclude.*include"):
        await window(mysql_database, None)
    left_out, plan = await window(mysql_database, None, null_cursor="exclude")
    assert left_out == [1]
    assert (await window(mysql_database, None, null_cursor="include"))[0] == [1, 2]
    await _run(writer, "INSERT INTO events (at) VALUES (NOW())")
    await _settle()
    several = ReadOptions(mode="incremental", partitions=3)
    assert (await window(mysql_database, plan.until, null_cursor="include", options=several))[0] == [2, 3]


async def test_a_cursor_that_cannot_be_sorted_is_refused(mysql_database: MySQLServer, writer: Any) -> None:
    """A type without an order to go by is named, with the types that have one."""
    await _run(writer, "ALTER TABLE events ADD choice ENUM('b', 'a')")
    with pytest.raises(ConfigurationError, match=r"field cursor: choice is enum.*number"):
        await window(mysql_database, None, "choice")


async def test_a_position_of_another_cursor_is_refused(mysql_database: MySQLServer, writer: Any) -> None:
    """A stream whose cursor changed stops, and names the choices."""
    await _run(writer, "INSERT INTO events (kind) VALUES ('a')")
    _, plan = await window(mysql_database, None, "id")
    with pytest.raises(PositionLost, match=r"id = 1.*headrace state set"):
        await window(mysql_database, plan.until, "at")


async def test_incremental_without_a_cursor_is_refused(mysql_database: MySQLServer, writer: Any) -> None:
    """Mode incremental needs a cursor, and says so."""
    assert writer is not None
    with pytest.raises(ConfigurationError, match="field cursor"):
        await window(mysql_database, None, "")


@pytest.mark.parametrize("cursor", ["id", "local"])
async def test_a_large_window_is_cut(mysql_database: MySQLServer, writer: Any, cursor: str) -> None:
    """Many new rows are cut along the cursor's index, or along the primary key where it has none."""
    numbers = f"{_NUMBERS.format(20_000)} i, REPEAT('x', 50), '2026-01-01' + INTERVAL i SECOND FROM n"
    await _run(writer, f"INSERT INTO events (id, kind, local) {numbers}", "ANALYZE TABLE events")
    rows, plan = await window(mysql_database, None, cursor, ReadOptions(mode="incremental", partitions=5))
    assert rows == list(range(1, 20_001))
    assert len(plan.partitions) == 5
    assert plan.resumable


async def test_text_and_bytes_are_cursors(mysql_database: MySQLServer, writer: Any) -> None:
    """A string or bytes that grow (a ULID, say) serve as a cursor."""
    await _run(writer, "ALTER TABLE events ADD ulid VARCHAR(26) CHARACTER SET latin1 COLLATE latin1_bin, ADD raw BINARY(2)",
               f"INSERT INTO events (id, ulid, raw) {_NUMBERS.format(40)} i, CONCAT('01ü', LPAD(i, 4, '0')), "
               "UNHEX(LPAD(HEX(i), 4, '0')) FROM n", "CREATE INDEX u ON events (ulid)")  # fmt: skip
    for cursor, value in (("ulid", "01ü0030"), ("raw", "001E")):
        since: JsonValue = {"cursor": cursor, "value": value}
        for partitions in (1, 3):
            options = ReadOptions(mode="incremental", partitions=partitions)
            rows, plan = await window(mysql_database, since, cursor, options)
            assert rows == list(range(31, 41))
            assert plan.until == {"cursor": cursor, "value": {"ulid": "01ü0040", "raw": "0028"}[cursor]}


async def test_a_query_is_cut_by_its_cursor(mysql_database: MySQLServer, writer: Any) -> None:
    """A query has no keys: its slices are found by its own rows."""
    await _run(writer, f"INSERT INTO events (id, kind) {_NUMBERS.format(1000)} i, 'x' FROM n")
    source = MySQLQuery(connection=block_of(mysql_database), query="SELECT id FROM events", cursor="id")
    for mode in ("full", "incremental"):
        async with source.open(ReadOptions(mode=mode, partitions=3)) as extractor:
            plan = await extractor.plan(None)
            assert len(plan.partitions) == 3
            assert sorted(int(r[0]) for r in await collected(extractor, plan)) == list(range(1, 1001))


async def test_without_the_privilege_the_plan_says_so(mysql_database: MySQLServer, writer: Any) -> None:
    """A user who does not see others' transactions is told what may be passed over, and the grant that mends it."""
    await _run(writer, "INSERT INTO events (kind) VALUES ('a')")
    await _settle()
    reader = await mysql_database.create_user("SELECT ON {database}.*")
    for cursor in ("at", "id"):
        rows, plan = await window(reader, None, cursor)
        assert rows == [1]
        assert "GRANT PROCESS" in " ".join(plan.notes)


async def test_a_query_that_does_not_parse_shows_the_place(mysql_database: MySQLServer, writer: Any) -> None:
    """The database's own message, and the field it is about."""
    assert writer is not None
    for query, told in (("SELECT id\nFROM evnts", "evnts"), ("SELECT id FORM events", "FORM events")):
        source = MySQLQuery(connection=block_of(mysql_database), query=query)
        async with source.open(ReadOptions()) as extractor:
            with pytest.raises(ConfigurationError, match=f"(?s)field query.*{told}"):
                await extractor.plan(None)


@pytest.mark.parametrize(
    ("table", "told"), [("event", "did you mean .*events"), ("nowhere.events", "events"), ("a.b.c", "database.table")]
)
async def test_a_wrong_table_name_is_met_with_near_ones(
    mysql_database: MySQLServer, writer: Any, table: str, told: str
) -> None:
    """The error names the field, and what may have been meant."""
    assert writer is not None
    async with MySQLTable(connection=block_of(mysql_database), table=table).open(ReadOptions()) as extractor:
        with pytest.raises(ConfigurationError, match=f"(?s)field table.*{told}"):
            await extractor.plan(None)
