"""What the tasks of one run share.

Plain classes on purpose: Prefect walks through the fields of every dataclass and pydantic model among a task's
parameters, and a plan of 10,000 partitions would be walked 10,000 times.
"""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING

from blocks.s3 import S3Destination
from blocks.watermark import Watermark
from tasks.commits import CommitLog
from tasks.extractors.contract import AnyExtractor, Plan, ReadOptions

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client


class Run:
    """One run of one stream: what it reads, where to, and through which client."""

    def __init__(
        self, stream: str, extractor: AnyExtractor, options: ReadOptions, destination: S3Destination, client: S3Client
    ) -> None:
        self.id = uuid.uuid4().hex
        self.started = time.monotonic()
        self.stream = stream
        self.extractor = extractor
        self.options = options
        self.destination = destination
        self.client = client
        self.log = CommitLog(client, destination, stream)


class Work:
    """What a run has to do: its plan, and the sequence number it wants."""

    def __init__(self, plan: Plan, watermark: Watermark, *, resumed: bool) -> None:
        self.plan = plan
        self.watermark = watermark
        self.sequence = watermark.sequence + 1
        self.resumed = resumed
