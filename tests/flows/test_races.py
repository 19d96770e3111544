"""Many writers, many runs, and kills in between: every row is committed once, and the newest version of each is there.

Writers walk rows through known values, in transactions short and long, at once, now and then rolled back. What they
have committed is known, so every file can be held against it.
"""

from __future__ import annotations

import asyncio
import os
import random
from abc import ABC, abstractmethod
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from bson.objectid import ObjectId

from flows.extract import extract
from flows.extract_all import Stream, extract_all
from tasks.extractors.mysql import bounds, wire
from tests.flows.shops import MongoShop, MySQLShop, Shop, save_block
from tests.flows.test_kills import STEPS, kill_at
from tests.servers.faults import FaultProxy
from tests.servers.mongodb import database_of
from tests.windows import Execute

SOAK = bool(os.environ.get("HEADRACE_SOAK"))
RUNS = 300 if SOAK else 20
SLOW_RUNS = 100 if SOAK else 3
LAG = 3
"""Seconds that MongoDB's streams hold back; its writers are a second faster."""
KILLED_EVERY = 4 if SOAK else 7

# So many runs take minutes, and on a slow machine many.
pytestmark = pytest.mark.timeout(7200 if SOAK else 1800)


@dataclass(frozen=True)
class Language:
    """What the writers say to one kind of database."""

    tables: tuple[str, ...]
    begin: tuple[str, ...]
    stamps: tuple[str, ...]
    """Of the start of the transaction, and of the moment of the statement: both are in use."""
    walk: str
    step: str = "INSERT INTO steps (walk, counter, at) VALUES ({walk}, {counter}, {stamp})"


POSTGRES = Language(
    tables=(
        "CREATE TABLE walks (id int PRIMARY KEY, counter int NOT NULL, updated_at timestamptz NOT NULL DEFAULT now())",
        "CREATE INDEX ON walks (updated_at)",
        "CREATE TABLE steps (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, walk int NOT NULL,"
        " counter int NOT NULL, at timestamptz NOT NULL)",
        "CREATE INDEX ON steps (at)",
    ),
    begin=("BEGIN",),
    stamps=("now()", "clock_timestamp()"),
    walk="INSERT INTO walks (id, counter, updated_at) VALUES ({walk}, {counter}, {stamp})"
    " ON CONFLICT (id) DO UPDATE SET counter = excluded.counter, updated_at = excluded.updated_at",
)
MYSQL = Language(
    tables=(
        "CREATE TABLE walks (id INT PRIMARY KEY, counter INT NOT NULL, updated_at TIMESTAMP(6) NOT NULL, KEY (updated_at))",
        "CREATE TABLE steps (id BIGINT AUTO_INCREMENT PRIMARY KEY, walk INT NOT NULL, counter INT NOT NULL,"
        " at DATETIME(6) NOT NULL, KEY (at))",
    ),
    # After a plain BEGIN, InnoDB knows of nothing yet.
    begin=("START TRANSACTION WITH CONSISTENT SNAPSHOT", "SET @began = NOW(6)"),
    stamps=("@began", "NOW(6)"),
    walk="INSERT INTO walks (id, counter, updated_at) VALUES ({walk}, {counter}, {stamp})"
    " ON DUPLICATE KEY UPDATE counter = {counter}, updated_at = {stamp}",
)


@dataclass
class Walkers(ABC):
    """Writers, each with rows of its own; what they have committed."""

    shop: Shop
    stopping: bool = False
    committed: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    settled_after: float = 1.1
    """Seconds after which what was written can be read: a window ends on a whole one."""

    @abstractmethod
    async def walk(self, first: int) -> None:
        """Write until told to stop."""

    @abstractmethod
    def source(self, table: str, cursor: str) -> dict[str, Any]:
        """What a stream of theirs reads."""

    def about(self) -> str:
        """What helps to understand a judge's verdict."""
        return ""


@dataclass
class SQLWalkers(Walkers):
    """Writers in transactions."""

    language: Language = POSTGRES

    def source(self, table: str, cursor: str) -> dict[str, Any]:
        return {"table": table, "cursor": cursor}

    async def walk(self, first: int) -> None:
        counters = dict.fromkeys(range(first, first + 40), 0)
        async with self.shop.session() as execute:
            while not self.stopping:
                await self._transaction(execute, counters)

    async def _transaction(self, execute: Execute, counters: dict[int, int]) -> None:
        before = dict(counters)
        for statement in self.language.begin:
            await execute(statement)
        # One in eight transactions is long: it stays open over the ends of windows.
        pause = 0.3 if random.random() < 0.12 else 0.02
        for walk in random.sample(sorted(counters), random.randint(1, 5)):
            counters[walk] += 1
            values = {"walk": walk, "counter": counters[walk], "stamp": random.choice(self.language.stamps)}
            await execute(self.language.walk.format(**values))
            await execute(self.language.step.format(**values))
            await asyncio.sleep(random.uniform(0.5, 1.5) * pause)
        if random.random() < 0.15:
            await execute("ROLLBACK")
            counters.update(before)
            return
        await execute("COMMIT")
        for walk, counter in counters.items():
            if counter != before[walk]:
                self.committed[walk].add(counter)


@dataclass
class MongoWalkers(Walkers):
    """Writers that stamp a document, and write it up to two seconds later; there are no transactions to be seen.

    They keep the promise that `lag` is about: on a machine that is busy enough (a load of 20) two seconds of sleep become four,
    and what was stamped then is stamped anew. How long the server took for what it was sent is told when a judge finds fault.
    """

    settled_after: float = 5
    slowest: float = 0
    """Seconds from a stamp to the answer that its document is written."""

    def source(self, table: str, cursor: str) -> dict[str, Any]:
        fields = [{"name": "id", "path": "_id", "type": "integer" if table == "walks" else "objectid"}]
        fields += [{"name": name, "type": "integer"} for name in ("walk", "counter")]
        cursor = {"id": "_id"}.get(cursor, cursor)
        return {"collection": table, "cursor": cursor, "lag": f"{LAG} seconds", "fields": fields}

    def about(self) -> str:
        return f"from a stamp to its document it took {self.slowest:.1f} s at most; lag is {LAG} s"

    async def walk(self, first: int) -> None:
        counters = dict.fromkeys(range(first, first + 40), 0)
        async with database_of(cast("MongoShop", self.shop).mongodb) as database:
            while not self.stopping:
                walk = random.choice(sorted(counters))
                counters[walk] += 1
                await self._write(database, walk, counters[walk])

    async def _write(self, database: Any, walk: int, counter: int) -> None:
        number, stamp = ObjectId(), datetime.now(UTC)
        await asyncio.sleep(random.uniform(0, 2) if random.random() < 0.12 else random.uniform(0, 0.03))
        if (datetime.now(UTC) - stamp).total_seconds() > 2.1:
            number, stamp = ObjectId(), datetime.now(UTC)
        version = {"counter": counter, "updated_at": stamp}
        await database.walks.update_one({"_id": walk}, {"$set": version}, upsert=True)
        await database.steps.insert_one({"_id": number, "walk": walk, "counter": counter, "at": stamp})
        self.slowest = max(self.slowest, (datetime.now(UTC) - stamp).total_seconds())
        self.committed[walk].add(counter)


# Of each stream the table, the cursor and in how many partitions it is read: always in as many, or a killed run's plan is not
# taken up.
STREAMS = {"walks": ("walks", "updated_at", 2), "steps": ("steps", "id", 3), "stamps": ("steps", "at", 1)}


async def streams(walkers: Walkers, endpoint: str | None = None) -> list[dict[str, Any]]:
    """The parameters of `extract`: rows that change, by their stamp; rows that are added, by their id and by a stamp."""
    shop = walkers.shop
    to = f"{shop.name}-faulty" if endpoint else shop.name
    saved = await shop.save()
    await save_block(shop.destination(endpoint), to)
    return [
        {
            "stream": f"{shop.name}-{name}",
            "source": {"connection": saved["source"]["connection"], **walkers.source(table, cursor)},
            "to": f"s3-destination/{to}",
            "mode": "incremental",
            "partitions": partitions,
        }
        for name, (table, cursor, partitions) in STREAMS.items()
    ]


async def extracted(walkers: Walkers) -> None:
    """A run of all streams at once."""
    found = [Stream.model_validate(each) for each in await streams(walkers)]
    await extract_all(streams=found, parallel=len(found))


async def killed(walkers: Walkers, s3: FaultProxy, prefect: FaultProxy) -> None:
    """A run of one of the streams that is killed somewhere, if it comes that far."""
    parameters = random.choice(await streams(walkers, s3.endpoint))
    step = random.choice([name for name in STEPS if name not in ("create", "part", "complete")])
    await kill_at(step, random.choice(["before", "after"]), 1, parameters, s3, prefect)
    s3.clear()
    prefect.clear()


async def rows(shop: Shop, stream: str) -> list[list[dict[str, str]]]:
    """The rows of each commit, in order."""
    return [await shop.committed_rows([commit]) for commit in await shop.commits(stream)]


async def sql_race(shop: Shop, language: Language, runs: int, s3: FaultProxy, prefect: FaultProxy) -> None:
    await shop.execute(*language.tables)
    await race(SQLWalkers(shop, language=language), runs, s3, prefect)


async def race(walkers: Walkers, runs: int, s3: FaultProxy, prefect: FaultProxy) -> None:
    """Runs among concurrent and long transactions, some killed: no skip, no duplicate, nothing that was rolled back."""
    shop = walkers.shop
    async with asyncio.TaskGroup() as group:
        for first in range(0, 400, 100):
            group.create_task(walkers.walk(first))
        try:
            for run in range(1, runs + 1):
                if run % KILLED_EVERY == 0:
                    await killed(walkers, s3, prefect)
                else:
                    await extracted(walkers)
        finally:
            walkers.stopping = True
    await asyncio.sleep(walkers.settled_after)
    # One after the other: nothing is held back by what another one does. The plan of a run that was killed ends where it
    # ended then.
    for _ in range(2):
        for parameters in await streams(walkers):
            await extract(**parameters)

    found = {name: await rows(shop, f"{shop.name}-{name}") for name in STREAMS}
    assert min(len(commits) for commits in found.values()) > runs / 2
    try:
        assert_versions_rise(found["walks"], walkers.committed)
        assert_each_once(found["steps"], walkers.committed)
        assert_each_once(found["stamps"], walkers.committed)
    except AssertionError as error:
        error.add_note(walkers.about())
        raise


async def test_postgres(shop: Shop, s3_faults: FaultProxy, prefect_faults: FaultProxy) -> None:
    """No row is passed over, and none comes twice."""
    await sql_race(shop, POSTGRES, RUNS, s3_faults, prefect_faults)


@pytest.fixture
def to_the_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows end where the oldest transaction began: these writers' transactions do not begin late."""
    monkeypatch.setattr(bounds, "LATE_SECONDS", 0)


@pytest.mark.usefixtures("to_the_second")
async def test_mysql(mysql_shop: MySQLShop, s3_faults: FaultProxy, prefect_faults: FaultProxy) -> None:
    """Nor on MySQL and MariaDB."""
    await sql_race(mysql_shop, MYSQL, RUNS, s3_faults, prefect_faults)


@pytest.mark.usefixtures("to_the_second")
async def test_mysql_through_the_public_api(
    mysql_shop: MySQLShop, s3_faults: FaultProxy, prefect_faults: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor where rows are read through aiomysql's public API."""
    monkeypatch.setattr(wire, "unusable", lambda _connection: "aiomysql 9 has no _reader")
    await sql_race(mysql_shop, MYSQL, SLOW_RUNS, s3_faults, prefect_faults)


async def test_mongodb(mongodb_shop: MongoShop, s3_faults: FaultProxy, prefect_faults: FaultProxy) -> None:
    """Nor on MongoDB, where `lag` is longer than it takes from a stamp to its document."""
    await race(MongoWalkers(mongodb_shop), RUNS, s3_faults, prefect_faults)


def assert_versions_rise(commits: list[list[dict[str, str]]], committed: dict[int, set[int]]) -> None:
    """Each row's versions come in order and once, are such as were committed, and end with the newest."""
    reached: dict[int, int] = {}
    for number, commit in enumerate(commits, 1):
        for row in commit:
            walk, counter = int(row["id"]), int(row["counter"])
            assert counter in committed[walk], f"commit {number}: {walk} never was {counter}"
            assert counter > reached.get(walk, 0), f"commit {number}: {walk} is {counter} after {reached[walk]}"
            reached[walk] = counter
    assert reached == {walk: max(counters) for walk, counters in committed.items()}


def assert_each_once(commits: list[list[dict[str, str]]], committed: dict[int, set[int]]) -> None:
    """Every row that was added is there, once, and no other."""
    found = sorted((int(row["walk"]), int(row["counter"])) for commit in commits for row in commit)
    assert found == sorted((walk, counter) for walk, counters in committed.items() for counter in counters)


def test_the_judges_see_what_is_wrong() -> None:
    """A version that is missing, comes twice, goes back or was never committed is not let pass."""
    committed = {1: {1, 2, 3}}
    good = [[{"id": "1", "walk": "1", "counter": str(n)}] for n in (1, 2, 3)]
    assert_versions_rise([good[0], good[2]], committed)
    assert_each_once(good, committed)
    for bad in (good[:2], [*good, good[2]], [good[2], good[1]], [*good, [{"id": "1", "walk": "1", "counter": "4"}]]):
        with pytest.raises(AssertionError):
            assert_versions_rise(bad, committed)
        with pytest.raises(AssertionError):
            assert_each_once(bad, committed)
