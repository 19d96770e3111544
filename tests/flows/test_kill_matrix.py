"""A deployment run by a worker, and what is killed at each step of it; then what a person does, and the files are right.

`HEADRACE_SOAK=1` takes all 20 cells; without it each thing is killed once or more, and each step is met once.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions, FlowRun
from prefect.states import Crashed

from flows.extract import extract
from tests.flows.shops import Shop
from tests.flows.test_deployments import ENVIRONMENT, ROOT, client
from tests.flows.test_kills import SOAK
from tests.flows.test_pool import kill_tree
from tests.servers.faults import Call, FaultProxy, Request, Reset, TcpProxy
from tests.servers.postgres import children_of
from tests.servers.prefect import PrefectServer
from tests.servers.rules import Action

__all__ = ["client"]

THINGS = ("worker", "run", "server", "database")
# The request before which the thing is killed, and by which of the two proxies it goes.
STEPS: dict[str, tuple[str, dict[str, Any]]] = {
    "plan": ("prefect", {"method": "POST", "path": "/block_documents/$"}),
    "part": ("s3", {"method": "PUT", "path": "/data/", "query": "partNumber", "nth": 2}),
    "complete": ("s3", {"method": "POST", "path": "/data/", "query": "uploadId"}),
    "commit": ("s3", {"method": "PUT", "path": "/_commits/"}),
    "block save": ("prefect", {"method": "PATCH", "path": "/block_documents/"}),
}
SHORT = [
    ("worker", "part", "incremental"),
    ("run", "complete", "full"),
    ("run", "plan", "incremental"),
    ("server", "block save", "full"),
    ("database", "commit", "incremental"),
]
# The modes alternate like the fields of a chessboard.
ALL = [
    (thing, step, ("full", "incremental")[(row + column) % 2])
    for row, thing in enumerate(THINGS)
    for column, step in enumerate(STEPS)
]


@dataclass
class Station:
    """A deployment of the shop's stream, and the worker of its pool."""

    client: PrefectClient
    folder: Path
    api: str
    deployment: UUID
    pool: str = field(default_factory=lambda: f"kill-{secrets.token_hex(4)}")
    worker: asyncio.subprocess.Process | None = None

    async def start_worker(self) -> None:
        environment = os.environ | ENVIRONMENT | {"TMPDIR": str(self.folder), "PREFECT_API_URL": self.api}
        with (self.folder / "worker.log").open("a") as log:
            self.worker = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "prefect", "worker", "start", "--pool", self.pool, "--name", secrets.token_hex(4),
                cwd="/", env=environment, stdout=log, stderr=log,
            )  # fmt: skip

    @property
    def running(self) -> list[int]:
        """The processes of flow runs."""
        return [] if self.worker is None else children_of(self.worker.pid)

    async def stop(self) -> None:
        if self.worker is not None and self.worker.returncode is None:
            kill_tree(self.worker.pid)
            await self.worker.wait()

    async def run(self, parameters: dict[str, Any]) -> FlowRun:
        """What *Run* in the UI does."""
        return await self.client.create_flow_run_from_deployment(self.deployment, parameters=parameters)

    async def ended(self, run: FlowRun, seconds: float = 240) -> FlowRun:
        async with asyncio.timeout(seconds):
            while True:
                now = await self.client.read_flow_run(run.id)
                if now.state is not None and now.state.is_final():
                    return now
                await asyncio.sleep(0.3)

    async def tidied(self, run: FlowRun) -> FlowRun:
        """The run when it has ended; where its process is gone and nobody has told, a person marks it as crashed.

        The automation for lost runs does the same after 75 seconds: tests/flows/test_pool.py.
        """
        try:
            while self.running:
                await asyncio.sleep(0.3)
            return await self.ended(run, 5)
        except TimeoutError:
            await self.client.set_flow_run_state(run.id, Crashed(message="its process is gone"), force=True)
            return await self.client.read_flow_run(run.id)


@pytest.fixture
async def station(client: PrefectClient, prefect_faults: FaultProxy, tmp_path: Path) -> AsyncIterator[Station]:
    """A worker, deployed as prefect.yaml deploys a stream, that reaches the server by the proxy."""
    flow = await client.create_flow(extract)
    name = f"kill-{secrets.token_hex(4)}"
    await client.create_work_pool(WorkPoolCreate(name=name, type="process"))
    deployment = await client.create_deployment(
        flow, name, entrypoint="flows/extract.py:extract", work_pool_name=name,
        pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}],
        concurrency_limit=1,
        concurrency_options=ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
    )  # fmt: skip
    made = Station(client, tmp_path, f"{prefect_faults.endpoint}/api", deployment, name)
    await made.start_worker()
    yield made
    await made.stop()
    await client.delete_deployment(deployment)
    await client.delete_work_pool(name)


@dataclass
class Killer:
    """Kills one of the things, at once, from a thread of a proxy."""

    station: Station
    server: PrefectServer
    api: FaultProxy
    wire: TcpProxy
    done: threading.Event = field(default_factory=threading.Event)

    def action(self, thing: str) -> Action:
        """What a rule does: a request of what was killed does not arrive, all others do."""
        kill = {"worker": self._worker, "run": self._run, "server": self._server, "database": self.wire.cut}[thing]

        def act(_request: Request) -> None:
            kill()
            self.done.set()

        return Call(act, then=Reset() if thing in ("worker", "run") else None)

    def _worker(self) -> None:
        """With all that it runs, as when its machine is switched off."""
        assert self.station.worker is not None
        kill_tree(self.station.worker.pid)

    def _run(self) -> None:
        (process,) = self.station.running
        os.kill(process, signal.SIGKILL)

    def _server(self) -> None:
        self.api.do(self.api.refuse())
        self.server.kill()

    async def mend(self, thing: str) -> None:
        """What a person does who sees that the thing is gone."""
        if thing == "server":
            await asyncio.sleep(1)
            await asyncio.to_thread(self.server.start)
            self.api.do(self.api.listen())
        assert self.station.worker is not None
        if thing == "worker":
            await self.station.worker.wait()
        if self.station.worker.returncode is not None:
            await self.station.start_worker()


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("thing", "step", "mode"), ALL if SOAK else SHORT)
async def test_nothing_is_lost_and_nothing_comes_twice(
    shop: Shop, station: Station, s3_faults: FaultProxy, prefect_faults: FaultProxy, postgres_wire: TcpProxy,
    prefect_server: PrefectServer, thing: str, step: str, mode: str,
) -> None:  # fmt: skip
    """After the thing was killed at that step a person starts it again and runs the stream again: the table, once."""
    killer = Killer(station, prefect_server, prefect_faults, postgres_wire)
    parameters = await shop.save(shop.destination(s3_faults.endpoint), shop.block(port=postgres_wire.port))
    parameters["source"] |= {"cursor": "id"} if mode == "incremental" else {}
    parameters |= {"mode": mode, "partitions": 1}
    where, match = STEPS[step]
    (s3_faults if where == "s3" else prefect_faults).before(killer.action(thing), **match)

    run = await station.run(parameters)
    assert await asyncio.to_thread(killer.done.wait, 240), f"the run never came to the step {step}"
    await killer.mend(thing)
    await station.tidied(run)
    await shop.add(11)
    if SOAK or thing in ("worker", "server"):
        again = await station.ended(await station.run(parameters))
        assert again.state is not None
        assert again.state.is_completed(), again.state
    else:  # a process less: there is a worker, and there is a place for a run, as nothing of that was killed
        await extract(**parameters)
    # A run that takes up the plan of the killed one reads no further than that; the next one does.
    await shop.run(mode)
    await shop.assert_sound(mode)
