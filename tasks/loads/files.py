"""The objects of a commit as files of this machine, each checked against the commit's CRC-32 and removed after use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, cast

import zstandard
from isal import igzip, isal_zlib

from blocks.errors import ConfigurationError
from blocks.s3 import S3Destination
from tasks.commits import Entry

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client

_CHUNK = 1 << 20


class Files:
    """Fetches objects of one destination."""

    def __init__(self, client: S3Client, destination: S3Destination) -> None:
        self._client, self._destination = client, destination

    @asynccontextmanager
    async def fetched(self, entry: Entry) -> AsyncIterator[Path]:
        """The object as it is stored; `ConfigurationError` when it is gone, or not what was committed."""
        folder = await asyncio.to_thread(TemporaryDirectory, prefix="headrace-")
        try:
            path = Path(folder.name, entry.key.rpartition("/")[2])
            crc = await self._download(entry, path)
            if crc != entry.crc32:
                raise ConfigurationError(
                    f"{entry.url} has the CRC-32 {crc}, and was committed with {entry.crc32}: somebody wrote over it; extract "
                    "the stream again"
                )
            yield path
        finally:
            await asyncio.to_thread(folder.cleanup)

    async def _download(self, entry: Entry, path: Path) -> str:
        destination = self._destination
        try:
            answer = await self._client.get_object(
                Bucket=destination.bucket, Key=entry.key, **destination.owner_arguments()
            )
        except self._client.exceptions.NoSuchKey as error:
            raise ConfigurationError(
                f"{entry.url} is committed and gone (a lifecycle rule of the bucket, maybe); extract the stream again"
            ) from error
        crc = 0
        file = await asyncio.to_thread(path.open, "wb")
        try:
            while chunk := await answer["Body"].read(_CHUNK):
                crc = await asyncio.to_thread(_keep, file, chunk, crc)
        finally:
            await asyncio.to_thread(file.close)
        return f"{crc:08x}"


def _keep(file: IO[bytes], chunk: bytes, crc: int) -> int:
    file.write(chunk)
    return int(isal_zlib.crc32(chunk, crc))


async def unpacked(path: Path, compression: str) -> AsyncIterator[bytes]:
    """The bytes of the CSV, a chunk at a time."""
    file = await asyncio.to_thread(_opened, path, compression)
    try:
        while chunk := await asyncio.to_thread(file.read, _CHUNK):
            yield chunk
    finally:
        await asyncio.to_thread(file.close)


def _opened(path: Path, compression: str) -> IO[bytes]:
    match compression:
        case "gzip":
            return cast("IO[bytes]", igzip.IGzipFile(path, "rb"))  # type: ignore[no-untyped-call]  # isal has no types here
        case "zstd":
            return cast("IO[bytes]", zstandard.open(path, "rb"))
    return path.open("rb")
