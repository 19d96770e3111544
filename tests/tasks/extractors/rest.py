"""What the tests of REST endpoints share: items of a test's own API, and reading them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import JsonValue

from blocks.rest import RestApi
from tasks.extractors.contract import Plan, ReadOptions
from tasks.extractors.fields import DeclaredColumn
from tasks.extractors.rest.source import RestEndpoint
from tests.contract import Row, collected
from tests.servers.rest import Space

NOTES = ["plain", None, "", 'a "quote", and\na line', "ünï✓", r"\N"]
FIELDS = (
    DeclaredColumn(name="id", type="integer", key=True),
    DeclaredColumn(name="note"),
    DeclaredColumn(name="amount", type="decimal"),
)
IDS = (FIELDS[0],)
SOME = datetime(2026, 1, 31, 12, tzinfo=UTC)


def stamp(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def item(number: int, updated_at: datetime = SOME, **more: Any) -> dict[str, Any]:
    return {"id": number, "note": NOTES[number % len(NOTES)], "amount": 100, "updated_at": stamp(updated_at), **more}


def items(count: int, first: int = 1, **more: Any) -> list[dict[str, Any]]:
    """So many, each a second younger than the one before."""
    return [item(n, SOME + timedelta(seconds=n), **more) for n in range(first, first + count)]


def block(space: Space, **changes: Any) -> RestApi:
    return RestApi(**{"base_url": space.url, "retries": 3, **changes})


def endpoint(space: Space, path: str = "/items", connection: RestApi | None = None, **fields: Any) -> RestEndpoint:
    given = {"records": "data.items", "pagination": {"kind": "next", "value": "next"}, "fields": IDS, "extra": "drop"}
    return RestEndpoint(connection=connection or block(space), path=path, **(given | fields))


async def read(source: RestEndpoint, since: JsonValue = None, **options: Any) -> tuple[list[Row], Plan]:
    """The rows of one read, and its plan."""
    async with source.open(ReadOptions(**options)) as extractor:
        plan = await extractor.plan(since)
        return await collected(extractor, plan), plan


async def ids(source: RestEndpoint, since: JsonValue = None, **options: Any) -> list[int]:
    """The first column of one read, in order."""
    return [int(row[0]) for row in (await read(source, since, **options))[0]]


async def in_thread(call: Any, *arguments: Any, **named: Any) -> Any:
    """Talk to the server without blocking the loop."""
    return await asyncio.to_thread(lambda: call(*arguments, **named))
