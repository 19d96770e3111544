"""The project's own prefect.yaml on a real Prefect server: deployed, run by a worker, cancelled, run again."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import duckdb
import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter, FlowRunFilterName
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelling

from blocks.duck import DuckDB
from blocks.s3 import S3Destination
from blocks.watermark import Watermark
from flows import demo_shop
from flows.deployments import read
from tasks.commits import Commit, CommitLog
from tests.flows.shops import Shop
from tests.servers.faults import Call, FaultProxy, Request

ROOT = Path(__file__).parent.parent.parent
DEPLOYMENTS = sorted(read(ROOT / "prefect.yaml"))
# As a worker of one's own would have it, but quicker to look for work.
ENVIRONMENT = {"HEADRACE_HOME": str(ROOT), "PREFECT_WORKER_QUERY_SECONDS": "1", "PREFECT_LOGGING_LEVEL": "WARNING"}


async def prefect(*words: str) -> str:
    """Run Prefect's own command in the project's folder, as a person would; what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "prefect", *words, cwd=ROOT, env=os.environ | ENVIRONMENT,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(240):
        said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    return said.decode()


@pytest.fixture
async def client(prefect_api: str) -> AsyncIterator[PrefectClient]:
    assert prefect_api
    async with get_client() as made:
        yield made


@pytest.fixture
async def lake(shop: Shop, tmp_path: Path) -> AsyncIterator[S3Destination]:
    """The shop that prefect.yaml names, and its lake; orders are a little more than one part."""
    await forget_watermarks()
    connection = await asyncpg.connect(shop.server.dsn())
    try:
        async for _ in demo_shop.fill(connection, demo_shop.Size(customers=200, orders=90_000)):
            pass
    finally:
        await connection.close()
    await shop.block().asave("shop", overwrite=True)
    lake = shop.destination()
    await lake.asave("lake", overwrite=True)
    await DuckDB(path=str(tmp_path / "warehouse.duckdb")).asave("warehouse", overwrite=True)
    yield lake
    await forget_watermarks()


async def forget_watermarks() -> None:
    """The streams have the names of the file, which other tests use as well."""
    await Watermark.aregister_type_and_schema()  # a kind of block that is not there has no list
    async with get_client() as client:
        for document in await client.read_block_documents_by_type("watermark"):
            if document.name in ("customers", "orders", "order-items"):
                await client.delete_block_document(document.id)


async def forget_deployments() -> None:
    """A run that an earlier test left behind holds its deployment's one place, until its lease ends minutes later."""
    async with get_client() as client:
        for run in await client.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=["load"]))):
            await client.delete_flow_run(run.id)
        for deployment in await client.read_deployments():
            await client.delete_deployment(deployment.id)


@pytest.fixture
async def worker(lake: S3Destination, tmp_path: Path) -> AsyncIterator[None]:
    """A worker of the pool that the file names; nothing is deployed yet."""
    assert lake
    await forget_deployments()
    async with working("default", tmp_path):
        yield


async def deploy(*names: str) -> None:
    """These of the file alone, which takes less time than all."""
    await prefect("--no-prompt", "deploy", *(f"--name={name}" for name in names))


@asynccontextmanager
async def working(pool: str, tmp_path: Path) -> AsyncIterator[None]:
    """A worker of that pool."""
    await prefect("work-pool", "create", pool, "--type", "process", "--overwrite")
    # Prefect's folder for running flows lies in the temporary one under a fixed name: that of another user, maybe.
    environment = os.environ | ENVIRONMENT | {"TMPDIR": str(tmp_path)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--name", secrets.token_hex(4),
        cwd="/", env=environment, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
    finally:
        process.terminate()
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            # On SIGTERM a worker sends SIGINT to itself, which is ignored where the tests run in the background of a shell.
            process.kill()
            await process.wait()


async def started(client: PrefectClient, *words: str) -> FlowRun:
    """The run that ``prefect deployment run`` creates."""
    name = f"run-{secrets.token_hex(4)}"
    await prefect("deployment", "run", *words, "--flow-run-name", name)
    (run,) = await client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[name])))
    return run


async def created(client: PrefectClient, name: str) -> FlowRun:
    """The run that the button in the UI creates: as above, without the time that a command takes to start."""
    deployment = await client.read_deployment_by_name(name)
    return await client.create_flow_run_from_deployment(deployment.id)


async def ended(client: PrefectClient, run: FlowRun) -> FlowRun:
    ends = time.monotonic() + 90
    while True:
        now = await client.read_flow_run(run.id)
        if now.state is not None and now.state.is_final():
            return now
        assert time.monotonic() < ends, f"{now.name} is still {now.state}"
        await asyncio.sleep(0.5)


async def commits(lake: S3Destination, stream: str) -> list[Commit]:
    async with lake.client() as s3:
        log = CommitLog(s3, lake, stream)
        return [found for number in await log.after(0) if (found := await log.read(number)) is not None]


async def uploads(lake: S3Destination) -> list[Any]:
    async with lake.client() as s3:
        return list((await s3.list_multipart_uploads(Bucket=lake.bucket)).get("Uploads", []))


@pytest.mark.timeout(600)
async def test_deployed_streams_are_run_by_a_worker(client: PrefectClient, lake: S3Destination, worker: None) -> None:
    """Deploying again duplicates nothing and switches no schedule on; parameters can be given for one run."""
    for _ in range(2):
        await prefect("--no-prompt", "deploy", "--all")
    deployments = await client.read_deployments()
    assert sorted(found.name for found in deployments) == DEPLOYMENTS
    assert not any(schedule.active for found in deployments for schedule in found.schedules)

    run = await ended(client, await started(client, "extract-all/all"))
    assert run.state is not None
    assert run.state.is_completed(), run.state.message
    assert {stream: [c.rows > 0 for c in await commits(lake, stream)] for stream in ("customers", "orders")} == {
        "customers": [True],
        "orders": [True],
    }
    again = await ended(client, await started(client, "extract/orders", "-p", "mode=full", "-p", "partitions=2"))
    assert again.state is not None
    assert again.state.is_completed(), again.state.message
    last = (await commits(lake, "orders"))[-1]
    assert (last.mode, last.rows, len(last.entries)) == ("full", 90_000, 2)


async def test_a_cancel_by_the_api_leaves_nothing(
    client: PrefectClient, lake: S3Destination, worker: None, s3_faults: FaultProxy
) -> None:
    """A run cancelled in the middle of a part ends as Cancelled, its upload aborted; the next run brings all."""
    await deploy("orders")
    await lake.model_copy(update={"endpoint": s3_faults.endpoint}).asave("lake", overwrite=True)
    under_way = asyncio.Event()

    async def stall(_request: Request) -> None:
        under_way.set()
        await asyncio.sleep(60)

    s3_faults.before(Call(stall), method="PUT", path="/data/", query="partNumber")
    run = await created(client, "extract/orders")
    async with asyncio.timeout(60):
        await under_way.wait()
    assert await uploads(lake)
    await client.set_flow_run_state(run.id, Cancelling(), force=True)
    cancelled = await ended(client, run)
    assert cancelled.state is not None
    assert cancelled.state.is_cancelled(), cancelled.state
    assert await uploads(lake) == []
    assert await commits(lake, "orders") == []

    again = await ended(client, await created(client, "extract/orders"))
    assert again.state is not None
    assert again.state.is_completed(), again.state.message
    assert [commit.rows for commit in await commits(lake, "orders")] == [90_000]


async def test_a_commit_starts_its_load(
    client: PrefectClient, lake: S3Destination, worker: None, tmp_path: Path
) -> None:
    """The trigger of the file starts the flow `load` with the commit's stream and number; a second commit the next one."""
    await deploy("customers", "load")
    warehouse = tmp_path / "warehouse.duckdb"
    for number in (1, 2):
        run = await ended(client, await created(client, "extract/customers"))
        assert run.state is not None
        assert run.state.is_completed(), run.state.message
        load = await triggered(client, number)
        done = await ended(client, load)
        assert (load.parameters["stream"], load.parameters["sequence"]) == ("customers", number)
        assert done.state is not None
        assert done.state.is_completed(), done.state.message
    with duckdb.connect(warehouse) as connection:
        assert connection.execute("SELECT count(*) FROM customers").fetchall() == [(200,)]
        assert connection.execute("SELECT stream, max(sequence) FROM headrace_loads GROUP BY 1").fetchall() == [
            ("customers", 2)
        ]


async def triggered(client: PrefectClient, number: int) -> FlowRun:
    """The run of `load` that the commit of that number started."""
    async with asyncio.timeout(90):
        while True:
            runs = await client.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=["load"])))
            for run in runs:
                if (run.parameters.get("stream"), run.parameters.get("sequence")) == ("customers", number):
                    return run
            await asyncio.sleep(0.5)
