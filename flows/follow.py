"""The flow `follow`: one stream of changes, run after run, until it is stopped."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import Field

from blocks.connect import BlockOrName
from blocks.s3 import S3Destination
from flows.extract import StreamName, attempts
from flows.termination import ended_by_sigterm
from tasks.extractors import AnySource
from tasks.extractors.contract import Limits, ReadOptions


@flow(name="follow", flow_run_name="{stream} · follow", persist_result=False)
async def follow(
    stream: StreamName,
    source: AnySource,
    to: BlockOrName[S3Destination],
    every: Annotated[float, Field(gt=0)] = 10,
    commit_seconds: Annotated[float, Field(ge=0)] = 60,
    commit_mb: Annotated[int, Field(ge=0)] = 1024,
    commit_rows: Annotated[int, Field(ge=0)] = 0,
    stop_after: Annotated[float, Field(ge=0)] = 0,
    parallel: Annotated[int, Field(ge=1, le=64)] = 4,
) -> State[dict[str, Any]]:
    """Capture the changes of one stream continuously: bounded runs, each with a commit of its own, one after the other.

    It stops at a signal or a cancel; what was not committed by then is read again by whoever goes on.

    Args:
        stream: Name of the stream; a watermark and a folder, as for extract.
        source: What is followed; a source of changes.
        to: An S3 Destination block, such as s3-destination/lake.
        every: Seconds between two looks at a log in which nothing was new.
        commit_seconds: A run ends at the first end of a transaction after so many seconds of reading; 0 for no limit.
        commit_mb: Or after so many MB of CSV; 0 for no limit.
        commit_rows: Or after so many rows; 0 for no limit.
        stop_after: Stop after so many seconds; 0 goes on until stopped.
        parallel: How many slices of the snapshot are read at once.
    """
    limits = Limits(seconds=commit_seconds, bytes=commit_mb << 20, rows=commit_rows)
    options = ReadOptions(
        mode="changes", parallel=parallel, object_bytes=to.object_size_mb << 20, dialect=to.csv, layout=to.layout,
        dms=to.dms, limits=limits,
    )  # fmt: skip
    commits = rows = 0
    ends = time.monotonic() + stop_after if stop_after else None
    with ended_by_sigterm():
        while ends is None or time.monotonic() < ends:
            started = time.monotonic()
            state = await attempts(stream, source, options, to, parallel, started)
            outcome: Any = state.data
            if not outcome["committed"]:
                await asyncio.sleep(every)
                continue
            commits, rows = commits + 1, rows + outcome["rows"]
            get_run_logger().info("%s", state.message)
    told = {"stream": stream, "commits": commits, "rows": rows}
    return Completed(message=f"{stream}: {rows:,} rows in {commits} commit(s)", data=told)
