"""One run whose partitions are flow runs on a work pool, with two workers in folders of their own."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.objects import FlowRun

from blocks.errors import ConfigurationError
from flows.extract import extract
from tests.flows.shops import MySQLShop, Shop
from tests.flows.test_deployments import ENVIRONMENT, client, prefect
from tests.servers.faults import Call, FaultProxy, Request
from tests.servers.postgres import children_of

__all__ = ["client"]

ROOT = Path(__file__).parent.parent.parent
_LOST = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}


@dataclass
class Workers:
    """A work pool and two workers of it."""

    pool: str
    processes: list[asyncio.subprocess.Process]

    def runs(self, worker: int) -> list[int]:
        """The flow runs of a worker, as processes."""
        return children_of(self.processes[worker].pid)

    def kill(self, worker: int) -> None:
        """The worker and what it runs, as when its machine is switched off."""
        kill_tree(self.processes[worker].pid)


@pytest.fixture
async def workers(prefect_api: str, tmp_path: Path) -> AsyncIterator[Workers]:
    """Two workers, each in a copy of the project in a folder of its own."""
    assert prefect_api
    name = f"pool-{secrets.token_hex(4)}"
    await prefect("work-pool", "create", name, "--type", "process")
    deployed = _deployment(tmp_path, name)
    await prefect("--no-prompt", "deploy", "--all", "--prefect-file", str(deployed))
    async with AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(_worker(name, tmp_path / f"worker-{n}")) for n in (1, 2)]
        yield Workers(name, processes)


def _deployment(folder: Path, pool: str) -> Path:
    file = folder / "prefect.yaml"
    file.write_text(
        "name: headrace\n"
        "pull: [{prefect.deployments.steps.set_working_directory: {directory: '{{ $HEADRACE_HOME }}'}}]\n"
        "deployments:\n"
        f"  - {{name: {pool}, entrypoint: 'flows/partition.py:extract_partition', work_pool: {{name: {pool}}}}}\n"
    )
    return file


@asynccontextmanager
async def _worker(pool: str, folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    for part in ("flows", "tasks", "blocks"):
        shutil.copytree(ROOT / part, folder / part)
    environment = os.environ | ENVIRONMENT | _LOST | {"HEADRACE_HOME": str(folder), "TMPDIR": str(folder)}
    with (folder / "log").open("w") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--name", folder.name,
            cwd=folder, env=environment, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            kill_tree(process.pid)
            await process.wait()


@dataclass
class Gate:
    """Holds back every part that is uploaded until it is opened."""

    waiting: int = 0
    opened: asyncio.Event = None  # type: ignore[assignment]  # made inside the event loop, below

    async def stand(self, _request: Request) -> None:
        self.waiting += 1
        await self.opened.wait()

    async def reached(self, count: int, running: asyncio.Task[Any]) -> None:
        """Return when so many parts wait; where the run ends before, so does this, with its error."""
        async with asyncio.timeout(120):
            while self.waiting < count:
                assert not running.done(), await running
                await asyncio.sleep(0.1)


@pytest.fixture
async def gate(s3_faults: FaultProxy) -> Gate:
    made = Gate(opened=asyncio.Event())
    s3_faults.before(Call(made.stand), method="PUT", path="/data/", times=None)
    return made


def kill_tree(pid: int) -> None:
    """Kill a process and all that it has started, themselves first, so that they start no more."""
    try:
        os.kill(pid, signal.SIGSTOP)
        for child in children_of(pid):
            kill_tree(child)
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


async def spread(shop: Shop, workers: Workers, faults: FaultProxy, **changes: Any) -> dict[str, Any]:
    """One run whose partitions are flow runs of the pool."""
    parameters = await shop.save(shop.destination(faults.endpoint))
    outcome: dict[str, Any] = await extract(**parameters, partitions=4, work_pool=workers.pool, **changes)
    return outcome


async def children(client: PrefectClient) -> list[FlowRun]:
    """The runs of partitions, newest last."""
    found = await client.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=["extract-partition"])))
    return sorted(found, key=lambda run: str(run.created))


async def test_partitions_run_on_a_pool_under_one_snapshot(
    shop: Shop, workers: Workers, client: PrefectClient, s3_faults: FaultProxy, gate: Gate
) -> None:
    """Rows that change while partitions wait are not seen by any: all read the snapshot of the run that planned."""
    before = await shop.ids()
    running = asyncio.create_task(spread(shop, workers, s3_faults))
    await gate.reached(1, running)
    await shop.execute("DELETE FROM things WHERE id % 2 = 0", "INSERT INTO things (payload) VALUES ('late')")
    gate.opened.set()
    outcome = await running
    assert outcome["committed"]
    (commit,) = await shop.commits()
    assert [len(entry.partition) for entry in commit.entries] == [5] * 4
    assert commit.snapshot is not None
    assert await shop.committed_ids([commit]) == before
    assert await shop.leftovers() == []


async def test_a_run_that_dies_is_done_again_elsewhere(
    shop: Shop, workers: Workers, client: PrefectClient, s3_faults: FaultProxy, gate: Gate
) -> None:
    """The process of one partition is killed in the middle of an upload: the partition comes once all the same."""
    running = asyncio.create_task(spread(shop, workers, s3_faults))
    await gate.reached(4, running)
    os.kill((workers.runs(0) or workers.runs(1))[0], signal.SIGKILL)
    await asyncio.sleep(1)
    gate.opened.set()
    assert (await running)["committed"]
    states = [run.state.type.value for run in await children(client) if run.state]
    assert sorted(states[-5:]) == ["COMPLETED"] * 4 + ["CRASHED"]
    await shop.assert_sound("full")


async def test_a_lost_worker_is_replaced_by_the_other(
    shop: Shop, workers: Workers, client: PrefectClient, s3_faults: FaultProxy, gate: Gate
) -> None:
    """A worker dies with its partitions: the server notices by their heartbeats, and the other worker does them."""
    await prefect("automation", "create", "--from-file", str(ROOT / "automations.yaml"))
    try:
        running = asyncio.create_task(spread(shop, workers, s3_faults))
        await gate.reached(4, running)
        lost = 0 if workers.runs(0) else 1
        assert workers.runs(1 - lost) or len(workers.runs(lost)) == 4
        await asyncio.sleep(2)  # the first heartbeats are on their way
        workers.kill(lost)
        gate.opened.set()
        async with asyncio.timeout(240):
            assert (await running)["committed"]
    finally:
        await prefect("--no-prompt", "automation", "delete", "headrace: lost runs")
    await shop.assert_sound("full")


async def test_a_cancel_reaches_the_partitions(
    shop: Shop, workers: Workers, client: PrefectClient, s3_faults: FaultProxy, gate: Gate
) -> None:
    """A run that is cancelled cancels the runs of its partitions, which abort their uploads."""
    running = asyncio.create_task(spread(shop, workers, s3_faults))
    await gate.reached(4, running)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    async with asyncio.timeout(60):
        while any(run.state is None or not run.state.is_final() for run in (await children(client))[-4:]):
            await asyncio.sleep(0.5)
    assert {run.state.type.value for run in (await children(client))[-4:] if run.state} == {"CANCELLED"}
    assert await shop.commits() == []
    assert await shop.leftovers() == []
    gate.opened.set()


async def test_what_cannot_be_spread_is_told(shop: Shop, mysql_shop: MySQLShop) -> None:
    """A pool without a deployment, and a full read of MySQL, whose snapshot no other process can join."""
    with pytest.raises(ConfigurationError, match="field work_pool: there is no deployment extract-partition/nowhere"):
        await extract(**await shop.save(), work_pool="nowhere")
    with pytest.raises(ConfigurationError, match="field work_pool: partitions of this full read"):
        await extract(**await mysql_shop.save(), work_pool="nowhere")
