"""The collections of a database, with what one needs to know to make streams of them: sizes, indexes, sampled fields."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pymongo.errors

from blocks.errors import ConfigurationError
from blocks.mongodb import MongoDB
from tasks.extractors.catalog import Cursor, Found, FoundField, Nested, matches, promises_changes, ranked, stream_name
from tasks.extractors.mongodb.client import DENIED, connected, explained, server_of
from tasks.extractors.mongodb.sample import Sample

_SAMPLE = 1_000
_SAMPLE_BYTES = 16 << 20
_CURSORS = {"date", "timestamp"}


async def collections(block: MongoDB, schema: str = "", like: str = "*", nested: Nested = "columns") -> list[Found]:
    """The collections (and views) of the block's database whose name matches, each with a sample of its documents."""
    if schema not in ("", block.database):
        raise ConfigurationError(
            f"a MongoDB connection reads one database, this one {block.database}; make a connection for {schema}"
        )
    async with connected(block) as client:
        await server_of(client, block)
        database = client[block.database]
        try:
            listed = await (await database.list_collections()).to_list(None)
        except pymongo.errors.PyMongoError as error:
            raise explained(error, "the collections cannot be listed") from error
        names = sorted(one["name"] for one in listed if not one["name"].startswith("system."))
        views = {one["name"] for one in listed if one.get("type") == "view"}
        return [
            await _found(database, name, nested, is_view=name in views)
            for name in names
            if matches(like, block.database, name)
        ]


async def _found(database: Any, name: str, nested: Nested, *, is_view: bool) -> Found:
    count, size = (None, 0) if is_view else await _size(database, name)
    sample, readable = Sample(), True
    mean = size // count if count else 0
    wanted = min(_SAMPLE, max(20, _SAMPLE_BYTES // mean)) if mean else _SAMPLE
    indexes: list[dict[str, Any]] = []
    try:
        async for batch in database[name].aggregate_raw_batches([{"$sample": {"size": wanted}}], batchSize=wanted):
            sample.add(batch)
        indexes = [] if is_view else await _indexes(database[name])
    except pymongo.errors.OperationFailure as error:
        if error.code != DENIED:
            raise explained(error, f"collection {name} cannot be sampled") from error
        readable = False
    return Found(
        written=name,
        stream=stream_name(name),
        rows=count,
        bytes=size,
        readable=readable,
        key=("_id",),
        cursors=ranked(_cursor(field, _leading(indexes)) for field in sample.fields() if _may_be_cursor(field)),
        kind="collection",
        fields=sample.fields(nested),
        sampled=sample.count,
        told=f"indexes: {', '.join(map(_written, indexes))}" if indexes else "",
    )


async def _size(database: Any, name: str) -> tuple[int | None, int]:
    try:
        stats = await database.command("collStats", name)
    except pymongo.errors.OperationFailure as error:
        if error.code != DENIED:
            raise explained(error, f"collection {name}") from error
        return None, 0
    return int(stats.get("count", 0)), int(stats.get("size", 0))


async def leading_fields(collection: Any) -> frozenset[str]:
    """The fields that an index begins with, which holds all documents in their order."""
    return _leading(await _indexes(collection))


async def _indexes(collection: Any) -> list[dict[str, Any]]:
    return list((await collection.index_information()).values())


def _leading(indexes: Iterable[dict[str, Any]]) -> frozenset[str]:
    return frozenset(
        str(index["key"][0][0]) for index in indexes if not _is_partial(index) and index["key"][0][1] in (1, -1)
    )


def _is_partial(index: dict[str, Any]) -> bool:
    return bool({"partialFilterExpression", "sparse"} & index.keys())


def _written(index: dict[str, Any]) -> str:
    """``(updated_at -1, number)``."""
    # Shells make numbers of them that are floats; of other kinds of index they are words.
    orders = [(path, f"{order:g}" if isinstance(order, (int, float)) else order) for path, order in index["key"]]
    keys = ", ".join(path if order == "1" else f"{path} {order}" for path, order in orders)
    return f"({keys})" + (" of some documents" if _is_partial(index) else "")


def _may_be_cursor(field: FoundField) -> bool:
    kinds = set(field.kinds) - {"null", "undefined"}
    if field.path == "_id":
        return kinds <= {"objectid"} or kinds <= {"int32", "int64"}
    return len(kinds) == 1 and kinds <= _CURSORS


def _cursor(field: FoundField, leading: Iterable[str]) -> Cursor:
    return Cursor(
        name=field.path,
        indexed=field.path in leading,
        filled=field.filled,
        generated=field.path == "_id",
        sees_changes="objectid" not in field.kinds and promises_changes(field.path.rpartition(".")[2]),
    )
