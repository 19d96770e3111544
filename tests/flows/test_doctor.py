"""`headrace doctor` on a real server: what stands still, what is missing, what will be lost."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule

from blocks.watermark import Watermark
from tasks import check_binlog, doctor_prefect
from tests.flows.changes import ChangesShop
from tests.flows.shops import Shop
from tests.flows.test_cli import headrace
from tests.tasks.extractors.test_mysql import block_of


@pytest.fixture
async def file(shop: Shop, tmp_path: Path) -> Path:
    """A deployment of the shop's stream, on a pool of its own."""
    parameters = await shop.save()
    parameters["source"]["cursor"] = "id"
    entry = {
        "name": shop.name, "entrypoint": "flows/extract.py:extract", "parameters": {**parameters, "mode": "incremental"},
        "work_pool": {"name": shop.name},
    }  # fmt: skip
    made = tmp_path / "prefect.yaml"
    made.write_text(yaml.safe_dump({"deployments": [entry]}))
    return made


async def told(file: Path, code: int) -> str:
    result = await headrace("doctor", "--file", str(file))
    assert result.exit_code == code, result.output
    return result.output


async def test_a_pool_that_is_missing_and_a_block_that_is_gone(shop: Shop, file: Path) -> None:
    """Errors, each with its way out; the other looks go on."""
    said = await told(file, 1)
    assert f"✗ pool {shop.name}: is not there" in said
    assert "prefect work-pool create" in said
    assert f"! deployment {shop.name}: is not on the server" in said
    assert f"✓ block postgres/{shop.name}: is there" in said
    assert "✓ watermark: there is no block yet; the first run makes it" in said
    from blocks.postgres import Postgres

    await Postgres.adelete(shop.name)
    said = await told(file, 1)
    assert f"✗ block postgres/{shop.name}: is not there" in said


async def test_workers(shop: Shop, file: Path, tmp_path: Path) -> None:
    """A pool without a worker is an error; with one, all is well."""
    async with get_client() as client:
        await client.create_work_pool(WorkPoolCreate(name=shop.name, type="process"))
    assert f"✗ pool {shop.name}: no worker is online" in await told(file, 1)
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "prefect", "worker", "start", "--pool", shop.name, "--name", secrets.token_hex(4),
        cwd="/", env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(60):
            while "1 worker(s) online" not in (await headrace("doctor", "--file", str(file))).output:
                await asyncio.sleep(1)
        await told(file, 0)
    finally:
        worker.send_signal(signal.SIGKILL)
        await worker.wait()


async def test_a_stream_that_is_late(shop: Shop, file: Path) -> None:
    """A deployment with an active schedule that completed nothing for two of its pauses."""
    from flows.extract import extract

    async with get_client() as client:
        await client.create_work_pool(WorkPoolCreate(name=shop.name, type="process"))
        flow_id = await client.create_flow_from_name("extract")
        await client.create_deployment(
            flow_id, shop.name, work_pool_name=shop.name, entrypoint="flows/extract.py:extract",
            parameter_openapi_schema=extract.parameters.model_dump(),
        )  # fmt: skip
        deployment = await client.read_deployment_by_name(f"extract/{shop.name}")
        assert (await deployed(shop)).startswith("✓")
        every = DeploymentScheduleCreate(schedule=IntervalSchedule(interval=timedelta(seconds=1)), active=True)
        await client.create_deployment_schedules(deployment.id, [every])
    await asyncio.sleep(3)
    said = await deployed(shop)
    assert said.startswith(f"✗ deployment {shop.name}: never completed, and is due every 0:00:01 (late by")


async def deployed(shop: Shop) -> str:
    async with get_client() as client:
        return "\n".join([str(finding) async for finding in doctor_prefect.due(client, [shop.name])])


async def test_pauses_of_schedules() -> None:
    """The longest pause of a week counts: what runs on weekdays may rest over the weekend."""
    assert await doctor_prefect._pause(CronSchedule(cron="0 3 * * *")) == timedelta(days=1)
    assert await doctor_prefect._pause(CronSchedule(cron="0 3 * * 1-5")) == timedelta(days=3)


async def test_leftovers_and_old_plans(shop: Shop, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a dead run left, and the plan that nobody ended, are told; neither is an error."""
    from tasks import doctor_stream

    await shop.run("incremental")
    async with shop.destination().client() as client:
        key = shop.destination().key(shop.name, "data", f"{1:020d}", "00001-dead.csv")
        await client.put_object(Bucket=shop.bucket, Key=key, Body=b"x" * 1000)
        await client.create_multipart_upload(Bucket=shop.bucket, Key=key)
    mark = await Watermark.of(shop.name)
    assert mark is not None
    mark.pending = {"id": "x"}
    await mark.put()
    said = await stream_findings(shop)
    assert "✓ plan: pending since" in said
    assert "✓ bucket: dead runs have left nothing older than a day" in said
    monkeypatch.setattr(doctor_stream, "_OLD_PLAN", timedelta(0))
    monkeypatch.setattr(doctor_stream, "_OLD_LEFTOVERS", timedelta(seconds=-60))
    said = await stream_findings(shop)
    assert "! plan: pending since" in said
    assert "! bucket: dead runs have left 1 unfinished upload(s) and 1 object(s)" in said
    assert "headrace sweep" in said


async def stream_findings(shop: Shop) -> str:
    from tasks import doctor_stream
    from tasks.extractors.postgres.source import PostgresTable

    source = PostgresTable(connection=shop.block(), table="things")
    return "\n".join([str(f) async for f in doctor_stream.look(shop.name, source, shop.destination())])


async def test_the_log_of_a_change_stream(changes_shop: ChangesShop) -> None:
    """The position is there; it ages behind a log that goes on; at last the file is purged."""
    await changes_shop.mysql.execute("INSERT INTO orders (id, counter) VALUES (1, 1)")
    await changes_shop.capture()
    commit = (await changes_shop.commits())[-1]
    block, now = block_of(changes_shop.mysql), datetime.now(UTC)

    async def found(age: timedelta) -> Any:
        return await check_binlog.retention(block, commit.until, now - age)

    long = timedelta(days=3650)
    assert (await found(long)).level == "ok", "the file that is written to is never purged"
    await changes_shop.mysql.execute("FLUSH BINARY LOGS", "INSERT INTO orders (id, counter) VALUES (2, 1)")
    fresh, old = await found(timedelta()), await found(long)
    assert (fresh.level, "is there" in fresh.text) == ("ok", True)
    kept = await changes_shop.mysql.fetch("SELECT @@global.binlog_expire_logs_seconds")
    assert old.level == ("error" if int(kept[0][0]) else "ok")
    rows = await changes_shop.mysql.fetch("SHOW BINARY LOGS")
    async with asyncio.timeout(60):  # MariaDB keeps a file for as long as it sees somebody read it
        while (await changes_shop.mysql.fetch("SHOW BINARY LOGS"))[0][0] != rows[-1][0]:
            await changes_shop.mysql.execute(f"PURGE BINARY LOGS TO '{rows[-1][0]}'")
    lost = await found(timedelta())
    assert (lost.level, "not in the log any more" in lost.text) == ("error", True)
    assert "headrace state set" in lost.way_out


async def test_a_server_that_does_not_answer(file: Path) -> None:
    """One error, and no more: nothing else could be seen."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "flows.cli", "doctor", "--file", str(file), cwd=Path(__file__).parent.parent.parent,
        env=os.environ | {"PREFECT_API_URL": "http://127.0.0.1:9/api"},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert (process.returncode, b"does not answer" in said) == (1, True), said.decode()
