"""The flow `extract`: one run of one stream, from its watermark to its commit."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import Field, JsonValue

from blocks.connect import BlockOrName
from blocks.errors import ConfigurationError, SnapshotLost
from blocks.s3 import S3Destination
from flows.pool import Pool
from flows.processes import Processes
from flows.termination import ended_by_sigterm
from tasks import progress
from tasks.commit import commit
from tasks.commits import Commit, Entry
from tasks.extract import extract as extract_partition
from tasks.extractors import AnySource, Source
from tasks.extractors.contract import Behind, ChangeExtractor, Partition, ReadOptions
from tasks.plan import plan
from tasks.records import Record
from tasks.run import Run, Work
from tasks.state import drop_pending
from tasks.telling import failed
from tasks.upload import first_of, stored_size

StreamName = Annotated[str, Field(pattern=r"^[0-9a-z][0-9a-z-]*$", max_length=100)]
RunMode = Literal["full", "incremental", "changes"]

_LOOKS = 32
"""How many objects are looked at, at once, before the commit."""

_PLANS = 3
"""How often a run plans before it gives up on snapshots that get lost."""


@dataclass(frozen=True)
class Means:
    """Where the partitions of a run are extracted, and how many at once."""

    parallel: int
    work_pool: str = ""
    processes: int = 1

    def __post_init__(self) -> None:
        if self.processes > 1 and sys.platform == "win32":
            raise ConfigurationError("field processes: Windows cannot hand a socket to a process; leave the field at 1")
        if self.work_pool and self.processes > 1:
            raise ConfigurationError(
                "field processes: with work_pool each partition has a process of its own already; leave one of the two out"
            )

    @property
    def is_elsewhere(self) -> bool:
        return bool(self.work_pool) or self.processes > 1


@flow(name="extract", flow_run_name="{stream} · {mode}", persist_result=False, on_failure=[failed], on_crashed=[failed])
async def extract(
    stream: StreamName,
    source: AnySource,
    to: BlockOrName[S3Destination],
    mode: RunMode = "full",
    columns: list[str] = [],  # noqa: B006 - the form of the Prefect UI shows the default; it is never changed
    partitions: Annotated[int, Field(ge=0, le=9_999)] = 0,
    parallel: Annotated[int, Field(ge=1, le=64)] = 4,
    work_pool: str = "",
    processes: Annotated[int, Field(ge=1, le=64)] = 1,
) -> State[dict[str, Any]]:
    """Extract one stream into CSV objects and commit them together with the new watermark.

    Args:
        stream: Name of the stream; names its watermark block and its folder in the bucket.
        source: What is read.
        to: An S3 Destination block, such as s3-destination/lake.
        mode: full brings everything (the loader replaces), incremental what is past the watermark (the loader appends
            or merges), changes what a log has recorded since (the loader merges).
        columns: Columns to read, in this order; with a leading - those to leave out. Empty brings all.
        partitions: How many slices to cut the read into; 0 chooses by size.
        parallel: How many slices are read at once; each has a connection of its own.
        work_pool: The name of a work pool whose workers extract the slices, each in a flow run of its own; empty does all
            of it in this process.
        processes: In how many processes of this machine the slices are extracted, each one slice at a time; 1 does all of it
            in this process. For machines with cores to spare and sources whose CSV costs more than one core has.
    """
    started = time.monotonic()
    options = ReadOptions(
        mode=mode, columns=tuple(columns), partitions=partitions, parallel=parallel,
        object_bytes=to.object_size_mb << 20, dialect=to.csv, layout=to.layout, dms=to.dms,
    )  # fmt: skip
    with ended_by_sigterm():
        return await attempts(stream, source, options, to, Means(parallel, work_pool, processes), started)


async def attempts(
    stream: str,
    source: Source,
    options: ReadOptions,
    to: S3Destination,
    means: Means,
    started: float,
) -> State[dict[str, Any]]:
    """Plan, extract and commit; once more from the start when a snapshot gets lost. ``started``: when the run began."""
    async with to.client() as client:
        for attempt in range(1, _PLANS + 1):
            try:
                async with source.open(options) as extractor:
                    run = Run(stream, extractor, options, to, client)
                    return _outcome(run, await _extracted(run, source, means), time.monotonic() - started)
            except SnapshotLost as lost:
                if attempt == _PLANS:
                    raise
                get_run_logger().warning("%s; planning again", lost)
    raise AssertionError("unreachable")


async def _extracted(run: Run, source: Source, means: Means) -> Commit | None:
    work = await plan(run)
    if not work.plan.partitions:
        progress.watcher.get().committed(run.stream, None)
        return None
    try:
        work, done = await _everywhere(run, source, work, means)
    except SnapshotLost:
        # What was planned cannot be read any more: the next plan is a fresh one, also when a later run makes it.
        await drop_pending(work.watermark)
        raise
    entries = [entry for record in done for entry in record.entries]
    if gone := await _gone(run, entries):
        await drop_pending(work.watermark)
        raise SnapshotLost(f"{gone} object(s) of this run are not in the bucket any more; did a sweep remove them?")
    return await commit(run, work, entries, _until(run, work, done))


def _until(run: Run, work: Work, done: list[Record]) -> JsonValue:
    reached = [record.reached for record in done if record.reached is not None]
    if not reached or not isinstance(run.extractor, ChangeExtractor):
        return work.plan.until
    return run.extractor.reached(work.plan, reached)


async def _everywhere(run: Run, source: Source, work: Work, means: Means) -> tuple[Work, list[Record]]:
    """All partitions, by the means that there are for this plan."""
    if means.is_elsewhere and not work.plan.is_shared and work.plan.mode == "changes":
        get_run_logger().info(
            "this process reads the snapshot, which no other can see; others read the changes after it"
        )
    elif means.work_pool:
        work = Work(work.plan, work.watermark, resumed=work.resumed, spread=True)
        return work, await _partitions(work, means.parallel, Pool(means.work_pool, source, run, work).extract)
    elif means.processes > 1 and not work.plan.is_shared:
        raise ConfigurationError(
            f"field processes: partitions of this {work.plan.mode} read see one state of the source only in the process "
            "that planned it; leave the field at 1, or use mode incremental"
        )
    elif means.processes > 1:
        async with Processes(source, run) as others:
            return work, await _partitions(
                work, means.processes, lambda partition: extract_partition(run, work, partition, others.made)
            )
    return work, await _partitions(work, means.parallel, lambda partition: extract_partition(run, work, partition))


async def _partitions(work: Work, parallel: int, extracted: Callable[[Partition], Awaitable[Record]]) -> list[Record]:
    """Extract all partitions, ``parallel`` at a time; the first error stops the others and aborts their uploads."""
    slots = asyncio.Semaphore(parallel)

    async def one(partition: Partition) -> Record:
        async with slots:
            # Awaited, not submitted: only so does a cancel reach the task, and its upload is aborted.
            return await extracted(partition)

    try:
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(one(partition)) for partition in work.plan.partitions]
    except BaseExceptionGroup as failed:
        raise first_of(failed) from None
    return [done.result() for done in running]


async def _gone(run: Run, entries: list[Entry]) -> int:
    """How many of the objects are not there as they were written: the last look before they are committed."""
    slots = asyncio.Semaphore(_LOOKS)

    async def is_gone(entry: Entry) -> bool:
        async with slots:
            return await stored_size(run.client, run.destination, entry.key) != entry.meta.content_length

    return sum(await asyncio.gather(*map(is_gone, entries)))


def _outcome(run: Run, standing: Commit | None, seconds: float) -> State[dict[str, Any]]:
    own = standing is not None and standing.id == run.id
    behind = standing.behind if standing and own else None
    if standing is None:
        said = "nothing new"
        behind = Behind(seconds=0, bytes=0, rows=0) if run.options.mode == "changes" else None
    elif own:
        said = f"commit {standing.sequence}: {standing.rows:,} rows in {len(standing.entries)} file(s)"
        said += f", behind: {behind}" if behind else ""
    else:
        said = f"another run committed {standing.sequence} first; this one's objects are discarded"
    outcome = {
        "stream": run.stream,
        "sequence": standing.sequence if standing else None,
        "committed": own,
        "rows": standing.rows if standing and own else 0,
        "bytes": standing.bytes if standing and own else 0,
        "seconds": round(seconds, 3),
        "commit": run.log.url(standing.sequence) if standing else None,
        "behind": behind.model_dump() if behind else None,
    }
    return Completed(message=f"{run.stream}: {said}", data=outcome)
