"""The task `extract`: one partition into one object."""

from __future__ import annotations

import asyncio
import csv
import io
import time
import uuid
from collections.abc import Sequence
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import acreate_progress_artifact, aupdate_progress_artifact

from blocks.s3 import CsvDialect
from tasks import progress, records
from tasks.commits import Entry, EntryMeta
from tasks.extractors.contract import ChangeExtractor, Column, Extractor, Output, Partition, Plan, Records
from tasks.failures import RETRIES, RETRY_SECONDS, explained_by, may_pass
from tasks.layouts import laid_out, layout_of
from tasks.layouts.dms import DmsOutput
from tasks.outputs import OpenObject, Outputs
from tasks.records import Record
from tasks.run import Run, Work
from tasks.upload import StoredObject, Upload

_ARTIFACT_SECONDS = 5.0
"""A partition that takes longer gets a progress artifact, brought up to date this often."""
_ANSWER_SECONDS, _UNHEARD_SECONDS = 5.0, 60.0
"""How long the server has for it, while the partition waits; how often it is tried after the server did not take it."""


@task(name="extract", task_run_name="extract {run.stream} {partition.name}", persist_result=False, retries=RETRIES,
      retry_delay_seconds=RETRY_SECONDS, retry_condition_fn=may_pass)  # fmt: skip
async def extract(run: Run, work: Work, partition: Partition) -> Record:
    """Read one partition into its objects; what there is of it then.

    A partition that the run whose plan this is had finished is taken as it is. The object's name is new with every
    attempt, so that no two attempts ever write to the same key.
    """
    with explained_by(run.destination, run.stream):
        if work.resumed and (record := await records.find(run, work.plan, partition)) is not None:
            get_run_logger().info("finished by the run before")
            return record
        if isinstance(run.extractor, ChangeExtractor):
            record = await _captured(run.extractor, run, work, partition)
        else:
            record = await _extracted(run.extractor, run, work, partition)
        if work.keeps_records:
            await records.keep(run, work.plan, partition, record)
        _tell(run, record)
        return record


def _tell(run: Run, record: Record) -> None:
    for entry in record.entries:
        for what, often in entry.counted.items():
            get_run_logger().warning("%s: %s: %d", entry.table or run.stream, what, often)


async def _extracted(extractor: Extractor, run: Run, work: Work, partition: Partition) -> Record:
    meter = _Meter(run, work, partition)
    async with Upload(run.client, run.destination, _key(run, work, partition)) as upload:
        head = header(work.plan.columns, run.destination.csv)

        async def write(data: bytes) -> None:
            if not meter.size:
                await upload.write(head)
            await upload.write(data)
            await meter.add(len(data))

        read = await extractor.read(work.plan, partition, write)
        if not read.rows and not _stands_for_empty(work.plan, partition):
            await meter.done(0)
            return Record(entries=())
        if not meter.size:
            await upload.write(head)
        stored = await upload.finish()
    await meter.done(read.rows)
    return Record(entries=(_entry(run, partition, stored, read.rows, read.counted),))


async def _captured(extractor: ChangeExtractor, run: Run, work: Work, partition: Partition) -> Record:
    meter = _Meter(run, work, partition)

    def key(output: Output, number: int) -> str:
        return _key(run, work, partition, output.name, f"-{number}")

    layout = layout_of(run, work.plan)
    async with Outputs(run.client, run.destination, key, lambda output: _head(output, run), layout.lane) as outputs:

        async def emit(output: Output, made: Records) -> None:
            for target, records in await laid_out(layout, output, made):
                await outputs.write(target, records)
            await meter.add(len(made.data))

        reached = await extractor.capture(work.plan, partition, emit)
        finished = await outputs.finish()
    await meter.done(sum(target.rows for target, _ in finished))
    entries = [_change_entry(run, partition, target, stored) for target, stored in finished]
    return Record(entries=tuple(entries), reached=reached)


def _key(run: Run, work: Work, partition: Partition, folder: str = "", number: str = "") -> str:
    attempt = uuid.uuid4().hex[:8]
    name = f"{partition.name}{number}-{attempt}.{run.destination.extension}"
    return run.destination.key(run.stream, run.destination.data_folder, f"{work.sequence:020d}", folder, name)


def _head(output: Output, run: Run) -> bytes:
    return header(output.columns, run.destination.dialect)


def header(columns: Sequence[Column], dialect: CsvDialect) -> bytes:
    """The line of column names, or nothing where the dialect has none."""
    if not dialect.header:
        return b""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow([column.name for column in columns])
    return line.getvalue().encode()


def _stands_for_empty(plan: Plan, partition: Partition) -> bool:
    # A loader that replaces a table needs to be told that it is empty now: an object with a header and no rows.
    return plan.mode == "full" and partition == plan.partitions[0]


def _entry(run: Run, partition: Partition, stored: StoredObject, rows: int, counted: dict[str, int]) -> Entry:
    return Entry(
        url=run.destination.url(stored.key),
        meta=EntryMeta(content_length=stored.size),
        key=stored.key,
        partition=partition.name,
        rows=rows,
        bytes=stored.raw_size,
        crc32=stored.crc32,
        counted=counted,
    )


def _change_entry(run: Run, partition: Partition, target: OpenObject, stored: StoredObject) -> Entry:
    output = target.output
    shape: dict[str, Any] = {
        "table": output.table,
        "columns": output.columns,
        "unchanged": tuple(sorted(target.absent)),
    }
    if isinstance(output, DmsOutput):
        shape |= {"staged": stored.key, "load": output.load}
    return _entry(run, partition, stored, target.rows, dict(target.counted)).model_copy(update=shape)


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
