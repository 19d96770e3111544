"""Positions of change streams that are lost are told, with the choices; those that can be found are gone on from."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from blocks.errors import ConfigurationError, PositionLost
from tasks.commits import CommitLog
from tasks.extractors.mysql.binlog.gtids import GtidSet
from tasks.state import set_position
from tests.flows.changes import ChangesShop, assert_replays
from tests.servers.mysql import MySQLServer, replica_of
from tests.servers.s3 import S3Server

STATUS = {"MySQL": "SHOW BINARY LOG STATUS", "MariaDB": "SHOW MASTER STATUS"}
EXECUTED = {"MySQL": "gtid_executed", "MariaDB": "gtid_binlog_pos"}
ADD = "INSERT INTO orders (id, counter) VALUES ({0}, 1)"


async def logs(shop: ChangesShop) -> list[str]:
    """The files of the log, the oldest first."""
    return [str(row[0]) for row in await shop.mysql.fetch("SHOW BINARY LOGS")]


async def test_a_purged_log_is_told(changes_shop: ChangesShop) -> None:
    """Where the log was purged past the position the run stops, and names the ways out; the watermark stays."""
    await changes_shop.execute(ADD.format(1))
    await changes_shop.capture()
    await changes_shop.execute(ADD.format(2), "FLUSH BINARY LOGS", "FLUSH BINARY LOGS", ADD.format(3))
    if changes_shop.mysql.is_mariadb:  # 11.7 and later keep what no replica is there to have read
        await changes_shop.execute("SET GLOBAL slave_connections_needed_for_purge = 0")
    last = (await logs(changes_shop))[-1]
    while (await logs(changes_shop))[0] != last:  # MariaDB keeps a file until its engine needs it no more
        await changes_shop.execute(f"PURGE BINARY LOGS TO '{last}'")
        await asyncio.sleep(0.2)
    with pytest.raises(PositionLost, match=r"not in the log any more.*new snapshot.*start: now.*by hand"):
        await changes_shop.capture()
    assert len(await changes_shop.commits()) == 1


async def test_a_log_that_was_begun_anew_is_told(changes_shop: ChangesShop) -> None:
    """After RESET the same file and place may be there again, with other transactions."""
    await changes_shop.execute(ADD.format(1))
    await changes_shop.capture()
    old = (
        changes_shop.mysql.is_mariadb
        or int((await changes_shop.mysql.fetch("SELECT VERSION()"))[0][0].split(".")[0]) < 8
    )
    await changes_shop.execute("RESET MASTER" if old else "RESET BINARY LOGS AND GTIDS")
    for number in range(2, 60):
        await changes_shop.execute(ADD.format(number))
    with pytest.raises(PositionLost, match="Choose: read everything anew"):
        await changes_shop.capture()


async def test_a_new_snapshot_is_one_of_the_choices(changes_shop: ChangesShop) -> None:
    """A position that is set to null begins anew: the tables as they are, and the changes from there."""
    await changes_shop.execute(ADD.format(1))
    await changes_shop.capture()
    async with changes_shop.destination().client() as client:
        await set_position(CommitLog(client, changes_shop.destination(), changes_shop.name), None, note="anew")
    await changes_shop.execute(ADD.format(2))
    outcome = await changes_shop.capture()
    assert outcome["rows"] == 2
    assert [row["_op"] for row in (await changes_shop.changes())["orders"]] == ["S", "S", "S"]


@pytest.mark.parametrize("start", ["yesterday", "binlog:4", "nowhere.000001:4"])
async def test_a_start_that_is_no_place_is_refused(changes_shop: ChangesShop, start: str) -> None:
    """The field is named."""
    with pytest.raises(ConfigurationError, match=r"field start"):
        await changes_shop.capture(snapshot=False, start=start)


async def test_changes_from_now_on(changes_shop: ChangesShop) -> None:
    """Without a snapshot the first run sets the position, and brings nothing."""
    await changes_shop.execute(ADD.format(1))
    first = await changes_shop.capture(snapshot=False)
    await changes_shop.execute(ADD.format(2), "UPDATE orders SET counter = 2 WHERE id = 1")
    second = await changes_shop.capture(snapshot=False)
    assert (first["sequence"], first["rows"], second["sequence"], second["rows"]) == (1, 0, 2, 2)


@pytest.mark.parametrize("by", ["place", "GTIDs", "time"])
async def test_changes_from_a_place_on(changes_shop: ChangesShop, by: str) -> None:
    """A stream can begin at a place in the log, behind a set of GTIDs, or at a time, also some files ago."""
    server = changes_shop.mysql
    await changes_shop.execute(ADD.format(1))
    await asyncio.sleep(1.1)  # MariaDB's log knows seconds
    starts = {
        "place": ":".join(map(str, (await server.fetch(STATUS[server.flavour]))[0][:2])),
        "GTIDs": str(await server.fetch_value(f"SELECT @@GLOBAL.{EXECUTED[server.flavour]}")),
        "time": str(await server.fetch_value("SELECT UTC_TIMESTAMP()")),
    }
    await changes_shop.execute(ADD.format(2), "FLUSH BINARY LOGS", ADD.format(3), "FLUSH BINARY LOGS", ADD.format(4))
    await changes_shop.capture(snapshot=False, start=starts[by])
    await changes_shop.execute(ADD.format(5))
    await changes_shop.capture(snapshot=False, start=starts[by])
    assert [row["id"] for row in (await changes_shop.changes())["orders"]] == ["2", "3", "4", "5"]


@pytest.mark.parametrize("mysql_database", ["mysql"], indirect=True)
async def test_tagged_gtids(changes_shop: ChangesShop) -> None:
    """Transactions whose GTIDs have tags are read, are part of the position, and can be begun behind."""
    await changes_shop.execute(ADD.format(1))
    await changes_shop.capture()
    await changes_shop.execute("SET gtid_next = 'AUTOMATIC:loads'", ADD.format(2), ADD.format(3), "FLUSH BINARY LOGS")
    before = str(await changes_shop.mysql.fetch_value("SELECT @@GLOBAL.gtid_executed"))
    tag = "x" * 32
    await changes_shop.execute(f"SET gtid_next = 'AUTOMATIC:{tag}'", ADD.format(4), "FLUSH BINARY LOGS", ADD.format(5))
    await changes_shop.execute(ADD.format(6))
    assert (await changes_shop.capture())["rows"] == 5
    await assert_replays(changes_shop)
    (until, executed) = (
        (await changes_shop.commits())[-1].until,
        await changes_shop.mysql.fetch_value("SELECT @@GLOBAL.gtid_executed"),
    )
    assert isinstance(until, dict)
    assert GtidSet.parse(str(until["gtids"])) <= GtidSet.parse(str(executed))
    assert str(until["gtids"]).count(f":{tag}:1") == 1
    committed = [row["_committed_at"] for row in (await changes_shop.changes())["orders"][1:]]
    assert committed == sorted(committed)
    now = datetime.now(UTC)
    assert all(now - datetime.fromisoformat(each) < timedelta(minutes=5) for each in committed)

    other = ChangesShop(changes_shop.server, changes_shop.s3, changes_shop.bucket, changes_shop.options)
    await other.capture(snapshot=False, start=before)
    assert [row["id"] for row in (await other.changes())["orders"]] == ["4", "5", "6"]


async def test_a_start_that_the_log_does_not_reach_back_to_is_refused(changes_shop: ChangesShop) -> None:
    """A time before the oldest file."""
    with pytest.raises(ConfigurationError, match=r"field start: the log begins later"):
        await changes_shop.capture(snapshot=False, start="2001-01-01")


async def test_tables_that_are_not_there_are_told(changes_shop: ChangesShop) -> None:
    """A pattern that fits nothing is a mistake."""
    with pytest.raises(ConfigurationError, match=r"field tables: 'oders'"):
        await changes_shop.capture(tables=["orders", "oders"])


async def test_images_without_all_columns(changes_shop: ChangesShop) -> None:
    """What the log does not have is named in the record and in the commit, and is not taken for NULL."""
    await changes_shop.execute("INSERT INTO orders (id, counter, note) VALUES (1, 1, 'kept')")
    await changes_shop.capture()
    await changes_shop.execute(
        "SET SESSION binlog_row_image = 'MINIMAL'", "UPDATE orders SET counter = 2 WHERE id = 1", "DELETE FROM orders"
    )
    await changes_shop.capture()
    rows = (await changes_shop.changes())["orders"]
    assert [(row["_op"], row["_unchanged"]) for row in rows[1:]] == [
        ("U", '["note","at"]'),
        ("D", '["counter","note","at"]'),
    ]
    (entry,) = (await changes_shop.commits())[-1].entries
    assert entry.unchanged == ("at", "counter", "note")


async def test_an_insert_whose_defaults_are_not_in_the_log_is_refused(changes_shop: ChangesShop) -> None:
    """A default is not NULL, and not an old value either."""
    await changes_shop.capture()
    await changes_shop.execute("SET SESSION binlog_row_image = 'MINIMAL'", ADD.format(1))
    with pytest.raises(ConfigurationError, match=r"orders.*at.*binlog_row_image"):
        await changes_shop.capture()


async def test_generated_columns(changes_shop: ChangesShop) -> None:
    """They come where the log has them; MariaDB's does not, and the commit says so."""
    await changes_shop.execute(
        "CREATE TABLE made (id INT PRIMARY KEY, a INT, b INT AS (a + 1) STORED, c INT AS (a + 2) VIRTUAL)",
        "INSERT INTO made (id, a) VALUES (1, 1)",
    )
    await changes_shop.capture(tables=["made"])
    await changes_shop.execute("INSERT INTO made (id, a) VALUES (2, 2)", "UPDATE made SET a = 5 WHERE id = 1")
    await changes_shop.capture(tables=["made"])
    rows = (await changes_shop.changes())["made"]
    there = [] if changes_shop.mysql.is_mariadb else ["b", "c"]
    assert [[row[name] for name in ["_op", "a", *there]] for row in rows] == [
        ["S", "1", "2", "3"][: 2 + len(there)], ["I", "2", "3", "4"][: 2 + len(there)], ["U", "5", "6", "7"][: 2 + len(there)],
    ]  # fmt: skip
    notes = " ".join((await changes_shop.commits())[0].notes)
    assert ("left out: b, c" in notes) == (not there)


async def test_compressed_transactions(changes_shop: ChangesShop) -> None:
    """Transactions and events that a server compresses are read like all others."""
    await changes_shop.execute(ADD.format(1))
    await changes_shop.capture()
    mariadb = changes_shop.mysql.is_mariadb
    switch = "SET GLOBAL log_bin_compress = {}" if mariadb else "SET SESSION binlog_transaction_compression = {}"
    more = ["SET GLOBAL log_bin_compress_min_len = 10"] if mariadb else []
    await changes_shop.execute(
        *more,
        switch.format("ON"),
        "INSERT INTO orders (id, counter, note) VALUES (2, 1, REPEAT('a', 5000)), (3, 1, REPEAT('b', 5000))",
        "UPDATE orders SET counter = counter + 1",
        "DELETE FROM orders WHERE id = 2",
        switch.format("OFF"),
    )
    await changes_shop.capture()
    await assert_replays(changes_shop)


async def test_tables_that_are_altered(changes_shop: ChangesShop) -> None:
    """Each shape of a table has an object of its own, whose columns the commit tells."""
    await changes_shop.execute(ADD.format(1))
    await changes_shop.capture()
    await changes_shop.execute(
        ADD.format(2),
        "ALTER TABLE orders ADD COLUMN more VARCHAR(20) DEFAULT 'x'",
        ADD.format(3),
        "ALTER TABLE orders RENAME COLUMN more TO less, DROP COLUMN note",
        ADD.format(4),
    )
    await changes_shop.capture()
    entries = (await changes_shop.commits())[-1].entries
    shapes = [[column.name for column in entry.columns][4:] for entry in entries]
    assert sorted(shapes) == sorted(
        [["id", "counter", "note", "at"], ["id", "counter", "note", "at", "more"], ["id", "counter", "at", "less"]]
    )
    rows = {row["id"]: row for row in (await changes_shop.changes())["orders"]}
    assert (rows["3"]["more"], rows["4"]["less"]) == ("x", "x")


async def test_another_server_of_the_cluster(
    mysql_database: MySQLServer, s3_server: S3Server, bucket: str, prefect_api: str
) -> None:
    """After a failover the stream goes on where it was, found by GTIDs; a server that lacks transactions is refused."""
    assert prefect_api
    async with replica_of(mysql_database) as replica:
        if not mysql_database.is_mariadb:  # as after a backup was restored
            executed = str(await mysql_database.fetch_value("SELECT @@GLOBAL.gtid_executed")).replace("\n", "")
            await replica.execute(f"SET GLOBAL gtid_purged = '+{executed}'")
        primary = await mysql_database.create_database()
        shop = ChangesShop(cast("Any", primary), s3_server, bucket, {"compression": "none"})
        await shop.create()
        await shop.execute(*(ADD.format(number) for number in range(1, 4)))
        await shop.capture()
        await shop.execute("UPDATE orders SET counter = 2", ADD.format(4))
        await shop.capture()
        await until_applied(primary, replica)
        promoted = dataclasses.replace(replica, database=primary.database)

        await replica.execute("STOP REPLICA")
        await shop.execute(ADD.format(5))
        await shop.capture()
        shop.server = cast("Any", promoted)
        with pytest.raises(PositionLost, match=r"does not know all transactions.*Choose"):
            await shop.capture()

        await replica.execute("START REPLICA")
        await until_applied(primary, replica)
        await shop.execute(
            "UPDATE orders SET counter = 3 WHERE id = 1", "DELETE FROM orders WHERE id = 2", ADD.format(6)
        )
        outcome = await shop.capture()
        assert outcome["rows"] == 3
        await shop.execute(ADD.format(7))
        assert (await shop.capture())["rows"] == 1
        await assert_replays(shop)
        await primary.drop()


async def until_applied(primary: MySQLServer, replica: MySQLServer) -> None:
    """Wait until the replica has all rows."""
    rows = f"SELECT COUNT(*) FROM {primary.database}.orders"
    async with asyncio.timeout(60):
        while True:
            there = (
                await replica.fetch(f"SHOW TABLES FROM `{primary.database}` LIKE 'orders'")
                if await replica.fetch(f"SHOW DATABASES LIKE '{primary.database}'")
                else []
            )
            if there and await replica.fetch_value(rows) == await primary.fetch_value(rows):
                return
            await asyncio.sleep(0.2)
