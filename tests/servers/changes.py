"""A stand-in for a replica set of MongoDB, whose change streams no server that registries carry has.

It stands before a real server of MongoDB's protocol (see `tests.servers.mongodb`), which keeps and finds the documents. What it
adds: the answers of a replica set of one member, a log of what was written through it, and cursors of change streams on
that log, with tokens to resume by. So drivers and Debezium's connector work with it as they would with a replica set; of
MongoDB's own log it proves nothing. Its limits, beside the server's: one event per command and document; no transactions; no
images of documents before their changes; stages of a stream's pipeline other than a `$match` by equality are refused.
"""

import asyncio
import contextlib
import dataclasses
import itertools
import struct
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import bson
from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp
from motor.motor_asyncio import AsyncIOMotorClient

from tests.servers.mongodb import MongoServer
from tests.servers.proxy import Proxy, closed

NAME = "rs0"
_HEADER = struct.Struct("<iiii")
_QUERY, _REPLY, _MESSAGE = 2004, 1, 2013
_WRITES = ("insert", "update", "delete", "findAndModify", "findandmodify")
_WAIT = 0.5
"""Seconds that a cursor without events waits for some, unless its client says otherwise."""

_BATCH = 1 << 20
"""Bytes, about."""

Document = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Event:
    """One entry of the log."""

    at: Timestamp
    wall: datetime
    database: str
    collection: str
    kind: str
    """insert, update, replace, delete"""
    key: Any
    document: RawBSONDocument | None = None
    """As the change left it."""
    description: Document | None = None

    def told(self, looked_up: RawBSONDocument | None) -> dict[str, Any]:
        """https://www.mongodb.com/docs/manual/reference/change-events/"""
        event: dict[str, Any] = {
            "_id": _token(self.at),
            "operationType": self.kind,
            "clusterTime": self.at,
            "wallTime": self.wall,
            "ns": {"db": self.database, "coll": self.collection},
            "documentKey": {"_id": self.key},
        }
        if self.kind in ("insert", "replace"):
            event["fullDocument"] = self.document
        if self.kind == "update":
            event["updateDescription"] = self.description
            if looked_up is not None or self.document is None:
                event["fullDocument"] = looked_up
        return event


@dataclasses.dataclass
class _Cursor:
    scope: tuple[str, str]
    """Database and collection; empty: all."""
    matches: Sequence[Document]
    looks_up: bool
    place: int


class ReplicaSet(Proxy):
    """Listens on `port`; `server` is how clients reach it."""

    def __init__(self, behind: MongoServer) -> None:
        super().__init__(behind.host, behind.port)
        self.server = dataclasses.replace(
            behind.through(self.port), options=f"replicaSet={NAME}&authSource=admin", instance=behind.instance
        )
        self.updates_wait: float = 0
        """Seconds between an update that was read from the log and the look-up of its document."""
        self.denies = False
        """Whether accounts may not read change streams."""
        self._behind = behind
        self._log: list[Event] = []
        self._last = Timestamp(int(time.time()), 1)
        self._forgotten = Timestamp(0, 0)
        self._cursors: dict[int, _Cursor] = {}
        self._numbers = itertools.count(1 << 40)
        self._client: Any = None

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer what is of a replica set, and hand on everything else."""
        from_server, to_server = await self.connect()
        try:
            while True:
                head, body = await _received(reader)
                answer = await self._answered(head, body, from_server, to_server)
                if answer:
                    writer.write(answer)
                    await writer.drain()
        finally:
            await closed(to_server)

    async def _answered(
        self, head: bytes, body: bytes, from_server: asyncio.StreamReader, to_server: asyncio.StreamWriter
    ) -> bytes:
        _, number, _, code = _HEADER.unpack(head)

        async def asked() -> bytes:
            to_server.write(head + body)
            await to_server.drain()
            return b"".join(await _received(from_server))

        if code == _QUERY:
            return _as_member(await asked(), self.port, self._last)
        if code != _MESSAGE:
            raise ValueError(f"the client sends messages of code {code}")
        command = _command(body)
        name = next(iter(command))
        if name in ("hello", "isMaster", "ismaster"):
            return _as_member(await asked(), self.port, self._last)
        if name == "aggregate" and command["pipeline"] and "$changeStream" in command["pipeline"][0]:
            return _message(number, await self._opened(command))
        if name == "getMore" and command["getMore"] in self._cursors:
            return _message(number, await self._more(command))
        if name == "killCursors" and set(command["cursors"]) & self._cursors.keys():
            for cursor in command["cursors"]:
                self._cursors.pop(cursor, None)
            return _message(number, {"cursorsKilled": command["cursors"], "ok": 1.0})
        if name == "find" and (command["$db"], command["find"]) == ("local", "oplog.rs"):
            first = [{"ts": event.at} for event in self._log[:1]]
            return _message(number, {"cursor": {"id": 0, "ns": "local.oplog.rs", "firstBatch": first}, "ok": 1.0})
        if name in _WRITES and command["$db"] not in ("admin", "config", "local"):
            async with self._writing:
                return await self._written(command, asked)
        return await asked()

    def forget(self) -> None:
        """Lose all of the log, as a server does whose log has become too large."""
        self._forgotten, self._log = self._last, []
        for cursor in self._cursors.values():
            cursor.place = 0

    # -- the log -----------------------------------------------------------------------------------------------------------

    async def listen(self) -> None:
        self._writing, self._grown = asyncio.Lock(), asyncio.Condition()
        self._client = AsyncIOMotorClient(self._behind.url, document_class=RawBSONDocument)
        await super().listen()

    async def refuse(self) -> None:
        await super().refuse()
        self._client.close()

    async def _written(self, command: Document, asked: Any) -> bytes:
        """Do a write, and log what it changed: by what was there before and is there after it."""
        name = next(iter(command))
        database, collection = command["$db"], command[name]
        where = self._client[database][collection]
        keys = await _keys(where, command, name)
        before = await _found(where, keys)
        answer: bytes = await asked()
        told = _command(answer[_HEADER.size :])
        upserted = [one["_id"] for one in told.get("upserted", ())]
        after = await _found(where, [*keys, *upserted])
        replaces = [
            not next(iter(one["u"]), "").startswith("$") for one in command.get("updates", ()) if not _piped(one)
        ]
        whole = bool(replaces) and all(replaces)
        events = []
        for encoded in dict.fromkeys([*before, *after]):
            old, new = before.get(encoded), after.get(encoded)
            if old is None and new is not None:
                events.append(self._event(database, collection, "insert", new, document=new))
            elif old is not None and new is None:
                events.append(self._event(database, collection, "delete", old))
            elif old is not None and new is not None and old.raw != new.raw:
                kind, description = ("replace", None) if whole else ("update", _described(old, new))
                events.append(self._event(database, collection, kind, new, document=new, description=description))
        if events:
            self._log += events  # at once: a token that is given out is not behind what is not in the log
            async with self._grown:
                self._grown.notify_all()
        return answer

    def _event(self, database: str, collection: str, kind: str, of: RawBSONDocument, **fields: Any) -> Event:
        self._last = max(Timestamp(int(time.time()), 1), Timestamp(self._last.time, self._last.inc + 1))
        return Event(self._last, datetime.now(UTC), database, collection, kind, of["_id"], **fields)

    # -- cursors -----------------------------------------------------------------------------------------------------------

    async def _opened(self, command: Document) -> Document:
        stream, *stages = command["pipeline"]
        options = stream["$changeStream"]
        if self.denies:
            return _refused("not authorized to execute command", 13, "Unauthorized")
        if unknown := [stage for stage in stages if next(iter(stage)) != "$match"]:
            return _refused(f"this stand-in has no stage {next(iter(unknown[0]))}", 40324, "Location40324")
        token = options.get("resumeAfter") or options.get("startAfter")
        since = options.get("startAtOperationTime")
        place = len(self._log)
        if token is not None and _time(token) < self._forgotten:
            return _refused("the resume token is no longer in the oplog", 286, "ChangeStreamHistoryLost")
        if token is not None:
            place = sum(event.at <= _time(token) for event in self._log)
        elif since is not None:
            place = sum(event.at < since for event in self._log)
        database, collection = command["$db"], command["aggregate"]
        scope = ("" if options.get("allChangesForCluster") else database, "" if collection == 1 else collection)
        matches = [stage["$match"] for stage in stages]
        number = next(self._numbers)
        self._cursors[number] = _Cursor(scope, matches, options.get("fullDocument") == "updateLookup", place)
        return await self._batch(
            number, f"{database}.{'$cmd.aggregate' if collection == 1 else collection}", "firstBatch", 0
        )

    async def _more(self, command: Document) -> Document:
        namespace = f"{command['$db']}.{command['collection']}"
        wait = command.get("maxTimeMS", _WAIT * 1000) / 1000
        return await self._batch(command["getMore"], namespace, "nextBatch", wait)

    async def _batch(self, number: int, namespace: str, name: str, wait: float) -> Document:
        cursor = self._cursors[number]
        if wait:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait), self._grown:
                    await self._grown.wait_for(lambda: len(self._log) > cursor.place)
        batch: list[dict[str, Any]] = []
        size = 0
        while cursor.place < len(self._log) and size < _BATCH:
            event = self._log[cursor.place]
            cursor.place += 1
            looked_up = None
            if cursor.looks_up and event.kind == "update":
                await asyncio.sleep(self.updates_wait)
                found = await _found(self._client[event.database][event.collection], [event.key])
                looked_up = next(iter(found.values()), None)
            told = event.told(looked_up)
            if _within(cursor.scope, event) and all(_matches(told, condition) for condition in cursor.matches):
                batch.append(told)
                size += 1000 + (len(event.document.raw) if event.document is not None else 0)
        at = self._last if cursor.place == len(self._log) else self._log[cursor.place - 1].at
        return {
            "cursor": {"id": number, "ns": namespace, name: batch, "postBatchResumeToken": _token(at)},
            "operationTime": self._last,
            "ok": 1.0,
        }


@contextlib.contextmanager
def started(behind: MongoServer) -> Iterator[ReplicaSet]:
    """A stand-in before the server; nothing of it is left at the end."""
    with ReplicaSet(behind) as made:
        yield made


# -- what a write is about -------------------------------------------------------------------------------------------------


def _piped(update: Document) -> bool:
    return isinstance(update["u"], list)


async def _keys(where: Any, command: Document, name: str) -> list[Any]:
    """The ``_id`` of all documents that a command may change."""
    if name == "insert":
        return [document["_id"] for document in command["documents"]]
    queries = [command.get("query", {})] if name.lower() == "findandmodify" else []
    queries += [one["q"] for one in (*command.get("updates", ()), *command.get("deletes", ()))]
    return [found["_id"] for query in queries async for found in _each(where, query)]


async def _each(where: Any, query: Document) -> AsyncIterator[RawBSONDocument]:
    async for found in where.find(query, {"_id": 1}):
        yield found


async def _found(where: Any, keys: Sequence[Any]) -> dict[bytes, RawBSONDocument]:
    """Documents by their ``_id``."""
    if not keys:
        return {}
    return {bson.encode({"": found["_id"]}): found async for found in where.find({"_id": {"$in": list(keys)}})}


def _described(old: RawBSONDocument, new: RawBSONDocument) -> Document:
    def raw(document: RawBSONDocument, name: str) -> bytes:
        return bson.encode({"": document[name]})

    changed = [name for name in new if name not in old or raw(old, name) != raw(new, name)]
    return {
        "updatedFields": {name: new[name] for name in changed},
        "removedFields": [name for name in old if name not in new],
        "truncatedArrays": [],
    }


# -- streams ---------------------------------------------------------------------------------------------------------------


def _token(at: Timestamp) -> Document:
    return {"_data": f"{at.time:08X}{at.inc:08X}"}


def _time(token: Document) -> Timestamp:
    data = token["_data"]
    return Timestamp(int(data[:8], 16), int(data[8:], 16))


def _within(scope: tuple[str, str], event: Event) -> bool:
    return scope[0] in ("", event.database) and scope[1] in ("", event.collection)


def _matches(event: Document, condition: Document) -> bool:
    for name, wanted in condition.items():
        if name in ("$and", "$or"):
            met = (all if name == "$and" else any)(_matches(event, each) for each in wanted)
        elif isinstance(wanted, Mapping) and next(iter(wanted), "").startswith("$"):
            met = event.get(name) in [dict(one) if isinstance(one, Mapping) else one for one in wanted["$in"]]
        else:
            met = event.get(name) == wanted
        if not met:
            return False
    return True


# -- the wire: https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/ ----------------------------------------------


async def _received(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readexactly(_HEADER.size)
    return head, await reader.readexactly(_HEADER.unpack(head)[0] - _HEADER.size)


def _command(body: bytes) -> dict[str, Any]:
    """The command of a message, with its sequences of documents as arrays."""
    command: dict[str, Any] = {}
    at, sequences = 4, {}
    end = len(body) - (4 if body[0] & 1 else 0)  # a checksum
    while at < end:
        kind, at = body[at], at + 1
        size = struct.unpack_from("<i", body, at)[0]
        if kind == 0:
            command = bson.decode(body[at : at + size])
        else:
            name, _, documents = body[at + 4 : at + size].partition(b"\0")
            sequences[name.decode()] = bson.decode_all(documents)
        at += size
    return {**command, **sequences}


def _message(to: int, document: Document) -> bytes:
    body = b"\0\0\0\0\0" + bson.encode(document)
    return _HEADER.pack(_HEADER.size + len(body), 0, to, _MESSAGE) + body


def _refused(reason: str, code: int, name: str) -> Document:
    return {"ok": 0.0, "errmsg": reason, "code": code, "codeName": name}


def _as_member(answer: bytes, port: int, now: Timestamp) -> bytes:
    """An answer to `hello`, as the only member of a replica set gives it."""
    _, number, to, code = _HEADER.unpack(answer[: _HEADER.size])
    lead = _HEADER.size + (20 if code == _REPLY else 5)
    told = bson.decode(answer[lead:])
    me = f"127.0.0.1:{port}"
    told |= {"setName": NAME, "setVersion": 1, "hosts": [me], "me": me, "primary": me, "secondary": False}
    told |= {"operationTime": now, "lastWrite": {"opTime": {"ts": now, "t": 1}, "lastWriteDate": datetime.now(UTC)}}
    # With these a client would wait for news of the server on one connection.
    told.pop("topologyVersion", None)
    body = answer[_HEADER.size : lead] + bson.encode(told)
    return _HEADER.pack(_HEADER.size + len(body), number, to, code) + body
