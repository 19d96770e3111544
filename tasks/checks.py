"""Whether a stream can run: its source, its destination, its watermark. Looks, and leaves everything as it was."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError
from prefect.blocks.core import Block

from blocks.errors import ConfigurationError, PositionLost
from blocks.kafka import Kafka
from blocks.mongodb import MongoDB
from blocks.mysql import MySQL
from blocks.postgres import Postgres
from blocks.rest import RestApi
from blocks.s3 import S3Destination
from blocks.watermark import Watermark
from tasks import check_kafka, check_mongodb, check_mysql, check_postgres, check_rest, state
from tasks.cdc import capture
from tasks.commits import CommitLog
from tasks.extractors.contract import ReadOptions
from tasks.extractors.kafka.source import KafkaTopics
from tasks.extractors.source import Source
from tasks.failures import explained_by
from tasks.findings import Finding, Findings
from tasks.layouts import check_fits
from tasks.publish import copy_arguments

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client


async def check(stream: str, source: Source, destination: S3Destination, options: ReadOptions) -> Findings:
    """All findings about one stream, as they are made."""
    async for finding in _of_source(source, options):
        yield finding
    if isinstance(source, KafkaTopics) and source.capture is not None:
        async for finding in _of_capture(stream, source):
            yield finding
    if options.layout == "dms":
        yield _fits(source, options)
    async for finding in _of_destination(destination, stream):
        yield finding


def _fits(source: Source, options: ReadOptions) -> Finding:
    try:
        check_fits(source.open(options), options.layout)
    except ConfigurationError as error:
        return Finding("error", str(error))
    return Finding("ok", "destination: the layout fits the stream")


# -- the source -----------------------------------------------------------------------------------------------------


async def _of_source(source: Source, options: ReadOptions) -> Findings:
    block = getattr(source, "connection", None)
    checker = next((known for kind, known in SOURCES.items() if isinstance(block, kind)), None)
    if checker is None:
        yield Finding("warning", f"no checks are known for {type(source).__name__}", "`headrace plan` tries it out")
        return
    try:
        async for finding in checker(source, options):
            yield finding
    except (ConfigurationError, ConnectionError) as error:
        yield Finding("error", f"source: {error}")


async def _of_capture(stream: str, source: KafkaTopics) -> Findings:
    try:
        async for finding in capture.look(stream, source):
            yield finding
    except (ConfigurationError, ConnectionError) as error:
        yield Finding("error", f"capture: {error}")


SOURCES: dict[type[Block], Callable[[Any, ReadOptions], Findings]] = {
    Postgres: check_postgres.look,
    MySQL: check_mysql.look,
    MongoDB: check_mongodb.look,
    RestApi: check_rest.look,
    Kafka: check_kafka.look,
}
"""What is looked at for each kind of connection. A new source adds its line here."""


# -- the destination ------------------------------------------------------------------------------------------------


async def _of_destination(destination: S3Destination, stream: str) -> Findings:
    looks: tuple[tuple[str, Callable[[_Place], Awaitable[Finding]]], ...] = (
        ("the bucket", _reachable),
        ("a test object", _writable),
        ("conditional writes", _conditional),
        ("multipart uploads", _multipart),
        *([("copies of objects", _copied)] if destination.layout == "dms" else []),
    )
    try:
        async with destination.client() as client:
            place = _Place(client, destination, stream)
            for what, look in looks:
                finding = await _found(look, place, what)
                yield finding
                if finding.level == "error" and look is _reachable:
                    return
            yield await _found(lambda place: watermark(place.log), place, "the watermark")
    except ConfigurationError as error:
        yield Finding("error", f"destination: {error}")


class _Place:
    def __init__(self, client: S3Client, destination: S3Destination, stream: str) -> None:
        self.client, self.destination, self.stream = client, destination, stream
        self.log = CommitLog(client, destination, stream)
        self.owner = {"Bucket": destination.bucket, **destination.owner_arguments()}

    def key(self) -> str:
        """A new one, where sweep finds what a check that died has left."""
        return self.destination.key(self.stream, "_probe", uuid.uuid4().hex)


async def _found(look: Callable[[_Place], Awaitable[Finding]], place: _Place, what: str) -> Finding:
    try:
        with explained_by(place.destination, place.stream):
            return await look(place)
    except ConfigurationError as error:
        return Finding("error", f"destination: {what}: {error}")
    except (ClientError, BotoCoreError, OSError, TimeoutError) as error:
        return Finding("error", f"destination: {what}: {error}", "check endpoint, region and credentials of the block")


async def _reachable(place: _Place) -> Finding:
    await place.client.list_objects_v2(**place.owner, Prefix=place.destination.key(place.stream) + "/", MaxKeys=1)
    return Finding("ok", f"destination: {place.log.folder} can be listed")


async def _writable(place: _Place) -> Finding:
    key, body = place.key(), b"headrace"
    arguments = place.destination.object_arguments()
    await place.client.put_object(Bucket=place.destination.bucket, Key=key, Body=body, **arguments)
    answer = await place.client.get_object(**place.owner, Key=key)
    same = await answer["Body"].read() == body
    await place.client.delete_object(**place.owner, Key=key)
    if not same:
        return Finding("error", "destination: an object reads back otherwise than it was written")
    return Finding("ok", "destination: a test object was written, read and removed")


async def _conditional(place: _Place) -> Finding:
    if place.destination.allow_unconditional_commits:
        return Finding(
            "warning",
            "destination: allow_unconditional_commits is on: two runs of the stream at once may both commit",
            "switch it off where the store has conditional writes",
        )
    await place.log.probe()
    return Finding("ok", "destination: conditional writes are honoured")


async def _multipart(place: _Place) -> Finding:
    key, arguments = place.key(), place.destination.object_arguments()
    begun = await place.client.create_multipart_upload(Bucket=place.destination.bucket, Key=key, **arguments)
    await place.client.abort_multipart_upload(**place.owner, Key=key, UploadId=begun["UploadId"])
    return Finding("ok", "destination: a multipart upload was begun and aborted")


async def _copied(place: _Place) -> Finding:
    key, target, destination = place.key(), place.key(), place.destination
    await place.client.put_object(Bucket=destination.bucket, Key=key, Body=b"", **destination.object_arguments())
    try:
        await place.client.copy_object(**copy_arguments(destination, key, target))
    finally:
        for each in (key, target):
            await place.client.delete_object(**place.owner, Key=each)
    return Finding("ok", "destination: a test object was copied, as layout dms does")


# -- the watermark --------------------------------------------------------------------------------------------------


async def watermark(log: CommitLog) -> Finding:
    """Whether the watermark block and the bucket agree, in the words of the run that would meet it."""
    try:
        return await _watermark(log)
    except PositionLost as error:
        return Finding("error", f"watermark: {error}")


async def _watermark(log: CommitLog) -> Finding:
    mark, settled = await Watermark.of(log.stream), await state.settled(log)
    if mark is None:
        there = settled.sequence
        told = f"the next run rebuilds it from commit {there}" if there else "the first run makes it"
        return Finding("warning" if there else "ok", f"watermark: there is no block yet; {told}")
    if settled.sequence != mark.sequence:
        return Finding(
            "warning",
            f"watermark: the block is at commit {mark.sequence}, the bucket at {settled.sequence}; "
            "the next run goes on from there",
        )
    pending = "; a plan is pending: of a run under way, or of one that died" if mark.pending else ""
    return Finding("ok", f"watermark: block and bucket agree on commit {mark.sequence}{pending}")
