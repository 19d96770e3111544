"""The chain MySQL → binary log → Debezium → Kafka → CSV, beside our own stream of the same log: record by record the same."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest

from flows.extract import extract
from tests.flows.cdc_mysql import KEYS, TwoWaysShop
from tests.flows.changes import META, assert_same, replayed
from tests.flows.shops import Row
from tests.flows.test_changes_races import IDS, Writer, assert_counters_rise
from tests.flows.test_kafka import kill_broker, kill_connect, kill_headrace
from tests.flows.writers import while_they_write
from tests.servers.faults import FaultProxy

pytestmark = pytest.mark.timeout(900)

NO_DATES = ("'0000-00-00", "'2026-02-00'")
"""What the connector makes NULL of."""
LOST_IN_A_SNAPSHOT = {
    ("FLOAT", "16777217"): "16777200",
    ("FLOAT", "1.17549435e-38"): "1.17549e-38",
    ("FLOAT", "-3.4028235e38"): "-3.40282e38",
    ("YEAR", "0"): "2000",
}
"""What the connector loses when it reads a table, and not when it reads the log."""


@dataclass
class TypesWriter:
    """Works on the table that has a column of every type, and on items, which it empties at times."""

    shop: TwoWaysShop
    stopping: bool = False
    written: int = 0
    _ids: list[int] = field(default_factory=list)

    async def write(self) -> None:
        """Write until told to stop."""
        while not self.stopping:
            await random.choice([self._insert, self._update, self._delete, self._items])()
            self.written += 1
            await asyncio.sleep(random.uniform(0, 0.3))

    def _some(self) -> dict[str, str]:
        """Values of some columns; of the others NULL."""
        values = enumerate(self.shop.values)
        return {f"c{n}": value if random.random() < 0.7 else "NULL" for n, (_, value, _) in values}

    async def _insert(self) -> None:
        id_, some = 1000 + self.written, self._some()
        await self.shop.execute_hostile(
            f"INSERT INTO everything (id, {', '.join(some)}) VALUES ({id_}, {', '.join(some.values())})"
        )
        self._ids.append(id_)

    async def _update(self) -> None:
        for id_ in random.sample(self._ids, min(2, len(self._ids))):
            some = ", ".join(f"{name} = {value}" for name, value in self._some().items())
            await self.shop.execute_hostile(f"UPDATE everything SET {some} WHERE id = {id_}")

    async def _delete(self) -> None:
        if len(self._ids) > 2:
            await self.shop.execute_hostile(f"DELETE FROM everything WHERE id = {self._ids.pop(0)}")

    async def _items(self) -> None:
        if random.random() < 0.2:
            await self.shop.execute("TRUNCATE TABLE items")
        else:
            values = ", ".join(f"({self.written}, {n}, {n}.5)" for n in range(random.randint(1, 9)))
            await self.shop.execute(f"INSERT INTO items VALUES {values}")


@dataclass
class Alterer:
    """Adds columns and drops them again, while others write; and begins new files of the log."""

    shop: TwoWaysShop
    stopping: bool = False
    altered: int = 0

    async def write(self) -> None:
        """Alter until told to stop."""
        while not self.stopping:
            await asyncio.sleep(random.uniform(1, 4))
            self.altered += 1
            name = f"extra_{self.altered}"
            await self.shop.execute(
                f"ALTER TABLE orders ADD COLUMN {name} {random.choice(['DATE', 'DATETIME(3)', 'VARCHAR(20)'])}",
                f"UPDATE orders SET counter = counter + 1, {name} = '2026-01-31' WHERE id = 1",
                *([f"ALTER TABLE orders DROP COLUMN extra_{self.altered - 2}"] if self.altered > 2 else []),
                "FLUSH BINARY LOGS",
            )


class PlainWriter(Writer):
    """Without XA, whose rows Debezium sends when they are prepared (docs/debezium.md)."""

    async def _xa(self, execute: Any) -> None:
        await self._plain(execute)


async def test_both_ways_bring_the_same(
    two_ways_shop: TwoWaysShop, s3_faults: FaultProxy, prefect_faults: FaultProxy
) -> None:
    """Writers of every kind, types, DDL and truncates; Kafka Connect, the broker and headrace are killed."""
    shop = two_ways_shop
    values = ", ".join(value for _, value, _ in shop.values)
    await shop.execute(
        "INSERT INTO orders (id, counter, note) VALUES (1, 1, 'a,\"b\"'), (2, 1, NULL), (3, 1, '')",
        "INSERT INTO items VALUES (1, 1, 9.90), (1, 2, NULL)",
    )
    await shop.execute_hostile(f"INSERT INTO everything VALUES (1, {values})", "INSERT INTO everything (id) VALUES (2)")
    await shop.capture_changes()
    ours, theirs = await shop.both()
    # Nothing is written until both have their snapshot: of the same moment.
    await asyncio.to_thread(shop.kafka.wait_for_topics, *theirs["source"]["topics"])
    async with asyncio.timeout(120):
        while sum([len(rows) for rows in (await shop.through_kafka.changes()).values()]) < 3 + 2 + 2:
            await extract(**theirs)
    await extract(**ours)

    types, alterer = TypesWriter(shop), Alterer(shop)
    plain = [PlainWriter(shop, number * IDS, pause=0.5) for number in (1, 2)]
    writers: list[Writer | TypesWriter | Alterer] = [*plain, types, alterer]
    killers = [kill_connect, kill_broker, kill_headrace]
    random.shuffle(killers)

    async def killed() -> None:
        for kill in killers:
            await asyncio.sleep(random.uniform(0.5, 2))
            await kill(shop, theirs, s3_faults, prefect_faults)
            if kill is kill_headrace:
                await kill(shop, ours, s3_faults, prefect_faults)
            await extract(**theirs)
            await extract(**ours)

    await while_they_write(writers, killed())
    await shop.catch_up(theirs, 1)
    for _ in range(2):  # the plan of a run that was killed ends where the log ended then
        await extract(**ours)

    assert all(written > 20 for written in (*(writer.written for writer in plain), types.written))
    assert alterer.altered > 3
    changes, others = await shop.changes(), await shop.through_kafka.changes()
    tables = await shop.tables("everything")
    for name, key in KEYS.items():
        assert_the_same(shop, name, changes[name], others[name])
        assert_same(replayed(shown(changes[name], tables[name]), key), tables[name])
    assert_counters_rise([row for row in others["orders"] if int(row["id"]) >= IDS])
    assert {row["_op"] for row in others["orders"]} == {"S", "I", "U", "D"}
    assert {row["_op"] for row in others["items"]} >= {"S", "I", "T"}


def assert_the_same(shop: TwoWaysShop, name: str, ours: list[Row], theirs: list[Row]) -> None:
    """Both streams have the same records in the same order, but for what docs/debezium.md lists."""
    as_exact = 0
    for number, (row, other) in enumerate(zip(ours, theirs, strict=False)):
        about = slice(max(0, number - 2), number + 3)
        assert expected(shop, name, row) == comparable(other), (
            f"{name}, record {number}: ours {ours[about]}, theirs {theirs[about]}"
        )
        if row["_op"] != "S":
            assert is_the_time(row["_op"], row["_committed_at"], other["_committed_at"]), (
                f"{name}, record {number}: {row} and {other}"
            )
            as_exact += row["_committed_at"] == other["_committed_at"]
    assert len(ours) == len(theirs)
    assert as_exact > len(ours) / 2


def is_the_time(op: str, ours: str, theirs: str) -> bool:
    """The same; or the second in which a statement began, which is what the connector knows right after it was started."""
    late = datetime.fromisoformat(ours) - datetime.fromisoformat(theirs)
    # Of a table that was emptied the millisecond in which the connector read of it, or in which the statement began.
    near = abs(late) if op == "T" else late
    return ours == theirs or (
        (op == "T" or theirs.endswith(".000000+00")) and timedelta(0) <= near < timedelta(seconds=60)
    )


def expected(shop: TwoWaysShop, name: str, row: Row) -> Row:
    """A record of ours as it is to come through Debezium."""
    made = comparable(row)
    for number, (kind, value, _) in enumerate(shop.values if name == "everything" else []):
        column = f"c{number}"
        if value.startswith(NO_DATES):
            made[column] = ""
        elif row["_op"] == "S" and made[column]:
            made[column] = LOST_IN_A_SNAPSHOT.get((kind, value), made[column])
    return made


def comparable(row: Row) -> Row:
    """Without the position, of which each way has its own."""
    return {name: value for name, value in row.items() if name not in ("_position", "_committed_at")}


def shown(rows: list[Row], table: list[Row]) -> list[Row]:
    """Records with the columns that the table has now."""
    columns = [*META, *table[0]]
    return [{name: row.get(name, "") for name in columns} for row in rows]
