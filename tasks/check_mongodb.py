"""Whether a MongoDB source can be read, what its user may not do, and what its server does not have."""

from __future__ import annotations

from typing import Any

import pymongo.errors

from blocks.errors import ConfigurationError
from blocks.mongodb import MongoDB
from tasks.extractors.contract import ReadOptions
from tasks.extractors.mongodb.client import DENIED, Server, connected, explained, server_of
from tasks.extractors.mongodb.discover import leading_fields
from tasks.extractors.mongodb.select import Select, documents, subject_of
from tasks.findings import Finding, Findings, greeting


async def look(source: Any, options: ReadOptions) -> Findings:
    """All findings about a collection, as they are made."""
    if options.mode == "incremental" and not source.cursor:
        raise ConfigurationError("field cursor: mode incremental needs one; `headrace discover` proposes some")
    block: MongoDB = source.connection
    async with connected(block) as client:
        server = await server_of(client, block)
        yield _greeting(server, block)
        database = client[block.database]
        found, finding = await _there(database, source)
        yield finding
        if finding.level == "error":
            return
        yield await _readable(database[source.collection], source)
        if options.mode == "incremental":
            if found.get("type") != "view" and not source.pipeline:
                yield await _indexed(database[source.collection], source)
            yield _in_flight(block, source)
        else:
            yield _one_state(server, block)


def _greeting(server: Server, block: MongoDB) -> Finding:
    kind = "of a replica set or cluster" if server.replicated else "a server on its own"
    tls = None if block.tls_mode == "disable" else "TLS" if block.tls_mode else "TLS as the connection string says"
    meant = block.tls == "disable" or block.is_local
    return greeting(f"{block.describe()} answers: {server.version}, {kind}", tls, in_clear_is_meant=meant)


async def _there(database: Any, source: Any) -> tuple[dict[str, Any], Finding]:
    try:
        cursor = await database.list_collections(filter={"name": source.collection})
        found = await cursor.to_list(None)
    except pymongo.errors.OperationFailure as error:
        if error.code != DENIED:
            raise explained(error, "the collections cannot be listed") from error
        return {}, Finding("error", "source: the user may not list collections", _grant(source, database.name))
    if not found:
        told = f"source: field collection: {database.name} has no collection {source.collection!r}"
        return {}, Finding("error", told, "`headrace discover` lists those there are")
    return found[0], Finding("ok", f"source: {found[0].get('type', 'collection')} {source.collection} is there")


async def _readable(collection: Any, source: Any) -> Finding:
    select = Select(subject_of(source))
    try:
        await collection.database.command("collStats", source.collection)
        await documents(collection, select.pipeline([], {"$limit": 1}))
    except pymongo.errors.OperationFailure as error:
        if error.code != DENIED:
            raise explained(error, f"{source.collection} cannot be read") from error
        return Finding("error", f"source: {source.collection} cannot be read", _grant(source, collection.database.name))
    columns = len(source.fields)
    return Finding("ok", f"source: {source.collection} can be read, {columns or 'no'} columns are declared")


async def _indexed(collection: Any, source: Any) -> Finding:
    if source.cursor in await leading_fields(collection):
        return Finding("ok", f"source: an index begins with {source.cursor}")
    return Finding(
        "warning",
        f"source: no index begins with {source.cursor}: every run reads the whole collection on the server",
        f"db.{source.collection}.createIndex({{{source.cursor!r}: 1}})",
    )


def _in_flight(block: MongoDB, source: Any) -> Finding:
    if source.lag:
        return Finding("ok", f"source: documents are held back by lag {source.lag}")
    lagging = "" if block.read_preference == "primary" else "; and the member that is read may be behind the primary"
    return Finding(
        "warning",
        f"source: MongoDB does not tell of writes in flight, so those that come late are passed over{lagging}",
        "set lag to more than the longest transaction, and than applications' clocks differ",
    )


def _one_state(server: Server, block: MongoDB) -> Finding:
    if block.read_concern == "snapshot" and server.has_snapshots:
        return Finding("ok", "source: all partitions of a full read show one moment")
    if block.read_concern == "snapshot":
        return Finding(
            "warning",
            "source: read_concern snapshot is not to be had from this server: the rows of a full read show no single moment",
            "read from a replica set of MongoDB 5 or newer",
        )
    return Finding(
        "ok",
        "source: the rows of a full read show no single moment"
        + ("; read_concern snapshot would make them" if server.has_snapshots else ", as this server has no snapshots"),
    )


def _grant(source: Any, database: str) -> str:
    user = source.connection.user or "…"
    return f"db.getSiblingDB({database!r}).grantRolesToUser({user!r}, ['read']), in the database the user was made in"
