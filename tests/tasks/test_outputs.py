"""Many objects at once, in bounded memory: each holds the records of its output in their order, or none is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tasks import outputs
from tasks.extractors.contract import Column, Output, Records
from tasks.outputs import Outputs
from tests.servers.s3 import S3Server
from tests.tasks.test_upload import MIB, client, destination_of

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client

__all__ = ["client"]

TABLES = [Output(name=f"t{n}", table=f"shop.t{n}", columns=(Column(name="a", type="int"),)) for n in range(12)]


def key(output: Output, number: int) -> str:
    return f"raw/{output.name}/{number}.csv"


async def written(client: S3Client, server: S3Server, bucket: str, rounds: int, **options: int) -> tuple[Outputs, int]:
    """Write a quarter of a MiB to each table in turn, so many times; the most that waited in all of them together."""
    destination = destination_of(server, bucket, **options)
    most = 0
    async with Outputs(client, destination, key, lambda _: b"a\n") as made:
        for number in range(rounds):
            for output in TABLES:
                line = f"{number:08d}\n".encode()
                await made.write(output, Records(data=line * (MIB // 4 // len(line)), count=MIB // 4 // len(line)))
                most = max(most, made._waiting())
        await made.finish()
    return made, most


async def test_many_outputs_take_no_more_memory_than_few(client: S3Client, s3_server: S3Server, bucket: str) -> None:
    """Where too much waits, objects are finished early; all records are there, in order."""
    made, most = await written(client, s3_server, bucket, rounds=32)
    assert most <= (outputs._WAITING_PARTS * 5 + 1) * MIB
    for output in TABLES:
        own = [(target, stored) for target, stored in made.finished if target.output == output]
        assert [stored.key for _, stored in own] == [key(output, n) for n in range(1, len(own) + 1)]
        lines: list[bytes] = []
        for target, stored in own:
            body = await (await client.get_object(Bucket=bucket, Key=stored.key))["Body"].read()
            header, *rows = body.splitlines()
            assert (header, len(rows)) == (b"a", target.rows)
            lines += rows
        assert lines == sorted(lines)
        assert len(lines) == 32 * (MIB // 4 // 9)


async def test_objects_do_not_grow_past_their_size(client: S3Client, s3_server: S3Server, bucket: str) -> None:
    """An object that is large enough is finished, and the next begins."""
    made, _ = await written(client, s3_server, bucket, rounds=6, object_size_mb=1)
    assert len(made.finished) == 2 * len(TABLES)
    assert max(stored.raw_size for _, stored in made.finished) <= MIB + MIB // 4


async def test_an_error_leaves_none_of_those_that_are_open(client: S3Client, s3_server: S3Server, bucket: str) -> None:
    """Uploads that are under way are aborted; what was finished before is left to the sweep, as no commit lists it."""
    with pytest.raises(ZeroDivisionError):
        await _broken_off(client, s3_server, bucket)
    assert not (await client.list_multipart_uploads(Bucket=bucket)).get("Uploads")
    assert not (await client.list_objects_v2(Bucket=bucket)).get("Contents")


async def _broken_off(client: S3Client, server: S3Server, bucket: str) -> None:
    async with Outputs(client, destination_of(server, bucket), key, lambda _: b"a\n") as made:
        for output in TABLES[:3]:
            await made.write(output, Records(data=b"1" * (6 * MIB), count=1))
        raise ZeroDivisionError
