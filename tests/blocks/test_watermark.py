"""The watermark block: there or not there, and any position comes back as it was saved."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from pydantic import ValidationError

from blocks.watermark import Watermark


def test_fields_are_documented() -> None:
    """Every field has a title and a description, which the Prefect UI shows as a form."""
    assert all(field.title and field.description for field in Watermark.model_fields.values())


@pytest.mark.parametrize("stream", ["", "Orders", "a_b", "-a", "a/b", "a b"])
def test_stream_names_are_plain(stream: str) -> None:
    """A stream's name must do as the name of a block and of a folder."""
    with pytest.raises(ValidationError):
        Watermark(stream=stream)


async def test_unknown_stream_has_no_watermark(prefect_api: str) -> None:
    """A stream that was never saved has none, before and after the kind is registered."""
    assert await Watermark.of("never-saved") is None
    await Watermark(stream="some-other").put()
    assert await Watermark.of("never-saved") is None


@pytest.mark.parametrize(
    "position",
    [None, 0, 12345678901234567890, 1.5, "2024-01-01 00:00:00+00", [], [1, [None]], {}, {"a": {}, "b.c": {"d": [{}]}}],
)
async def test_any_position_comes_back(prefect_api: str, position: Any) -> None:
    """A position of any JSON shape comes back as it was, also over an earlier one of another shape."""
    for first in ({"old": {"deep": 1}}, position):
        await Watermark(stream="shapes", sequence=1, position=first, pending={"since": first}).put()
    loaded = await Watermark.of("shapes")
    assert loaded is not None
    assert loaded.position == position
    assert loaded.pending == {"since": position}


async def test_first_watermarks_of_a_server_meet(prefect_api: str) -> None:
    """Streams that begin at once on a server which knows no watermark yet are all saved, at the first try."""
    streams = [f"first-{number}" for number in range(8)]
    async with get_client() as client:
        for _ in range(5):
            with suppress(ObjectNotFound):
                await client.delete_block_type((await client.read_block_type_by_slug("watermark")).id)
            await asyncio.gather(*(Watermark(stream=stream).put() for stream in streams))
    assert all([await Watermark.of(stream) for stream in streams])


async def test_put_replaces_everything(prefect_api: str) -> None:
    """Saving again replaces every field, a pending plan by none included, and stamps the time."""
    await Watermark(stream="orders", sequence=1, pending={"id": "p"}, destination="s3://lake/orders").put()
    watermark = await Watermark.of("orders")
    assert watermark is not None
    watermark.sequence, watermark.pending = 2, None
    await watermark.put()
    loaded = await Watermark.of("orders")
    assert loaded is not None
    assert (loaded.sequence, loaded.pending, loaded.destination) == (2, None, "s3://lake/orders")
    assert loaded.updated is not None
    assert loaded.updated == watermark.updated
    assert abs(loaded.updated - datetime.now(UTC)).total_seconds() < 60


async def test_other_errors_go_through(prefect_api: str) -> None:
    """A server that cannot be reached is an error, never a stream without a watermark."""
    unreachable = {PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}
    with temporary_settings(updates=unreachable), pytest.raises((httpx.HTTPError, RuntimeError)):
        await Watermark.of("orders")
