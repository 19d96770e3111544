"""One partition becomes objects: what an extractor pushes goes into uploads, and a record says what there is then."""

from __future__ import annotations

import csv
import io
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from blocks.s3 import CsvDialect
from tasks.commits import Entry, EntryMeta
from tasks.extractors.contract import ChangeExtractor, Column, Extractor, Output, Partition, Plan, Records
from tasks.layouts import laid_out, layout_of
from tasks.layouts.dms import DmsOutput
from tasks.outputs import OpenObject, Outputs
from tasks.records import Record
from tasks.run import Run, Work
from tasks.upload import StoredObject, Upload

Tell = Callable[[int], Awaitable[None]]
"""Told how many more bytes of CSV are made."""

Make = Callable[[Run, Work, Partition, Tell], Awaitable[Record]]
"""Makes the objects of a partition: `made` in this process, others elsewhere."""


async def made(run: Run, work: Work, partition: Partition, tell: Tell) -> Record:
    """Read a partition into its objects. Their names are new with every call: no two ever write to the same key."""
    if isinstance(run.extractor, ChangeExtractor):
        return await _captured(run.extractor, run, work, partition, tell)
    return await _extracted(run.extractor, run, work, partition, tell)


async def _extracted(extractor: Extractor, run: Run, work: Work, partition: Partition, tell: Tell) -> Record:
    async with Upload(run.client, run.destination, _key(run, work, partition)) as upload:
        head, has_begun = header(work.plan.columns, run.destination.csv), False

        async def write(data: bytes) -> None:
            nonlocal has_begun
            if not has_begun:
                await upload.write(head)
                has_begun = True
            await upload.write(data)
            await tell(len(data))

        read = await extractor.read(work.plan, partition, write)
        if not read.rows and not _stands_for_empty(work.plan, partition):
            return Record(entries=())
        if not has_begun:
            await upload.write(head)
        stored = await upload.finish()
    return Record(entries=(_entry(run, partition, stored, read.rows, read.counted),))


async def _captured(extractor: ChangeExtractor, run: Run, work: Work, partition: Partition, tell: Tell) -> Record:
    def key(output: Output, number: int) -> str:
        return _key(run, work, partition, output.name, f"-{number}")

    layout = layout_of(run, work.plan, work.sequence)
    async with Outputs(run.client, run.destination, key, lambda output: _head(output, run), layout.lane) as outputs:

        async def emit(output: Output, records: Records) -> None:
            for target, each in await laid_out(layout, output, records):
                await outputs.write(target, each)
            await tell(len(records.data))

        reached = await extractor.capture(work.plan, partition, emit)
        finished = await outputs.finish()
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
