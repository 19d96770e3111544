"""The task `extract`: one partition, tried again where that may help, and told of."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact

from tasks import progress, records
from tasks.extractors.contract import Partition
from tasks.failures import RETRIES, RETRY_SECONDS, explained_by, may_pass
from tasks.objects import Make, made
from tasks.records import Record
from tasks.run import Run, Work

_ARTIFACT_SECONDS = 5.0
"""A partition that takes longer gets a progress artifact, brought up to date this often."""
_ANSWER_SECONDS, _UNHEARD_SECONDS = 5.0, 60.0
"""How long the server has for it, while the partition waits; how often it is tried after the server did not take it."""


@task(name="extract", task_run_name="extract {run.stream} {partition.name}", persist_result=False, retries=RETRIES,
      retry_delay_seconds=RETRY_SECONDS, retry_condition_fn=may_pass)  # fmt: skip
async def extract(run: Run, work: Work, partition: Partition, make: Make = made) -> Record:
    """Read one partition into its objects; what there is of it then.

    A partition that the run whose plan this is had finished is taken as it is.
    """
    with explained_by(run.destination, run.stream):
        if work.resumed and (record := await records.find(run, work.plan, partition)) is not None:
            get_run_logger().info("finished by the run before")
            return record
        meter = _Meter(run, work, partition)
        record = await make(run, work, partition, meter.add)
        await meter.done(sum(entry.rows for entry in record.entries))
        if work.keeps_records:
            await records.keep(run, work.plan, partition, record)
        _tell(run, record)
        return record


def _tell(run: Run, record: Record) -> None:
    for entry in record.entries:
        for what, often in entry.counted.items():
            get_run_logger().warning("%s: %s: %d", entry.table or run.stream, what, often)


class _Meter:
    """Tells how far a partition has come: the watcher at once, Prefect every few seconds."""

    def __init__(self, run: Run, work: Work, partition: Partition) -> None:
        self._stream, self._partition = run.stream, partition
        self._expected = (work.plan.estimated_bytes or 0) / max(1, len(work.plan.partitions))
        self._watcher = progress.watcher.get()
        self._artifact: Any = None
        self._every = _ARTIFACT_SECONDS
        self._due = time.monotonic() + self._every
        self.size = 0
        self._watcher.advanced(self._stream, partition, 0)

    async def add(self, size: int) -> None:
        self.size += size
        self._watcher.advanced(self._stream, self._partition, self.size)
        if time.monotonic() >= self._due:
            await self._publish(min(99.0, 100 * self.size / self._expected) if self._expected else 0.0)
            self._due = time.monotonic() + self._every

    async def done(self, rows: int) -> None:
        self._watcher.done(self._stream, self._partition, rows, self.size)
        if self._artifact is not None:
            await self._publish(100.0, f", {rows:,} rows: done")

    async def _publish(self, percent: float, told: str = " so far") -> None:
        description = f"{self._stream}, partition {self._partition.name}: {self.size / 1e6:,.1f} MB of CSV{told}"
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                if self._artifact is None:
                    self._artifact = await acreate_progress_artifact(progress=percent, description=description)
                else:
                    await aupdate_progress_artifact(self._artifact, progress=percent, description=description)
        except Exception as error:  # whatever it is: what only tells of an extraction does not end it
            if self._every != _UNHEARD_SECONDS:
                get_run_logger().warning("its progress is not shown, Prefect's server did not take it: %r", error)
            self._every = _UNHEARD_SECONDS
