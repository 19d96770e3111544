"""`follow`: commit after commit, until a signal or a cancel ends it; and how far it is behind, which it tells."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import PrefectClient, get_client
from prefect.events import ReceivedEvent
from prefect.events.filters import EventFilter, EventNameFilter, EventResourceFilter
from prefect.states import Cancelling

from flows.follow import _Alarm, follow
from flows.sweep import sweep
from tasks.extractors.contract import Behind
from tests.flows.changes import ChangesShop, assert_replays
from tests.flows.test_cancels import interrupted
from tests.flows.test_deployments import ROOT, ended, prefect, started, working
from tests.servers.faults import Call, FaultProxy, Request

ADD = "INSERT INTO orders (id, counter, note) VALUES ({0}, 1, 'x')"
SECONDS_TO_END = 15

pytestmark = pytest.mark.timeout(600)  # processes that start, one after the other


async def followed(shop: ChangesShop, **to: Any) -> dict[str, Any]:
    """The parameters of `follow`."""
    parameters = await shop.save(shop.destination(**to))
    parameters["source"]["tables"] = ["orders", "items"]
    return parameters | {"every": 0.2}


async def more_than_a_part(shop: ChangesShop) -> None:
    """One transaction of more bytes than the smallest part of an upload has."""
    values = ", ".join(f"({id_}, 1, REPEAT('0123456789', 6000))" for id_ in range(1000, 1100))
    await shop.execute(f"INSERT INTO orders (id, counter, note) VALUES {values}")


async def test_following(changes_shop: ChangesShop, s3_faults: FaultProxy) -> None:
    """`follow` commits again and again, none larger than it may be, and stops when it is time."""
    await changes_shop.execute(*(ADD.format(number) for number in range(1, 6)))
    await changes_shop.capture()
    await changes_shop.execute(*(ADD.format(number) for number in range(6, 31)))
    through_proxy = await followed(changes_shop, endpoint=s3_faults.endpoint)
    told: Any = await follow(**through_proxy, commit_rows=10, stop_after=12)
    assert (told["commits"], told["rows"], told["sequence"]) == (3, 25, 4)
    # Whether the store has conditional writes is asked once, not by each run.
    assert len(s3_faults.requests(method="PUT", path="/_probe/")) == 2
    assert [commit.rows for commit in await changes_shop.commits()] == [5, 10, 10, 5]
    await assert_replays(changes_shop)


async def test_commits_are_as_far_apart_as_asked(changes_shop: ChangesShop) -> None:
    """A table that is always written to gives a commit every so many seconds, not as many as there can be."""
    await changes_shop.capture()
    following: Any = follow(**(await followed(changes_shop) | {"every": 4, "stop_after": 10}))
    task = asyncio.create_task(following)
    number = 0
    while not task.done():
        number += 1
        await changes_shop.execute(ADD.format(number))
        await asyncio.sleep(0.05)
    assert 2 <= (await task)["commits"] <= 3
    await changes_shop.capture()
    await assert_replays(changes_shop)


# -- how far behind --------------------------------------------------------------------------------------------------


async def test_a_commit_knows_how_far_it_is_behind(changes_shop: ChangesShop) -> None:
    """Nothing at the end of the log; where a limit ended the run, what is left, and the age of what was read last."""
    await changes_shop.capture()
    await changes_shop.execute(*(ADD.format(number) for number in range(1, 21)), "FLUSH BINARY LOGS", ADD.format(21))
    await asyncio.sleep(2.2)  # MariaDB's log knows seconds
    told: Any = await follow(**await followed(changes_shop), commit_rows=10, stop_after=10)
    assert told["behind"] == {"seconds": 0, "bytes": 0, "rows": None}
    _, first, second, last = [commit.behind for commit in await changes_shop.commits()]
    assert first is not None
    assert second is not None
    assert first.seconds is not None
    assert first.seconds > 1
    # Rows of this size take at least this, and a file of the log begins with some hundred bytes.
    assert first.bytes is not None
    assert second.bytes is not None
    assert 11 * 100 < second.bytes + 10 * 100 < first.bytes < 20_000
    assert last == Behind(seconds=0, bytes=0)


async def test_a_stream_that_falls_behind_emits_an_event(changes_shop: ChangesShop) -> None:
    """One for each time that it does, whatever the number of its runs."""
    await changes_shop.capture()
    await changes_shop.execute(*(ADD.format(number) for number in range(1, 31)))
    await asyncio.sleep(2.2)
    following: Any = follow(**await followed(changes_shop), commit_rows=10, stop_after=60, behind_seconds=1)
    task = asyncio.create_task(following)
    while len(await changes_shop.commits()) < 4 and not task.done():
        await asyncio.sleep(0.2)
    task.cancel()
    await asyncio.wait([task])
    assert len(await changes_shop.commits()) == 4
    (event,) = await events(changes_shop, "headrace.stream.behind")
    assert event.payload["stream"] == changes_shop.name
    assert (event.payload["sequence"], event.payload["behind_seconds"]) == (2, 1)
    assert event.payload["seconds"] > 1
    assert event.payload["bytes"] > 0
    assert event.payload["commit"].endswith("/_commits/00000000000000000002.json")


def test_an_alarm_rises_once_and_again() -> None:
    """Only on the way up; what is not known is neither up nor down."""
    alarm, never = _Alarm(10), _Alarm(0)
    seconds = [0, 11, 99, None, 12, 10, 3, 11, None, 11]
    behind = [Behind(seconds=each).model_dump() for each in seconds]
    assert [alarm.rises(each) for each in behind] == [each in (1, 7) for each in range(10)]
    assert not alarm.rises(None)
    assert not any(never.rises(each) for each in behind)


async def events(shop: ChangesShop, name: str) -> list[ReceivedEvent]:
    """Those of the stream that have arrived at the server, which takes a moment."""
    wanted = EventFilter(
        event=EventNameFilter(name=[name]), resource=EventResourceFilter(id=[f"headrace.stream.{shop.name}"])
    )
    async with get_client() as client, asyncio.timeout(30):
        while not (await client.read_events(filter=wanted, limit=50)).events:
            await asyncio.sleep(0.5)
        await asyncio.sleep(1)  # for one too many
        return (await client.read_events(filter=wanted, limit=50)).events


# -- how it stops ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_in_an_upload_leaves_nothing(
    changes_shop: ChangesShop, s3_faults: FaultProxy, number: signal.Signals
) -> None:
    """In the middle of a part `follow` ends within seconds, aborts its upload and commits nothing; the next goes on."""
    await changes_shop.capture()
    await more_than_a_part(changes_shop)
    parameters = await followed(changes_shop, endpoint=s3_faults.endpoint)
    command = [sys.executable, "-m", "tests.flows.one_run", json.dumps({**parameters, "flow": "follow"})]
    code, said = await interrupted(command, number, s3_faults)
    assert code != 0, said
    assert await changes_shop.leftovers() == []
    assert len(await changes_shop.commits()) == 1
    await changes_shop.execute("UPDATE orders SET counter = 2, note = NULL")
    await changes_shop.capture()
    # What the plan of the run that was stopped did not reach.
    await changes_shop.capture()
    await assert_replays(changes_shop)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_at_any_moment(changes_shop: ChangesShop, number: signal.Signals) -> None:
    """Under constant writing, in whatever it does: it ends within seconds, and the next one goes on without a gap."""
    await changes_shop.execute(ADD.format(0))
    await changes_shop.capture()
    parameters = {**await followed(changes_shop), "flow": "follow"}
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(_write(changes_shop, over))
        try:
            for commits in (3, 5):
                await _signalled(changes_shop, parameters, number, after=commits)
        finally:
            over.set()
    for _ in range(2):
        await changes_shop.capture()
    # A small object whose put was on its way may have arrived.
    await sweep(to=changes_shop.destination(), streams=[changes_shop.name], older_than="0 seconds", dry_run=False)
    assert await changes_shop.leftovers() == []
    await assert_replays(changes_shop)


async def _write(shop: ChangesShop, over: asyncio.Event) -> None:
    id_ = 0
    while not over.is_set():
        id_ += 1
        await shop.execute(ADD.format(id_), f"UPDATE orders SET counter = counter + 1 WHERE id > {id_ - 3}")
        await asyncio.sleep(0.05)


async def _signalled(shop: ChangesShop, parameters: dict[str, Any], number: signal.Signals, *, after: int) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.flows.one_run", json.dumps(parameters),
        env=os.environ, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    async with asyncio.timeout(200):
        while len(await shop.commits()) < after:
            assert process.returncode is None
            await asyncio.sleep(0.3)
    sent = time.monotonic()
    process.send_signal(number)
    async with asyncio.timeout(60):
        code = await process.wait()
    assert code != 0
    assert time.monotonic() - sent < SECONDS_TO_END


@pytest.mark.parametrize("mysql_database", ["mysql"], indirect=True)
async def test_a_cancel_by_the_api(changes_shop: ChangesShop, s3_faults: FaultProxy, tmp_path: Path) -> None:
    """A deployed `follow` that is cancelled ends as Cancelled, its upload aborted; run again, it goes on."""
    parameters = await followed(changes_shop, endpoint=s3_faults.endpoint)
    name, pool = changes_shop.name, f"pool-{secrets.token_hex(4)}"
    file = tmp_path / "prefect.yaml"
    file.write_text(yaml.safe_dump(_project(name, pool, parameters)))
    under_way = asyncio.Event()

    async def stall(_request: Request) -> None:
        under_way.set()
        await asyncio.sleep(60)

    async with get_client() as client, working(pool, tmp_path):
        await prefect("--no-prompt", "deploy", "--all", "--prefect-file", str(file))
        run = await started(client, f"follow/{name}")
        await _until_commits(changes_shop, 1)
        s3_faults.before(Call(stall), method="PUT", path="/data/", query="partNumber", times=None)
        await more_than_a_part(changes_shop)
        async with asyncio.timeout(60):
            await under_way.wait()
        await _cancel(client, run.id)
        assert await changes_shop.leftovers() == []
        assert len(await changes_shop.commits()) == 1
        s3_faults.clear()

        again = await started(client, f"follow/{name}")
        await _until_commits(changes_shop, 2)
        await _cancel(client, again.id)
    assert await changes_shop.leftovers() == []
    await changes_shop.capture()
    await assert_replays(changes_shop)


def _project(name: str, pool: str, parameters: dict[str, Any]) -> dict[str, Any]:
    step = {"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}
    entry = {
        "name": name,
        "entrypoint": "flows/follow.py:follow",
        "parameters": parameters,
        "work_pool": {"name": pool},
    }
    return {"pull": [step], "deployments": [entry]}


async def _until_commits(shop: ChangesShop, count: int) -> None:
    async with asyncio.timeout(200):
        while len(await shop.commits()) < count:
            await asyncio.sleep(0.3)


async def _cancel(client: PrefectClient, run: Any) -> None:
    asked = time.monotonic()
    await client.set_flow_run_state(run, Cancelling(), force=True)
    cancelled = await ended(client, await client.read_flow_run(run))
    assert cancelled.state is not None
    assert cancelled.state.is_cancelled(), cancelled.state
    assert time.monotonic() - asked < 2 * SECONDS_TO_END  # a worker looks for cancels every few seconds
