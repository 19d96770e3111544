"""What `headrace doctor` sees of Prefect: the server, the work pools and their workers, and runs that should have been."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from prefect import __version__
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId, FlowRunFilter
from prefect.client.schemas.objects import WorkerStatus
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.server.schemas import schedules
from prefect.settings import PREFECT_API_URL

from tasks.findings import Finding, Findings

_DATES = 8
"""How many of a schedule's next dates are looked at: the longest pause among them is what it may rest."""

_SCHEDULES: tuple[type[Any], ...] = (schedules.CronSchedule, schedules.IntervalSchedule, schedules.RRuleSchedule)


async def server(client: PrefectClient) -> Finding:
    """Whether a server answers, and of which version it is; an error means that nothing else can be looked at."""
    url = PREFECT_API_URL.value()
    if failure := await client.api_healthcheck():
        return Finding(
            "error", f"Prefect: {url or 'the temporary server'} does not answer: {failure}",
            "start it (`prefect server start`), or set PREFECT_API_URL to where it is",
        )  # fmt: skip
    version = await client.api_version()
    text = f"Prefect: server {version} at {url}" if url else f"Prefect: a temporary server {version}, for this command"
    if not url:
        return Finding("warning", text, "set PREFECT_API_URL where runs are scheduled, or their workers cannot be seen")
    if version.split(".")[:2] != __version__.split(".")[:2]:
        return Finding("warning", f"{text}, and Prefect {__version__} here", "install the same version on both")
    return Finding("ok", text)


async def pools(client: PrefectClient, names: Iterable[str]) -> Findings:
    """Whether each pool is there, is not paused, and has a worker."""
    for name in names:
        try:
            pool = await client.read_work_pool(name)
        except ObjectNotFound:
            yield Finding(
                "error", f"pool {name}: is not there", f"`prefect work-pool create {name} --type process`, then deploy"
            )
            continue
        if pool.is_paused:
            yield Finding("warning", f"pool {name}: is paused", f"`prefect work-pool resume {name}`")
            continue
        workers = await client.read_workers_for_work_pool(name)
        online = [worker.name for worker in workers if worker.status == WorkerStatus.ONLINE]
        if online or pool.is_push_pool or pool.is_managed_pool:
            yield Finding("ok", f"pool {name}: {len(online)} worker(s) online")
        else:
            yield Finding(
                "error", f"pool {name}: no worker is online, so nothing that is due starts",
                f"`prefect worker start --pool {name}`",
            )  # fmt: skip


async def due(client: PrefectClient, names: Iterable[str]) -> Findings:
    """Whether each deployment is on the server, and has completed a run within two of its schedule's pauses."""
    deployed = {found.name: found for found in await client.read_deployments()}
    for name in names:
        if name not in deployed:
            yield Finding("warning", f"deployment {name}: is not on the server", "`prefect deploy --all`")
        else:
            yield await _due(client, deployed[name])


async def _due(client: PrefectClient, deployment: DeploymentResponse) -> Finding:
    text = f"deployment {deployment.name}"
    rests = [await _pause(each.schedule) for each in deployment.schedules if each.active]
    last = await _last_completed(client, deployment)
    told = f"last completed {last:%Y-%m-%d %H:%M:%S} UTC" if last else "never completed"
    if deployment.paused or not rests:
        return Finding("ok", f"{text}: no schedule is active; {told}")
    since = last or deployment.created or datetime.now(UTC)
    if (late := datetime.now(UTC) - since) > 2 * min(rests):
        return Finding(
            "error", f"{text}: {told}, and is due every {min(rests)} (late by {_rounded(late - min(rests))})",
            "look at its last runs on the server; a run that is Running for ever holds the place of others: cancel it",
        )  # fmt: skip
    return Finding("ok", f"{text}: {told}")


def _rounded(span: timedelta) -> timedelta:
    return timedelta(seconds=round(span.total_seconds()))


async def _pause(schedule: Any) -> timedelta:
    """The longest time between two dates of a schedule."""
    fields = schedule.model_dump()
    kind = next(each for each in _SCHEDULES if set(fields) <= set(each.model_fields))
    dates = await kind.model_validate(fields).get_dates(_DATES, start=datetime.now(UTC))
    pauses = [(after - before).total_seconds() for before, after in pairwise(dates)]
    return timedelta(seconds=max(pauses)) if pauses else timedelta.max / 4  # it has no further date


async def _last_completed(client: PrefectClient, deployment: DeploymentResponse) -> datetime | None:
    completed = FlowRunFilter.model_validate({"state": {"type": {"any_": ["COMPLETED"]}}})
    runs = await client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])),
        flow_run_filter=completed, sort=FlowRunSort.END_TIME_DESC, limit=1,
    )  # fmt: skip
    return runs[0].end_time.astimezone(UTC) if runs and runs[0].end_time else None
