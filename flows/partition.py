"""The flow `extract_partition`: one partition of a run that was planned elsewhere. `extract` starts it, nobody else.

What it has extracted it keeps in the bucket as a record; the run that planned takes it from there and commits it.
"""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import ValidationError

from blocks.connect import BlockOrName
from blocks.errors import ConfigurationError, SnapshotLost
from blocks.s3 import S3Destination
from blocks.watermark import Watermark
from flows.termination import ended_by_sigterm
from tasks.extract import extract
from tasks.extractors import AnySource
from tasks.extractors.contract import Plan, ReadOptions
from tasks.run import Run, Work


@flow(name="extract-partition", flow_run_name="{stream} · {sequence} · partition", persist_result=False)
async def extract_partition(
    stream: str, source: AnySource, to: BlockOrName[S3Destination], options: dict[str, Any], plan: dict[str, Any],
    sequence: int,
) -> State[dict[str, Any]]:  # fmt: skip
    """Extract one partition for the run that planned it. Started by extract with a work_pool, not by hand.

    Args:
        stream: Name of the stream.
        source: What is read, as the run that planned was told.
        to: Where to, as the run that planned was told.
        options: How it is read, as the run that planned was told.
        plan: The plan, with the partition that is this run's to extract as the last.
        sequence: The number of the commit the run wants to make.
    """
    try:
        work = Work(
            Plan.model_validate(plan), Watermark(stream=stream, sequence=sequence - 1), resumed=True, spread=True
        )
        with ended_by_sigterm():
            return await _extracted(stream, source, ReadOptions.model_validate(options), to, work)
    except (ConfigurationError, ValidationError, SnapshotLost) as error:
        # The name of the state tells the run that waits what kind of end this is.
        return Failed(name=_END[type(error)], message=str(error))


_END = {ConfigurationError: "Misconfigured", ValidationError: "Misconfigured", SnapshotLost: "Snapshot lost"}


async def _extracted(
    stream: str, source: AnySource, options: ReadOptions, to: S3Destination, work: Work
) -> State[dict[str, Any]]:
    async with to.client() as client, source.open(options) as extractor:
        if extractor.asked != work.plan.asked:
            raise ConfigurationError(
                "this worker understands the stream otherwise than the run that planned: do both run the same version "
                "of headrace, and were the blocks changed since?"
            )
        partition = work.plan.partitions[-1]
        record = await extract(Run(stream, extractor, options, to, client), work, partition)
    rows = sum(entry.rows for entry in record.entries)
    return Completed(
        message=f"{rows:,} rows in {len(record.entries)} file(s)", data={"partition": partition.name, "rows": rows}
    )
