"""What the flow `load` makes of commits in DuckDB and in PostgreSQL, from real runs and from commits written by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from typer.testing import Result

from blocks.errors import ConfigurationError, PositionLost
from tasks.commits import CommitLog
from tasks.extractors.contract import CHANGE_COLUMNS, Column
from tasks.extractors.kafka.debezium.decoder import SEEN_BEFORE
from tasks.first import begin, value_of
from tasks.state import rewind, set_position
from tests.flows.changes import ChangesShop
from tests.flows.loads import Into, Lake, Objects, into_duckdb, into_postgres
from tests.flows.shops import Shop
from tests.flows.test_cli import headrace
from tests.servers.faults import FaultProxy, Truncate
from tests.servers.kafka import KafkaServer
from tests.servers.postgres import PostgresServer
from tests.tasks.extractors.kafka import block_of as block_of_kafka
from tests.tasks.extractors.test_mysql import block_of


@pytest.fixture(params=["duckdb", "postgres"])
async def into(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Into]:
    """An empty destination, once in DuckDB and once in PostgreSQL."""
    if request.param == "duckdb":
        yield into_duckdb(tmp_path)
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    created = await server.create_database()
    yield into_postgres(created)
    await created.drop()


def table(shop: Shop) -> str:
    return shop.name.replace("-", "_")


async def test_full_replaces(shop: Shop, into: Into) -> None:
    """Rows that are gone from the source go from the destination; a second load finds nothing to do."""
    await shop.run("full", partitions=2)
    first = await into.load(shop.name, shop.destination())
    assert first["sequences"] == [1]
    assert await loaded_ids(shop, into) == await shop.ids()
    await shop.execute("DELETE FROM things WHERE id % 2 = 0")
    await shop.run("full")
    await shop.run("full")
    second = await into.load(shop.name, shop.destination())
    assert second["sequences"] == [3], "only the last of them matters"
    assert await loaded_ids(shop, into) == await shop.ids()
    again = await into.load(shop.name, shop.destination())
    assert (again["sequence"], again["rows"]) == (None, 0)


async def loaded_ids(shop: Shop, into: Into) -> list[int]:
    return [row[0] for row in await into.fetch(f"SELECT id FROM {table(shop)} ORDER BY id")]


async def test_an_empty_table_empties_the_destination(shop: Shop, into: Into) -> None:
    await shop.run("full")
    await into.load(shop.name, shop.destination())
    await shop.execute("DELETE FROM things")
    await shop.run("full")
    await into.load(shop.name, shop.destination())
    assert await loaded_ids(shop, into) == []


async def test_incremental_merges_by_key(shop: Shop, into: Into) -> None:
    """Rows that come again, changed or by lookback, take the place of the former ones."""
    source = {"cursor": "updated_at", "lookback": "1 day"}
    await shop.run("incremental", source=source)
    await shop.execute("UPDATE things SET payload = 'new', updated_at = now() - interval '1 second' WHERE id <= 3")
    await shop.add(5)
    await asyncio.sleep(1)
    await shop.run("incremental", source=source)
    done = await into.load(shop.name, shop.destination())
    assert done["sequences"] == [1, 2]
    assert await loaded_ids(shop, into) == await shop.ids()
    rows = await into.fetch(f"SELECT id FROM {table(shop)} WHERE payload = 'new' ORDER BY id")
    assert rows == [(1,), (2,), (3,)]


async def test_incremental_without_a_key_appends(shop: Shop, into: Into) -> None:
    """Each row once, commit by commit, whatever number of times the flow runs."""
    source = {"query": "SELECT * FROM things", "cursor": "id", "table": None}
    for count in (2, 3):
        await run_query(shop, source)
        await into.load(shop.name, shop.destination())
        await into.load(shop.name, shop.destination())
        await shop.add(count)
    await run_query(shop, source)
    await into.load(shop.name, shop.destination(), sequence=2)
    assert len(await loaded_ids(shop, into)) == len(await shop.ids()) - 3
    await into.load(shop.name, shop.destination(), sequence=3)
    assert await loaded_ids(shop, into) == await shop.ids()


async def run_query(shop: Shop, source: dict[str, Any]) -> None:
    from flows.extract import extract

    parameters = await shop.save()
    parameters["source"] = {"connection": parameters["source"]["connection"]} | {
        key: value for key, value in source.items() if value is not None
    }
    await extract(**parameters, mode="incremental")


async def test_a_gap_is_told(shop: Shop, into: Into) -> None:
    """A commit that builds on one that was not loaded is refused, and nothing is changed."""
    for _ in range(3):
        await shop.run("incremental")
        await shop.add(1)
    await into.load(shop.name, shop.destination(), sequence=1)
    before = await loaded_ids(shop, into)
    async with shop.destination().client() as client:
        second = (await shop.commits())[1]
        key = shop.destination().key(shop.name, "_commits", f"{second.sequence:020d}.json")
        await client.delete_object(Bucket=shop.bucket, Key=key)
    with pytest.raises(PositionLost, match="up to 1, and 3 builds on 2, which is missing"):
        await into.load(shop.name, shop.destination())
    assert await loaded_ids(shop, into) == before
    with pytest.raises(ConfigurationError, match="there is no commit 9"):
        await into.load(shop.name, shop.destination(), sequence=9)


KEYED = [Column(name="k", type="int", key=True)]


async def put(lake: Lake, *keys: int) -> None:
    """A commit for each row."""
    for key in keys:
        await lake.commit("incremental", KEYED, Objects(KEYED, [[str(key)]]))


@pytest.mark.parametrize("commits", [0, 2, 4])
async def test_a_lake_that_began_anew_is_told(shop: Shop, into: Into, commits: int) -> None:
    """Its numbers begin at 1, and the destination's are of another lake: nothing is taken for loaded that is not."""
    former = Lake(shop.destination())
    await put(former, 1, 2, 3)
    await into.load(former.stream, former.destination)
    anew = Lake(shop.destination().model_copy(update={"prefix": "anew"}), former.stream)
    await put(anew, *range(11, 11 + commits))
    for sequence in {0, min(commits, 1)}:
        with pytest.raises(PositionLost, match=r"up to 3, and in s3:.* (another one|none of that number).*DELETE FROM"):
            await into.load(anew.stream, anew.destination, sequence=sequence)
    await into.execute(f"DELETE FROM headrace_loads WHERE stream = '{anew.stream}'")
    await into.load(anew.stream, anew.destination)
    name = anew.stream.replace("-", "_")
    assert await into.fetch(f"SELECT k FROM {name} ORDER BY k") == [
        (k,) for k in (1, 2, 3, 11, 12, 13, 14)[: 3 + commits]
    ]


@pytest.mark.parametrize("told", ["with ids", "without ids"])
async def test_a_lake_that_goes_on_is_loaded(shop: Shop, into: Into, told: str) -> None:
    """Without its first commits, in another bucket, with books of another version: what comes after the last is loaded."""
    lake = Lake(shop.destination())
    await put(lake, 1, 2)
    await into.load(lake.stream, lake.destination)
    if told == "without ids":
        await into.execute("ALTER TABLE headrace_loads DROP COLUMN commit_id")
    await put(lake, 3)
    await into.load(lake.stream, lake.destination)
    elsewhere = Lake(shop.destination().model_copy(update={"prefix": "elsewhere"}), lake.stream, sequence=3)
    await put(elsewhere, 4)
    await into.load(lake.stream, elsewhere.destination)
    await into.load(lake.stream, elsewhere.destination)
    assert await into.fetch(f"SELECT k FROM {lake.stream.replace('-', '_')} ORDER BY k") == [(1,), (2,), (3,), (4,)]


async def test_two_loads_at_once(shop: Shop, into: Into) -> None:
    """Both end well, or one of them is refused by the database; the rows are there once."""
    source = {"query": "SELECT * FROM things", "cursor": "id"}
    for _ in range(3):
        await run_query(shop, source)
        await shop.add(100)
    ended = await asyncio.gather(*(into.load(shop.name, shop.destination()) for _ in range(3)), return_exceptions=True)
    assert any(isinstance(end, dict) for end in ended), ended
    await into.load(shop.name, shop.destination())
    assert await loaded_ids(shop, into) == (await shop.ids())[:-100]


async def test_a_load_that_fails_leaves_nothing(shop: Shop, into: Into) -> None:
    """The last object is gone: no row of the others is there; once it is back, all are."""
    await shop.run("full", partitions=3)
    lake, last = shop.destination(), (await shop.commits())[0].entries[-1]
    async with lake.client() as client:
        where: Any = {"Bucket": shop.bucket, "Key": last.key}
        body = await (await client.get_object(**where))["Body"].read()
        await client.delete_object(**where)
        with pytest.raises(ConfigurationError, match="is committed and gone"):
            await into.load(shop.name, lake)
        assert await into.fetch("SELECT count(*) FROM headrace_loads") == [(0,)]
        assert table(shop) not in await into.tables()
        await client.put_object(**where, Body=body)
    await into.load(shop.name, lake)
    assert await loaded_ids(shop, into) == await shop.ids()


async def test_a_cut_connection_is_tried_again(shop: Shop, into: Into, s3_faults: FaultProxy) -> None:
    """The answer ends in the middle of the second object: the task's retry loads the commit, once."""
    await shop.run("full", partitions=3)
    key = (await shop.commits())[0].entries[1].key
    cut = s3_faults.after(Truncate(1000), method="GET", path=key)
    await into.load(shop.name, shop.destination(s3_faults.endpoint))
    assert cut.fired
    assert await loaded_ids(shop, into) == await shop.ids()


async def test_an_object_that_was_tampered_with_is_refused(shop: Shop, into: Into) -> None:
    """An object that is not what was committed is not loaded."""
    await shop.run("full")
    entry = (await shop.commits())[0].entries[0]
    async with shop.destination().client() as client:
        await client.put_object(
            Bucket=shop.bucket, Key=entry.key, Body=b"id,payload,updated_at\n1,x,2026-01-01 00:00:00+00\n"
        )
    with pytest.raises(ConfigurationError, match="was committed with"):
        await into.load(shop.name, shop.destination())


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "zstd"},
        {"compression": "gzip", "csv": {"null": "\\N", "binary": "base64"}},
        {"compression": "none", "csv": {"header": False}},
    ],
    ids=["zstd", "marker", "no header"],
)
async def test_values_come_through(shop: Shop, into: Into, options: dict[str, Any]) -> None:
    """Every dialect: NULL stays apart from the empty string, bytes and times are what they were."""
    await shop.execute(
        "DROP TABLE things",
        "CREATE TABLE things (id int PRIMARY KEY, t text, b bytea, n numeric(12,3), u numeric, f float8, ok boolean, d date,"
        " ts timestamp(3), tz timestamptz, j jsonb, a int[], g uuid, m money, iv interval, h bit(4))",
        "INSERT INTO things VALUES (1, '', '\\xdeadbeef00', 1.500, 12345678901234567890.123, 0.1, true, '2026-02-28',"
        " '2026-01-01 01:02:03.004', '2026-01-01 01:02:03.000004+02', '{\"a\": [1, null]}', '{1,2}',"
        " '00000000-0000-0000-0000-000000000001', 12.34, '1 day 02:03:04', '0101')",
        "INSERT INTO things (id, t) VALUES (2, NULL), (3, '\\N'), (4, E'a\"b,\\nc')",
    )
    to = shop.destination(**options)
    await shop.run("full", to=to)
    await into.load(shop.name, to)
    texts = await into.fetch(f"SELECT id, t FROM {table(shop)} ORDER BY id")
    assert texts == [(1, ""), (2, None), (3, "\\N"), (4, 'a"b,\nc')]
    is_postgres = into.server is not None
    shown = "encode(b, 'hex')" if is_postgres else "lower(hex(b))"
    (found,) = await into.fetch(
        f"SELECT {shown}, CAST(n AS text), CAST(u AS text), f, ok, CAST(d AS text), CAST(ts AS text), tz, CAST(j AS text),"
        f" CAST(a AS text), CAST(g AS text), CAST(m AS text), h FROM {table(shop)} WHERE id = 1"
    )
    row = list(found)
    assert row.pop(7).isoformat().startswith("2025-12-31T23:02:03.000004")
    assert [str(value).replace(" ", "") for value in row] == [
        "deadbeef00", "1.500", "12345678901234567890.123", "0.1", "True", "2026-02-28", "2026-01-0101:02:03.004",
        '{"a":[1,null]}', "[1,2]", "00000000-0000-0000-0000-000000000001", "12.34", "0101",
    ]  # fmt: skip


async def test_tables_of_ones_own_types(shop: Shop, into: Into) -> None:
    """A table that is there keeps its types and its further columns; what does not fit is an error, not cut."""
    await into.execute(f"CREATE TABLE {table(shop)} (note text, id integer, updated_at date, payload varchar(9000))")
    await shop.run("full")
    await into.load(shop.name, shop.destination())
    assert await loaded_ids(shop, into) == await shop.ids()
    if into.server is None:
        return  # lengths mean nothing to DuckDB
    await into.execute(f"DROP TABLE {table(shop)}")
    await into.execute(f"CREATE TABLE {table(shop)} (id integer, updated_at date, payload varchar(9))")
    await shop.run("full")
    with pytest.raises(Exception, match="too long"):
        await into.load(shop.name, shop.destination())


async def test_changes_are_applied(changes_shop: ChangesShop, into: Into) -> None:
    """Snapshot, changes, key changes, emptied and altered tables: the destination is the source at every commit."""
    shop, execute = changes_shop, changes_shop.mysql.execute
    lake = shop.destination()
    await execute(
        "INSERT INTO orders (id, counter, note) VALUES (1, 1, 'a,\"b\"'), (2, 1, NULL), (3, 1, '')",
        "INSERT INTO items VALUES (1, 1, 9.90), (1, 2, 5), (2, 1, NULL)",
    )
    await shop.capture()
    await into.load(shop.name, lake)
    await assert_same(shop, into)
    await execute(
        "UPDATE orders SET counter = counter + 1",
        "UPDATE orders SET id = 30 WHERE id = 3",
        "UPDATE orders SET id = 3, note = 'back' WHERE id = 30",
        "INSERT INTO orders (id, counter) VALUES (4, 1)",
        "DELETE FROM items WHERE order_id = 1",
        "INSERT INTO items VALUES (1, 1, 1.25)",
        "DELETE FROM orders WHERE id = 4",
    )
    await shop.capture()
    await into.load(shop.name, lake)
    await assert_same(shop, into)
    await execute(
        "TRUNCATE TABLE items",
        "INSERT INTO items VALUES (7, 7, 7)",
        "UPDATE orders SET counter = 100 WHERE id = 1",
        "ALTER TABLE orders ADD COLUMN extra VARCHAR(20)",
        "UPDATE orders SET extra = 'x' WHERE id = 2",
        "INSERT INTO orders (id, counter, extra) VALUES (9, 9, 'y')",
    )
    await shop.capture()
    await into.load(shop.name, lake)
    await assert_same(shop, into, extra=True)


async def assert_same(shop: ChangesShop, into: Into, *, extra: bool = False) -> None:
    columns = "o.id, o.counter, o.note, o.at" + (", o.extra" if extra else "")
    here = await into.fetch(f"SELECT {columns} FROM orders o ORDER BY id")
    there = await shop.mysql.fetch(f"SELECT {columns} FROM orders o ORDER BY id")
    assert [tuple(v.replace(tzinfo=None) if hasattr(v, "tzinfo") else v for v in row) for row in here] == [
        tuple(row) for row in there
    ]
    items = "SELECT order_id, number, price FROM items ORDER BY order_id, number"
    assert await into.fetch(items) == [tuple(row) for row in await shop.mysql.fetch(items)]


async def test_columns_the_log_does_not_have_keep_their_value(changes_shop: ChangesShop, into: Into) -> None:
    """With a partial row image an update brings the columns it changed; the others stay as they are in the destination."""
    shop, execute = changes_shop, changes_shop.mysql.execute
    await execute("INSERT INTO orders (id, counter, note) VALUES (1, 1, 'one'), (2, 1, 'two'), (3, 3, NULL)")
    await shop.capture()
    await into.load(shop.name, shop.destination())
    await execute(
        "SET SESSION binlog_row_image = 'MINIMAL'",
        "UPDATE orders SET counter = 10 WHERE id = 1",
        "UPDATE orders SET note = 'changed' WHERE id = 2",
        "UPDATE orders SET counter = 20 WHERE id = 2",
        "UPDATE orders SET note = NULL WHERE id = 2",
        "UPDATE orders SET counter = 30 WHERE id = 3",
        "DELETE FROM orders WHERE id = 3",
    )
    await shop.capture()
    entries = [entry for commit in await shop.commits() for entry in commit.entries]
    assert any(entry.unchanged for entry in entries)
    await into.load(shop.name, shop.destination())
    await assert_same(shop, into)


async def test_a_row_that_moved_without_its_columns_is_refused(changes_shop: ChangesShop, into: Into) -> None:
    """A partial image of a row that gets another key leaves out what only the former row had: never NULL, an error."""
    shop = changes_shop
    await shop.mysql.execute("INSERT INTO orders (id, counter, note) VALUES (1, 1, 'one'), (2, 1, 'two')")
    await shop.capture()
    await into.load(shop.name, shop.destination())
    await shop.mysql.execute("SET SESSION binlog_row_image = 'MINIMAL'", "UPDATE orders SET id = 20 WHERE id = 2")
    await shop.capture()
    with pytest.raises(ConfigurationError, match="got another key, and the log does not have all of its columns"):
        await into.load(shop.name, shop.destination())
    assert await into.fetch("SELECT id, note FROM orders ORDER BY id") == [(1, "one"), (2, "two")]


async def test_a_new_snapshot_begins_anew(changes_shop: ChangesShop, into: Into) -> None:
    """Rows that went while the stream stood still are not in the new snapshot, and go."""
    shop, execute = changes_shop, changes_shop.mysql.execute
    await execute(
        "INSERT INTO orders (id, counter) VALUES (1, 1), (2, 2)", "INSERT INTO items VALUES (1, 1, 1), (2, 1, 2)"
    )
    await shop.capture()
    await into.load(shop.name, shop.destination())
    await execute("DELETE FROM orders WHERE id = 1", "DELETE FROM items WHERE order_id = 2")
    async with shop.destination().client() as client:
        await rewind(CommitLog(client, shop.destination(), shop.name), 0)
    await shop.capture()
    done = await into.load(shop.name, shop.destination())
    assert done["sequences"] == [3]
    await assert_same(shop, into)


async def test_changes_from_now_on_take_nothing_back(changes_shop: ChangesShop, into: Into) -> None:
    """A stream that goes on from now, without a snapshot, has not what came before: no commit is passed over, no row lost."""
    shop, execute, lake = changes_shop, changes_shop.mysql.execute, changes_shop.destination()
    await execute("INSERT INTO orders (id, counter) VALUES (1, 1)")
    await shop.capture()
    await into.load(shop.name, lake)
    await execute("INSERT INTO orders (id, counter) VALUES (2, 2)")
    await shop.capture()
    async with lake.client() as client:
        await set_position(CommitLog(client, lake, shop.name), None, note="on from now")
    await shop.capture(snapshot=False)
    await execute("INSERT INTO orders (id, counter) VALUES (3, 3)")
    await shop.capture(snapshot=False)
    done = await into.load(shop.name, lake)
    assert done["sequences"] == [2, 3, 4, 5]
    assert await into.fetch("SELECT id FROM orders ORDER BY id") == [(1,), (2,), (3,)]


async def test_rows_of_a_snapshot_that_came_through_a_log_empty_nothing(shop: Shop, into: Into) -> None:
    """A window that begins within a connector's snapshot (start: latest, retention) has only some of its rows."""
    columns = [Column(name="k", type="int", key=True)]

    def rows(*keys: int) -> Objects:
        made = [["S", None, f"{key:03d}", None, str(key)] for key in keys]
        return Objects([*CHANGE_COLUMNS, *columns], made, "shop.things")

    lake = Lake(shop.destination())
    await lake.commit("changes", [], rows(1, 2), since=None)
    await into.load(lake.stream, lake.destination)
    await lake.commit("changes", [], rows(3), since=None)
    await into.load(lake.stream, lake.destination)
    assert await into.fetch("SELECT k FROM things ORDER BY k") == [(1,), (2,), (3,)]


async def test_a_position_that_was_set_back_passes_over_nothing(shop: Shop, into: Into) -> None:
    """Rows that the source has purged since are in the commits before alone."""
    await shop.run("incremental")
    await shop.execute("DELETE FROM things WHERE id <= 5")
    async with shop.destination().client() as client:
        await rewind(CommitLog(client, shop.destination(), shop.name), 0)
    await shop.run("incremental")
    done = await into.load(shop.name, shop.destination())
    assert done["sequences"] == [1, 2, 3]
    assert await loaded_ids(shop, into) == [1, 2, 3, 4, 5, *await shop.ids()]


async def test_a_history_leaves_out_nothing(changes_shop: ChangesShop, into: Into) -> None:
    """how: append takes what came before a new snapshot too, whenever it is loaded."""
    shop, lake = changes_shop, changes_shop.destination()
    await shop.mysql.execute("INSERT INTO orders (id, counter) VALUES (1, 1)")
    await shop.capture()
    await shop.mysql.execute("DELETE FROM orders")
    await shop.capture()
    async with lake.client() as client:
        await rewind(CommitLog(client, lake, shop.name), 0)
    await shop.mysql.execute("INSERT INTO orders (id, counter) VALUES (2, 2)")
    await shop.capture()
    await into.load(shop.name, lake, how="append")
    rows = await into.fetch("SELECT _op, id FROM orders ORDER BY _position")
    assert rows == [("S", 1), ("D", 1), ("S", 2)]


async def test_records_as_they_are(changes_shop: ChangesShop, into: Into) -> None:
    """how: append keeps the history: every record, with what the log tells of it, under names of one's own."""
    shop = changes_shop
    await shop.mysql.execute("INSERT INTO orders (id, counter) VALUES (1, 1)", "UPDATE orders SET counter = 2")
    await shop.capture()
    await shop.mysql.execute("DELETE FROM orders")
    await shop.capture()
    await into.load(
        shop.name, shop.destination(), how="append", schema_name="raw", table_name="{schema}_{table}_history"
    )
    name = f"raw.{shop.mysql.database}_orders_history"
    rows = await into.fetch(f"SELECT _op, id, counter FROM {name} ORDER BY _position")
    assert rows == [("S", 1, 2), ("D", 1, 2)]


async def test_a_table_without_a_key_is_refused(changes_shop: ChangesShop, into: Into) -> None:
    await changes_shop.mysql.execute("CREATE TABLE nokey (a INT)", "INSERT INTO nokey VALUES (1)")
    await changes_shop.run("changes", block=cast("Any", block_of(changes_shop.mysql)),
                           source={"connection": f"mysql/{changes_shop.name}", "tables": ["nokey"]})  # fmt: skip
    with pytest.raises(ConfigurationError, match=r"nokey cannot be applied by key.*how: append"):
        await into.load(changes_shop.name, changes_shop.destination())


async def test_another_layout_is_refused(changes_shop: ChangesShop, into: Into) -> None:
    """One log of all tables has no columns to apply; as they are, its records can be loaded."""
    await changes_shop.mysql.execute("INSERT INTO orders (id, counter) VALUES (1, 1)")
    lake = changes_shop.destination(layout="log")
    await changes_shop.run(
        "changes", to=lake, block=cast("Any", block_of(changes_shop.mysql)),
        source={"connection": f"mysql/{changes_shop.name}", "tables": ["orders"]},
    )  # fmt: skip
    with pytest.raises(ConfigurationError, match=r"its records cannot be applied by key.*layout tables.*how: append"):
        await into.load(changes_shop.name, lake)
    await into.load(changes_shop.name, lake, how="append", table_name="log")
    assert await into.fetch("SELECT count(*) FROM log") == [(1,)]


async def test_a_first_position_from_the_destination(shop: Shop, into: Into, tmp_path: Path) -> None:
    """A stream goes on behind what a destination holds; once it has a commit, its own position counts."""
    await into.execute("CREATE TABLE before (id bigint, updated_at timestamptz)")
    await into.execute("INSERT INTO before VALUES (7, '2026-01-01 01:02:03.000004+02'), (2990, NULL)")
    parameters = await shop.save()
    parameters["source"]["cursor"] = "id"
    file = tmp_path / "prefect.yaml"
    entry = {
        "name": "things",
        "entrypoint": "flows/extract.py:extract",
        "parameters": {**parameters, "mode": "incremental"},
    }
    file.write_text(yaml.safe_dump({"deployments": [entry]}))
    kind = into.block.get_block_type_slug()
    await into.block.asave(f"{shop.name}-into", overwrite=True)

    async def begin(query: str) -> Result:
        connection = f"{kind}/{shop.name}-into"
        return await headrace("state", "begin", shop.name, "--from", connection, "--query", query, "--file", str(file))

    none = await begin("SELECT max(id) FROM before WHERE id < 0")
    assert (none.exit_code, "gives NULL" in none.output) == (1, True), none.output
    assert await value_of(into.block, "SELECT max(updated_at) FROM before;") == "2025-12-31 23:02:03.000004+00"
    done = await begin("SELECT max(id) FROM before")
    assert done.exit_code == 0, done.output
    outcome = await shop.run("incremental")
    assert (outcome["sequence"], outcome["rows"]) == (2, 10)
    again = await begin("SELECT max(id) FROM before")
    assert (again.exit_code, "goes on from there" in again.output) == (1, True)
    await into.load(shop.name, shop.destination())
    assert await loaded_ids(shop, into) == (await shop.ids())[-10:]


async def test_a_first_position_overrules_no_run(shop: Shop, into: Into, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that commits while the destination is asked comes first: its position stays."""

    async def value(*_: Any) -> str:
        await shop.run("incremental")
        return "7"

    monkeypatch.setattr("tasks.first.value_of", value)
    async with shop.destination().client() as client:
        log = CommitLog(client, shop.destination(), shop.name)
        with pytest.raises(ConfigurationError, match=r"it has come to commit 1 in .* and goes on from there"):
            await begin(log, "updated_at", into.block, "SELECT 7")
    assert [commit.kind for commit in await shop.commits()] == ["extract"]


@pytest.mark.parametrize(
    "options", [{}, {"compression": "none", "csv": {"header": False}}], ids=["header", "no header"]
)
async def test_a_commit_of_what_was_left_out_alone(
    shop: Shop, kafka_server: KafkaServer, into: Into, options: dict[str, Any]
) -> None:
    """Events that a connector sent again make objects without a row, which say how many they were; they load as nothing."""
    from flows.extract import extract

    source = {
        "connector": "postgresql",
        "name": "pg",
        "db": "d",
        "schema": "public",
        "table": "a",
        "ts_us": 1_795_388_467_641_000,
    }
    events: list[Any] = [
        {"before": None, "after": {"id": id_}, "op": "c", "source": source | {"lsn": id_, "sequence": f'["5","{id_}"]'}}
        for id_ in (7, 8)
    ]
    topic = kafka_server.topic()
    to = shop.destination(**options)
    await to.asave(shop.name, overwrite=True)
    reads: dict[str, Any] = {
        "connection": block_of_kafka(kafka_server), "topics": [topic], "format": "debezium",
        "debezium": {"types": {"public.a": {"id": "integer"}}},
    }  # fmt: skip
    parameters: dict[str, Any] = {
        "stream": shop.name,
        "source": reads,
        "to": f"s3-destination/{shop.name}",
        "mode": "changes",
    }
    for _ in range(2):
        for event in events:
            kafka_server.send(topic, json.dumps(event), key=json.dumps(event["after"]))
        await extract(**parameters)
    first, second = await shop.commits()
    assert (first.rows, second.rows, [entry.rows for entry in second.entries]) == (2, 0, [0])
    assert second.entries[0].counted == {SEEN_BEFORE: 2}
    done = await into.load(shop.name, to)
    assert done["sequences"] == [1, 2]
    assert sorted(await into.fetch("SELECT id FROM a")) == [(7,), (8,)]
