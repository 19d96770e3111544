"""SIGKILL at every step of a run: the next one brings the committed files in line with the table, and a sweep cleans up."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from typing import Any

import pytest

from tasks.extractors.contract import Plan
from tests.flows.shops import Shop
from tests.servers.faults import Call, FaultProxy, Request, Reset

SOAK = bool(os.environ.get("HEADRACE_SOAK"))

# Where a run is killed: which requests, through which of the two proxies they go, and how many partitions it has. The
# table fills a little more than one part: in one partition it is a multipart upload, in three it is three single puts.
STEPS: dict[str, tuple[str, dict[str, Any], int]] = {
    "create": ("s3", {"method": "POST", "path": "/data/", "query": "uploads"}, 1),
    "part": ("s3", {"method": "PUT", "path": "/data/", "query": "partNumber"}, 1),
    "complete": ("s3", {"method": "POST", "path": "/data/", "query": "uploadId"}, 1),
    "put": ("s3", {"method": "PUT", "path": "/data/"}, 3),
    "result": ("s3", {"method": "PUT", "path": "/_results/"}, 3),
    "commit": ("s3", {"method": "PUT", "path": "/_commits/"}, 3),
    "plan save": ("prefect", {"method": "POST", "path": "/block_documents/"}, 3),
    "block save": ("prefect", {"method": "PATCH", "path": "/block_documents/"}, 3),
}
SHORT = [("incremental", "part", "after"), ("incremental", "result", "after"), ("incremental", "commit", "before"),
         ("incremental", "commit", "after"), ("full", "complete", "after")]  # fmt: skip
ALL = [
    (mode, step, when)
    for mode in ("full", "incremental")
    for step in STEPS
    for when in ("before", "after")
    if (mode, step) != ("full", "result")  # a full read keeps no results: its snapshot dies with it
]
CASES = ALL * 3 if SOAK else SHORT


async def kill_at(
    step: str, when: str, nth: int, parameters: dict[str, Any], s3: FaultProxy, prefect: FaultProxy
) -> int:
    """Start a run in a process of its own and kill it at that step, if it comes that far; its exit code."""
    where, match, _ = STEPS[step]
    return await kill_on(s3 if where == "s3" else prefect, match, when, nth, parameters, prefect)


async def kill_on(
    proxy: FaultProxy, match: dict[str, Any], when: str, nth: int, parameters: dict[str, Any], prefect: FaultProxy
) -> int:
    """`kill_at` the nth request of that kind."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.flows.one_run", json.dumps(parameters),
        env=os.environ | {"PREFECT_API_URL": f"{prefect.endpoint}/api"},
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip

    def kill(_request: Request) -> None:
        process.send_signal(signal.SIGKILL)

    # Before: the server does not get the request. After: it has carried it out, and nobody hears of it.
    (proxy.before if when == "before" else proxy.after)(Call(kill, then=Reset()), **match, nth=nth)
    try:
        async with asyncio.timeout(600 if SOAK else 90):
            return await process.wait()
    finally:
        if process.returncode is None:
            process.kill()


async def killed_run(shop: Shop, mode: str, step: str, when: str, nth: int, s3: FaultProxy, prefect: FaultProxy) -> int:
    """`kill_at` for the shop's own stream."""
    parameters = await shop.save(shop.destination(s3.endpoint))
    parameters["source"] |= {"cursor": "id"} if mode == "incremental" else {}
    parameters |= {"mode": mode, "partitions": STEPS[step][2], "parallel": 1}
    return await kill_at(step, when, nth, parameters, s3, prefect)


@pytest.mark.parametrize(("mode", "step", "when"), CASES)
async def test_a_killed_run_is_made_up_for(
    shop: Shop, s3_faults: FaultProxy, prefect_faults: FaultProxy, mode: str, step: str, when: str
) -> None:
    """After SIGKILL at that step the next run heals: no row is lost, none is committed twice, nothing is left."""
    # Two parts, three puts and results: in a soak any of them.
    several = {"part": 2, "put": 3, "result": 3}
    nth = random.randint(1, several.get(step, 1)) if SOAK else 1
    code = await killed_run(shop, mode, step, when, nth, s3_faults, prefect_faults)
    assert code == -signal.SIGKILL
    await shop.add(11)
    for _ in range(2):
        await shop.run(mode, partitions=STEPS[step][2], parallel=1)
    await shop.assert_sound(mode)


async def test_finished_partitions_are_not_read_again(
    shop: Shop, s3_faults: FaultProxy, prefect_faults: FaultProxy
) -> None:
    """The plan of a killed run is taken up: what it finished is committed as it is, only the rest is read."""
    await killed_run(shop, "incremental", "commit", "before", 1, s3_faults, prefect_faults)
    before = {request.path for request in s3_faults.requests(method="PUT", path="/data/")}
    await shop.run("incremental", partitions=3)
    (commit,) = await shop.commits()
    assert commit.resumed
    assert all(any(entry.key in path for path in before) for entry in commit.entries)
    await shop.assert_sound("incremental")


async def test_finished_partitions_of_another_compression_are_read_again(
    shop: Shop, s3_faults: FaultProxy, prefect_faults: FaultProxy
) -> None:
    """A commit has one compression: what a killed run finished in that of then is left out."""
    await killed_run(shop, "incremental", "result", "after", 1, s3_faults, prefect_faults)
    shop.options["compression"] = "gzip"
    await shop.run("incremental", partitions=3, parallel=1)
    (commit,) = await shop.commits()
    assert commit.resumed
    assert (commit.compression, {entry.key[-7:] for entry in commit.entries}) == ("gzip", {".csv.gz"})
    await shop.assert_sound("incremental")


async def test_a_plan_that_cannot_be_read_any_more_is_dropped(
    shop: Shop, s3_faults: FaultProxy, prefect_faults: FaultProxy
) -> None:
    """Columns changed after the run died: the rest of its plan would not fit, so the next run plans afresh."""
    await killed_run(shop, "incremental", "result", "after", 1, s3_faults, prefect_faults)
    await shop.execute("ALTER TABLE things ALTER COLUMN payload TYPE varchar(9999)")
    assert (await shop.run("incremental", partitions=3, parallel=1))["committed"]
    (commit,) = await shop.commits()
    assert not commit.resumed
    await shop.assert_sound("incremental")


def test_a_plan_survives_as_json() -> None:
    """What is kept in the watermark block is the plan itself."""
    plan = Plan(id="a", mode="incremental", since={"cursor": "id", "value": "1"}, resumable=True)
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
