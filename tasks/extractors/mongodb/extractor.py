"""MongoDB collections: batches come as BSON from the wire and are made CSV in a thread, one while the next is fetched."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

import pymongo.errors
from bson.timestamp import Timestamp
from pydantic import JsonValue

from blocks.errors import SnapshotLost
from tasks.extractors import columns
from tasks.extractors.bson.batches import Batches
from tasks.extractors.bson.columns import Field, fields_of
from tasks.extractors.bson.document import Documents
from tasks.extractors.contract import NOT_ASKED, Partition, Plan, Read, ReadOptions, Write
from tasks.extractors.fields import Declared
from tasks.extractors.mongodb.client import SNAPSHOT_GONE, Server, explained, opened, server_of
from tasks.extractors.mongodb.planner import Planner
from tasks.extractors.mongodb.select import Select, Subject, documents
from tasks.extractors.source import Window

BATCH_BYTES = 2 << 20
"""About so much of BSON is fetched at once; the server itself ends a batch at 16 MiB."""

_UNKNOWN_SIZE = 1_000
_IN_PLACE = 32 << 10
"""Less than so many bytes are not worth a thread."""


class MongoDBExtractor:
    """See `tasks.extractors.contract.Extractor`."""

    def __init__(self, subject: Subject, options: ReadOptions) -> None:
        self._subject = subject
        self._options = options
        self._client: Any = None
        self._server: Server | None = None
        self._moment: Timestamp | None = None
        """The cluster time that the snapshot of this run shows."""
        self._connecting = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            self._client.close()

    @property
    def asked(self) -> str:
        """See `Extractor.asked`."""
        subject, block = self._subject, self._subject.block
        window = subject.window.model_dump(include=set(Window.model_fields))
        declared = subject.declared.model_dump(mode="json", include=set(Declared.model_fields))
        asked = [
            block.describe(),
            subject.collection,
            subject.filter,
            subject.pipeline,
            subject.canonical,
            window,
            declared,
        ]
        # How many are read at once decides nothing.
        options = self._options.model_dump(exclude=set(NOT_ASKED))
        return hashlib.sha256(json.dumps([*asked, options]).encode()).hexdigest()[:16]

    async def plan(self, since: JsonValue) -> Plan:
        """See `Extractor.plan`. A position is ``{"cursor": path, "value": …, "id": …}``, values in Extended JSON."""
        select, fields = self._select(), self._fields()
        client, server = await self._connected()
        blank = Plan(id=uuid.uuid4().hex, mode=self._options.mode, asked=self.asked, since=since)
        database = client[self._subject.block.database]
        self._moment = None
        try:
            async with self._session(client, server) as session:
                if session is not None:  # whose first answer says which moment all others show
                    await documents(
                        database[self._subject.collection], [{"$limit": 1}, {"$project": {"_id": 1}}], session
                    )
                planner = Planner(database, self._subject, select, self._options, server, session)
                plan = await planner.plan(blank, fields)
                self._moment = _moment_of(session)
        except pymongo.errors.PyMongoError as error:
            raise explained(error, "planning failed") from error
        return plan.model_copy(update={"snapshot": self._seen()})

    async def read(self, plan: Plan, partition: Partition, write: Write) -> Read:
        """See `Extractor.read`. Under this run's snapshot, where it has one."""
        fields = tuple(field for field in self._fields() if field.column in plan.columns)
        pipeline = self._select().partition(plan, partition, fields)
        client, server = await self._connected()
        collection = client[self._subject.block.database][self._subject.collection]
        each = Documents(
            fields,
            self._subject.declared,
            self._options.dialect,
            canonical=self._subject.canonical,
            told=not self._options.columns,
        )
        made = Batches(each, fields, self._options.dialect)
        try:
            async with self._session(client, server) as session:
                cursor = collection.aggregate_raw_batches(
                    pipeline, batchSize=_batch(plan), session=session, allowDiskUse=True
                )
                return Read(rows=await _pushed(cursor, made, write), counted=dict(each.writer.counted))
        except pymongo.errors.PyMongoError as error:
            raise self._told(error, partition) from error

    def _fields(self) -> tuple[Field, ...]:
        return columns.chosen(fields_of(self._subject.declared), self._options.columns)

    def _select(self) -> Select:
        return Select(self._subject, projects=bool(self._options.columns))

    async def _connected(self) -> tuple[Any, Server]:
        """One client for all partitions: it keeps connections for as many reads as there are at once."""
        async with self._connecting:
            if self._client is None:
                self._client = await opened(self._subject.block)
            if self._server is None:
                self._server = await server_of(self._client, self._subject.block)
            return self._client, self._server

    @asynccontextmanager
    async def _session(self, client: Any, server: Server) -> AsyncIterator[Any]:
        """A session under the snapshot of this run; None where there is none."""
        if self._subject.block.read_concern != "snapshot" or not server.has_snapshots:
            yield None
            return
        async with await client.start_session(snapshot=True) as session:
            # pymongo takes the moment from the first answer and has no name for it; the sessions of a run share it.
            session.delegate._snapshot_time = self._moment
            yield session

    def _seen(self) -> JsonValue:
        concern = self._subject.block.read_concern or "local"
        if self._moment is None:
            return {"read_concern": concern, "exact": False}
        moment: JsonValue = {"t": self._moment.time, "i": self._moment.inc}
        return {"read_concern": concern, "exact": True, "cluster_time": moment}

    def _told(self, error: pymongo.errors.PyMongoError, partition: Partition) -> Exception:
        code = getattr(error, "code", None)
        if code in SNAPSHOT_GONE:
            return SnapshotLost(
                f"partition {partition.name}: the server keeps no state so old; set its minSnapshotHistoryWindowInSeconds to "
                "more than a read takes, or read_concern to majority"
            )
        return explained(error, f"partition {partition.name} cannot be read")


def _moment_of(session: Any) -> Timestamp | None:
    return None if session is None else session.delegate._snapshot_time


def _batch(plan: Plan) -> int:
    """How many documents are asked for at once."""
    if not plan.estimated_rows or not plan.estimated_bytes:
        return _UNKNOWN_SIZE
    return min(100_000, max(1, BATCH_BYTES * plan.estimated_rows // plan.estimated_bytes))


async def _pushed(cursor: Any, made: Batches, write: Write) -> int:
    """Push all batches; while one is written the next is on its way."""
    rows = 0
    coming = asyncio.ensure_future(_next(cursor))
    try:
        while (batch := await coming) is not None:
            coming = asyncio.ensure_future(_next(cursor))
            data, count = made.csv(batch) if len(batch) < _IN_PLACE else await asyncio.to_thread(made.csv, batch)
            rows += count
            if data:
                await write(data)
    finally:
        coming.cancel()
        with contextlib.suppress(asyncio.CancelledError, pymongo.errors.PyMongoError):
            await coming
        with contextlib.suppress(pymongo.errors.PyMongoError):
            await cursor.close()
    return rows


async def _next(cursor: Any) -> bytes | None:
    return await anext(cursor, None)
