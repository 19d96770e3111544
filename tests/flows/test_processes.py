"""One run whose partitions are extracted by several processes of this machine."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from blocks.errors import ConfigurationError
from flows.extract import extract
from tests.flows.shops import MySQLShop, Shop
from tests.flows.test_pool import Gate, gate
from tests.servers.faults import FaultProxy
from tests.servers.postgres import children_of

__all__ = ["gate"]


async def spread(shop: Shop, faults: FaultProxy, **changes: Any) -> dict[str, Any]:
    """One run with three processes for four partitions."""
    parameters = await shop.save(shop.destination(faults.endpoint))
    outcome: dict[str, Any] = await extract(**{**parameters, "partitions": 4, "processes": 3, **changes})
    return outcome


def processes() -> list[int]:
    """Those of the run."""
    return [pid for pid in children_of(os.getpid()) if b"flows.child" in command_of(pid)]


def command_of(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


async def test_partitions_come_from_processes_under_one_snapshot(
    shop: Shop, s3_faults: FaultProxy, gate: Gate
) -> None:
    """Rows that change while the processes read are not seen by any; of four partitions each comes once."""
    before = await shop.ids()
    running = asyncio.create_task(spread(shop, s3_faults))
    await gate.reached(3, running)
    assert len(processes()) == 3
    await shop.execute("DELETE FROM things WHERE id % 2 = 0", "INSERT INTO things (payload) VALUES ('late')")
    gate.opened.set()
    assert (await running)["committed"]
    (commit,) = await shop.commits()
    assert len({entry.partition for entry in commit.entries}) == len(commit.entries) == 4
    assert await shop.committed_ids([commit]) == before
    assert await shop.leftovers() == []
    assert processes() == []


async def test_a_process_that_dies_is_replaced(shop: Shop, s3_faults: FaultProxy, gate: Gate) -> None:
    """Its partition is extracted again, by another, and comes once."""
    running = asyncio.create_task(spread(shop, s3_faults))
    await gate.reached(3, running)
    os.kill(processes()[0], signal.SIGKILL)
    gate.opened.set()
    assert (await running)["committed"]
    await shop.assert_sound("full")


async def test_a_cancel_ends_the_processes(shop: Shop, s3_faults: FaultProxy, gate: Gate) -> None:
    """Their uploads are aborted, and they are gone when the run is."""
    running = asyncio.create_task(spread(shop, s3_faults))
    await gate.reached(3, running)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert processes() == []
    assert await shop.commits() == []
    assert await shop.leftovers() == []


async def test_errors_of_a_process_are_those_of_the_run(shop: Shop) -> None:
    """What a person has to mend is told as if the run itself had met it."""
    parameters = await shop.save()
    parameters["source"] |= {"cursor": "id"}
    assert (await extract(**parameters, mode="incremental", processes=2))["committed"]
    await shop.add(10)
    await shop.execute("ALTER TABLE things ALTER COLUMN payload TYPE bytea USING payload::bytea")
    outcome = await extract(**parameters, mode="incremental", processes=2)
    assert outcome["rows"] == 10


async def test_where_processes_do_not_help_is_told(shop: Shop, mysql_shop: MySQLShop) -> None:
    """A full read of MySQL, whose snapshot no other process can join, and a pool at the same time."""
    with pytest.raises(ConfigurationError, match="field processes: partitions of this full read"):
        await extract(**await mysql_shop.save(), processes=2)
    with pytest.raises(ConfigurationError, match="field processes: with work_pool"):
        await extract(**await shop.save(), processes=2, work_pool="default")
