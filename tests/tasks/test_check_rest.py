"""`headrace check` of an endpoint: one page tells whether a run would go well."""

from __future__ import annotations

from typing import Any

from tasks import check_rest
from tasks.extractors.contract import ReadOptions
from tasks.extractors.fields import DeclaredColumn
from tests.servers.rest import Space
from tests.tasks.extractors.rest import FIELDS, block, endpoint, in_thread, item, items


async def found(space: Space, **fields: Any) -> list[str]:
    """All findings, as they are printed."""
    return [str(finding) async for finding in check_rest.look(endpoint(space, **fields), ReadOptions())]


async def test_an_endpoint_that_can_be_read(rest_space: Space) -> None:
    """It is said who answers, and what came."""
    await in_thread(rest_space.add, items(5))
    assert await found(rest_space, cursor="updated_at", params={"since": "{since}", "limit": "3"}) == [
        f"✓ source: {rest_space.url} answers, in clear",
        "✓ source: /items can be read, 3 record(s) on the first page",
    ]


async def test_what_does_not_fit_is_told(rest_space: Space) -> None:
    """Columns that no record has, values of another type, records without a cursor, a server without a clock."""
    await in_thread(rest_space.rule, path="items", times=-1, no_date=True)
    await in_thread(rest_space.add, [item(1), item(2) | {"note": 5, "updated_at": None}])
    told = "\n".join(
        await found(rest_space, cursor="updated_at", fields=(*FIELDS[:2], DeclaredColumn(name="city", path="geo.city")))
    )
    assert "without its time (header Date)" in told
    assert "1 of 2 records have no updated_at" in told
    assert "no record has city" in told
    assert "note: not of type text, written as text (1)" in told


async def test_nobody_there(rest_space: Space) -> None:
    """One error, with what to check."""
    nobody = block(rest_space, base_url="http://127.0.0.1:9", retries=0)
    (told,) = await found(rest_space, connection=nobody)
    assert told.startswith("✗ source: http://127.0.0.1:9 cannot be reached")
    assert "check base_url" in told
