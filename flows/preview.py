"""What the command line shows before a run: the plan, and whether everything it needs is there. Changes nothing.

The only writes are the test objects of `checks`, which are removed at once.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from blocks.errors import ConfigurationError
from blocks.s3 import S3Destination
from blocks.watermark import Watermark
from flows.extract_all import Stream
from tasks.commits import CommitLog
from tasks.extractors.contract import Plan, ReadOptions
from tasks.failures import explained_by
from tasks.state import settled

Grade = Literal["ok", "warning", "error"]


def _stream(parameters: dict[str, Any]) -> Stream:
    try:
        return TypeAdapter(Stream).validate_python(parameters)
    except ValidationError as error:
        told = "; ".join(f"field {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_input=False))
        raise ConfigurationError(told) from None


async def _planned(stream: Stream, mark: Watermark) -> Plan:
    options = ReadOptions(
        mode=stream.mode,
        columns=tuple(stream.columns),
        partitions=stream.partitions,
        object_bytes=stream.to.object_size_mb << 20,
        dialect=stream.to.csv,
    )
    async with stream.source.open(options) as extractor:
        return await extractor.plan(mark.position)


async def preview(parameters: dict[str, Any]) -> dict[str, object]:
    """What a run would do, as labels and values."""
    stream = _stream(parameters)
    async with stream.to.client() as client:
        with explained_by(stream.to, stream.stream):
            mark = await settled(CommitLog(client, stream.to, stream.stream))
            plan = await _planned(stream, mark)
    folder = stream.to.url(stream.to.key(stream.stream, "data", f"{mark.sequence + 1:020d}"))
    shown = [f"{p.name}: {p.lower} … {p.upper}" for p in plan.partitions[:5]]
    told: dict[str, object] = {
        "stream": stream.stream,
        "mode": plan.mode,
        "since": plan.since,
        "until": plan.until,
        "columns": ", ".join(f"{column.name} ({column.type})" for column in plan.columns),
        "partitions": len(plan.partitions) or "none: nothing new",
        "": "\n              ".join(shown),
        "statement": plan.statement,
        "estimated": f"{plan.estimated_rows or 0:,} rows, {(plan.estimated_bytes or 0) / 1e6:,.1f} MB",
        "target": folder,
        "notes": "\n              ".join(plan.notes),
    }
    return {label: value for label, value in told.items() if value not in ("", None)}


async def checks(parameters: dict[str, Any]) -> AsyncIterator[tuple[Grade, str]]:
    """What a stream needs, each with how it stands; an error says the way out."""
    try:
        stream = _stream(parameters)
    except ConfigurationError as error:
        yield "error", str(error)
        return
    yield "ok", f"blocks: {type(stream.source).__name__}, {stream.to.url(stream.to.prefix)}"
    mark = None
    try:
        async with stream.to.client() as client:
            with explained_by(stream.to, stream.stream):
                log = CommitLog(client, stream.to, stream.stream)
                yield "ok", f"bucket: {await _test_write(client, stream.to, stream.stream)}"
                if stream.to.allow_unconditional_commits:
                    yield "warning", "conditional writes are switched off: two runs at once may both commit"
                else:
                    await log.probe()
                    yield "ok", "conditional writes are honoured"
                mark = await settled(log)
                yield "ok", f"watermark and bucket agree at commit {mark.sequence}"
    except Exception as error:
        yield "error", str(error)
    try:
        plan = await _planned(stream, mark or Watermark(stream=stream.stream))
        yield (
            "ok",
            f"source: about {plan.estimated_rows or 0:,} rows in {len(plan.partitions)} partition(s) to read now",
        )
        for note in plan.notes:
            yield "warning", note
    except Exception as error:
        yield "error", f"source: {error}"


async def _test_write(client: Any, destination: S3Destination, stream: str) -> str:
    """Put, read, delete an object, and begin and abort a multipart upload, where the data would go."""
    key = destination.key(stream, "_probe", uuid.uuid4().hex)
    where = {"Bucket": destination.bucket, "Key": key, **destination.owner_arguments()}
    arguments = {"Bucket": destination.bucket, "Key": key, **destination.object_arguments()}
    await client.put_object(Body=b"headrace", **arguments)
    if await (await client.get_object(**where))["Body"].read() != b"headrace":
        raise ConfigurationError(f"{destination.url(key)} reads back as something else")
    await client.delete_object(**where)
    upload = await client.create_multipart_upload(**arguments)
    await client.abort_multipart_upload(**where, UploadId=upload["UploadId"])
    return "put, get, delete and multipart upload are permitted"
