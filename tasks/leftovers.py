"""What runs that died have left in the bucket: multipart uploads, objects no commit lists, records of finished partitions.

Only what lies under a stream's own folder and is older than an age is looked at; a run under way is younger, mostly: one
that is not loses uploads and records, which it misses, and no object that it may still commit. Published files
(`tasks.publish`) are no leftovers, whatever their table is called.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from pydantic import BaseModel

from blocks.s3 import S3Destination
from tasks.commits import SEQUENCE_DIGITS, CommitLog

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client

_DATA = ("data", "_data")
_FOLDERS = (*_DATA, "_results", "_probe")


class Leftovers(BaseModel):
    """Keys of what no reader sees and no run needs."""

    uploads: list[tuple[str, str]] = []
    """Key and upload id."""
    objects: dict[str, int] = {}
    """Key and size in bytes; the store does not tell the size of an unfinished upload."""


async def store_time(client: S3Client, destination: S3Destination) -> datetime:
    """The end of the second it is by the store's own clock, which the Date header of its answers tells."""
    answer = await client.list_objects_v2(Bucket=destination.bucket, MaxKeys=1, **destination.owner_arguments())
    return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]) + timedelta(seconds=1)


async def streams_of(client: S3Client, destination: S3Destination) -> list[str]:
    """The streams that have a folder in the destination and have committed, or tried to."""
    prefix = destination.key() + "/" if destination.key() else ""
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=destination.bucket, Prefix=prefix, Delimiter="/", **destination.owner_arguments()
    )
    names = [f["Prefix"].removeprefix(prefix).strip("/") async for p in pages for f in p.get("CommonPrefixes", [])]
    return [name for name in names if name and not name.startswith("_")]


async def find(client: S3Client, destination: S3Destination, stream: str, before: datetime) -> Leftovers:
    """What is left of runs of ``stream`` from before that time."""
    found = Leftovers()
    for folder in _FOLDERS:
        prefix = destination.key(stream, folder) + "/"
        found.uploads += [upload async for upload in _uploads(client, destination, prefix, before)]
        old = {key: size async for key, size in _objects(client, destination, prefix, before)}
        if folder in _DATA:
            old = await _uncommitted(CommitLog(client, destination, stream), old, prefix)
        found.objects |= old
    return found


async def remove(client: S3Client, destination: S3Destination, found: Leftovers) -> None:
    for key, upload in found.uploads:
        try:
            await client.abort_multipart_upload(
                Bucket=destination.bucket, Key=key, UploadId=upload, **destination.owner_arguments()
            )
        except client.exceptions.NoSuchUpload:
            continue  # ended by itself meanwhile
    for key in found.objects:
        await client.delete_object(Bucket=destination.bucket, Key=key, **destination.owner_arguments())


async def _uploads(
    client: S3Client, destination: S3Destination, prefix: str, before: datetime
) -> AsyncIterator[tuple[str, str]]:
    pages = client.get_paginator("list_multipart_uploads").paginate(
        Bucket=destination.bucket, Prefix=prefix, **destination.owner_arguments()
    )
    async for page in pages:
        for upload in page.get("Uploads", []):
            if upload["Initiated"] < before and upload["Key"].startswith(prefix):
                yield upload["Key"], upload["UploadId"]


async def _objects(
    client: S3Client, destination: S3Destination, prefix: str, before: datetime
) -> AsyncIterator[tuple[str, int]]:
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=destination.bucket, Prefix=prefix, **destination.owner_arguments()
    )
    async for page in pages:
        for found in page.get("Contents", []):
            if found["LastModified"] < before:
                yield found["Key"], found["Size"]


async def _uncommitted(log: CommitLog, objects: dict[str, int], prefix: str) -> dict[str, int]:
    """Those no commit can list; the folder of an object, a sequence number, names the only commit that could.

    Where that commit is not there, a run may put it this very moment, however old its objects are: it may take up those of
    a run that died. One that stands never changes, so it is read after its objects were listed.
    """
    by_folder: dict[str, dict[str, int]] = {}
    for key, size in objects.items():
        by_folder.setdefault(key.removeprefix(prefix).split("/", 1)[0], {})[key] = size
    found: dict[str, int] = {}
    for folder, old in by_folder.items():
        if len(folder) == SEQUENCE_DIGITS and folder.isdigit():
            if (commit := await log.read(int(folder))) is None:
                continue
            listed = {entry.staged or entry.key for entry in commit.entries}
            found |= {key: size for key, size in old.items() if key not in listed}
    return found
