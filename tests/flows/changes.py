"""Two tables on MySQL or MariaDB, the stream of their changes, and what its committed records make when replayed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, cast

from blocks.mysql import MySQL
from tests.flows.shops import MySQLShop, Row
from tests.tasks.extractors.test_mysql import block_of

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

    async def capture(self, *, processes: int = 1, partitions: int = 0, **source: Any) -> dict[str, Any]:
        """One run of the stream."""
        block: MySQL = block_of(self.mysql)
        named = {"connection": f"mysql/{self.name}", "tables": ["orders", "items"], **source}
        return await self.run(
            "changes", block=cast("Any", block), source=named, processes=processes, partitions=partitions
        )

    async def save(self, *arguments: Any, **named: Any) -> dict[str, Any]:
        parameters = await super().save(*arguments, **named)
        parameters["source"].pop("table", None)
        return parameters

    async def records(self, table: str) -> AsyncIterator[Row]:
        """All committed records of a table as a loader takes them: commit after commit, in the order of positions."""
        for commit in await self.commits():
            entries = tuple(entry for entry in commit.entries if entry.table.endswith(f".{table}"))
            rows = await self.committed_rows([commit.model_copy(update={"entries": entries})])
            for row in sorted(rows, key=lambda row: row["_position"]):
                yield row

    async def tables(self, *others: str) -> dict[str, list[Row]]:
        """The tables as a full read brings them."""
        found = {}
        for name in ("orders", "items", *others):
            full = MySQLShop(self.server, self.s3, self.bucket, self.options)
            await full.run("full", block=cast("Any", block_of(self.mysql)), source={"table": name})
            found[name] = await full.committed_rows(await full.commits())
        return found


KEYS = {"orders": ("id",), "items": ("order_id", "number")}


class Replay:
    """The table that records make, applied one after the other; one that does not fit fails the test."""

    def __init__(self, key: tuple[str, ...]) -> None:
        self._key = key
        self._rows: dict[tuple[str, ...], Row] = {}
        self._position = ""
        self.count = 0

    def apply(self, row: Row) -> None:
        """The next record."""
        assert row["_position"] > self._position, f"{row} comes after {self._position}"
        self._position = row["_position"]
        self.count += 1
        at = tuple(row[name] for name in self._key)
        match row["_op"]:
            case "T":
                self._rows.clear()
            case "D":
                assert self._rows.pop(at, None) is not None, f"{at} is deleted, and was not there"
            case "I" | "S":
                assert at not in self._rows, f"{at} comes twice"
                self._rows[at] = row
            case "U":
                assert at in self._rows, f"{at} is updated, and was not there"
                self._rows[at] = row

    @property
    def table(self) -> list[Row]:
        """The rows, without what the stream adds."""
        return [{name: value for name, value in row.items() if name not in META} for row in self._rows.values()]


def replayed(rows: list[Row], key: tuple[str, ...]) -> list[Row]:
    """The table that records make, applied in their order."""
    replay = Replay(key)
    for row in rows:
        replay.apply(row)
    return replay.table


async def assert_replays(shop: ChangesShop, *names: str) -> None:
    """What is committed makes the tables as they are now."""
    changes, tables = await shop.changes(), await shop.tables()
    for name in names or KEYS:
        assert_same(replayed(changes.get(name, []), KEYS[name]), tables[name])


def assert_same(made: list[Row], table: list[Row]) -> None:
    """Both hold the same rows."""
    expected, found = set(map(str, table)), set(map(str, made))
    assert found == expected, f"not there: {list(expected - found)[:3]}, too much: {list(found - expected)[:3]}"
    assert len(made) == len(table)
