"""Many writers, many runs, and kills in between: every row is committed once, and the newest version of each is there.

Writers walk rows through known values, in transactions short and long, at once, now and then rolled back. What they
have committed is known, so every file can be held against it.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest

from flows.extract_all import Stream, extract_all
from tests.flows.conftest import Shop
from tests.flows.test_kills import STEPS, kill_at
from tests.servers.faults import FaultProxy

SOAK = bool(os.environ.get("HEADRACE_SOAK"))
RUNS = 300 if SOAK else 20
KILLED_EVERY = 4 if SOAK else 7

TABLES = """
    CREATE TABLE walks (id int PRIMARY KEY, counter int NOT NULL, updated_at timestamptz NOT NULL DEFAULT now());
    CREATE INDEX ON walks (updated_at);
    CREATE TABLE steps (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, walk int NOT NULL, counter int NOT NULL,
                        at timestamptz NOT NULL);
    CREATE INDEX ON steps (at);
"""
# Stamped with the start of the transaction, or with the moment of the statement: both are in use.
WALK = """
    INSERT INTO walks (id, counter, updated_at) VALUES ($1, $2, {stamp})
    ON CONFLICT (id) DO UPDATE SET counter = excluded.counter, updated_at = excluded.updated_at"""
STEP = "INSERT INTO steps (walk, counter, at) VALUES ($1, $2, {stamp})"


@dataclass
class Walkers:
    """Writers, each with rows of its own; what they have committed."""

    dsn: str
    stopping: bool = False
    committed: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))

    async def walk(self, first: int) -> None:
        """Write until told to stop."""
        connection = await asyncpg.connect(self.dsn)
        counters = dict.fromkeys(range(first, first + 40), 0)
        try:
            while not self.stopping:
                await self._transaction(connection, counters)
        finally:
            await connection.close()

    async def _transaction(self, connection: Any, counters: dict[int, int]) -> None:
        before = dict(counters)
        transaction = connection.transaction()
        await transaction.start()
        # One in eight transactions is long: it stays open over the ends of windows.
        pause = 0.3 if random.random() < 0.12 else 0.02
        for walk in random.sample(sorted(counters), random.randint(1, 5)):
            counters[walk] += 1
            stamp = random.choice(["now()", "clock_timestamp()"])
            await connection.execute(WALK.format(stamp=stamp), walk, counters[walk])
            await connection.execute(STEP.format(stamp=stamp), walk, counters[walk])
            await asyncio.sleep(random.uniform(0.5, 1.5) * pause)
        if random.random() < 0.15:
            await transaction.rollback()
            counters.update(before)
            return
        await transaction.commit()
        for walk, counter in counters.items():
            if counter != before[walk]:
                self.committed[walk].add(counter)


TABLES_AND_CURSORS = {"walks": ("walks", "updated_at"), "steps": ("steps", "id"), "stamps": ("steps", "at")}


def streams(shop: Shop, to: str) -> list[dict[str, Any]]:
    """The parameters of `extract`: rows that change, by their stamp; rows that are added, by their id and by a stamp."""
    return [
        {
            "stream": f"{shop.name}-{name}",
            "source": {"connection": f"postgres/{shop.name}", "table": f"public.{table}", "cursor": cursor},
            "to": to,
            "mode": "incremental",
            "partitions": random.randint(1, 3),
        }
        for name, (table, cursor) in TABLES_AND_CURSORS.items()
    ]


async def extracted(shop: Shop) -> None:
    """A run of all streams at once."""
    found = [Stream.model_validate(each) for each in streams(shop, f"s3-destination/{shop.name}")]
    await extract_all(streams=found, parallel=len(found))


async def killed(shop: Shop, s3: FaultProxy, prefect: FaultProxy) -> None:
    """A run of one of the streams that is killed somewhere, if it comes that far."""
    await shop.destination(s3.endpoint).asave(f"{shop.name}-faulty", overwrite=True)
    parameters = random.choice(streams(shop, f"s3-destination/{shop.name}-faulty"))
    step = random.choice([name for name in STEPS if name not in ("create", "part", "complete")])
    await kill_at(step, random.choice(["before", "after"]), 1, parameters, s3, prefect)
    s3.clear()
    prefect.clear()


async def rows(shop: Shop, stream: str) -> list[list[dict[str, str]]]:
    """The rows of each commit, in order."""
    return [await shop.committed_rows([commit]) for commit in await shop.commits(stream)]


async def test_no_row_is_passed_over_and_none_comes_twice(
    shop: Shop, s3_faults: FaultProxy, prefect_faults: FaultProxy
) -> None:
    """Runs among concurrent and long transactions, some killed: no skip, no duplicate, nothing that was rolled back."""
    await shop.execute(TABLES)
    await shop.save()
    walkers = Walkers(shop.server.dsn())
    async with asyncio.TaskGroup() as group:
        for first in range(0, 400, 100):
            group.create_task(walkers.walk(first))
        try:
            for run in range(1, RUNS + 1):
                if run % KILLED_EVERY == 0:
                    await killed(shop, s3_faults, prefect_faults)
                else:
                    await extracted(shop)
        finally:
            walkers.stopping = True
    await asyncio.sleep(1.1)  # a window ends on a whole second
    await extracted(shop)

    found = {name: await rows(shop, f"{shop.name}-{name}") for name in TABLES_AND_CURSORS}
    assert min(len(commits) for commits in found.values()) > RUNS / 2
    assert_versions_rise(found["walks"], walkers.committed)
    assert_each_once(found["steps"], walkers.committed)
    assert_each_once(found["stamps"], walkers.committed)


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
