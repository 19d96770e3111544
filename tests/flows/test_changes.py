"""Runs of change streams of MySQL and MariaDB: replayed, the committed files are the tables, whatever happened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import pytest

from blocks.mysql import MySQL
from tests.flows.conftest import MySQLShop
from tests.servers.mysql import MySQLServer
from tests.servers.s3 import S3Server
from tests.tasks.extractors.test_mysql import block_of

Row = dict[str, str]

META = ("_op", "_committed_at", "_position", "_unchanged")


@dataclass
class ChangesShop(MySQLShop):
    """Some tables of one server, and the stream of their changes."""

    async def create(self) -> None:
        await self.mysql.execute(
            "CREATE TABLE orders (id INT PRIMARY KEY, counter INT NOT NULL, note TEXT, at TIMESTAMP(6) NOT NULL"
            " DEFAULT CURRENT_TIMESTAMP(6))",
            "CREATE TABLE items (order_id INT, number INT, price DECIMAL(10,2), PRIMARY KEY (order_id, number))",
        )

    async def capture(self, **source: Any) -> dict[str, Any]:
        """One run of the stream."""
        block: MySQL = block_of(self.mysql)
        named = {"connection": f"mysql/{self.name}", "tables": ["orders", "items"], **source}
        return await self.run("changes", block=cast("Any", block), source=named)

    async def save(self, *arguments: Any, **named: Any) -> dict[str, Any]:
        parameters = await super().save(*arguments, **named)
        parameters["source"].pop("table", None)
        return parameters

    async def changes(self) -> dict[str, list[Row]]:
        """All committed records of each table, in the order of their positions."""
        found: dict[str, list[Row]] = {}
        for commit in await self.commits():
            for entry in commit.entries:
                one = commit.model_copy(update={"entries": (entry,)})
                found.setdefault(entry.table.split(".")[1], []).extend(await self.committed_rows([one]))
        for rows in found.values():
            rows.sort(key=lambda row: row["_position"])
        return found

    async def tables(self) -> dict[str, list[Row]]:
        """The tables as a full read brings them."""
        found = {}
        for name in ("orders", "items"):
            full = MySQLShop(self.server, self.s3, self.bucket, self.options)
            await full.run("full", block=cast("Any", block_of(self.mysql)), source={"table": name})
            found[name] = await full.committed_rows(await full.commits())
        return found


KEYS = {"orders": ("id",), "items": ("order_id", "number")}


def replayed(rows: list[Row], key: tuple[str, ...]) -> list[Row]:
    """The table that records make, applied in their order."""
    positions = [row["_position"] for row in rows]
    assert positions == sorted(set(positions)), "two records have one position"
    table: dict[tuple[str, ...], Row] = {}
    for row in rows:
        at = tuple(row[name] for name in key)
        match row["_op"]:
            case "T":
                table.clear()
            case "D":
                assert table.pop(at, None) is not None, f"{at} is deleted, and was not there"
            case "I" | "S":
                assert at not in table, f"{at} comes twice"
                table[at] = row
            case "U":
                assert at in table, f"{at} is updated, and was not there"
                table[at] = row
    return [{name: value for name, value in row.items() if name not in META} for row in table.values()]


async def assert_replays(shop: ChangesShop, *names: str) -> None:
    """What is committed makes the tables as they are now."""
    changes, tables = await shop.changes(), await shop.tables()
    for name in names or KEYS:
        made = replayed(changes.get(name, []), KEYS[name])
        assert sorted(map(str, made)) == sorted(map(str, tables[name]))


@pytest.fixture
async def changes_shop(mysql_database: MySQLServer, s3_server: S3Server, bucket: str, prefect_api: str) -> ChangesShop:
    """Two tables, and an empty bucket."""
    assert prefect_api
    made = ChangesShop(cast("Any", mysql_database), s3_server, bucket, {"compression": "none"})
    await made.create()
    return made


async def test_a_snapshot_and_what_comes_after_it(changes_shop: ChangesShop) -> None:
    """The first run brings the tables, the next what was inserted, updated, deleted and given another key."""
    execute = changes_shop.mysql.execute
    await execute(
        "INSERT INTO orders (id, counter, note) VALUES (1, 1, 'a,\"b\"'), (2, 1, NULL), (3, 1, '')",
        "INSERT INTO items VALUES (1, 1, 9.90), (1, 2, 5), (2, 1, NULL)",
    )
    first = await changes_shop.capture()
    assert (first["sequence"], first["rows"]) == (1, 6)
    await execute(
        "START TRANSACTION",
        "UPDATE orders SET counter = counter + 1",
        "DELETE FROM items WHERE order_id = 1",
        "COMMIT",
        "UPDATE orders SET id = 30 WHERE id = 3",
        "INSERT INTO orders (id, counter) VALUES (4, 1)",
        "START TRANSACTION",
        "INSERT INTO orders (id, counter) VALUES (5, 1)",
        "ROLLBACK",
    )
    second = await changes_shop.capture()
    assert (second["sequence"], second["rows"]) == (2, 3 + 2 + 2 + 1)
    await assert_replays(changes_shop)
    changes = await changes_shop.changes()
    assert [row["_op"] for row in changes["orders"]] == ["S"] * 3 + ["U"] * 3 + ["D", "I", "I"]
    third = await changes_shop.capture()
    assert third["sequence"] is None


async def test_emptied_tables_are_told(changes_shop: ChangesShop) -> None:
    """TRUNCATE and DROP come as a record of their own, and a table that is made anew begins anew."""
    execute = changes_shop.mysql.execute
    await execute("INSERT INTO orders (id, counter) VALUES (1, 1)", "INSERT INTO items VALUES (1, 1, 1)")
    await changes_shop.capture()
    await execute(
        "TRUNCATE TABLE orders",
        "INSERT INTO orders (id, counter) VALUES (1, 7)",
        "DROP TABLE items",
        "CREATE TABLE items (order_id INT, number INT, price DECIMAL(10,2), extra INT, PRIMARY KEY (order_id, number))",
        "INSERT INTO items VALUES (1, 1, 1, 1)",
    )
    await changes_shop.capture()
    changes = await changes_shop.changes()
    assert [row["_op"] for row in changes["orders"]] == ["S", "T", "I"]
    assert [row["_op"] for row in changes["items"]] == ["S", "T", "I"]
    assert changes["items"][-1]["extra"] == "1"
    await assert_replays(changes_shop)
