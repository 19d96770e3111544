"""What a run shows on Prefect's pages and tells its automations."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from prefect.artifacts import Artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterType, FlowRunFilter, FlowRunFilterName
from prefect.events.filters import EventFilter, EventNameFilter, EventResourceFilter
from prefect.settings import PREFECT_API_URL, temporary_settings

from blocks.s3 import S3Destination
from flows.extract_all import Stream, extract_all
from tests.flows.shops import Shop
from tests.servers.faults import FaultProxy
from tests.servers.rules import Action, Delay, Respond


async def names(shop: Shop) -> set[str]:
    async with get_client() as client:
        # Those of all tests are more than one page.
        chosen = FlowRunFilter(name=FlowRunFilterName(like_=shop.name))
        return {run.name for run in await client.read_flow_runs(flow_run_filter=chosen)}


async def test_runs_are_named_by_their_commit(shop: Shop) -> None:
    """The number is added when the plan is known; a run that had nothing to do has none, a name of one's own stays."""
    await shop.run("full")
    await shop.run("incremental")
    await shop.run("incremental")
    assert await names(shop) == {f"{shop.name} · {rest}" for rest in ("full · 1", "incremental · 2", "incremental")}
    from flows.extract import extract

    await extract.with_options(flow_run_name=f"{shop.name} by hand")(**await shop.save(), mode="full")
    assert f"{shop.name} by hand" in await names(shop)


async def test_the_commit_tells_how_it_went(shop: Shop) -> None:
    """Since when and until when, rows, time, throughput, memory, and where the files are."""
    await shop.run("incremental")
    found = await Artifact.aget(f"commit-{shop.name}")
    assert found is not None
    assert found.description is not None
    assert "since the beginning until `id 3000`" in found.description
    await shop.run("full")
    found = await Artifact.aget(f"commit-{shop.name}")
    assert found is not None
    assert found.description is not None
    assert "3,000 rows in 1 file(s)" in found.description
    assert " MB/s, " in found.description
    assert "MB of memory at most" in found.description
    assert f"[bucket]({shop.s3.endpoint}/{shop.bucket}/raw/{shop.name}/)" in found.description
    assert (
        S3Destination(bucket="b", prefix="p").page("p/s") == "https://console.aws.amazon.com/s3/buckets/b?prefix=p/s/"
    )


async def test_a_partition_tells_how_far_it_is(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its progress artifact ends at 100 with what was read; a run of a few seconds has none."""
    await shop.run("full", partitions=2)
    assert await progress_of(shop) == []
    monkeypatch.setattr("tasks.extract._ARTIFACT_SECONDS", 0)
    await shop.run("full", partitions=2)
    told = await progress_of(shop)
    assert [percent for _, percent in told] == [100.0, 100.0]
    assert [re.sub(r"[\d.,]+ (?=MB|rows)", "# ", description) for description, _ in told] == [
        f"{shop.name}, partition 0000{number}: # MB of CSV, # rows: done" for number in (1, 2)
    ]


@pytest.mark.parametrize("answer", [Respond(500), Delay(3)], ids=["refused", "late"])
async def test_progress_that_the_server_does_not_take_fails_nothing(
    shop: Shop,
    prefect_faults: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    answer: Action,
) -> None:
    """The partition is extracted; its log says once that its progress is not shown, and why."""
    monkeypatch.setattr("tasks.extract._ARTIFACT_SECONDS", 0)
    monkeypatch.setattr("tasks.extract._ANSWER_SECONDS", 1)
    rule = prefect_faults.before(answer, method="POST", path="/artifacts/$")
    with temporary_settings({PREFECT_API_URL: f"{prefect_faults.endpoint}/api"}):
        await shop.run("full")
    assert rule.fired
    assert len(await shop.commits()) == 1
    assert caplog.text.count("its progress is not shown") == 1


async def progress_of(shop: Shop) -> list[tuple[str, float]]:
    """Description and percentage of the progress artifacts of the stream's runs."""
    async with get_client() as client:
        found = await client.read_artifacts(artifact_filter=ArtifactFilter(type=ArtifactFilterType(any_=["progress"])))
    told = [(str(one.description), float(str(one.data))) for one in found]
    return sorted(each for each in told if each[0].startswith(f"{shop.name},"))


async def test_a_failure_is_an_event(shop: Shop) -> None:
    """Automations hear of a run that failed: which stream, and why."""
    with pytest.raises(Exception, match="nowhere"):
        await shop.run("full", source={"table": "public.nowhere"})
    event = await heard("headrace.stream.failed", shop.name)
    assert event["stream"] == shop.name
    assert (event["mode"], event["state"], event["flow"]) == ("full", "Failed", "extract")
    assert "nowhere" in event["reason"]


async def heard(name: str, stream: str) -> dict[str, Any]:
    """The payload of the event, once the server has it."""
    wanted = EventFilter(
        event=EventNameFilter(name=[name]), resource=EventResourceFilter(id=[f"headrace.stream.{stream}"])
    )
    async with asyncio.timeout(30), get_client() as client:
        while True:
            answer = await client._client.post("/events/filter", json={"filter": wanted.model_dump(mode="json")})
            answer.raise_for_status()
            if events := answer.json()["events"]:
                return dict(events[0]["payload"])
            await asyncio.sleep(0.5)


async def test_extract_all_sums_up(shop: Shop) -> None:
    """A line for each stream: what it committed, or why it failed."""
    parameters = await shop.save()
    good = Stream.model_validate(parameters)
    bad = Stream.model_validate(
        {**parameters, "stream": f"{shop.name}-no", "source": {**parameters["source"], "table": "nix"}}
    )
    await extract_all(streams=[good, bad], return_state=True)
    found = await Artifact.aget("extract-all")
    assert found is not None
    assert f"| {shop.name} | 1 | 3,000 |" in str(found.data)
    assert f"| {shop.name}-no | – | – | – | – | failed: " in str(found.data)
