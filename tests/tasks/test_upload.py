"""An upload is there whole or not at all, in bounded memory."""

from __future__ import annotations

import asyncio
import gzip
import os
import zlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
import zstandard
from prefect_aws import AwsCredentials

from blocks.s3 import S3Destination
from tasks.upload import StoredObject, Upload, first_of, part_size, undisturbed
from tests.servers.faults import FaultProxy
from tests.servers.s3 import S3Server

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client

MIB = 1 << 20


def destination_of(server: S3Server, bucket: str, **options: Any) -> S3Destination:
    """A destination in a test's own bucket."""
    credentials = AwsCredentials(aws_access_key_id=server.access_key, aws_secret_access_key=server.secret_key)
    return S3Destination(
        bucket=bucket,
        prefix="raw",
        region=server.region,
        endpoint=server.endpoint,
        credentials=credentials,
        **{"compression": "none", "part_size_mb": 5, **options},
    )


@pytest.fixture
async def client(s3_server: S3Server, bucket: str) -> AsyncIterator[S3Client]:
    async with destination_of(s3_server, bucket).client() as made:
        yield made


async def _body(client: S3Client, bucket: str, key: str) -> bytes:
    return await (await client.get_object(Bucket=bucket, Key=key))["Body"].read()


async def uploaded(client: S3Client, destination: S3Destination, data: bytes, step: int) -> StoredObject:
    """Write ``data`` to the object ``k``, so many bytes at a time."""
    async with Upload(client, destination, "k") as upload:
        for start in range(0, len(data), step):
            await upload.write(data[start : start + step])
        return await upload.finish()


async def _nothing_there(client: S3Client, bucket: str) -> bool:
    uploads = await client.list_multipart_uploads(Bucket=bucket)
    return not uploads.get("Uploads") and not (await client.list_objects_v2(Bucket=bucket)).get("Contents")


@pytest.mark.parametrize("checksum", ["crc32", "md5", "none"])
@pytest.mark.parametrize("size", [0, 10, 5 * MIB, 17 * MIB + 3])
async def test_bytes_arrive_as_they_were_written(
    s3_server: S3Server, bucket: str, client: S3Client, size: int, checksum: str
) -> None:
    """Whatever the size, in one put or in parts, the object holds the bytes, and its figures are right."""
    data = os.urandom(size)
    stored = await uploaded(client, destination_of(s3_server, bucket, checksum=checksum), data, 300_000)
    assert await _body(client, bucket, "k") == data
    assert (stored.size, stored.raw_size, stored.crc32) == (size, size, f"{zlib.crc32(data):08x}")


async def test_parts_are_of_one_size(s3_server: S3Server, bucket: str, client: S3Client, s3_faults: FaultProxy) -> None:
    """However the bytes come, every part but the last has exactly the part size: some stores insist on it."""
    data = os.urandom(12 * MIB + 5)
    watched = destination_of(s3_server, bucket).model_copy(update={"endpoint": s3_faults.endpoint})
    async with watched.client() as through:
        await uploaded(through, watched, data, 777_777)
    parts = s3_faults.requests(method="PUT", query="partNumber")
    assert sorted(part.bytes_in for part in parts) == [2 * MIB + 5, 5 * MIB, 5 * MIB]
    assert await _body(client, bucket, "k") == data


async def test_a_signed_payload_is_read_for_its_signature(
    s3_server: S3Server, bucket: str, client: S3Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the payload itself is signed (plain HTTP to another machine) the store finds its SHA-256 right."""
    monkeypatch.setattr("blocks.s3._in_the_open", lambda _: True)
    data = os.urandom(7 * MIB)
    destination = destination_of(s3_server, bucket)
    async with destination.client() as signing:
        await uploaded(signing, destination, data, 300_000)
    assert await _body(client, bucket, "k") == data


@pytest.mark.parametrize(("compression", "level"), [("gzip", None), ("gzip", 6), ("zstd", None), ("zstd", 9)])
async def test_compressed_objects_are_one_stream(
    s3_server: S3Server, bucket: str, client: S3Client, compression: str, level: int | None
) -> None:
    """A compressed object is one gzip member or one zstd frame over all parts."""
    data = os.urandom(9 * MIB) + b"a,b\n" * 1_000_000
    made = destination_of(s3_server, bucket, compression=compression, compression_level=level)
    stored = await uploaded(client, made, data, 100_000)
    body = await _body(client, bucket, "k")
    assert (stored.size, stored.raw_size) == (len(body), len(data))
    if compression == "gzip":
        member = zlib.decompressobj(31)
        assert member.decompress(body) == data == gzip.decompress(body)
        assert (member.eof, member.unused_data) == (True, b"")
    else:
        assert zstandard.ZstdDecompressor().decompressobj().decompress(body) == data


async def test_an_error_leaves_nothing(s3_server: S3Server, bucket: str, client: S3Client) -> None:
    """An error of the writer's aborts the upload, and comes out as itself."""

    async def failing() -> None:
        async with Upload(client, destination_of(s3_server, bucket), "k") as upload:
            await upload.write(os.urandom(12 * MIB))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await failing()
    assert await _nothing_there(client, bucket)


async def test_leaving_without_finish_leaves_nothing(s3_server: S3Server, bucket: str, client: S3Client) -> None:
    """Only finish makes an object."""
    async with Upload(client, destination_of(s3_server, bucket), "k") as upload:
        await upload.write(os.urandom(6 * MIB))
    assert await _nothing_there(client, bucket)


async def test_a_cancelled_upload_leaves_nothing(s3_server: S3Server, bucket: str, client: S3Client) -> None:
    """A task that is cancelled twice while parts are on their way still aborts its upload."""
    begun = asyncio.Event()

    async def uploading() -> None:
        async with Upload(client, destination_of(s3_server, bucket), "k") as upload:
            for _ in range(100):
                await upload.write(os.urandom(MIB))
                if _ == 8:
                    begun.set()

    task = asyncio.create_task(uploading())
    await begun.wait()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await _nothing_there(client, bucket)


async def test_write_waits_while_parts_are_on_their_way(s3_server: S3Server, bucket: str, client: S3Client) -> None:
    """With all slots taken a write waits: no more than parallel_parts parts are in memory beside the one being made."""
    in_flight = most = 0
    put = client.upload_part

    async def slow(**arguments: Any) -> Any:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        await asyncio.sleep(0.02)
        try:
            return await put(**arguments)
        finally:
            in_flight -= 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "upload_part", slow)
        async with Upload(client, destination_of(s3_server, bucket, parallel_parts=2), "k") as upload:
            for _ in range(60):
                await upload.write(b"x" * MIB)
            await upload.finish()
    assert most == 2


def test_ten_thousand_parts_hold_the_largest_object() -> None:
    """Part sizes grow so that 10,000 parts pass 5 TiB, and stay equal for the first 1,000."""
    sizes = [part_size(number, 8 * MIB) for number in range(1, 10_001)]
    assert sum(sizes) > 5 << 40
    assert set(sizes[:1_000]) == {8 * MIB}
    # The largest object is reached before a part would pass S3's 5 GiB.
    reached = next(n for n in range(10_000) if sum(sizes[: n + 1]) >= 5 << 40)
    assert sizes[reached] <= 5 << 30


def test_a_group_gives_its_first_error_and_counts_the_others() -> None:
    """One error comes out of a task group, with a note of the rest."""
    group = ExceptionGroup("", [ExceptionGroup("", [ValueError("a")]), KeyError("b")])
    error = first_of(group)
    assert isinstance(error, ValueError)
    assert error.__notes__ == ["and 1 more: KeyError: 'b'"]


async def test_undisturbed_work_ends_before_the_cancel_goes_on() -> None:
    """Clean-up runs to its end under repeated cancels; then the cancel is raised."""
    done = False

    async def clean_up() -> None:
        nonlocal done
        await asyncio.sleep(0.05)
        done = True

    task = asyncio.create_task(undisturbed(clean_up()))
    for _ in range(3):
        await asyncio.sleep(0.005)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done
