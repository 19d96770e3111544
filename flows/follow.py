"""The flow `follow`: one stream of changes, run after run, until it is stopped."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.events import emit_event
from prefect.states import Completed
from pydantic import Field

from blocks.connect import BlockOrName
from blocks.s3 import S3Destination
from flows.extract import Means, StreamName, attempts
from flows.termination import ended_by_sigterm
from tasks.extractors import AnySource
from tasks.extractors.contract import Limits, ReadOptions
from tasks.telling import failed


@flow(name="follow", flow_run_name="{stream} · follow", persist_result=False, on_failure=[failed], on_crashed=[failed])
async def follow(
    stream: StreamName,
    source: AnySource,
    to: BlockOrName[S3Destination],
    every: Annotated[float, Field(gt=0)] = 10,
    commit_seconds: Annotated[float, Field(ge=0)] = 60,
    commit_mb: Annotated[int, Field(ge=0)] = 1024,
    commit_rows: Annotated[int, Field(ge=0)] = 0,
    behind_seconds: Annotated[float, Field(ge=0)] = 300,
    stop_after: Annotated[float, Field(ge=0)] = 0,
    parallel: Annotated[int, Field(ge=1, le=64)] = 4,
) -> State[dict[str, Any]]:
    """Capture the changes of one stream continuously: bounded runs, each with a commit of its own, one after the other.

    It stops at a signal or a cancel; what was not committed by then is read again by whoever goes on.

    Args:
        stream: Name of the stream; a watermark and a folder, as for extract.
        source: What is followed; a source of changes.
        to: An S3 Destination block, such as s3-destination/lake.
        every: Seconds from the start of one run to that of the next, which comes at once where a limit ended the run.
        commit_seconds: A run ends at the first end of a transaction after so many seconds of reading; 0 for no limit.
        commit_mb: Or after so many MB of CSV; 0 for no limit.
        commit_rows: Or after so many rows; 0 for no limit.
        behind_seconds: A stream that is further behind its source emits the event headrace.stream.behind; 0: never.
        stop_after: Stop after so many seconds; 0 goes on until stopped.
        parallel: How many slices of the snapshot are read at once.
    """
    limits = Limits(seconds=commit_seconds, bytes=commit_mb << 20, rows=commit_rows)
    options = ReadOptions(
        mode="changes", parallel=parallel, object_bytes=to.object_size_mb << 20, dialect=to.csv, layout=to.layout,
        dms=to.dms, limits=limits,
    )  # fmt: skip
    alarm, total = _Alarm(behind_seconds), _Total(stream)
    begun = time.monotonic()
    ends = begun + stop_after if stop_after else math.inf
    with ended_by_sigterm():
        while (started := time.monotonic()) < ends:
            state = await attempts(stream, source, options, to, Means(parallel), started)
            outcome: Any = state.data
            if outcome["committed"]:
                total.add(outcome)
                get_run_logger().info("%s", state.message)
            if alarm.rises(outcome["behind"]):
                _tell_behind(outcome, behind_seconds)
            _forget_results()
            if not _ended_by(limits, outcome):
                await asyncio.sleep(min(started + every, ends) - time.monotonic())
    return total.state(time.monotonic() - begun)


class _Total:
    """What all runs have done together."""

    def __init__(self, stream: str) -> None:
        self._commits = 0
        self._told: dict[str, Any] = {"stream": stream, "sequence": None, "committed": False, "rows": 0, "bytes": 0}
        self._last: dict[str, Any] = {"commit": None, "behind": None}

    def add(self, outcome: dict[str, Any]) -> None:
        """One run that has committed."""
        self._commits += 1
        both = {name: self._told[name] + outcome[name] for name in ("rows", "bytes")}
        self._told |= {"sequence": outcome["sequence"], "committed": True, **both}
        self._last = {name: outcome[name] for name in self._last}

    def state(self, seconds: float) -> State[dict[str, Any]]:
        """As the flow extract tells it of one run."""
        outcome = {**self._told, "seconds": round(seconds, 3), **self._last, "commits": self._commits}
        return Completed(
            message=f"{outcome['stream']}: {outcome['rows']:,} rows in {self._commits} commit(s)", data=outcome
        )


def _ended_by(limits: Limits, outcome: dict[str, Any]) -> bool:
    """Whether a run stopped at a limit: there is more to read already."""
    reached = ((limits.seconds, "seconds"), (limits.bytes, "bytes"), (limits.rows, "rows"))
    return outcome["committed"] and any(limit and outcome[name] >= limit for limit, name in reached)


class _Alarm:
    """Knows when a stream has fallen too far behind, once for each time that it does."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds or math.inf
        self._is_behind = False

    def rises(self, behind: dict[str, Any] | None) -> bool:
        """Whether it has just fallen behind. Nothing changes where it is not known how far."""
        if behind is None or behind["seconds"] is None:
            return False
        was, self._is_behind = self._is_behind, behind["seconds"] > self._seconds
        return self._is_behind and not was


def _tell_behind(outcome: dict[str, Any], threshold: float) -> None:
    """Emit the event; its payload is the stream, its last commit, the threshold, and how far it is behind."""
    stream, behind = outcome["stream"], outcome["behind"]
    get_run_logger().warning("%s is %.0f s behind, more than %g", stream, behind["seconds"], threshold)
    emit_event(
        event="headrace.stream.behind",
        resource={"prefect.resource.id": f"headrace.stream.{stream}", "prefect.resource.name": stream},
        payload={
            **{name: outcome[name] for name in ("stream", "sequence", "commit")},
            "behind_seconds": threshold,
            **behind,
        },
    )


def _forget_results() -> None:
    """Prefect keeps a note of each task's result until the flow ends, which for this one may be in a year."""
    if context := FlowRunContext.get():
        context.run_results.clear()
