"""One run whose partitions are extracted by several processes of this machine."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from blocks.errors import ConfigurationError
from flows.extract import extract
from tests.flows.changes import ChangesShop, assert_replays
from tests.flows.shops import MySQLShop, Shop
from tests.flows.test_pool import Gate, gate
from tests.servers.faults import FaultProxy, Reset, TcpProxy, s3_error
from tests.servers.postgres import children_of

__all__ = ["gate"]


async def spread(shop: Shop, faults: FaultProxy, **changes: Any) -> dict[str, Any]:
    """One run with three processes for four partitions."""
    parameters = await shop.save(shop.destination(faults.endpoint))
    outcome: dict[str, Any] = await extract(**{**parameters, "partitions": 4, "processes": 3, **changes})
    return outcome


def processes(run: int = 0) -> list[int]:
    """Those of the run."""
    return [pid for pid in children_of(run or os.getpid()) if b"flows.child" in command_of(pid)]


def command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


async def test_partitions_come_from_processes_under_one_snapshot(shop: Shop, s3_faults: FaultProxy, gate: Gate) -> None:
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


async def test_errors_of_a_process_are_those_of_the_run(shop: Shop, s3_faults: FaultProxy) -> None:
    """What a person has to mend is told as if the run itself had met it; what may pass is tried again."""
    s3_faults.before(s3_error(403, "AccessDenied"), method="PUT", path="/data/", times=None)
    with pytest.raises(
        ConfigurationError, match=f"stream {shop.name}: access to s3://.* is denied; .* need s3:PutObject"
    ):
        await spread(shop, s3_faults)
    s3_faults.clear()
    s3_faults.before(Reset(), method="PUT", path="/data/", times=2)
    assert (await spread(shop, s3_faults))["committed"]
    await shop.assert_sound("full")


async def test_a_connection_of_a_process_that_is_cut_heals(shop: Shop, postgres_wire: TcpProxy) -> None:
    """The process goes on, and reads the partition again."""
    block = shop.block(port=postgres_wire.port, tls="disable")
    await shop.run("incremental", block=block, partitions=1)
    await shop.add(3000)
    postgres_wire.cut_after(2_000_000)
    assert (await shop.run("incremental", block=block, partitions=3, processes=2))["rows"] == 3000
    await shop.assert_sound("incremental")


async def test_the_processes_of_a_run_that_is_killed_are_gone(shop: Shop, s3_faults: FaultProxy, gate: Gate) -> None:
    """They see its end and stop; the next run takes up the plan, and what it has no record of comes again."""
    parameters = await shop.save(shop.destination(s3_faults.endpoint))
    parameters["source"] |= {"cursor": "id"}
    parameters |= {"mode": "incremental", "partitions": 4, "processes": 3}
    run = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.flows.one_run", json.dumps(parameters), stdout=asyncio.subprocess.DEVNULL
    )
    await gate.reached(3, asyncio.create_task(run.wait()))
    started = processes(run.pid)
    assert len(started) == 3
    run.kill()
    async with asyncio.timeout(20):
        while any(map(command_of, started)):
            await asyncio.sleep(0.1)
    gate.opened.set()
    assert (await extract(**parameters))["committed"]
    await shop.assert_sound("incremental")


async def test_files_of_a_log_come_from_processes(changes_shop: ChangesShop) -> None:
    """The run itself reads the snapshot, which no other process can; what the log has then comes file by file."""
    execute = changes_shop.mysql.execute
    await execute("INSERT INTO orders (id, counter) VALUES (1, 1), (2, 1), (3, 1)")
    assert (await changes_shop.capture(processes=2))["rows"] == 3
    for number in range(4):
        await execute(
            f"INSERT INTO orders (id, counter) VALUES ({number + 10}, 1)",
            "UPDATE orders SET counter = counter + 1",
            f"INSERT INTO items VALUES (1, {number}, 1)",
            "FLUSH BINARY LOGS",
        )
    await changes_shop.capture(processes=2, partitions=99)
    commit = (await changes_shop.commits())[-1]
    assert len({entry.partition for entry in commit.entries}) == 4
    await assert_replays(changes_shop)
    assert (await changes_shop.capture(processes=2))["rows"] == 0


async def test_where_processes_do_not_help_is_told(shop: Shop, mysql_shop: MySQLShop) -> None:
    """A full read of MySQL, whose snapshot no other process can join, and a pool at the same time."""
    with pytest.raises(ConfigurationError, match="field processes: partitions of this full read"):
        await extract(**await mysql_shop.save(), processes=2)
    with pytest.raises(ConfigurationError, match="field processes: with work_pool"):
        await extract(**await shop.save(), processes=2, work_pool="default")
