"""The chain PostgreSQL → WAL → Debezium → Kafka → CSV: replayed, the committed files are the tables, whatever is killed."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest

from flows.extract import extract
from tasks.extractors.kafka.debezium.decoder import SEEN_BEFORE
from tests.flows.cdc import Chain, DebeziumShop, assert_replays
from tests.flows.shops import Row, save_block
from tests.flows.test_kills import STEPS, kill_at
from tests.flows.writers import while_they_write
from tests.servers.faults import FaultProxy
from tests.servers.postgres import connected

SOAK = bool(os.environ.get("HEADRACE_SOAK"))

pytestmark = pytest.mark.timeout(7200 if SOAK else 900)


@dataclass
class Writer:
    """Works on rows of its own: ids from ``first`` on. Each change of a row raises its counter by one."""

    shop: DebeziumShop
    first: int
    stopping: bool = False
    written: int = 0
    _rows: set[int] = field(default_factory=set)
    _next: int = 0

    async def write(self) -> None:
        """Write until told to stop."""
        ways = [self._small, self._small, self._small, self._rolled_back, self._big, self._items]
        async with connected(self.shop.server) as connection:
            while not self.stopping:
                way, before = random.choice(ways), set(self._rows)
                transaction = connection.transaction()
                await transaction.start()
                try:
                    await way(connection)
                except asyncpg.DeadlockDetectedError:  # of two that empty a table
                    way = self._rolled_back
                if way == self._rolled_back:
                    await transaction.rollback()
                    self._rows = before
                else:
                    await transaction.commit()
                    self.written += 1
                await asyncio.sleep(random.uniform(0.05, 0.2))

    async def _small(self, connection: Any) -> None:
        for _ in range(random.randint(1, 4)):
            await self._change(connection)

    async def _rolled_back(self, connection: Any) -> None:
        await self._change(connection)

    async def _big(self, connection: Any) -> None:
        ids = [self._new() for _ in range(random.randint(50, 200))]
        rows = [(id_, 1, "x" * random.randint(0, 300)) for id_ in ids]
        await connection.copy_records_to_table("orders", records=rows, columns=["id", "counter", "note"])
        await connection.execute("UPDATE orders SET counter = counter + 1 WHERE id = ANY($1)", ids)
        await connection.execute("DELETE FROM orders WHERE id = ANY($1)", ids[10:])
        self._rows.update(ids[:10])

    async def _items(self, connection: Any) -> None:
        if random.random() < 0.2:
            await connection.execute("TRUNCATE items")
        else:
            values = [(self.first, self._new(), random.randint(0, 10**8) / 100) for _ in range(random.randint(1, 20))]
            await connection.executemany("INSERT INTO items VALUES ($1, $2, $3::float8::numeric)", values)

    async def _change(self, connection: Any) -> None:
        some = random.sample(sorted(self._rows), min(len(self._rows), random.randint(1, 3)))
        execute = connection.execute
        match random.choice(["insert", "update", "update", "large", "delete", "key"]) if some else "insert":
            case "insert":
                ids = [self._new() for _ in range(random.randint(1, 5))]
                await connection.executemany(
                    "INSERT INTO orders (id, counter, note, big) VALUES ($1, 1, 'a,\"b\"', repeat(md5(random()::text), 200))",
                    [(id_,) for id_ in ids],
                )
                self._rows.update(ids)
            case "update":
                await execute("UPDATE orders SET counter = counter + 1, price = random() WHERE id = ANY($1)", some)
            case "large":
                large = "repeat(md5(random()::text), 300)"
                await execute(f"UPDATE orders SET counter = counter + 1, big = {large} WHERE id = ANY($1)", some)
            case "delete":
                await execute("DELETE FROM orders WHERE id = $1", some[0])
                self._rows.remove(some[0])
            case "key":
                new = self._new()
                await execute("UPDATE orders SET id = $1, counter = counter + 1 WHERE id = $2", new, some[0])
                self._rows.remove(some[0])
                self._rows.add(new)

    def _new(self) -> int:
        self._next += 1
        return self.first + self._next


@dataclass
class Alterer:
    """Adds columns, writes into them, and drops them again, while others write."""

    shop: DebeziumShop
    stopping: bool = False
    altered: int = 0

    async def write(self) -> None:
        """Alter until told to stop."""
        async with connected(self.shop.server) as connection:
            while not self.stopping:
                await asyncio.sleep(random.uniform(0.5, 3))
                self.altered += 1
                name, type_ = f"extra_{self.altered}", random.choice(["date", "text", "numeric(6,2)", "timestamptz"])
                await connection.execute(f"ALTER TABLE orders ADD COLUMN {name} {type_}")
                value = {"date": "now()", "text": "'a,\"b\"'", "timestamptz": "now()"}.get(type_, "12.50")
                # One row to a transaction, which can have no part in a deadlock.
                for end in ("min", "max"):
                    await connection.execute(
                        f"UPDATE orders SET counter = counter + 1, {name} = {value}"
                        f" WHERE id = (SELECT {end}(id) FROM orders WHERE id > 0)"
                    )
                if self.altered > 2 and random.random() < 0.7:
                    await connection.execute(f"ALTER TABLE orders DROP COLUMN IF EXISTS extra_{self.altered - 2}")


def assert_counters_rise(rows: list[Row]) -> None:
    """No change is missing, and none comes twice."""
    counters: dict[str, int] = {}
    left = 0  # of the row that a change of the key has deleted a moment ago
    for row in rows:
        if row["_op"] == "D":
            left = counters.pop(row["id"])
            continue
        id_, counter = row["id"], int(row["counter"])
        if row["_op"] == "U":
            assert counter == counters[id_] + 1, f"{row['_position']}: {counter} after {counters[id_]}"
        elif row["_op"] == "I":
            assert id_ not in counters, f"{row['_position']}: {id_} comes twice"
            assert counter in (1, left + 1), f"{row['_position']}: {counter} after {left}"
        counters[id_] = counter


async def kill_connect(shop: Chain, *_: Any) -> None:
    """The worker, in the middle of what it does; it comes back by itself."""
    await asyncio.to_thread(shop.connect.kill)
    await asyncio.to_thread(shop.connect.start)
    await asyncio.to_thread(shop.connect.wait_running, shop.connector, 120)


async def kill_broker(shop: Chain, parameters: dict[str, Any], *_: Any) -> None:
    """The broker, while a run reads from it."""
    running = asyncio.create_task(extract(**parameters))
    await asyncio.sleep(random.uniform(0, 0.5))
    await asyncio.to_thread(shop.kafka.kill)
    await asyncio.to_thread(shop.kafka.restart)
    await running


async def kill_headrace(shop: Chain, parameters: dict[str, Any], s3: FaultProxy, prefect: FaultProxy) -> None:
    """A run in a process of its own, at a step of it."""
    await save_block(shop.destination(s3.endpoint), f"{shop.name}-faulty")
    step = random.choice([name for name in STEPS if name not in ("create", "part", "complete")])
    faulty = parameters | {"to": f"s3-destination/{shop.name}-faulty", "partitions": 2}
    await kill_at(step, random.choice(["before", "after"]), 1, faulty, s3, prefect)
    s3.clear()
    prefect.clear()


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
    await cdc_shop.catch_up(parameters)
    assert {row["_op"] for row in (await cdc_shop.changes())["orders"] if int(row["id"]) > 0} == {"S"}
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
    await cdc_shop.catch_up(parameters)
    await assert_replays(cdc_shop)
    changes = await cdc_shop.changes()
    assert {row["_op"] for row in changes["orders"]} == {"S", "I", "U", "D"}
    assert [row["_op"] for row in changes["items"] if int(row["order_id"] or 0) >= 0] == ["S", "S", "S", "T", "I"]
    assert any(row["_unchanged"] == '["big"]' for row in changes["orders"])
    assert (await extract(**parameters))["sequence"] is None


async def test_what_a_killed_connector_sends_again_is_left_out(cdc_shop: DebeziumShop) -> None:
    """The topic has events twice, and the committed files have each once, within a run and across runs."""
    shop = cdc_shop
    await shop.execute("INSERT INTO orders (id, counter) VALUES (1, 1)")
    await shop.capture_changes()
    parameters = await shop.save() | {"mode": "changes"}
    await shop.catch_up(parameters)
    orders, items = (f"{shop.name}.public.{name}" for name in ("orders", "items"))
    for try_ in range(4):
        # Each in a transaction of its own; the worker notes once in a second how far it has come.
        before, other, first = shop.kafka.end(orders), shop.kafka.end(items), 1000 * (try_ + 1)
        await shop.execute(*(f"INSERT INTO orders (id, counter) VALUES ({first + n}, 1)" for n in range(50)))
        await asyncio.to_thread(shop.kafka.wait_for_end, orders, before + 50)
        await asyncio.to_thread(shop.connect.kill)
        # Some are committed before they come again.
        await extract(**parameters)
        await asyncio.to_thread(shop.connect.start)
        await asyncio.to_thread(shop.connect.wait_running, shop.connector, 120)
        await shop.catch_up(parameters)
        # Beside the rows and the markers of the catching up.
        sent_again = shop.kafka.end(orders) - before - 51 + shop.kafka.end(items) - other - 1
        if sent_again > 0:
            break
    assert sent_again > 0
    assert await shop.counted() == {SEEN_BEFORE: sent_again}
    await assert_replays(shop)
    assert_counters_rise((await shop.changes())["orders"])


async def test_every_change_comes_once(
    cdc_shop: DebeziumShop,
    s3_faults: FaultProxy,
    prefect_faults: FaultProxy,
    record_property: Callable[[str, object], None],
) -> None:
    """Writers of every kind and DDL, while Kafka Connect, the broker and headrace are each killed at random moments."""
    shop = cdc_shop
    await shop.execute("INSERT INTO orders (id, counter) SELECT i, 1 FROM generate_series(1, 100) i")
    await shop.capture_changes()
    parameters = await shop.save() | {"mode": "changes"}
    alterer = Alterer(shop)
    writers: list[Writer | Alterer] = [Writer(shop, 10_000_000), Writer(shop, 20_000_000), alterer]
    killers = [kill_connect, kill_broker, kill_headrace] * (20 if SOAK else 2)
    random.shuffle(killers)

    async def killed() -> None:
        await shop.catch_up(parameters)
        for kill in killers:
            await asyncio.sleep(random.uniform(0.5, 3))
            await kill(shop, parameters, s3_faults, prefect_faults)
            await extract(**parameters)

    await while_they_write(writers, killed())
    await shop.catch_up(parameters, 240)
    assert all(writer.written > 20 for writer in writers if isinstance(writer, Writer))
    await assert_replays(shop)
    changes = await shop.changes()
    assert_counters_rise(changes["orders"])
    assert {row["_op"] for row in changes["orders"]} >= {"S", "I", "U", "D"}
    assert {row["_op"] for row in changes["items"]} >= {"I", "T"}
    assert any(row["_unchanged"] for row in changes["orders"])
    assert alterer.altered > 3
    assert any(row.get(f"extra_{number}") for row in changes["orders"] for number in range(alterer.altered + 1))
    counted = await shop.counted()
    assert counted.keys() <= {SEEN_BEFORE}
    # In a short run none of the kills may fall between an event and the note that it was sent.
    assert counted or not SOAK
    record_property("records", {table: len(rows) for table, rows in changes.items()})
    record_property("counted", {**counted, "kills": len(killers), "columns added": alterer.altered})
