"""The chain PostgreSQL → WAL → Debezium → Kafka → CSV: replayed, the committed files are the tables, whatever is killed."""

from __future__ import annotations

from flows.extract import extract
from tests.flows.cdc import DebeziumShop, assert_replays


async def test_a_snapshot_and_what_comes_after_it(cdc_shop: DebeziumShop) -> None:
    """Snapshot rows, inserts, updates, deletions, changed keys, large values, truncates, new columns, rollbacks."""
    await cdc_shop.execute(
        "INSERT INTO orders (id, counter, note, price, big) SELECT i, 1, 'a,\"b\"', i / 3.0, repeat(md5(i::text), 300)"
        " FROM generate_series(1, 20) i",
        "INSERT INTO orders (id, counter, note) VALUES (21, 1, ''), (22, 1, NULL)",
        "INSERT INTO items VALUES (1, 1, 9.90), (1, 2, 5), (2, 1, NULL)",
    )
    await cdc_shop.capture_changes()
    parameters = await cdc_shop.save() | {"mode": "changes"}
    await cdc_shop.catch_up(parameters, extract)
    assert {row["_op"] for row in (await cdc_shop.changes())["orders"]} == {"S"}
    await cdc_shop.execute(
        "UPDATE orders SET counter = counter + 1",
        "DELETE FROM orders WHERE id = 3",
        "UPDATE orders SET id = 40, counter = counter + 1 WHERE id = 4",
        "UPDATE orders SET price = 'NaN' WHERE id = 5",
        "TRUNCATE items",
        "INSERT INTO items VALUES (7, 1, 1.5)",
        "ALTER TABLE orders ADD COLUMN extra date",
        "BEGIN; INSERT INTO orders (id, counter) VALUES (50, 1); ROLLBACK",
        "BEGIN; INSERT INTO orders (id, counter, extra) VALUES (51, 1, '2026-01-31'); UPDATE orders SET counter = 2,"
        " note = 'x' WHERE id = 51; COMMIT",
    )
    await cdc_shop.catch_up(parameters, extract)
    await assert_replays(cdc_shop)
    changes = await cdc_shop.changes()
    assert {row["_op"] for row in changes["orders"]} == {"S", "I", "U", "D"}
    assert [row["_op"] for row in changes["items"] if row["order_id"] != "-1"] == ["S", "S", "S", "T", "I"]
    assert any(row["_unchanged"] == '["big"]' for row in changes["orders"])
    assert (await extract(**parameters))["sequence"] is None
