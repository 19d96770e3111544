"""The flow `extract_all`: many streams, some at a time; one that fails does not stop the others."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.artifacts import acreate_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import BaseModel, ConfigDict, Field

from blocks.connect import BlockOrName
from blocks.s3 import S3Destination
from flows.extract import RunMode, StreamName, extract
from flows.termination import ended_by_sigterm
from tasks.extractors import AnySource


class Stream(BaseModel):
    """One stream, with the parameters of `extract`."""

    model_config = ConfigDict(title="Stream", extra="forbid")

    stream: StreamName = Field(title="Stream", description="Names its watermark block and its folder in the bucket.")
    source: AnySource = Field(title="Source", description="What is read.")
    to: BlockOrName[S3Destination] = Field(title="Destination", description="Such as s3-destination/lake.")
    mode: RunMode = Field(default="full", title="Mode", description="full or incremental.")
    columns: list[str] = Field(default=[], title="Columns", description="To read; with a leading - to leave out.")
    partitions: int = Field(default=0, ge=0, le=9_999, title="Partitions", description="0 chooses by size.")
    parallel: int = Field(default=4, ge=1, le=64, title="Parallel", description="Partitions read at once.")

    work_pool: str = Field(
        default="", title="Work pool", description="Whose workers extract the partitions; empty: this run."
    )

    processes: int = Field(
        default=1, ge=1, le=64, title="Processes", description="Of this machine, that extract the partitions."
    )

    def parameters(self) -> dict[str, Any]:
        """The keyword arguments of `extract`."""
        return {name: getattr(self, name) for name in type(self).model_fields}


@flow(name="extract-all", flow_run_name="extract {parallel} at a time", persist_result=False)
async def extract_all(
    streams: list[Stream], parallel: Annotated[int, Field(ge=1, le=32)] = 2
) -> State[list[dict[str, Any]]]:
    """Extract several streams, each in a run of its own.

    Args:
        streams: The streams, each with the parameters of extract.
        parallel: How many streams run at once.
    """
    slots = asyncio.Semaphore(parallel)

    async def one(stream: Stream) -> dict[str, Any] | Exception:
        async with slots:
            try:
                outcome: dict[str, Any] = await extract(**stream.parameters())
            except Exception as error:
                # Reported in the state of this flow; its own run has the traceback.
                get_run_logger().error("stream %s failed: %s", stream.stream, error)
                return error
            return outcome

    with ended_by_sigterm():
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(one(stream)) for stream in streams]
    ended = [task.result() for task in running]
    await acreate_markdown_artifact(
        _summary(streams, ended), key="extract-all", description="What became of each stream"
    )
    return _outcome(streams, ended)


def _summary(streams: list[Stream], ended: list[dict[str, Any] | Exception]) -> str:
    lines = ["| stream | commit | rows | MB | seconds | |", "|---|--:|--:|--:|--:|---|"]
    for stream, end in zip(streams, ended, strict=True):
        if isinstance(end, Exception):
            told = _first_line(end).replace("|", "\\|")
            lines.append(f"| {stream.stream} | – | – | – | – | failed: {told} |")
            continue
        place = f"`{end['commit']}`" if end["committed"] else "nothing new"
        figures = f"{end['rows']:,} | {end['bytes'] / 1e6:,.1f} | {end['seconds']:,.1f}"
        lines.append(f"| {stream.stream} | {end['sequence'] or '–'} | {figures} | {place} |")
    return "\n".join(lines)


def _outcome(streams: list[Stream], ended: list[dict[str, Any] | Exception]) -> State[list[dict[str, Any]]]:
    done = [end for end in ended if isinstance(end, dict)]
    failed = [(stream.stream, end) for stream, end in zip(streams, ended, strict=True) if isinstance(end, Exception)]
    if not failed:
        rows = sum(end["rows"] for end in done)
        return Completed(message=f"{len(done)} stream(s), {rows:,} rows", data=done)
    told = "; ".join(f"{name}: {_first_line(error)}" for name, error in failed)
    return Failed(message=f"{len(failed)} of {len(streams)} stream(s) failed: {told}", data=failed[0][1])


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).split("\n", 1)[0]
