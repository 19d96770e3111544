"""Partitions of one run as flow runs on a work pool: the same plan, the same snapshot, one commit.

Prefect's workers do the work. A run that crashed (its worker is gone, say) is started again under a new key; one that
failed has had its retries, and fails the whole.
"""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import arun_deployment
from prefect.exceptions import ObjectNotFound
from prefect.flow_runs import wait_for_flow_run
from prefect.states import Cancelling

from blocks.errors import ConfigurationError, SnapshotLost
from tasks import records
from tasks.extractors.contract import Partition
from tasks.extractors.source import Source
from tasks.records import Record
from tasks.run import Run, Work

_FLOW = "extract-partition"
_ATTEMPTS = 5
"""How often a partition is started before a run gives up: each time a worker or a machine was lost on the way."""
_CANCEL_SECONDS = 10.0


class Pool:
    """Where the partitions of one run are extracted."""

    def __init__(self, name: str, source: Source, run: Run, work: Work) -> None:
        self._name, self._run, self._work = name, run, work
        if not work.plan.is_shared:
            raise ConfigurationError(
                f"field work_pool: partitions of this {work.plan.mode} read see one state of the source only in the "
                "process that planned it; leave the field empty, or use mode incremental"
            )
        self._parameters = {
            "stream": run.stream,
            "source": _portable(source),
            "to": _name_of(run.destination, "to"),
            "options": run.options.model_dump(mode="json"),
            "sequence": work.sequence,
        }

    async def extract(self, partition: Partition) -> Record:
        """Have one partition extracted; what there is of it then."""
        one = self._work.plan.only(partition).model_dump(mode="json")
        for attempt in range(1, _ATTEMPTS + 1):
            ended = await self._watched(await self._started(partition, {**self._parameters, "plan": one}, attempt))
            if ended.state is not None and ended.state.is_completed():
                return await self._record(partition)
            if ended.state is None or not ended.state.is_crashed():
                _fail(partition, ended)
            get_run_logger().warning("partition %s: its run crashed; starting it again", partition.name)
        raise RuntimeError(f"partition {partition.name}: its run crashed {_ATTEMPTS} times on the pool {self._name}")

    async def _started(self, partition: Partition, parameters: dict[str, Any], attempt: int) -> FlowRun:
        try:
            return await arun_deployment(
                f"{_FLOW}/{self._name}",
                parameters=parameters,
                flow_run_name=f"{self._run.stream} · {self._work.sequence} · {partition.name}",
                timeout=0,
                idempotency_key=f"{self._run.id} {partition.name} {attempt}",
            )
        except ObjectNotFound as error:
            raise ConfigurationError(
                f"field work_pool: there is no deployment {_FLOW}/{self._name}, by which partitions are run on that pool; "
                f"deploy flows/partition.py:extract_partition to it under the name {self._name}"
            ) from error

    async def _watched(self, started: FlowRun) -> FlowRun:
        try:
            return await wait_for_flow_run(started.id, timeout=None, poll_interval=1, log_states=False)
        except asyncio.CancelledError:
            # By itself it would run on. As a task of its own: a second cancel must not stop the first.
            cancelling = asyncio.create_task(_cancel(started))
            while not cancelling.done():
                try:
                    await asyncio.shield(cancelling)
                except asyncio.CancelledError:
                    continue
            raise

    async def _record(self, partition: Partition) -> Record:
        record = await records.find(self._run, self._work.plan, partition)
        if record is None:
            raise SnapshotLost(f"the record of partition {partition.name} is not in the bucket; did a sweep remove it?")
        return record


def _fail(partition: Partition, ended: FlowRun) -> NoReturn:
    state = ended.state
    name, message = (state.name or "", state.message or "") if state else ("", "")
    told = f"partition {partition.name}, run {ended.name!r}: {message}"
    if name == "Misconfigured":
        raise ConfigurationError(told)
    if name == "Snapshot lost":
        raise SnapshotLost(told)
    raise RuntimeError(f"{told} ({name.lower() or 'no state'})")


async def _cancel(started: FlowRun) -> None:
    async with asyncio.timeout(_CANCEL_SECONDS), get_client() as client:
        await client.set_flow_run_state(started.id, Cancelling())


def _portable(source: Source) -> dict[str, Any]:
    """The source as another process is told of it: its connection by name, without a secret."""
    told = source.model_dump(mode="json", exclude={"connection"}, exclude_defaults=True)
    return {"connection": _name_of(getattr(source, "connection", None), "source.connection"), **told}


def _name_of(block: Any, field: str) -> str:
    name = getattr(block, "_block_document_name", None)
    if name is None:
        raise ConfigurationError(
            f"field {field}: with work_pool it has to be a saved block, which workers find by its name"
        )
    return f"{block.get_block_type_slug()}/{name}"
