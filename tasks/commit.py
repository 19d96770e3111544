"""The task `commit`: one conditional write makes the file set visible together with its watermark."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import acreate_table_artifact
from prefect.events import emit_event
from prefect.runtime import flow_run
from pydantic import JsonValue

from tasks import progress, publish, records, state
from tasks.commits import Commit, Entry
from tasks.extractors.contract import Behind, TellsBehind
from tasks.failures import RETRIES, RETRY_SECONDS, explained_by, may_pass
from tasks.run import Run, Work
from tasks.telling import peak_memory

TOOL = f"headrace {version('headrace')}"

_BEHIND_SECONDS = 10.0
"""How long a source may take to say where its log ends."""


@task(name="commit", task_run_name="commit {run.stream} {work.sequence}", persist_result=False, retries=RETRIES,
      retry_delay_seconds=RETRY_SECONDS, retry_condition_fn=may_pass)  # fmt: skip
async def commit(run: Run, work: Work, entries: list[Entry], until: JsonValue) -> Commit:
    """Commit the file set and the position; the commit that stands in the bucket then, another run's if that was first."""
    with explained_by(run.destination, run.stream):
        wanted = _commit(run, work, entries, until, await _behind(run, until))
        wanted = await publish.named(run, wanted)
        standing = await run.log.put(wanted)
        await state.adopt(work.watermark, standing, run.log)
        if standing.id == wanted.id:
            await publish.publish(run, standing)
            await _announce(run, standing)
        else:
            get_run_logger().warning(
                "another run committed sequence %d first; this run's objects are discarded", standing.sequence
            )
            await _discard(run, entries, standing)
        if work.keeps_records:
            await records.forget(run, work.plan)
        progress.watcher.get().committed(run.stream, standing.sequence)
        return standing


async def _behind(run: Run, until: JsonValue) -> Behind | None:
    """How far the stream is behind once this is committed."""
    if not isinstance(run.extractor, TellsBehind):
        return None
    try:
        async with asyncio.timeout(_BEHIND_SECONDS):
            return await run.extractor.behind(until)
    except Exception as error:
        # What has been read is committed all the same: without the source, nothing else would be left to do.
        get_run_logger().warning("how far the stream is behind is not known: %s", error or type(error).__name__)
        return None


def _commit(run: Run, work: Work, entries: list[Entry], until: JsonValue, behind: Behind | None) -> Commit:
    plan, ordered = work.plan, sorted(entries, key=lambda entry: entry.partition)
    return Commit(
        entries=tuple(ordered),
        stream=run.stream,
        sequence=work.sequence,
        id=run.id,
        mode=plan.mode,
        plan=plan.id,
        since=plan.since,
        until=until,
        columns=plan.columns,
        rows=sum(entry.rows for entry in ordered),
        bytes=sum(entry.bytes for entry in ordered),
        snapshot=None if work.resumed else plan.snapshot,
        resumed=work.resumed,
        csv=run.destination.dialect,
        compression=run.destination.compression,
        notes=plan.notes,
        behind=behind,
        committed_at=datetime.now(UTC),
        flow_run=str(flow_run.get_id() or ""),
        tool=TOOL,
    )


async def _announce(run: Run, standing: Commit) -> None:
    url = run.log.url(standing.sequence)
    get_run_logger().info(
        "committed %s: %d row(s) in %d file(s), %s", url, standing.rows, len(standing.entries), standing.until
    )
    emit_event(
        event="headrace.stream.committed",
        resource={"prefect.resource.id": f"headrace.stream.{run.stream}", "prefect.resource.name": run.stream},
        payload={"commit": url, **standing.model_dump(mode="json", include=_PAYLOAD)},
    )
    said = await asyncio.to_thread(_summary, run, url, standing)  # reads a file of the system's
    await acreate_table_artifact(table=_table(standing), key=f"commit-{run.stream}", description=said)


_PAYLOAD = {"stream", "sequence", "mode", "since", "until", "rows", "bytes", "behind"}


def _table(standing: Commit) -> list[dict[str, Any]]:
    return [
        {"file": entry.url, "rows": entry.rows, "CSV bytes": entry.bytes, "stored bytes": entry.meta.content_length}
        for entry in standing.entries[:200]  # the page is for people; the commit has them all
    ]


def _summary(run: Run, url: str, standing: Commit) -> str:
    seconds = time.monotonic() - run.started
    behind = f"behind the end of the log: {standing.behind}  \n" if standing.behind else ""
    return (
        f"**{standing.stream}** · commit {standing.sequence} · {standing.mode} · {standing.rows:,} rows in "
        f"{len(standing.entries)} file(s), {standing.bytes / 1e6:,.1f} MB of CSV  \n"
        f"{_window(standing)}{behind}"
        f"{seconds:,.1f} s, {standing.bytes / 1e6 / max(seconds, 0.001):,.1f} MB/s, {peak_memory() / 1e6:,.0f} MB of memory "
        f"at most  \n`{url}` ([bucket]({run.destination.page(run.destination.key(run.stream))}))"
    )


def _window(standing: Commit) -> str:
    """From where to where; nothing of a stream without positions."""
    if standing.until is None:
        return ""
    return f"since {_place(standing.since)} until {_place(standing.until)}  \n"


def _place(position: JsonValue) -> str:
    """A position as a person reads it; one of many partitions is cut off, the commit has all of it."""
    match position:
        case None:
            return "the beginning"
        case {"cursor": str(cursor), "value": value}:
            return f"`{cursor} {value}`"
    text = json.dumps(position, ensure_ascii=False)
    return f"`{text if len(text) <= 300 else text[:300] + ' …'}`"


async def _discard(run: Run, entries: list[Entry], standing: Commit) -> None:
    """Remove this run's objects, but none that the winner lists (it may have taken up this run's partitions)."""
    kept = {entry.staged or entry.key for entry in standing.entries}
    for key in [entry.key for entry in entries if entry.key not in kept]:
        await run.client.delete_object(Bucket=run.destination.bucket, Key=key, **run.destination.owner_arguments())
