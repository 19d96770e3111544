"""Layout dms: whoever lists a table's folder and replays its files by Op has the table, whatever happened to the runs."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import re
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from blocks.errors import ConfigurationError
from flows.extract import extract
from flows.sweep import sweep
from tasks import checks
from tasks.commits import Commit, CommitLog
from tasks.extractors.contract import ReadOptions
from tasks.extractors.mysql.binlog.source import MySQLChanges
from tasks.extractors.mysql.source import MySQLTable
from tasks.layouts.dms import EMPTIED
from tasks.publish import file_time
from tasks.state import set_position
from tests.flows.changes import ChangesShop
from tests.flows.layouts import NASTY, assert_dms, dms_files, objects
from tests.flows.shops import MySQLShop
from tests.flows.test_kills import SOAK, STEPS, kill_on
from tests.servers.faults import FaultProxy
from tests.servers.kafka import KafkaServer
from tests.tasks.extractors.kafka import block_of as block_of_kafka
from tests.tasks.extractors.test_mysql import block_of

KILLS = 30 if SOAK else 3

ADD = "INSERT INTO orders (id, counter) VALUES ({0}, 1)"


@pytest.fixture
def dms_shop(changes_shop: ChangesShop) -> ChangesShop:
    """The stream of changes, into a destination of layout dms."""
    changes_shop.options["layout"] = "dms"
    return changes_shop


async def fill(shop: ChangesShop) -> None:
    """Rows whose notes are hard to write, in both tables."""
    async with shop.session() as execute:
        for number, note in enumerate(NASTY, 1):
            await execute("INSERT INTO orders (id, counter, note) VALUES (%s, 1, %s)", (number, note))  # type: ignore[call-arg]  # aiomysql's execute takes parameters
    await shop.execute("INSERT INTO items VALUES (1, 1, 9.90), (1, 2, 5), (2, 1, NULL)")


async def change(shop: ChangesShop, first: int) -> None:
    """Updates, deletions, new keys and rolled back rows; ``first``: ids from there on are new."""
    await shop.execute(
        "START TRANSACTION",
        "UPDATE orders SET counter = counter + 1",
        f"INSERT INTO items VALUES ({first}, 1, 1.50), ({first}, 2, NULL)",
        "COMMIT",
        ADD.format(first),
        f"UPDATE orders SET id = {first + 1}, note = 'moved\n' WHERE id = {first}",
        ADD.format(first),
        f"DELETE FROM items WHERE order_id < {first}",
        "START TRANSACTION",
        ADD.format(first + 2),
        "ROLLBACK",
    )


async def swept(shop: ChangesShop) -> list[str]:
    """The objects that a sweep removes."""
    outcome: Any = await sweep(to=shop.destination(), streams=[shop.name], older_than="0 seconds", dry_run=False)
    removed: list[str] = outcome["objects"]
    return removed


async def test_a_folder_of_files_is_the_table(dms_shop: ChangesShop, tmp_path: Path) -> None:
    """The full load has no Op, changes have one and are named by the time; all of it sorts, and nothing else lies there."""
    await fill(dms_shop)
    await dms_shop.capture()
    await assert_dms(dms_shop, tmp_path)
    assert list(await dms_files(dms_shop, "orders")) == ["LOAD00000001.csv"]
    for first in (100, 200, 300):
        await change(dms_shop, first)
        await dms_shop.capture()
        await assert_dms(dms_shop, tmp_path)
    names = list(await dms_files(dms_shop, "orders"))
    assert [bool(re.fullmatch(r"\d{8}-\d{9}\.csv", name)) for name in names] == [False, True, True, True]
    assert names[1:] == sorted(names[1:])
    assert await dms_shop.leftovers() == []
    assert await swept(dms_shop) == []
    await assert_dms(dms_shop, tmp_path)
    entries = [entry for commit in await dms_shop.commits() for entry in commit.entries]
    assert {entry.key for entry in entries} == {
        f"raw/{dms_shop.name}/{name}" for name in await objects(dms_shop) if not name.startswith("_")
    }


async def test_settings_of_dms(dms_shop: ChangesShop) -> None:
    """Column names, the time and the Op of the full load are written where they are asked for, and NULL as the CSV has it."""
    dms_shop.options |= {
        "compression": "gzip",
        "csv": {"null": "NULL"},
        "dms": {"add_column_name": True, "timestamp_column_name": "ts", "include_op_for_full_load": True},
    }
    await dms_shop.execute("INSERT INTO items VALUES (1, 1, 9.90), (1, 2, NULL)")
    await dms_shop.capture()
    await dms_shop.execute("UPDATE items SET price = 7 WHERE number = 1", "DELETE FROM items WHERE number = 2")
    await dms_shop.capture()
    load, changes = (await dms_files(dms_shop, "items")).items()
    assert (load[0], changes[0][-7:]) == ("LOAD00000001.csv.gz", ".csv.gz")
    time = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}")
    assert time.sub(b"TIME", load[1]) == b"Op,ts,order_id,number,price\nI,TIME,1,1,9.90\nI,TIME,1,2,NULL\n"
    assert time.sub(b"TIME", changes[1]) == b"Op,ts,order_id,number,price\nU,TIME,1,1,7.00\nD,TIME,1,2,NULL\n"
    (empty,) = (await dms_files(dms_shop, "orders")).values()
    assert empty == b"Op,ts,id,counter,note,at\n"


async def test_a_table_that_is_altered(dms_shop: ChangesShop) -> None:
    """Each shape begins a file, also one that was there before: in the order of their names they are in that of the log."""
    await dms_shop.execute(ADD.format(1))
    await dms_shop.capture()
    await dms_shop.execute(
        ADD.format(2),
        "ALTER TABLE orders ADD COLUMN more VARCHAR(20) DEFAULT 'x'",
        ADD.format(3),
        "ALTER TABLE orders DROP COLUMN more",
        ADD.format(4),
    )
    await dms_shop.capture()
    _, *changes = (await dms_files(dms_shop, "orders")).values()
    assert [(body.split(b",")[1], body.count(b","), body.count(b"\n")) for body in changes] == [
        (b"2", 4, 1), (b"3", 5, 1), (b"4", 4, 1),
    ]  # fmt: skip


# What a run is doing when it is killed, after its commit: the first or a later copy, or the removal of what was copied.
PUBLISHING = {
    "copy": {"method": "PUT", "path": r"/(orders|items)/(LOAD|\d{8}-)"},
    "removal": {"method": "DELETE", "path": r"/_data/"},
}


CASES = [("first", "copy", "before", 1), ("later", "copy", "after", 1), ("first", "removal", "before", 2),
         ("later", "removal", "after", 1)]  # fmt: skip
"""And with the first and the later run changed for one another:"""
OTHERS = [("later" if run == "first" else "first", step, when, nth) for run, step, when, nth in CASES]


@pytest.mark.parametrize(("run", "step", "when", "nth"), CASES + OTHERS)
async def test_what_a_killed_run_did_not_publish_is_made_up_for(
    dms_shop: ChangesShop, s3_faults: FaultProxy, prefect_faults: FaultProxy, tmp_path: Path,
    run: str, step: str, when: str, nth: int,
) -> None:  # fmt: skip
    """SIGKILL between commit and publication: nothing else is to be seen, a sweep takes nothing, the next run repairs it."""
    await fill(dms_shop)
    if run == "later":
        await dms_shop.capture()
        await change(dms_shop, 100)
    parameters = await dms_shop.save(dms_shop.destination(s3_faults.endpoint))
    parameters["source"]["tables"] = ["orders", "items"]
    parameters["mode"] = "changes"
    code = await kill_on(s3_faults, PUBLISHING[step], when, nth, parameters, prefect_faults)
    assert code == -signal.SIGKILL
    committed = len(await dms_shop.commits())
    assert committed == (1 if run == "first" else 2)
    assert any(name.startswith("_data/") for name in await objects(dms_shop)) or (step, when) == ("removal", "after")

    await swept(dms_shop)
    assert (await dms_shop.capture())["sequence"] is None  # nothing new, and yet it publishes what waits
    assert len(await dms_shop.commits()) == committed
    await assert_dms(dms_shop, tmp_path)
    await change(dms_shop, 200)
    await dms_shop.capture()
    await assert_dms(dms_shop, tmp_path)
    assert await dms_shop.leftovers() == []


async def caught_up(shop: ChangesShop) -> None:
    """The first run may end where one that was killed had planned to, the second comes to the log's end."""
    for _ in range(2):
        await shop.capture()


async def test_kills_at_random_moments(
    dms_shop: ChangesShop, s3_faults: FaultProxy, prefect_faults: FaultProxy, tmp_path: Path
) -> None:
    """Whatever was killed where, and swept in between, the folders are the tables after the next run that ends."""
    await fill(dms_shop)
    steps = [*((s3_faults, match) for match in PUBLISHING.values()),
             *((s3_faults if where == "s3" else prefect_faults, match) for where, match, _ in STEPS.values())]  # fmt: skip
    killed = 0
    for first in range(100, 100 + 10 * KILLS, 10):
        parameters = await dms_shop.save(dms_shop.destination(s3_faults.endpoint))
        parameters |= {"mode": "changes", "source": parameters["source"] | {"tables": ["orders", "items"]}}
        proxy, match = random.choice(steps)
        when, nth = random.choice(["before", "after"]), random.randint(1, 2)
        killed += await kill_on(proxy, match, when, nth, parameters, prefect_faults) == -signal.SIGKILL
        for each in (s3_faults, prefect_faults):
            each.clear()
        await change(dms_shop, first)
        if random.random() < 0.3:
            await swept(dms_shop)
        if random.random() < 0.3:
            await caught_up(dms_shop)
            await assert_dms(dms_shop, tmp_path)
    await caught_up(dms_shop)
    await assert_dms(dms_shop, tmp_path)
    await swept(dms_shop)
    assert await dms_shop.leftovers() == []
    assert killed or KILLS < 10


async def test_another_layout_plans_anew(
    dms_shop: ChangesShop, s3_faults: FaultProxy, prefect_faults: FaultProxy, tmp_path: Path
) -> None:
    """What a run of another layout had finished is not taken up: its objects are of another shape."""
    await fill(dms_shop)
    await dms_shop.capture()
    await change(dms_shop, 100)
    dms_shop.options["layout"] = "tables"
    parameters = await dms_shop.save(dms_shop.destination(s3_faults.endpoint))
    parameters |= {"mode": "changes", "source": parameters["source"] | {"tables": ["orders", "items"]}}
    await kill_on(s3_faults, {"method": "PUT", "path": "/_commits/"}, "before", 1, parameters, prefect_faults)
    dms_shop.options["layout"] = "dms"
    await dms_shop.capture()
    await assert_dms(dms_shop, tmp_path)
    await swept(dms_shop)
    assert await dms_shop.leftovers() == []


async def test_what_is_not_committed_is_not_to_be_seen(
    dms_shop: ChangesShop, s3_faults: FaultProxy, prefect_faults: FaultProxy, tmp_path: Path
) -> None:
    """A run that is killed before its commit leaves nothing in the tables' folders; what waits is swept once another stands."""
    await fill(dms_shop)
    await dms_shop.capture()
    before = await dms_files(dms_shop, "orders")
    await change(dms_shop, 100)
    parameters = await dms_shop.save(dms_shop.destination(s3_faults.endpoint))
    parameters |= {"mode": "changes", "source": parameters["source"] | {"tables": ["orders", "items"]}}
    await kill_on(s3_faults, {"method": "PUT", "path": "/_commits/"}, "before", 1, parameters, prefect_faults)
    assert await dms_files(dms_shop, "orders") == before
    assert [key for key in await swept(dms_shop) if "/_data/" in key] == [], "a run may commit them yet"
    await dms_shop.capture()
    await assert_dms(dms_shop, tmp_path)
    assert len([key for key in await swept(dms_shop) if "/_data/" in key]) >= 2
    assert await dms_shop.leftovers() == []


async def test_runs_at_once_publish_once(
    dms_shop: ChangesShop, s3_faults: FaultProxy, prefect_faults: FaultProxy, tmp_path: Path
) -> None:
    """Several runs that find the same files waiting make the same of them, and go on."""
    await fill(dms_shop)
    await dms_shop.capture()
    await change(dms_shop, 100)
    parameters = await dms_shop.save(dms_shop.destination(s3_faults.endpoint))
    parameters |= {"mode": "changes", "source": parameters["source"] | {"tables": ["orders", "items"]}}
    await kill_on(s3_faults, PUBLISHING["copy"], "before", 1, parameters, prefect_faults)
    await change(dms_shop, 200)
    outcomes = await asyncio.gather(*(dms_shop.capture() for _ in range(3)))
    assert sum(outcome["committed"] for outcome in outcomes) == 1
    await dms_shop.capture()
    await assert_dms(dms_shop, tmp_path)
    assert [name for name in await objects(dms_shop) if name.startswith("_data/")] == []


async def test_a_new_full_load_begins_the_folder_anew(dms_shop: ChangesShop, tmp_path: Path) -> None:
    """Its files replace those of the last one and the changes since then: replayed after it they would be wrong."""
    await fill(dms_shop)
    await dms_shop.capture()
    await change(dms_shop, 100)
    await dms_shop.capture()
    await dms_shop.execute("DELETE FROM items")
    async with dms_shop.destination().client() as client:
        await set_position(CommitLog(client, dms_shop.destination(), dms_shop.name), None, note="anew")
    await dms_shop.capture()
    assert {table: list(await dms_files(dms_shop, table)) for table in ("orders", "items")} == {
        "orders": ["LOAD00000001.csv"],
        "items": ["LOAD00000001.csv"],
    }
    await assert_dms(dms_shop, tmp_path)
    await change(dms_shop, 200)
    await dms_shop.capture()
    await assert_dms(dms_shop, tmp_path)


@pytest.mark.parametrize("mysql_database", ["mysql"], indirect=True)
async def test_rows_of_a_snapshot_that_came_through_a_log_replace_no_files(
    dms_shop: ChangesShop, kafka_server: KafkaServer
) -> None:
    """A window that begins within a connector's snapshot has only some of its rows: files that are there stay."""
    topic, to = kafka_server.topic(), dms_shop.destination()
    origin = {"connector": "postgresql", "name": "pg", "db": "d", "schema": "public", "table": "a", "ts_us": 1}
    await to.asave(dms_shop.name, overwrite=True)

    async def bring(id_: int, start: str) -> None:
        event = {"before": None, "after": {"id": id_}, "op": "r", "source": origin | {"lsn": id_}}
        kafka_server.send(topic, json.dumps(event), key=json.dumps({"id": id_}))
        source: Any = {
            "connection": block_of_kafka(kafka_server), "topics": [topic], "format": "debezium", "start": start,
            "debezium": {"types": {"public.a": {"id": "integer"}}},
        }  # fmt: skip
        given: dict[str, Any] = {"stream": dms_shop.name, "source": source, "to": f"s3-destination/{dms_shop.name}"}
        await extract(**given, mode="changes")

    await bring(7, "earliest")
    async with to.client() as client:
        await set_position(CommitLog(client, to, dms_shop.name), None, note="on from a later place")
    await bring(8, "1")
    found = {name: body.decode().strip() for name, body in (await objects(dms_shop, "public/a")).items()}
    assert [text for _, text in sorted(found.items(), reverse=True)] == ["7", "I,8"]


async def test_names_grow_whatever_the_clock_does(dms_shop: ChangesShop, tmp_path: Path) -> None:
    """A run whose clock is behind that of the one before it still writes later names."""
    await fill(dms_shop)
    await dms_shop.capture()
    ahead = datetime.now(UTC) + timedelta(hours=3)
    async with dms_shop.destination().client() as client:
        log = CommitLog(client, dms_shop.destination(), dms_shop.name)
        last = await log.last()
        assert last is not None
        await log.put(
            Commit(stream=log.stream, sequence=2, until=last.until, committed_at=ahead, file_time=file_time(ahead))
        )
    for first in (100, 200):
        await change(dms_shop, first)
        await dms_shop.capture()
    await set_to_where_it_is(dms_shop)
    await change(dms_shop, 300)
    await dms_shop.capture()
    names = [name.removesuffix(".csv") for name in await dms_files(dms_shop, "orders")][1:]
    assert len(names) == 3
    assert all(one < other for one, other in itertools.pairwise([file_time(ahead), *names]))
    await assert_dms(dms_shop, tmp_path)


async def set_to_where_it_is(shop: ChangesShop) -> None:
    """A commit by hand that changes nothing."""
    async with shop.destination().client() as client:
        log = CommitLog(client, shop.destination(), shop.name)
        last = await log.last()
        assert last is not None
        await set_position(log, last.until, note="as it was")


async def test_tables_that_are_emptied_are_counted(dms_shop: ChangesShop, caplog: pytest.LogCaptureFixture) -> None:
    """DMS writes no record of it, so the commit tells, and the run warns."""
    await dms_shop.execute(ADD.format(1), "INSERT INTO items VALUES (1, 1, 1)")
    await dms_shop.capture()
    await dms_shop.execute("TRUNCATE TABLE orders", ADD.format(1), "TRUNCATE TABLE items")
    await dms_shop.capture()
    counted = {entry.table.split(".")[1]: entry.counted for entry in (await dms_shop.commits())[-1].entries}
    assert counted == {"orders": {EMPTIED: 1}, "items": {EMPTIED: 1}}
    assert list((await dms_files(dms_shop, "items")).values()) == [b"1,1,1.00\n", b""]
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert {f"{dms_shop.mysql.database}.{table}: {EMPTIED}: 1" for table in ("orders", "items")} <= set(told)


async def test_images_without_all_columns(dms_shop: ChangesShop) -> None:
    """An update that lacks columns is refused, as its NULLs would be taken for some, or has the text that was named."""
    await dms_shop.execute("INSERT INTO orders (id, counter, note) VALUES (1, 1, 'kept')")
    await dms_shop.capture()
    await dms_shop.execute(
        "SET SESSION binlog_row_image = 'MINIMAL'", "UPDATE orders SET counter = 2 WHERE id = 1", "DELETE FROM orders"
    )
    with pytest.raises(ConfigurationError, match=r"orders.*\(at, note\).*csv_no_sup_value"):
        await dms_shop.capture()
    dms_shop.options["dms"] = {"csv_no_sup_value": "?"}
    await dms_shop.capture()
    _, changes = (await dms_files(dms_shop, "orders")).values()
    assert changes == b"U,1,2,?,?\nD,1,,,\n"


async def test_a_schema_may_have_the_name_of_a_folder(dms_shop: ChangesShop) -> None:
    """Files of a database called data are not taken for leftovers; one called _data is refused."""
    await dms_shop.mysql.execute("DROP DATABASE IF EXISTS data", "DROP DATABASE IF EXISTS _data")
    try:
        await dms_shop.execute(
            "CREATE DATABASE data", "CREATE TABLE data.t (a INT PRIMARY KEY)", "INSERT INTO data.t VALUES (1)"
        )
        await dms_shop.capture(tables=["data.t"])
        assert await swept(dms_shop) == []
        assert await objects(dms_shop, "data") == {"t/LOAD00000001.csv": b"1\n"}
        await dms_shop.execute("CREATE DATABASE _data", "CREATE TABLE _data.t (a INT PRIMARY KEY)")
        dms_shop.name += "-other"
        with pytest.raises(ConfigurationError, match=r"_data\.t.*headrace's own"):
            await dms_shop.capture(tables=["_data.t"])
    finally:
        await dms_shop.execute("DROP DATABASE IF EXISTS data", "DROP DATABASE IF EXISTS _data")


async def test_streams_of_other_modes_are_refused(dms_shop: ChangesShop) -> None:
    """Before anything is read."""
    shop = MySQLShop(dms_shop.server, dms_shop.s3, dms_shop.bucket, dms_shop.options)
    with pytest.raises(ConfigurationError, match="field layout of the destination: dms is for streams of changes"):
        await shop.run("full", block=cast("Any", block_of(dms_shop.mysql)), source={"table": "orders"})


async def test_check_tells_whether_the_layout_works(dms_shop: ChangesShop) -> None:
    """A copy is tried, and a stream that is none of changes is told before it runs."""
    block, to = block_of(dms_shop.mysql), dms_shop.destination()
    options = ReadOptions(mode="changes", layout=to.layout)
    changes = MySQLChanges(connection=block, tables=("orders",))
    found = [finding async for finding in checks.check(dms_shop.name, changes, to, options)]
    assert [finding.text for finding in found if finding.level == "error"] == []
    assert any("was copied" in finding.text for finding in found)
    table = MySQLTable(connection=block, table="orders")
    full = options.model_copy(update={"mode": "full"})
    told = [finding async for finding in checks.check(dms_shop.name, table, to, full) if finding.level == "error"]
    assert [finding.text.split(":")[0] for finding in told] == ["field layout of the destination"]
    assert await objects(dms_shop) == {}
