"""Writers of every kind race a stream's snapshot and its runs, which are killed: replayed, the files are the tables.

Each row has a counter that goes up by one with every change, so a change that is missing or comes twice is seen even
where a later one hides it.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import aiomysql
import pytest

from flows.extract import extract
from tests.flows.changes import META, ChangesShop, assert_replays
from tests.flows.shops import Row, save_block
from tests.flows.test_kills import STEPS, kill_at
from tests.flows.writers import while_they_write
from tests.servers.faults import FaultProxy, TcpProxy
from tests.servers.mysql import connected
from tests.tasks.extractors.test_mysql import block_of
from tests.windows import Execute

SOAK = bool(os.environ.get("HEADRACE_SOAK"))
RUNS = 90 if SOAK else 12
KILLED_EVERY = 2 if SOAK else 4
PAUSE = 0.15 if SOAK else 0.1
"""Of a writer, at most: in a soak less is written at a time, for longer."""

pytestmark = pytest.mark.timeout(7200 if SOAK else 900)

IDS = 100_000_000
"""How many each writer has for its own, more than the longest test takes."""

_LOST = (2006, 2013, 2055, 1053, 1927, 4031)
"""The server went away under a writer."""


T = TypeVar("T")


@dataclass
class Writer:
    """Works on rows of its own: ids from ``first`` on."""

    shop: ChangesShop
    first: int
    pause: float
    """Seconds between two transactions, at most."""
    stopping: bool = False
    written: int = 0
    _rows: dict[int, int] = field(default_factory=dict)
    """id → counter, as it is committed."""
    _next: int = 0

    async def write(self) -> None:
        """Write until told to stop, over new connections where the server went away."""
        while not self.stopping:
            try:
                async with connected(self.shop.mysql) as connection, connection.cursor() as cursor:
                    await self.decide(cursor)
                    await self._know(cursor)
                    while not self.stopping:
                        await self._transaction(cursor.execute)
            except (aiomysql.MySQLError, OSError) as error:
                if isinstance(error, aiomysql.MySQLError) and error.args[0] not in _LOST and error.args[0] != 2003:
                    raise
                await asyncio.sleep(0.2)

    async def decide(self, cursor: Any) -> None:
        """End what was prepared over a connection that is gone, one way or the other: it locks its rows."""
        await cursor.execute("XA RECOVER")
        for form, length, _, data in await cursor.fetchall():
            text = data.decode() if isinstance(data, bytes) else str(data)
            if text.startswith(f"t{self.first}-"):
                way = random.choice(["COMMIT", "ROLLBACK"])
                await cursor.execute(f"XA {way} '{text[:length]}','{text[length:]}',{form}")

    async def _know(self, cursor: Any) -> None:
        """What is there: after a connection was lost nobody knows how its last transaction ended."""
        await cursor.execute(f"SELECT id, counter FROM orders WHERE id BETWEEN {self.first} AND {self.first + IDS - 1}")
        self._rows = {int(row[0]): int(row[1]) for row in await cursor.fetchall()}
        self._next = max([self.first + self._next, *self._rows]) - self.first + 1

    async def _transaction(self, execute: Execute) -> None:
        kind: Callable[[Execute], Awaitable[None]] = random.choice(
            [self._plain, self._plain, self._plain, self._rolled_back, self._with_savepoint, self._big, self._xa]
        )
        before = dict(self._rows)
        await kind(execute)
        self.written += before != self._rows
        await asyncio.sleep(random.uniform(0, self.pause))

    async def _plain(self, execute: Execute) -> None:
        await execute("BEGIN")
        for _ in range(random.randint(1, 4)):
            await self._change(execute)
        await execute("COMMIT")

    async def _rolled_back(self, execute: Execute) -> None:
        before = dict(self._rows)
        await execute("BEGIN")
        await self._change(execute)
        await execute("ROLLBACK")
        self._rows = before

    async def _with_savepoint(self, execute: Execute) -> None:
        await execute("BEGIN")
        await self._change(execute)
        await execute("SAVEPOINT here")
        before = dict(self._rows)
        await self._change(execute)
        await execute("ROLLBACK TO SAVEPOINT here")
        self._rows = before
        await self._change(execute)
        await execute("COMMIT")

    async def _big(self, execute: Execute) -> None:
        await execute("BEGIN")
        ids = [self._new() for _ in range(random.randint(100, 400))]
        values = ", ".join(f"({id_}, 1, REPEAT('x', {random.randint(1, 300)}))" for id_ in ids)
        await execute(f"INSERT INTO orders (id, counter, note) VALUES {values}")
        self._rows |= dict.fromkeys(ids, 1)
        await self._counted_up(execute, f"id BETWEEN {ids[0]} AND {ids[-1]}", ids)
        gone = ids[10:]
        await execute(f"DELETE FROM orders WHERE id BETWEEN {gone[0]} AND {gone[-1]}")
        for id_ in gone:
            del self._rows[id_]
        await execute("COMMIT")

    async def _xa(self, execute: Execute) -> None:
        before = dict(self._rows)
        xid = f"'t{self.first}-{random.randrange(1 << 40)}','b',7"
        await execute(f"XA START {xid}")
        await self._change(execute)
        await execute(f"XA END {xid}")
        if random.random() < 0.2:
            await execute(f"XA COMMIT {xid} ONE PHASE")
            return
        await execute(f"XA PREPARE {xid}")
        await asyncio.sleep(random.choice([0, 0.05, 1.5]))
        if random.random() < 0.3:
            await execute(f"XA ROLLBACK {xid}")
            self._rows = before
        else:
            await execute(f"XA COMMIT {xid}")

    async def _change(self, execute: Execute) -> None:
        some = random.sample(sorted(self._rows), min(len(self._rows), random.randint(1, 3)))
        match random.choice(["insert", "update", "update", "delete", "key"]) if some else "insert":
            case "insert":
                ids = [self._new() for _ in range(random.randint(1, 5))]
                values = ", ".join(f"({id_}, 1, 'a,\"b\"')" for id_ in ids)
                await execute(f"INSERT INTO orders (id, counter, note) VALUES {values}")
                self._rows |= dict.fromkeys(ids, 1)
            case "update":
                await self._counted_up(execute, f"id IN ({', '.join(map(str, some))})", some)
            case "delete":
                await execute(f"DELETE FROM orders WHERE id = {some[0]}")
                del self._rows[some[0]]
            case "key":
                new = self._new()
                await execute(f"UPDATE orders SET id = {new}, counter = counter + 1 WHERE id = {some[0]}")
                self._rows[new] = self._rows.pop(some[0]) + 1

    async def _counted_up(self, execute: Execute, where: str, ids: list[int]) -> None:
        await execute(f"UPDATE orders SET counter = counter + 1, note = NULL WHERE {where}")
        for id_ in ids:
            self._rows[id_] += 1

    def _new(self) -> int:
        self._next += 1
        return self.first + self._next


async def beside_writers(shop: ChangesShop, work: Awaitable[T], pause: float) -> tuple[T, list[Writer]]:
    """Do something while four writers are at work; its result.

    However it ends, no transaction is left prepared: its locks would hold the rows.
    """
    writers = [Writer(shop, number * IDS, pause=pause) for number in range(1, 5)]
    try:
        return await while_they_write(writers, work), writers
    finally:
        async with connected(shop.mysql) as connection, connection.cursor() as cursor:
            for writer in writers:
                await writer.decide(cursor)


class Counters:
    """No change is missing, and none comes twice: looks at records one after the other."""

    def __init__(self) -> None:
        self._counters: dict[str, int] = {}
        self._left = 0
        """Of the row that a change of the key has deleted a moment ago."""

    def look(self, row: Row) -> None:
        """The next record."""
        id_, counter, op = row["id"], int(row["counter"]), row["_op"]
        if op == "D":
            assert self._counters.pop(id_) == counter, f"{row}: deleted as {counter}"
            self._left = counter
            return
        if op == "U":
            assert counter == self._counters[id_] + 1, f"{row} after {self._counters[id_]}"
        elif op == "I":
            assert counter in (1, self._left + 1), f"{row} comes from nowhere"
        self._counters[id_] = counter


def assert_counters_rise(rows: list[Row]) -> None:
    """Of all records of a table."""
    counters = Counters()
    for row in rows:
        counters.look(row)


async def disturb(shop: ChangesShop, run: int) -> None:
    """What happens to servers between runs."""
    if run % 2 == 0:
        await shop.execute("FLUSH BINARY LOGS")
    if run % 6 == 5:
        await asyncio.to_thread(shop.mysql.restart)


async def killed(shop: ChangesShop, parameters: dict[str, Any], s3: FaultProxy, prefect: FaultProxy) -> None:
    """A run that is killed somewhere, if it comes that far."""
    await save_block(shop.destination(s3.endpoint), f"{shop.name}-faulty")
    step = random.choice([name for name in STEPS if name not in ("create", "part", "complete")])
    faulty = parameters | {"to": f"s3-destination/{shop.name}-faulty"}
    await kill_at(step, random.choice(["before", "after"]), 1, faulty, s3, prefect)
    s3.clear()
    prefect.clear()


async def test_every_change_comes_once(
    changes_shop: ChangesShop, mysql_wire: TcpProxy, s3_faults: FaultProxy, prefect_faults: FaultProxy
) -> None:
    """Inserts, updates, deletions, changed keys, big transactions, rollbacks, savepoints and XA; kills, restarts, cuts."""
    shop = changes_shop
    block = block_of(shop.mysql.through(mysql_wire.port))
    parameters = await shop.save(block=cast("Any", block))
    parameters["source"]["tables"] = ["orders"]
    # As many as the log has files: each is read by itself.
    parameters |= {"mode": "changes", "partitions": 9}

    async def runs() -> None:
        await asyncio.sleep(1)
        for run in range(1, RUNS + 1):
            await disturb(shop, run)
            if run % KILLED_EVERY == 0:
                await killed(shop, parameters, s3_faults, prefect_faults)
                continue
            if run % 3 == 0:
                mysql_wire.cut_after(random.randint(20_000, 200_000))
            await extract(**parameters, processes=2 if run % 7 == 4 else 1)

    _, writers = await beside_writers(shop, runs(), PAUSE)
    # The plan of a run that was killed ends where the log ended then.
    for _ in range(2):
        await extract(**parameters)

    assert all(writer.written > RUNS for writer in writers)
    await assert_replays(shop, "orders")
    changes = await shop.changes()
    assert_counters_rise(changes["orders"])
    assert {row["_op"] for row in changes["orders"]} >= {"S", "I", "U", "D"}
    assert len(await shop.commits()) > RUNS / 2


def test_the_judge_sees_what_is_wrong() -> None:
    """A change that is missing, comes twice, or comes from nowhere is not let pass."""

    def row(op: str, id_: int, counter: int) -> Row:
        return dict.fromkeys(META, "") | {"_op": op, "id": str(id_), "counter": str(counter)}

    good = [row("S", 1, 3), row("U", 1, 4), row("I", 2, 1), row("D", 1, 4), row("I", 3, 5), row("D", 2, 1)]
    assert_counters_rise(good)
    for missing in (0, 1, 2):
        with pytest.raises((AssertionError, KeyError)):
            assert_counters_rise(good[:missing] + good[missing + 1 :])
    for twice in (1, 3):
        with pytest.raises((AssertionError, KeyError)):
            assert_counters_rise([*good[: twice + 1], good[twice], *good[twice + 1 :]])
