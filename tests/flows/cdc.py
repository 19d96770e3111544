"""Tables on PostgreSQL, whose WAL goes through Debezium and Kafka; and what the committed records make when replayed."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any, Protocol

from blocks.s3 import S3Destination
from flows.extract import extract
from tasks.cdc import capture
from tasks.cdc.settings import Capture, of_postgres, slot_name
from tasks.extractors.kafka.source import KafkaTopics
from tests.flows.changes import META
from tests.flows.shops import Row, Shop, save_block
from tests.servers.connect import ConnectServer
from tests.servers.kafka import KafkaServer
from tests.servers.postgres import connected
from tests.tasks.extractors.kafka import block_of

TABLES = {"orders": ("id",), "items": ("order_id", "number")}
"""Their keys."""


class Chain(Protocol):
    """A database whose changes go through Debezium and Kafka, and what of it can be killed."""

    name: str
    kafka: KafkaServer
    connect: ConnectServer

    @property
    def connector(self) -> str: ...

    def destination(self, endpoint: str | None = None, **changes: Any) -> S3Destination: ...


class ByCommands:
    """What `headrace cdc` makes and removes for a shop."""

    connect: ConnectServer

    @property
    def connector(self) -> str:
        raise NotImplementedError

    def topics(self) -> KafkaTopics:
        """The source whose connector it makes."""
        raise NotImplementedError

    async def capture_changes(self) -> None:
        async for _ in capture.enable(self.connector, self.topics()):
            pass

    async def stop_capturing(self) -> None:
        if not self.connect.running:
            await asyncio.to_thread(self.connect.start)
        async for _ in capture.disable(self.connector, self.topics()):
            pass


@dataclass
class DebeziumShop(Shop):
    """Two tables, and the stream of their changes."""

    kafka: KafkaServer = field(kw_only=True)
    connect: ConnectServer = field(kw_only=True)

    @property
    def connector(self) -> str:
        return f"c-{self.name}"

    async def create(self) -> None:
        await self.execute(
            "CREATE TABLE orders (id int PRIMARY KEY, counter int NOT NULL, note text, price numeric, big text,"
            " at timestamptz NOT NULL DEFAULT clock_timestamp())",
            # Kept outside the row, and so not in the log of an update that leaves it as it is.
            "ALTER TABLE orders ALTER COLUMN big SET STORAGE EXTERNAL",
            "CREATE TABLE items (order_id int, number int, price numeric(10,2), PRIMARY KEY (order_id, number))",
        )

    async def capture_changes(self) -> None:
        """Publication, slot and connector."""
        await self.execute(f"CREATE PUBLICATION {slot_name(self.connector)} FOR TABLE orders, items")
        password = self.connect.secret(self.name, self.server.password)
        tables = tuple(f"public.{name}" for name in TABLES)
        settings = of_postgres(self.block(), Capture(self.connector, self.name, tables, password), messages=True)
        await asyncio.to_thread(self.connect.put, self.connector, settings)

    async def stop_capturing(self) -> None:
        if not self.connect.running:
            await asyncio.to_thread(self.connect.start)
        if self.connector in await asyncio.to_thread(self.connect.ask, "GET", "/connectors"):
            await asyncio.to_thread(self.connect.remove, self.connector)
        async with asyncio.timeout(60), connected(self.server) as connection:
            # The worker leaves its slot when it has noticed.
            while await connection.fetchval(
                "SELECT count(*) FROM pg_replication_slots WHERE active AND database = current_database()"
            ):
                await asyncio.sleep(0.1)

    async def save(self, to: S3Destination | None = None, block: Any = None) -> dict[str, Any]:
        await save_block(to or self.destination(), self.name)
        await save_block(block or block_of(self.kafka, timeout=60), self.name)
        source = {
            "connection": f"kafka/{self.name}",
            "topics": [f"{self.name}.public.*"],
            "format": "debezium",
        }
        return {"stream": self.name, "source": source, "to": f"s3-destination/{self.name}"}

    async def tables(self) -> dict[str, list[Row]]:
        """The tables as our own full read brings them."""
        found = {}
        for name in TABLES:
            full = Shop(self.server, self.s3, self.bucket, self.options)
            await full.run("full", source={"table": f"public.{name}"})
            found[name] = await full.committed_rows(await full.commits())
        return found

    async def catch_up(self, parameters: dict[str, Any], seconds: float = 120) -> None:
        """Runs, until what is written now has come through."""
        async with connected(self.server) as connection:
            # Of orders, as no test empties those.
            last = await connection.fetchval("SELECT coalesce(-min(id), 0) + 1 FROM orders WHERE id < 0")
            await connection.execute("INSERT INTO items VALUES (-$1::int, 1, 0)", last)
            await connection.execute("INSERT INTO orders (id, counter) VALUES (-$1::int, 1)", last)
        await asyncio.to_thread(self.kafka.wait_for_topics, *parameters["source"]["topics"])
        async with asyncio.timeout(seconds):
            await run_until_come(self, parameters, TABLES, last)


async def run_until_come(shop: Shop, parameters: dict[str, Any], keys: dict[str, tuple[str, ...]], last: int) -> None:
    """Runs, until each table's row whose key begins with ``-last`` has come: topics do not wait for each other."""
    missing, looked_at = set(keys), len(await shop.commits())
    while missing:
        await extract(**parameters)
        commits = (await shop.commits())[looked_at:]
        looked_at += len(commits)
        for entry, rows in await shop.committed_files(commits):
            table = entry.table.rpartition(".")[2]
            if any(row[keys[table][0]] == f"-{last}" for row in rows):
                missing.discard(table)
        await asyncio.sleep(0.5 * bool(missing))


def replayed(rows: list[Row], key: tuple[str, ...]) -> list[Row]:
    """The table that records make, applied in their order; what an update left unchanged stays."""
    positions = [row["_position"] for row in rows]
    assert len(set(positions)) == len(positions)
    table: dict[tuple[str, ...], Row] = {}
    left: Row = {}
    for row in rows:
        at = tuple(row[name] for name in key)
        match row["_op"]:
            case "T":
                table.clear()
            case "D":
                assert at in table, f"{at} is deleted, and was not there"
                left = table.pop(at)
            case "I":
                assert at not in table, f"{at} comes twice"
                # Of a changed key: what is unchanged is as it was in the row that was deleted a moment ago.
                table[at] = {**row, **{name: left[name] for name in json.loads(row["_unchanged"] or "[]")}}
            case "S":
                table[at] = row
            case "U":
                assert at in table, f"{at} is updated, and was not there"
                kept = {name: table[at][name] for name in json.loads(row["_unchanged"] or "[]")}
                table[at] = {**row, **kept}
    return [{name: value for name, value in row.items() if name not in META} for row in table.values()]


async def assert_replays(shop: DebeziumShop) -> None:
    """What is committed makes the tables as they are now, byte for byte."""
    changes, tables = await shop.changes(), await shop.tables()
    for name, key in TABLES.items():
        made = {tuple(row[part] for part in key): row for row in replayed(changes.get(name, []), key)}
        wanted = {tuple(row[part] for part in key): row for row in tables[name]}
        assert made.keys() == wanted.keys(), (
            f"{name}: too many {sorted(made.keys() - wanted.keys())}, missing {sorted(wanted.keys() - made.keys())}"
        )
        for at, row in wanted.items():
            # A column that was added later is NULL in the rows before; one that was dropped is still in those.
            found = {part: made[at].get(part, "") for part in row}
            assert found == row, (
                f"{name} {at}: {[(part, found[part], row[part]) for part in row if found[part] != row[part]]}"
            )
        assert len(wanted) == len(tables[name])
