"""Two tables on MySQL or MariaDB, the stream of their changes, and what its committed records make when replayed."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

from blocks.mysql import MySQL
from tests.flows.shops import MySQLShop
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
    twice = [row for row, after in pairwise(rows) if row["_position"] == after["_position"]]
    assert not twice, f"records have one position: {twice[:3]}, {len(twice)} of {len(rows)}"
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
        expected, found = set(map(str, tables[name])), set(map(str, made))
        assert found == expected, f"not there: {list(expected - found)[:3]}, too much: {list(found - expected)[:3]}"
        assert len(made) == len(tables[name])
