"""What `headrace doctor` sees of one stream: its watermark, a plan that nobody ends, what dead runs left, its place in a log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from botocore.exceptions import BotoCoreError, ClientError

from blocks.errors import ConfigurationError, PositionLost
from blocks.s3 import S3Destination
from blocks.watermark import Watermark
from tasks import check_binlog, checks, leftovers
from tasks.cdc import capture
from tasks.commits import CommitLog
from tasks.extractors.kafka.source import KafkaTopics
from tasks.extractors.mysql.binlog.source import MySQLChanges
from tasks.extractors.source import Source
from tasks.failures import explained_by
from tasks.findings import Finding, Findings

_OLD_PLAN = timedelta(hours=6)
_OLD_LEFTOVERS = timedelta(hours=24)


async def look(stream: str, source: Source, destination: S3Destination) -> Findings:
    """All findings, as they are made; nothing is changed."""
    try:
        async with destination.client() as client:
            log = CommitLog(client, destination, stream)
            with explained_by(destination, stream):
                yield await checks.watermark(log)
                mark = await Watermark.of(stream)
                if mark is not None and mark.pending is not None:
                    yield _plan(mark)
                before = await leftovers.store_time(client, destination) - _OLD_LEFTOVERS
                yield _left(await leftovers.find(client, destination, stream, before), destination)
                last = await log.last()
        if isinstance(source, MySQLChanges) and last is not None and last.until is not None:
            yield await check_binlog.retention(source.connection, last.until, last.committed_at)
        if isinstance(source, KafkaTopics) and source.capture is not None:
            async for finding in capture.status(stream, source):
                yield finding
    except PositionLost as error:
        yield Finding("error", f"bucket: {error}")
    except (ConfigurationError, ClientError, BotoCoreError, OSError) as error:
        yield Finding("error", str(error))


def _plan(mark: Watermark) -> Finding:
    since = mark.updated or datetime.now(UTC)
    text = f"plan: pending since {since:%Y-%m-%d %H:%M:%S} UTC"
    if datetime.now(UTC) - since < _OLD_PLAN:
        return Finding("ok", f"{text}, of a run under way")
    return Finding(
        "warning",
        f"{text}: its run is very long, or died",
        "look for the run on the server; the next run takes the plan up, or plans anew",
    )


def _left(found: leftovers.Leftovers, destination: S3Destination) -> Finding:
    if not found.uploads and not found.objects:
        return Finding("ok", "bucket: dead runs have left nothing older than a day")
    size = sum(found.objects.values()) / 1e6
    return Finding(
        "warning",
        f"bucket: dead runs have left {len(found.uploads)} unfinished upload(s) and {len(found.objects)} object(s), "
        f"{size:,.1f} MB",
        f"`headrace sweep s3-destination/… --delete` for {destination.url(destination.key())}",
    )
