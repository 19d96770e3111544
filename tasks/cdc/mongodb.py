"""MongoDB's side of a capture: whether there are change streams, and how far back the log goes that they read."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import bson
import pymongo.errors

from blocks.errors import ConfigurationError
from blocks.mongodb import MongoDB
from tasks.cdc.names import meant
from tasks.extractors.mongodb.client import DENIED, explained
from tasks.extractors.mongodb.client import connected as connected_client
from tasks.findings import Finding, Findings

_HISTORY_LOST = (260, 280, 286)
"""InvalidResumeToken, ChangeStreamFatalError and ChangeStreamHistoryLost: https://www.mongodb.com/docs/manual/reference/error-codes/"""


@asynccontextmanager
async def connected(block: MongoDB) -> AsyncIterator[Any]:
    """The database of a block; its errors are `ConfigurationError`."""
    async with connected_client(block) as client:
        try:
            yield client[block.database]
        except pymongo.errors.PyMongoError as error:
            raise explained(error, f"{block.describe()} cannot be captured") from error


async def collections(database: Any, patterns: Sequence[str]) -> list[str]:
    """The names (``shop.orders``) of those that are meant and that the account sees; `ConfigurationError` for none."""
    listed = await database.list_collections(filter={"type": "collection"})
    names = sorted([one["name"] async for one in listed])
    found = [f"{database.name}.{name}" for name in names if not name.startswith("system.")]
    wanted = meant(patterns, found, "collection")
    if untold := [name for name in wanted if "," in name or name != name.strip()]:
        raise ConfigurationError(
            f"field debezium.tables: the connector takes names with commas and blanks between them, and cannot be told "
            f"{untold[0]!r}; leave it out, by a pattern with a leading -"
        )
    return wanted


async def replica_set(database: Any) -> str:
    """The name of the set that the server is of; empty for a sharded cluster, or a server on its own."""
    return str((await database.command("hello")).get("setName", ""))


async def look(database: Any) -> Findings:
    """Whether the database's change streams can be read, and how long what they read is kept."""
    told = await database.command("hello")
    if not told.get("setName") and told.get("msg") != "isdbgrid":
        yield Finding(
            "error",
            "capture: a server on its own has no change streams",
            "make it a replica set of one member: mongod --replSet rs0, then rs.initiate()",
        )
        return
    try:
        async with database.watch(max_await_time_ms=1) as stream:
            await stream.try_next()
    except pymongo.errors.OperationFailure as error:
        if error.code != DENIED:
            raise
        grant = f'db.grantRolesToUser("…", [{{role: "read", db: "{database.name}"}}])'
        yield Finding("error", f"capture: the user may not read the change stream of {database.name}", grant)
        return
    yield Finding("ok", f"capture: the change stream of {database.name} can be read")
    yield await _kept(database.client, told)


async def _kept(client: Any, told: Mapping[str, Any]) -> Finding:
    """How far back the log goes, where the user may see that."""
    unknown = Finding(
        "ok",
        "capture: how long changes are kept is not known: the user may not read local.oplog.rs (role read on local)",
    )
    try:
        first = await client.local["oplog.rs"].find_one({}, {"ts": 1}, sort=[("$natural", 1)])
    except pymongo.errors.OperationFailure:
        return unknown
    if first is None or "operationTime" not in told:
        return unknown
    hours = (told["operationTime"].time - first["ts"].time) / 3600
    return Finding("ok", f"capture: changes of the last {hours:,.1f} h are kept (replSetResizeOplog sets it)")


async def behind(database: Any, offset: Mapping[str, Any]) -> Finding:
    """Whether the log still has the place that the connector stored last, and how old that is."""
    token = bson.decode(b64decode(str(offset["resume_token"])))
    try:
        async with database.watch(resume_after=token, max_await_time_ms=1) as stream:
            await stream.try_next()
    except pymongo.errors.OperationFailure as error:
        if error.code not in _HISTORY_LOST:
            raise
        lost = "capture: the server no longer keeps the changes from where the connector is on"
        return Finding("error", lost, "headrace cdc disable, then enable: it begins with a new snapshot")
    told = "capture: the server keeps all changes from where the connector is on"
    now = (await database.command("hello")).get("operationTime")
    at = int(offset.get("sec") or 0)
    if now is not None and at > 0:
        told += f", the last of which it sent is {max(0, now.time - at):,} s old"
    return Finding("ok", told)
