"""Runs of change streams of MySQL and MariaDB: replayed, the committed files are the tables, whatever happened."""

from __future__ import annotations

from tests.flows.changes import ChangesShop, assert_replays


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


async def test_a_database_that_is_dropped_empties_tables_of_earlier_runs(changes_shop: ChangesShop) -> None:
    """The statement names none of its tables, and when it is read they are gone: the position knows them."""
    execute, gone = changes_shop.mysql.execute, f"{changes_shop.mysql.database}_gone"
    await execute(f"CREATE DATABASE {gone}", f"CREATE TABLE {gone}.t (id INT)", f"INSERT INTO {gone}.t VALUES (1)")
    try:
        await changes_shop.capture(tables=["orders", f"{gone}.*"])
    finally:
        await execute(f"DROP DATABASE {gone}")
    await changes_shop.capture(tables=["orders", f"{gone}.*"])
    assert [row["_op"] for row in (await changes_shop.changes())["t"]] == ["S", "T"]
