"""The commit log in the bucket: one JSON object per sequence number, put once and never changed.

A commit is what makes a file set visible, carries its watermark, and is a manifest loaders understand (Redshift's
``entries``: https://docs.aws.amazon.com/redshift/latest/dg/loading-data-files-using-manifest.html). It is put with
``If-None-Match: *``: of any number of runs, one wins a sequence number.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from contextlib import suppress
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from botocore.exceptions import BotoCoreError, ClientError
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from blocks.errors import ConfigurationError, PositionLost
from blocks.s3 import CsvDialect, S3Destination
from tasks.extractors.contract import Behind, Column, Mode

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client

SEQUENCE_DIGITS = 20
_UNCONDITIONAL = "allow_unconditional_commits"

_PROBE_SECONDS = 5.0
"""How long a probe that is cancelled may take to clean up."""


class _Stored(BaseModel):
    # A newer version's commits have more keys; an older one still has to read their positions.
    model_config = ConfigDict(frozen=True, extra="ignore")


class EntryMeta(_Stored):
    content_length: int


class Entry(_Stored):
    """One object of the file set."""

    url: str
    mandatory: bool = True
    meta: EntryMeta
    key: str
    partition: str
    rows: int
    bytes: int
    """Of CSV, before compression."""
    crc32: str
    """Of the object as stored."""
    table: str = ""
    """Which table's records these are, in commits of change streams."""
    columns: tuple[Column, ...] = ()
    """Those of this object, where they differ from object to object."""
    unchanged: tuple[str, ...] = ()
    """Columns that the log did not have for some record: its field is NULL, and ``_unchanged`` names them."""
    counted: dict[str, int] = {}
    """How often something happened that a person should know of: values of another type than declared, say."""
    staged: str = ""
    """In layout dms: where the object lies until it is published under ``key``."""
    load: bool = False
    """In layout dms: a file of the full load, which begins the table's folder anew."""


class Commit(_Stored):
    """One file set and the position it brings the stream to."""

    entries: tuple[Entry, ...] = ()
    stream: str
    sequence: int
    id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    """Unique to the run that put it: how a run recognises its own commit after an answer that got lost."""
    kind: Literal["extract", "set"] = "extract"
    """set: no rows; a person moved the watermark."""
    mode: Mode | None = None
    plan: str = ""
    since: JsonValue = None
    until: JsonValue = None
    columns: tuple[Column, ...] = ()
    rows: int = 0
    bytes: int = 0
    snapshot: JsonValue = None
    resumed: bool = False
    """True: begun by a run that died; its partitions were not read under one snapshot."""
    csv: CsvDialect = CsvDialect()
    compression: str = "none"
    notes: tuple[str, ...] = ()
    behind: Behind | None = None
    """How far the position was behind the end of the source's log; None: not known, or no stream of changes."""
    file_time: str = ""
    """The latest time in the name of a file of this commit or one before it (layout dms)."""
    committed_at: datetime
    flow_run: str = ""
    tool: str = ""


class CommitLog:
    """The commits of one stream in one destination."""

    def __init__(self, client: S3Client, destination: S3Destination, stream: str) -> None:
        self._client = client
        self._destination = destination
        self.stream = stream

    @property
    def folder(self) -> str:
        """The stream's folder, as a URL."""
        return self._destination.url(self._destination.key(self.stream))

    def key(self, sequence: int) -> str:
        return self._destination.key(self.stream, "_commits", f"{sequence:0{SEQUENCE_DIGITS}d}.json")

    def url(self, sequence: int) -> str:
        return self._destination.url(self.key(sequence))

    async def read(self, sequence: int) -> Commit | None:
        """The commit with that number, or None."""
        try:
            answer = await self._client.get_object(**self._where(self.key(sequence)))
            body = await answer["Body"].read()
        except self._client.exceptions.NoSuchKey:
            return None
        return Commit.model_validate_json(body)

    async def after(self, sequence: int) -> list[int]:
        """The numbers of all commits past ``sequence``, ascending."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._destination.bucket,
            Prefix=self._destination.key(self.stream, "_commits") + "/",
            StartAfter=self.key(sequence),
            **self._destination.owner_arguments(),
        )
        keys = [found["Key"] async for page in pages for found in page.get("Contents", [])]
        names = [key.rsplit("/", 1)[-1].removesuffix(".json") for key in keys]
        return sorted(int(name) for name in names if len(name) == SEQUENCE_DIGITS and name.isdigit())

    async def last(self) -> Commit | None:
        """The newest commit; `PositionLost` when the log has a hole."""
        numbers = await self.after(0)
        if not numbers:
            return None
        if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
            raise self.gap(numbers)
        return await self.read(numbers[-1])

    def gap(self, numbers: list[int]) -> PositionLost:
        hole = next((a + 1 for a, b in pairwise(numbers) if b != a + 1), numbers[0] - 1)
        return PositionLost(
            f"stream {self.stream}: commit {hole} is missing in {self.folder}/_commits/ while later ones are there. "
            "Somebody removed it: put it back (bucket versioning, a backup), or say where the stream goes on with "
            f"`headrace state set {self.stream} POSITION`"
        )

    async def put(self, commit: Commit) -> Commit:
        """Commit, unless the number is taken; the commit that stands there afterwards, ours or another's.

        An error means that it is unknown or false that it stands there; the same call may be repeated.
        """
        body = commit.model_dump_json(indent=1).encode()
        if self._destination.allow_unconditional_commits and (standing := await self.read(commit.sequence)):
            return standing
        for pause in (0.1, 0.3, 1.0, 2.0, None):
            try:
                await self._put(self.key(commit.sequence), body)
            except ClientError as error:
                if _is_taken(error):
                    break
                if not _is_race(error) or pause is None:
                    raise
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - spreads rivals, hides nothing
            except (BotoCoreError, OSError, TimeoutError):
                # The answer got lost: what stands there tells. If nothing does, it did not get through.
                if await self.read(commit.sequence) is None:
                    raise
                break
            else:
                return commit
        standing = await self.read(commit.sequence)
        if standing is None:
            raise RuntimeError(f"{self.url(commit.sequence)} was taken and is gone: is something deleting commits?")
        return standing

    async def probe(self) -> None:
        """Make sure that the store refuses a second conditional write; `ConfigurationError` when it does not.

        It is asked once for each object of the destination: a flow that follows a stream plans every few seconds.
        """
        if self._destination.is_proved:
            return
        probing = asyncio.create_task(self._probe())
        try:
            await asyncio.shield(probing)
        except asyncio.CancelledError:
            # A put that is given up on its way may arrive after the delete.
            with suppress(TimeoutError):
                async with asyncio.timeout(_PROBE_SECONDS):
                    await asyncio.gather(probing, return_exceptions=True)
            raise
        self._destination.prove()

    async def _probe(self) -> None:
        key = self._destination.key(self.stream, "_probe", uuid.uuid4().hex)
        try:
            await self._put(key, b"")
            try:
                await self._put(key, b"")
            except ClientError as error:
                if _is_taken(error) or _is_race(error):
                    return
                raise self._no_conditional_writes(str(error)) from error
            raise self._no_conditional_writes("it overwrote an object that was there")
        finally:
            await self._client.delete_object(**self._where(key))

    def _no_conditional_writes(self, why: str) -> ConfigurationError:
        return ConfigurationError(
            f"{self._destination.endpoint or 'the store'} does not honour conditional writes (If-None-Match: *): {why}. "
            "Without them two runs of one stream at once could both commit. Use a store that has them, or set "
            f"{_UNCONDITIONAL} in the destination if never two runs overlap"
        )

    async def _put(self, key: str, body: bytes) -> None:
        condition: dict[str, Any] = {} if self._destination.allow_unconditional_commits else {"IfNoneMatch": "*"}
        await self._client.put_object(
            Bucket=self._destination.bucket,
            Key=key,
            Body=body,
            ContentType="application/json",
            **condition,
            **self._destination.object_arguments(),
        )

    def _where(self, key: str) -> dict[str, Any]:
        return {"Bucket": self._destination.bucket, "Key": key, **self._destination.owner_arguments()}


def _is_taken(error: ClientError) -> bool:
    return _status(error) == 412


def _is_race(error: ClientError) -> bool:
    # AWS answers 409 ConditionalRequestConflict when another write of the key was under way: try again.
    return _status(error) == 409


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
