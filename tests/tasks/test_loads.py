"""Commits of random changes, loaded one by one: the destination is, after each, what the records make when replayed."""

from __future__ import annotations

import json
import os
import random
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from blocks.duck import DuckDB
from blocks.errors import PositionLost
from blocks.s3 import CsvDialect
from tasks.commits import Commit, Entry, EntryMeta
from tasks.extractors.contract import CHANGE_COLUMNS, Column
from tasks.loads.loader import Loader, session_of
from tasks.loads.targets import Naming
from tasks.objects import header
from tests.flows.loads import Objects
from tests.servers.postgres import PostgresServer
from tests.tasks.extractors.test_postgres import block_of

SOAK = int(os.environ.get("HEADRACE_SOAK", "0"))
PLAIN = (Column(name="k", type="int", key=True), Column(name="a", type="text"), Column(name="b", type="int"))
MORE = (*PLAIN, Column(name="c", type="text"))

Row = dict[str, str | None]


class _Local:
    """Files of this machine in the place of `Files`: what is tested is what comes after they are fetched."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @asynccontextmanager
    async def fetched(self, entry: Entry) -> AsyncIterator[Path]:
        yield self.folder / entry.key


class _Log:
    stream = "shop"
    folder = "s3://lake/shop"


@dataclass
class History:
    """Makes changes of a table, and remembers what it comes to."""

    chance: random.Random
    table: dict[str, Row] = field(default_factory=dict)
    columns: tuple[Column, ...] = PLAIN
    position: int = 0

    def commit(self, sequence: int, folder: Path) -> Commit:
        """Some changes, in one object for each shape of the table."""
        entries = []
        for number in range(self.chance.choice([1, 1, 2])):
            if self.chance.random() < 0.2:
                self.columns = MORE if self.columns is PLAIN else PLAIN
            records = [record for _ in range(self.chance.randint(0, 12)) for record in self._change()]
            entries.append(self._entry(records, f"{sequence}-{number}.csv", folder))
        return Commit(
            stream="shop", sequence=sequence, mode="changes", entries=tuple(entries), since="before", until="after",
            committed_at=datetime.now(UTC),
        )  # fmt: skip

    def _entry(self, records: list[list[str | None]], key: str, folder: Path) -> Entry:
        made = Objects([*CHANGE_COLUMNS, *self.columns], records, "shop.things")
        body = header(made.columns, CsvDialect()) + made.body
        (folder / key).write_bytes(body)
        absent = {name for record in records if record[3] for name in json.loads(record[3])}
        return Entry(
            url=f"s3://lake/{key}", meta=EntryMeta(content_length=len(body)), key=key, partition="log", rows=len(records),
            bytes=len(body), crc32=f"{zlib.crc32(body):08x}", table="shop.things", columns=tuple(made.columns),
            unchanged=tuple(sorted(absent)),
        )  # fmt: skip

    def _change(self) -> list[list[str | None]]:
        key, keys = str(self.chance.randint(1, 8)), list(self.table)
        action = self.chance.choices(
            ["insert", "update", "partial", "delete", "move", "empty"], [30, 25, 20, 12, 8, 2]
        )[0]
        if action == "empty":
            self.table.clear()
            return [self._record("T", {})]
        if key not in self.table:
            self.table[key] = self._row(key)
            return [self._record("I", self.table[key])]
        if action == "delete":
            return [self._record("D", self.table.pop(key))]
        if action == "partial":
            absent = self.chance.sample(
                [c.name for c in self.columns[1:]], self.chance.randint(1, len(self.columns) - 1)
            )
            new = {**self._row(key), **{name: self.table[key].get(name) for name in absent}}
            self.table[key] = new
            return [self._record("U", {**new, **dict.fromkeys(absent)}, absent)]
        free = [str(n) for n in range(1, 9) if str(n) not in keys]
        if action == "move" and free:
            old, moved = self.table.pop(key), self._row(self.chance.choice(free))
            self.table[str(moved["k"])] = moved
            return [self._record("D", old), self._record("I", moved)]
        self.table[key] = self._row(key)
        return [self._record("U", self.table[key])]

    def _row(self, key: str) -> Row:
        row: Row = {
            "k": key,
            "a": self.chance.choice(["", None, 'x"y', "a,b", '["a"]', "\\N"]),
            "b": str(self.chance.randint(0, 99)),
        }
        return row | {"c": self.chance.choice(["c", None])} if self.columns is MORE else row

    def _record(self, operation: str, row: Row, absent: list[str] | None = None) -> list[str | None]:
        self.position += 1
        unchanged = json.dumps(sorted(absent), separators=(",", ":")) if absent else None
        return [
            operation,
            None,
            f"000-{self.position:08d}",
            unchanged,
            *(row.get(column.name) for column in self.columns),
        ]

    def expected(self, *, known: set[str]) -> list[tuple[Any, ...]]:
        rows = [(int(str(row["k"])), row["a"], int(str(row["b"])), row.get("c")) for row in self.table.values()]
        return sorted((row if "c" in known else row[:3] for row in rows), key=lambda row: row[0])


@pytest.mark.parametrize("seed", range(400 if SOAK else 25))
async def test_changes_in_duckdb(seed: int, tmp_path: Path) -> None:
    await replay(seed, DuckDB(path=str(tmp_path / "w.duckdb")), tmp_path)


@pytest.mark.parametrize("seed", range(100 if SOAK else 8))
async def test_changes_in_postgres(seed: int, tmp_path: Path, database: PostgresServer) -> None:
    await replay(seed, block_of(database), tmp_path)


async def replay(seed: int, block: Any, folder: Path) -> None:
    history = History(random.Random(seed))
    async with session_of(block, Naming()) as session:
        loader = Loader(cast("Any", _Log()), cast("Any", _Local(folder)), session, Naming())
        await loader.begin()
        for sequence in range(1, 7):
            commit = history.commit(sequence, folder)
            assert await loader.load(commit)
            assert not await loader.load(commit), "a second time it changes nothing"
            known = set(await session.types_of(session.warehouse.qualified("things")))
            array = "json_group_array(t)" if isinstance(block, DuckDB) else "json_agg(t)"
            found = json.loads(await session.value(f"SELECT coalesce({array}, '[]') FROM things t"))
            rows = sorted(
                (tuple(row[name] for name in ("k", "a", "b", "c") if name in known) for row in found),
                key=lambda row: int(row[0]),
            )
            assert rows == history.expected(known=known), (seed, sequence)
        with pytest.raises(PositionLost, match="up to 6, and 8 builds on 7"):
            await loader.load(history.commit(8, folder))


@pytest.mark.parametrize(
    ("stream", "source", "name"),
    [("orders", "", "orders"), ("order-items", "", "order_items"), ("shop-changes", "shop.orders", "shop_orders")],
)
def test_tables_of_two_databases_are_told_apart(stream: str, source: str, name: str) -> None:
    """By {schema}_{table}, of which the first part is left out where a stream has but one table."""
    assert Naming(table="{schema}_{table}").of(stream, source) == name
