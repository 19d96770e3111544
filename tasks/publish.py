"""Layout dms: the objects of a commit, copied to the names that AWS DMS gives its files once the commit stands.

Who reads DMS files lists ``schema/table/`` and looks at no commit, so nothing may lie there that is not committed. The
objects of a run wait under ``_data/``; the commit says under which name each is published, so that whoever publishes it,
the run itself or the next one if that was killed, makes the same file of it. A waiting object is removed when its copy is
there: what still waits is what still has to be published.

Names: ``LOAD`` and a hexadecimal counter for the full load, the time (UTC, to the millisecond) for changes. They grow from
commit to commit, by more than the clock does if need be, and so sort in the order of the log.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from prefect.logging import get_logger

from blocks.errors import ConfigurationError
from blocks.s3 import S3Destination
from tasks.commits import SEQUENCE_DIGITS, Commit, Entry
from tasks.run import Run
from tasks.upload import first_of, stored_size

if TYPE_CHECKING:
    from types_aiobotocore_s3.type_defs import ObjectTypeDef

_OWN_FOLDERS = ("_data", "_commits", "_results", "_probe")
_FOLDERS_AT_ONCE = 8

_LOAD = re.compile(r"LOAD([0-9A-F]{8})\.csv(\.\w+)?")
_CHANGES = re.compile(r"(\d{8}-\d{9})\.csv(\.\w+)?")


# -- names ----------------------------------------------------------------------------------------------------------


async def named(run: Run, wanted: Commit) -> Commit:
    """The commit with the names its files will have; as it is where nothing is to be published."""
    if run.destination.layout != "dms":
        return wanted
    before = await run.log.read(wanted.sequence - 1)
    floor = (before.file_time or file_time(before.committed_at)) if before else ""
    first = max(wanted.committed_at, _time(floor) + timedelta(milliseconds=1)) if floor else wanted.committed_at
    loads: Counter[str] = Counter()
    changes: Counter[str] = Counter()
    entries = []
    for entry in wanted.entries:
        folder = _folder(run, entry.table)
        if entry.load:
            loads[folder] += 1
            name = f"LOAD{loads[folder]:08X}"
        else:
            name = file_time(first + timedelta(milliseconds=changes[folder]))
            changes[folder] += 1
        key = f"{folder}/{name}.{run.destination.extension}"
        entries.append(entry.model_copy(update={"key": key, "url": run.destination.url(key)}))
    most = max(changes.values(), default=0)
    last = file_time(first + timedelta(milliseconds=most - 1)) if most else floor
    return wanted.model_copy(update={"entries": tuple(entries), "file_time": last})


def file_time(at: datetime) -> str:
    """
    >>> file_time(datetime(2026, 1, 31, 12, 30, 5, 42_000, tzinfo=UTC))
    '20260131-123005042'
    """
    at = at.astimezone(UTC)
    return f"{at:%Y%m%d-%H%M%S}{at.microsecond // 1000:03d}"


def _time(text: str) -> datetime:
    return datetime.strptime(text, "%Y%m%d-%H%M%S%f").replace(tzinfo=UTC)


def _folder(run: Run, table: str) -> str:
    # As the source names it: only a slash would make it another folder.
    parts = [part.replace("/", "%2F") for part in table.split(".", 1)]
    if parts[0] in _OWN_FOLDERS:
        raise ConfigurationError(f"{table}: layout dms cannot have a folder {parts[0]}, which is headrace's own")
    return run.destination.key(run.stream, *parts)


# -- files ----------------------------------------------------------------------------------------------------------


async def make_up_for(run: Run, sequence: int) -> None:
    """Publish what runs that died have committed, up to that commit, and not published."""
    if run.destination.layout != "dms" or not sequence:
        return
    prefix = run.destination.key(run.stream, "_data") + "/"
    waiting: dict[int, set[str]] = {}
    async for found in _listed(run, prefix):
        folder = found["Key"].removeprefix(prefix).split("/", 1)[0]
        if len(folder) == SEQUENCE_DIGITS and folder.isdigit() and int(folder) <= sequence:
            waiting.setdefault(int(folder), set()).add(found["Key"])
    for number, keys in sorted(waiting.items()):
        standing = await run.log.read(number)
        if standing is not None and any(entry.staged in keys for entry in standing.entries):
            await publish(run, standing, keys)


async def publish(run: Run, standing: Commit, waiting: set[str] | None = None) -> None:
    """Publish a commit's objects that wait (None: all of them). May be repeated, and by several runs at once."""
    by_folder: dict[str, list[Entry]] = {}
    for entry in standing.entries:
        if entry.staged and (waiting is None or entry.staged in waiting):
            by_folder.setdefault(entry.key.rpartition("/")[0], []).append(entry)
    slots = asyncio.Semaphore(_FOLDERS_AT_ONCE)

    async def one(folder: str, entries: list[Entry]) -> None:
        async with slots:
            if any(entry.load for entry in entries):
                await _clear(run, standing, folder)
            # One after the other: whoever looks meanwhile sees a beginning of them.
            for entry in sorted(entries, key=lambda entry: (not entry.load, entry.key)):
                await _publish(run, entry, again=waiting is not None)

    try:
        async with asyncio.TaskGroup() as group:
            for folder, entries in by_folder.items():
                group.create_task(one(folder, entries))
    except BaseExceptionGroup as failed:
        raise first_of(failed) from None


async def _publish(run: Run, entry: Entry, *, again: bool) -> None:
    if not (again and await _is_there(run, entry)):
        try:
            await run.client.copy_object(**copy_arguments(run.destination, entry.staged, entry.key))
        except run.client.exceptions.NoSuchKey:
            # Another run has published it meanwhile; a reader may have taken the file away already.
            if await stored_size(run.client, run.destination, entry.key) is None:
                get_logger("headrace.publish").warning(
                    "%s is not there, and what was to be copied to it is gone: it was published and moved away by a reader, "
                    "or something removes objects under _data/", entry.url,
                )  # fmt: skip
            return
    await _delete(run, entry.staged)


async def _is_there(run: Run, entry: Entry) -> bool:
    """Whether the run that died came as far as to copy it; of a full load there may be an older file of the name."""
    return not entry.load and await stored_size(run.client, run.destination, entry.key) == entry.meta.content_length


def copy_arguments(destination: S3Destination, source: str, target: str) -> dict[str, Any]:
    """What ``copy_object`` carries, so that the copy is what a put would have made."""
    arguments = {"Bucket": destination.bucket, "Key": target, **destination.object_arguments()}
    if destination.tags:
        arguments["TaggingDirective"] = "REPLACE"
    if destination.expected_bucket_owner:
        arguments["ExpectedSourceBucketOwner"] = destination.expected_bucket_owner
    return arguments | {"CopySource": {"Bucket": destination.bucket, "Key": source}}


async def _clear(run: Run, standing: Commit, folder: str) -> None:
    """Remove the files of a full load before this one, and the changes that came after it.

    Only what is older than the commit goes, whenever this is done: a run that was held up does not remove what others
    have published since.
    """
    own = {entry.key for entry in standing.entries}
    changes = [entry.key.rpartition("/")[2] for entry in standing.entries if not entry.load]
    commit = await run.client.head_object(
        Bucket=run.destination.bucket, Key=run.log.key(standing.sequence), **run.destination.owner_arguments()
    )
    second_after = commit["LastModified"] + timedelta(seconds=1)
    async for found in _listed(run, f"{folder}/"):
        key, name = found["Key"], found["Key"].removeprefix(f"{folder}/")
        is_change = (match := _CHANGES.fullmatch(name)) is not None and (
            name < min(changes) if changes else match[1] <= standing.file_time
        )
        is_load = _LOAD.fullmatch(name) is not None and found["LastModified"] < second_after
        if key not in own and (is_change or is_load):
            await _delete(run, key)


async def _listed(run: Run, prefix: str) -> AsyncIterator[ObjectTypeDef]:
    pages = run.client.get_paginator("list_objects_v2").paginate(
        Bucket=run.destination.bucket, Prefix=prefix, **run.destination.owner_arguments()
    )
    async for page in pages:
        for found in page.get("Contents", []):
            yield found


async def _delete(run: Run, key: str) -> None:
    await run.client.delete_object(Bucket=run.destination.bucket, Key=key, **run.destination.owner_arguments())
