"""Slices of a table: they follow the data, leave nothing out, and show one state while others write."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from blocks.errors import SnapshotLost
from tasks.extractors.contract import Plan, ReadOptions
from tasks.extractors.mysql import bounds
from tasks.extractors.mysql.source import MySQLTable
from tests.contract import Row, collected, parsed
from tests.servers.mysql import MySQLServer, connected
from tests.tasks.extractors.test_mysql import block_of
from tests.windows import NUMBERS

_SOAK = bool(os.environ.get("HEADRACE_SOAK"))


@pytest.fixture
async def mariadb_database(mariadb_server: MySQLServer) -> AsyncIterator[MySQLServer]:
    """An empty database of this test's own, on MariaDB."""
    created = await mariadb_server.create_database()
    yield created
    await created.drop()


async def filled(server: MySQLServer, create: str, *inserts: str) -> MySQLTable:
    """A table called t."""
    await server.execute(create, server.deep_recursion, *inserts, "ANALYZE TABLE t")
    return MySQLTable(connection=block_of(server), table="t")


async def sliced(source: MySQLTable, partitions: int) -> tuple[list[list[Row]], Plan]:
    """The rows of each slice of a full read, and the plan."""
    async with source.open(ReadOptions(partitions=partitions)) as extractor:
        plan = await extractor.plan(None)
        return [
            await collected(extractor, plan.model_copy(update={"partitions": (partition,)}))
            for partition in plan.partitions
        ], plan


def check(slices: Sequence[Sequence[Row]], rows: int, most: float) -> None:
    """Every row is in one slice, and none has more than ``most`` times its share."""
    seen = Counter(row for rows_of_one in slices for row in rows_of_one)
    assert (len(seen), max(seen.values())) == (rows, 1)
    assert max(map(len, slices)) <= most * rows / len(slices), [len(s) for s in slices]


async def test_snowflake_ids(mysql_database: MySQLServer) -> None:
    """Dense clusters of 64-bit ids, far apart and with outliers, are cut by their rows, not by their range."""
    numbers = NUMBERS.format(5_000)
    source = await filled(
        mysql_database,
        "CREATE TABLE t (id BIGINT UNSIGNED PRIMARY KEY, pad CHAR(60) DEFAULT 'x')",
        "INSERT INTO t (id) VALUES (0), (1), (18446744073709551615)",
        f"INSERT INTO t (id) {numbers} 7161900000000000000 + i * 4096 FROM n",
        f"INSERT INTO t (id) {numbers} 9100000000000000000 + i FROM n",
    )
    slices, _ = await sliced(source, 5)
    assert len(slices) == 5
    check(slices, 10_003, 1.6)


async def test_a_composite_key_with_one_large_tenant(mysql_database: MySQLServer) -> None:
    """Where one value of the first column has most of the rows, the next columns cut it."""
    numbers = NUMBERS.format(9_000)
    source = await filled(
        mysql_database,
        "CREATE TABLE t (tenant INT, day DATE, n INT, pad CHAR(60) DEFAULT 'x', PRIMARY KEY (tenant, day, n))",
        f"INSERT INTO t (tenant, day, n) {numbers} 7, '2026-01-01' + INTERVAL i % 90 DAY, i FROM n",
        f"INSERT INTO t (tenant, day, n) {NUMBERS.format(500)} i + 7, '2026-01-01', i FROM n",
    )
    slices, _ = await sliced(source, 6)
    assert len(slices) == 6
    check(slices, 9_500, 1.8)


@pytest.mark.parametrize(
    "column",
    [
        "VARCHAR(40) CHARACTER SET utf8mb4",
        "CHAR(32) CHARACTER SET latin1 COLLATE latin1_german2_ci",
        "VARCHAR(40) CHARACTER SET utf16",
        "VARBINARY(40)",
    ],
)
async def test_string_keys(mysql_database: MySQLServer, column: str) -> None:
    """Hexadecimal ids as text or bytes, in any character set and collation."""
    source = await filled(
        mysql_database,
        f"CREATE TABLE t (id {column} PRIMARY KEY, pad CHAR(60) DEFAULT 'x')",
        f"INSERT INTO t (id) {NUMBERS.format(8_000)} LEFT(SHA2(i, 256), 32) FROM n",
        "INSERT INTO t (id) VALUES (''), ('Zürich'), ('österreich'), ('a''b\\\\c\"')",
    )
    slices, _ = await sliced(source, 4)
    assert len(slices) == 4
    check(slices, 8_004, 1.8)


async def test_dates_and_decimals_are_keys(mysql_database: MySQLServer) -> None:
    """Keys of other types than numbers and strings."""
    source = await filled(
        mysql_database,
        "CREATE TABLE t (at DATETIME(3), amount DECIMAL(20,4), PRIMARY KEY (at, amount))",
        f"INSERT INTO t {NUMBERS.format(6_000)} '2026-01-01' + INTERVAL i DIV 3 SECOND, i / 3 FROM n",
    )
    slices, _ = await sliced(source, 4)
    assert len(slices) == 4
    check(slices, 6_000, 1.8)


_UUID = (
    "CONCAT_WS('-', LEFT({0}, 8), MID({0}, 9, 4), CONCAT('{1}', MID({0}, 14, 3)), CONCAT('8', MID({0}, 18, 3)), "
    "MID({0}, 21, 12))"
)
_HASH = "SHA2(i, 256)"
_TIME = f"CONCAT(LPAD(HEX(1700000000000 + i), 12, '0'), {_HASH})"


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("UUID", [_UUID.format(_HASH, 4)]),
        ("UUID", [_UUID.format(_TIME, 7)]),
        ("UUID", ["UUID()"]),  # version 1
        ("UUID", [_UUID.format(_HASH, 4), _UUID.format(_TIME, 7)]),
        ("INET6", ["CONCAT_WS(':', '2001:db8', HEX(i), HEX(i * 7), '', '1')", "CONCAT('::ffff:10.0.', i DIV 256, '.', i % 256)"]),
        ("INET4", ["CONCAT('10.', i % 200, '.', i DIV 256, '.', i % 256)"]),
    ],
)  # fmt: skip
async def test_keys_that_mariadb_alone_has(mariadb_database: MySQLServer, column: str, values: list[str]) -> None:
    """UUIDs of every version, and mixed, and addresses: the server sorts them in its own way."""
    source = await filled(
        mariadb_database,
        f"CREATE TABLE t (id {column}, n INT, pad CHAR(60) DEFAULT 'x', PRIMARY KEY (id, n))",
        *(f"INSERT INTO t (id, n) {NUMBERS.format(6_000)} {value}, i FROM n" for value in values),
    )
    slices, _ = await sliced(source, 4)
    assert len(slices) == 4
    check(slices, 6_000 * len(values), 1.8)


async def test_a_uuid_is_a_cursor(mariadb_database: MySQLServer) -> None:
    """UUIDs that grow with time bound a window, which is cut along their index."""
    source = await filled(
        mariadb_database,
        "CREATE TABLE t (id UUID PRIMARY KEY, pad CHAR(60) DEFAULT 'x')",
        f"INSERT INTO t (id) {NUMBERS.format(4_000)} {_UUID.format(_TIME, 7)} FROM n",
    )
    options = ReadOptions(mode="incremental", partitions=4)
    async with source.model_copy(update={"cursor": "id"}).open(options) as extractor:
        plan = await extractor.plan(None)
        assert (len(plan.partitions), len(await collected(extractor, plan))) == (4, 4_000)
        assert (await extractor.plan(plan.until)).partitions == ()


@pytest.mark.parametrize(
    ("column", "part", "told"),
    [
        ("FLOAT", "kind", "float"),
        ("DOUBLE", "kind", "double"),
        ("ENUM('1', '2')", "kind", "enum('1','2')"),
        ("TEXT", "kind(3)", "the beginnings of text"),
    ],
)
async def test_keys_that_are_not_cut(mysql_database: MySQLServer, column: str, part: str, told: str) -> None:
    """A key that begins with a type whose text says too little is read in one piece, and the plan names it."""
    source = await filled(
        mysql_database,
        f"CREATE TABLE t (kind {column}, id INT, PRIMARY KEY ({part}, id))",
        f"INSERT INTO t {NUMBERS.format(3_000)} '1', i FROM n",
    )
    slices, plan = await sliced(source, 4)
    assert [len(s) for s in slices] == [3_000]
    assert f"the key PRIMARY begins with kind, and tables are not cut by {told}. Add" in " ".join(plan.notes)
    await mysql_database.execute("ALTER TABLE t ADD UNIQUE (id)")
    assert len((await sliced(source, 4))[0]) == 4


async def test_without_a_key_there_is_one_slice(mysql_database: MySQLServer) -> None:
    """A table without a key that can be cut is read in one piece, and the plan says what would change that."""
    source = await filled(
        mysql_database,
        "CREATE TABLE t (id INT UNIQUE NULL, flag ENUM('a', 'b'))",
        f"INSERT INTO t {NUMBERS.format(2_000)} i, 'a' FROM n",
        "INSERT INTO t VALUES (NULL, 'b'), (NULL, 'b')",
    )
    slices, plan = await sliced(source, 4)
    assert [len(s) for s in slices] == [2_002]
    assert "no primary key" in " ".join(plan.notes)


async def test_a_small_table_is_cut_into_what_it_has(mysql_database: MySQLServer) -> None:
    """More slices than rows: no slice is made up, and an empty table is one."""
    source = await filled(mysql_database, "CREATE TABLE t (id INT PRIMARY KEY)")
    assert (await sliced(source, 8))[0] == [[]]
    await mysql_database.execute("INSERT INTO t VALUES (1), (2), (3)")
    slices, _ = await sliced(source, 8)
    check(slices, 3, 3)
    assert len(slices) <= 3


@pytest.mark.parametrize("grants", [["ALL PRIVILEGES ON *.*"], ["SELECT, LOCK TABLES ON {database}.*"]])
async def test_the_sum_is_exact_while_others_transfer(mysql_database: MySQLServer, grants: list[str]) -> None:
    """Transfers between rows all over the table, by several sessions at once, never show in the sum of the slices.

    Under the lock of commits, and under that of the one table where the account may take no other.
    """
    rows = 40_000
    await filled(
        mysql_database,
        "CREATE TABLE t (id INT PRIMARY KEY, amount INT NOT NULL, pad CHAR(100) DEFAULT 'x')",
        f"INSERT INTO t (id, amount) {NUMBERS.format(rows)} i, 100 FROM n",
    )
    account = await mysql_database.create_user(*grants)
    stop = asyncio.Event()
    transfers = [asyncio.create_task(_transfer(mysql_database, rows, seed, stop)) for seed in range(4)]
    try:
        for _ in range(40 if _SOAK else 4):
            async with MySQLTable(connection=block_of(account), table="t").open(ReadOptions(partitions=6)) as extractor:
                plan = await extractor.plan(None)
                assert len(plan.partitions) == 6
                assert isinstance(plan.snapshot, dict)
                assert plan.snapshot["lock"] == _lock(mysql_database, grants), plan.notes
                sums = await asyncio.gather(*(_sum(extractor, plan, partition) for partition in plan.partitions))
            assert sum(sums) == 100 * rows
    finally:
        stop.set()
        done = await asyncio.gather(*transfers)
    assert sum(done) > 20


def _lock(server: MySQLServer, grants: list[str]) -> str:
    if not grants[0].startswith("ALL"):
        return "LOCK TABLES"
    return "BACKUP STAGE BLOCK_COMMIT" if server.is_mariadb else "FLUSH TABLES WITH READ LOCK"


async def _transfer(server: MySQLServer, rows: int, seed: int, stop: asyncio.Event) -> int:
    count = 0
    async with connected(server) as connection, connection.cursor() as cursor:
        while not stop.is_set():
            count += 1
            giver, taker = (seed * 9973 + count * 7919) % rows + 1, (seed * 31 + count * 104729) % rows + 1
            await cursor.execute("BEGIN")
            first, second = sorted([(giver, -7), (taker, 7)])
            for number, amount in (first, second):
                await cursor.execute(f"UPDATE t SET amount = amount + {amount} WHERE id = {number}")
            await cursor.execute("COMMIT")
    return count


async def _sum(extractor: Any, plan: Plan, partition: Any) -> int:
    chunks: list[bytes] = []

    async def write(data: bytes) -> None:
        chunks.append(data)
        await asyncio.sleep(0.001)

    await extractor.read(plan, partition, write)
    return sum(int(row[1]) for row in parsed(b"".join(chunks)))


async def test_without_a_lock_one_connection_reads(mysql_database: MySQLServer) -> None:
    """An account that may only SELECT still gets one state: the slices are read one after the other, and it is told."""
    await filled(
        mysql_database,
        "CREATE TABLE t (id INT PRIMARY KEY, amount INT NOT NULL)",
        f"INSERT INTO t {NUMBERS.format(4_000)} i, 100 FROM n",
    )
    account = await mysql_database.create_user("SELECT ON {database}.*")
    async with MySQLTable(connection=block_of(account), table="t").open(ReadOptions(partitions=4)) as extractor:
        plan = await extractor.plan(None)
        await mysql_database.execute("UPDATE t SET amount = 0")
        sums = await asyncio.gather(*(_sum(extractor, plan, partition) for partition in plan.partitions))
    assert (len(sums), sum(sums)) == (4, 400_000)
    assert "GRANT RELOAD" in " ".join(plan.notes)


async def test_a_lock_is_not_waited_for_long(mysql_database: MySQLServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that somebody else has locked is read over one connection, after seconds, not after they are done."""
    source = await filled(
        mysql_database,
        "CREATE TABLE t (id INT PRIMARY KEY)",
        f"INSERT INTO t {NUMBERS.format(4_000)} i FROM n",
    )
    monkeypatch.setattr("tasks.extractors.mysql.snapshot.LOCK_SECONDS", 1)
    account = await mysql_database.create_user("SELECT, LOCK TABLES ON {database}.*")
    source = MySQLTable(connection=block_of(account), table="t")
    async with connected(mysql_database) as other, other.cursor() as cursor:
        await cursor.execute("BEGIN")
        await cursor.execute("DELETE FROM t WHERE id = 1")
        async with asyncio.timeout(20):
            slices, plan = await sliced(source, 4)
        await cursor.execute("ROLLBACK")
    check(slices, 4_000, 4)
    assert "one connection" in " ".join(plan.notes)


async def test_a_server_that_is_full_is_read_by_fewer(mysql_database: MySQLServer) -> None:
    """An account that may have few connections reads with those it gets, and is told."""
    await filled(
        mysql_database, "CREATE TABLE t (id INT PRIMARY KEY)", f"INSERT INTO t {NUMBERS.format(4_000)} i FROM n"
    )
    account = await mysql_database.create_user("ALL PRIVILEGES ON {database}.*", "RELOAD ON *.*")
    await mysql_database.execute(f"ALTER USER '{account.user}'@'%' WITH MAX_USER_CONNECTIONS 3")
    slices, plan = await sliced(MySQLTable(connection=block_of(account), table="t"), 4)
    check(slices, 4_000, 2)
    assert "2 of 4" in " ".join(plan.notes)


async def test_the_log_position_is_told(mysql_database: MySQLServer) -> None:
    """File, position and GTIDs of the snapshot are in the plan, exact where the server allows it."""
    source = await filled(mysql_database, "CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1), (2), (3)")
    for partitions in (1, 3):
        async with source.open(ReadOptions(partitions=partitions)) as extractor:
            seen = (await extractor.plan(None)).snapshot
        assert isinstance(seen, dict)
        log = seen["binlog"]
        assert isinstance(log, dict)
        assert str(log["file"]).startswith("binlog.")
        assert isinstance(log["position"], int)
        assert log["gtids"]
        assert seen["exact"] == (partitions > 1 or mysql_database.is_mariadb)
        assert str(seen["server"]).startswith(mysql_database.flavour)


@pytest.mark.parametrize("change", ["TRUNCATE TABLE t", "ALTER TABLE t ADD more INT FIRST", "ALTER TABLE t DROP note"])
async def test_a_table_changed_since_the_snapshot_is_planned_anew(mysql_database: MySQLServer, change: str) -> None:
    """DDL between plan and read gives SnapshotLost, or (an instant ALTER of MariaDB's) the snapshot's rows; never others."""
    source = await filled(
        mysql_database,
        "CREATE TABLE t (id INT PRIMARY KEY, note VARCHAR(20) DEFAULT 'x')",
        "INSERT INTO t (id) VALUES (1), (2), (3), (4)",
    )
    async with source.open(ReadOptions(partitions=2)) as extractor:
        plan = await extractor.plan(None)
        await mysql_database.execute(change)
        try:
            rows = await collected(extractor, plan)
        except SnapshotLost:
            return
    assert (mysql_database.is_mariadb, rows) == (True, [(str(n), "x") for n in range(1, 5)])


async def test_other_engines_are_named(mysql_database: MySQLServer) -> None:
    """MyISAM and its like have no snapshots: rows come, and the plan says what they may not be."""
    source = await filled(
        mysql_database, "CREATE TABLE t (id INT PRIMARY KEY) ENGINE = MyISAM", "INSERT INTO t VALUES (1), (2)"
    )
    slices, plan = await sliced(source, 1)
    assert slices == [[("1",), ("2",)]]
    assert "MyISAM" in " ".join(plan.notes)


async def test_partitioned_tables_and_conditions(mysql_database: MySQLServer) -> None:
    """A partitioned table is cut by its key as any other; a condition of the user's ends where it ends."""
    await filled(
        mysql_database,
        "CREATE TABLE t (id INT, kind INT, PRIMARY KEY (id, kind)) PARTITION BY HASH (kind) PARTITIONS 4",
        f"INSERT INTO t {NUMBERS.format(6_000)} i, i % 7 FROM n",
    )
    source = MySQLTable(connection=block_of(mysql_database), table="t", where="kind = 1 OR kind = 2 -- of seven")
    slices, _ = await sliced(source, 3)
    assert len(slices) == 3
    assert Counter(row[1] for rows in slices for row in rows) == {"1": 858, "2": 857}


async def test_the_bound_waits_for_nothing_in_full_mode(mysql_database: MySQLServer) -> None:
    """Without a cursor nobody is waited for."""
    assert bounds.WRITERS_SECONDS > 5
    source = await filled(mysql_database, "CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    async with connected(mysql_database) as other, other.cursor() as cursor:
        await cursor.execute("BEGIN")
        await cursor.execute("INSERT INTO t VALUES (2)")
        async with asyncio.timeout(4):
            assert (await sliced(source, 1))[0] == [[("1",)]]
