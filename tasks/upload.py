"""One S3 object, there whole or not at all: bytes in, bounded memory, parts on their way in parallel.

Nothing a reader can see exists before `Upload.finish`; leaving the context in any other way aborts the upload.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from botocore.exceptions import BotoCoreError, ClientError
from isal import isal_zlib
from prefect.logging import get_logger

from blocks.s3 import S3Destination
from tasks.body import Body, Piece
from tasks.compression import Compressor, compressor

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client
    from types_aiobotocore_s3.type_defs import CompletedPartTypeDef

# Compressing more at once costs memory, less costs hand-overs to the thread.
_BLOCK_BYTES = 2 << 20

# S3 allows 10,000 parts. Doubling the size after each 1,000 passes its largest object (5 TiB) at part 9,320, and
# leaves objects up to 8 GiB with equal parts, which some stores (R2) insist on.
_PARTS_BEFORE_DOUBLING = 1_000

CONTENT_TYPES = {"none": "text/csv; charset=utf-8", "gzip": "application/gzip", "zstd": "application/zstd"}

# Below the 30 s a worker gives a run between SIGTERM and SIGKILL.
_ABORT_SECONDS = 20.0


@dataclass(frozen=True)
class StoredObject:
    """An object that is there whole."""

    key: str
    size: int
    """Bytes as stored."""
    raw_size: int
    """Bytes of CSV."""
    crc32: str
    """Of the bytes as stored, eight hexadecimal digits."""


def part_size(number: int, first: int) -> int:
    """Bytes of part ``number`` (from 1) when the first has ``first``."""
    return first << ((number - 1) // _PARTS_BEFORE_DOUBLING)


class Upload:
    """A multipart upload, or a single put where all fits into one part.

    At most ``parallel_parts`` parts are on their way; `write` waits for one of them when another is full, so memory
    stays below about ``(parallel_parts + 1)`` parts.
    """

    def __init__(
        self, client: S3Client, destination: S3Destination, key: str, slots: asyncio.Semaphore | None = None
    ) -> None:
        """``slots``: shared by uploads that together may have ``parallel_parts`` parts on their way."""
        self._client = client
        self._destination = destination
        self.key = key
        self._where: dict[str, Any] = {"Bucket": destination.bucket, "Key": key, **destination.owner_arguments()}
        self._compress: Compressor | None = compressor(destination.compression, destination.compression_level)
        self._raw: list[bytes] = []
        self._raw_pending = 0
        self._ready: list[Piece] = []
        self._ready_size = 0
        self._raw_size = self._size = self._crc = 0
        self._slots = slots or asyncio.Semaphore(destination.parallel_parts)
        self._tasks = asyncio.TaskGroup()
        self._compressing: asyncio.Task[None] | None = None
        self._creating: asyncio.Task[str] | None = None
        self._sending: list[asyncio.Task[CompletedPartTypeDef]] = []
        self._completing = False
        self._finished = False

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._tasks.__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            raise first_of(group) from None
        finally:
            if not self._finished:
                await undisturbed(self._abort())

    @property
    def waiting(self) -> int:
        """Bytes held that are not on their way."""
        return self._raw_pending + self._ready_size

    async def write(self, data: bytes) -> None:
        """Take more bytes; returns when there is room for more."""
        self._raw_size += len(data)
        self._raw.append(data)
        self._raw_pending += len(data)
        if self._compress is None:
            self._pass_on()
            await self._send_full_parts()
        elif self._raw_pending >= _BLOCK_BYTES:
            await self._compress_block(self._compress)

    async def finish(self) -> StoredObject:
        """Make the object visible. Raises what a part met; then nothing is left of it."""
        if self._compress is not None:
            await self._compress_block(self._compress)
            if self._compressing is not None:
                await self._compressing
            self._take(await asyncio.to_thread(self._compress.flush))
        if self._creating is None and self._ready_size <= self._next_size():
            await self._put_whole()
        else:
            if self._ready_size:
                await self._send_part(self._ready)
            await self._complete([await task for task in self._sending])
        self._finished = True
        return StoredObject(self.key, self._size, self._raw_size, f"{self._crc:08x}")

    # -- from bytes to parts -------------------------------------------------------------------------------------

    def _pass_on(self) -> None:
        self._ready += self._raw
        self._ready_size += self._raw_pending
        self._raw, self._raw_pending = [], 0

    def _take(self, compressed: bytes) -> None:
        if compressed:
            self._ready.append(compressed)
            self._ready_size += len(compressed)

    async def _compress_block(self, compress: Compressor) -> None:
        """Hand what is pending to the compressor's thread, one block at a time, and read on meanwhile."""
        if self._compressing is not None:
            await self._compressing
        block, self._raw, self._raw_pending = b"".join(self._raw), [], 0
        self._compressing = self._tasks.create_task(self._compressed(compress, block))

    async def _compressed(self, compress: Compressor, block: bytes) -> None:
        self._take(await asyncio.to_thread(compress.compress, block))
        await self._send_full_parts()

    def _next_size(self) -> int:
        return part_size(len(self._sending) + 1, self._destination.part_size_mb << 20)

    async def _send_full_parts(self) -> None:
        while self._ready_size >= (size := self._next_size()):
            await self._send_part(self._cut(size))

    def _cut(self, size: int) -> list[Piece]:
        """Take exactly ``size`` bytes off what is ready: parts are of one size but for the last."""
        whole, left = self._ready, self._ready_size - size
        last = whole[-1]
        # All but the last piece were too little, or they would have been sent.
        split = len(last) - left
        self._ready, self._ready_size = ([memoryview(last)[split:]] if left else []), left
        return [*whole[:-1], memoryview(last)[:split]] if left else whole

    async def _send_part(self, pieces: list[Piece]) -> None:
        checksum = self._counted(pieces)
        await self._slots.acquire()
        upload_id = await self._upload_id()
        number = len(self._sending) + 1
        self._sending.append(self._tasks.create_task(self._put_part(upload_id, number, pieces, checksum)))

    # -- requests ------------------------------------------------------------------------------------------------

    async def _upload_id(self) -> str:
        if self._creating is None:
            # Shielded: an upload whose id got lost in a cancel could not be aborted.
            self._creating = self._tasks.create_task(self._create())
        return await asyncio.shield(self._creating)

    async def _create(self) -> str:
        algorithm: Any = {"ChecksumAlgorithm": "CRC32"} if self._destination.checksum == "crc32" else {}
        answer = await self._client.create_multipart_upload(
            Bucket=self._destination.bucket,
            Key=self.key,
            ContentType=CONTENT_TYPES[self._destination.compression],
            **algorithm,
            **self._destination.object_arguments(),
        )
        return answer["UploadId"]

    async def _put_part(
        self, upload_id: str, number: int, pieces: list[Piece], checksum: dict[str, Any]
    ) -> CompletedPartTypeDef:
        try:
            answer = await self._client.upload_part(
                **self._where, UploadId=upload_id, PartNumber=number, Body=_file(pieces), **checksum
            )
        finally:
            self._slots.release()
        part: CompletedPartTypeDef = {"PartNumber": number, "ETag": answer["ETag"]}
        if "ChecksumCRC32" in checksum:  # Complete wants the CRCs again, and knows no MD5s
            part["ChecksumCRC32"] = checksum["ChecksumCRC32"]
        return part

    def _counted(self, pieces: list[Piece]) -> dict[str, Any]:
        """Count the pieces in, and give the header by which the store checks them.

        Set by hand: left to botocore, a checksum over https goes as a trailer in chunks, which costs twice the CPU.
        """
        size, crc = sum(map(len, pieces)), 0
        for piece in pieces:
            crc = isal_zlib.crc32(piece, crc)  # ten times as fast as zlib's
        self._size += size
        self._crc = isal_zlib.crc32_combine(self._crc, crc, size)
        match self._destination.checksum:
            case "crc32":
                return {"ChecksumCRC32": base64.b64encode(crc.to_bytes(4, "big")).decode()}
            case "md5":
                digest = hashlib.md5(usedforsecurity=False)
                for piece in pieces:
                    digest.update(piece)
                return {"ContentMD5": base64.b64encode(digest.digest()).decode()}
            case "none":
                return {}

    async def _put_whole(self) -> None:
        self._completing = True
        await self._client.put_object(
            Bucket=self._destination.bucket,
            Key=self.key,
            Body=_file(self._ready),
            ContentType=CONTENT_TYPES[self._destination.compression],
            **self._counted(self._ready),
            **self._destination.object_arguments(),
        )

    async def _complete(self, parts: list[CompletedPartTypeDef]) -> None:
        self._completing = True
        upload_id = await self._upload_id()
        try:
            await self._client.complete_multipart_upload(
                **self._where, UploadId=upload_id, MultipartUpload={"Parts": parts}
            )
        except (ClientError, BotoCoreError, OSError, TimeoutError):
            # An answer that got lost, or the retry of a request that had been carried out: look.
            if await stored_size(self._client, self._destination, self.key) != self._size:
                raise

    async def _abort(self) -> None:
        """Leave nothing behind; what cannot be removed now is left to `sweep`, and the first error stays the one."""
        try:
            async with asyncio.timeout(_ABORT_SECONDS):
                if self._creating is not None:
                    await self._abort_multipart(self._creating)
                if self._completing:
                    await self._client.delete_object(**self._where)
        except (ClientError, BotoCoreError, OSError, TimeoutError) as error:
            get_logger("headrace.upload").warning(
                "could not remove the unfinished upload of %s (%s); `headrace sweep` will", self.key, error
            )

    async def _abort_multipart(self, creating: asyncio.Task[str]) -> None:
        if creating.cancelled() or creating.exception() is not None:
            return
        with suppress(self._client.exceptions.NoSuchUpload):
            await self._client.abort_multipart_upload(**self._where, UploadId=creating.result())


def _file(pieces: list[Piece]) -> Any:
    # The stubs ask for an IO object; botocore itself is content with what can be measured, read and rewound.
    return Body(pieces)


async def stored_size(client: S3Client, destination: S3Destination, key: str) -> int | None:
    """Bytes of the object at ``key``; None when there is none."""
    try:
        answer = await client.head_object(Bucket=destination.bucket, Key=key, **destination.owner_arguments())
    except ClientError as error:
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
            return None
        raise
    return answer["ContentLength"]


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of a task group, with a note of how many more there were."""
    flat: list[BaseException] = []
    queue: list[BaseException] = [group]
    while queue:
        error = queue.pop(0)
        if isinstance(error, BaseExceptionGroup):
            queue[:0] = error.exceptions
        else:
            flat.append(error)
    if len(flat) > 1:
        flat[0].add_note(f"and {len(flat) - 1} more: " + "; ".join(f"{type(e).__name__}: {e}" for e in flat[1:4]))
    return flat[0]


async def undisturbed(work: Coroutine[Any, Any, None]) -> None:
    """Await ``work`` to its end even if this task is cancelled meanwhile (on SIGTERM a task may be cancelled twice)."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled
