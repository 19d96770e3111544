"""`headrace discover` of an endpoint: what its first page shows, and that what is proposed can be read."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
import yaml

from blocks.errors import ConfigurationError
from tasks.discover import tables
from tasks.extractors.catalog import Found, deployment
from tasks.extractors.rest.source import RestEndpoint
from tests.flows.test_cli import headrace
from tests.servers.rest import Space
from tests.tasks.extractors.rest import block, in_thread, item, items, read


async def discovered(space: Space, path: str) -> Found:
    (found,) = await tables(block(space), "", path)
    return found


def _item(number: int) -> dict[str, Any]:
    geo = {"city": "Rome", "zip": 7 if number % 2 else "07", "a.b": number}
    more: dict[str, Any] = {"geo": geo, "tags": [number], "price": 1.5, "day": "2026-01-31", "nothing": None}
    more |= {"ref": "0f8fad5b-d9cb-469f-a165-70867728950e"} if number % 4 else {}
    return item(number, **more)


async def test_an_endpoint(rest_space: Space) -> None:
    """Fields with types and how often they occur; where the records are; a key, a cursor; what speaks of further pages."""
    await in_thread(rest_space.add, [_item(number) for number in range(1, 41)])
    found = await discovered(rest_space, "/items?limit=20")
    assert [(field.name, field.path, field.type) for field in found.fields] == [
        ("id", "id", "integer"),
        ("note", "note", "text"),
        ("amount", "amount", "integer"),
        ("updated_at", "updated_at", "timestamptz"),
        ("geo_city", "geo.city", "text"),
        ("geo_zip", "geo.zip", "text"),
        ("geo_a.b", 'geo."a.b"', "integer"),
        ("tags", "tags", "json"),
        ("price", "price", "decimal"),
        ("day", "day", "date"),
        ("nothing", "nothing", "json"),
        ("ref", "ref", "uuid"),
    ]
    shares = {field.name: (field.share, field.filled) for field in found.fields}
    assert (shares["id"], shares["ref"], shares["nothing"]) == ((1, True), (0.75, False), (1, False))
    assert (found.sampled, found.key, found.stream) == (20, ("id",), "items")
    assert found.proposed is not None
    assert found.proposed.name == "updated_at"
    assert found.also == ('records: "data.items"', "# further pages: see has_more, and set pagination")


@pytest.mark.parametrize("form", ["", "&as=bare", "&as=ndjson", "&as=one"])
async def test_what_is_proposed_can_be_read(rest_space: Space, form: str) -> None:
    """As it stands in `prefect.yaml`: a column for each field, and nothing left over."""
    await in_thread(rest_space.add, [_item(number) for number in range(1, 11)])
    found = await discovered(rest_space, f"/items?limit=100{form}")
    (entry,) = yaml.safe_load(deployment(found, found.stream, "rest-api/shop", "s3-destination/lake"))
    assert entry["parameters"]["mode"] == "incremental"
    source = entry["parameters"]["source"] | {"connection": block(rest_space), "extra": "refuse", "lag": "0 seconds"}
    source["pagination"] = {"kind": "none"}
    rows, plan = await read(RestEndpoint(**source), mode="incremental")
    assert len(rows) == (1 if "one" in form else 10)
    assert [column.name for column in plan.columns if column.key] == ["id"]
    assert len(plan.columns) == len(found.fields)


async def test_further_pages_by_link(rest_space: Space) -> None:
    """They need no pagination to be set."""
    await in_thread(rest_space.add, items(5))
    assert (await discovered(rest_space, "/items?limit=2&as=bare")).told == "further pages: by the header Link"
    assert (await discovered(rest_space, "/items?limit=9&as=bare")).told == "no sign of further pages"


async def test_the_command(rest_space: Space, prefect_api: str) -> None:
    """`headrace discover` shows the fields, and a deployment to paste."""
    assert prefect_api
    await in_thread(rest_space.add, [_item(number) for number in range(1, 5)])
    name = f"r-{secrets.token_hex(4)}"
    await block(rest_space).asave(name)
    told = await headrace("discover", f"rest-api/{name}", "--like", "/items")
    assert told.exit_code == 0, told.output
    for words in (
        "fields of /items",
        "geo.city",
        "75.0%",
        "of 4 documents of the first page; no sign of further pages",
    ):
        assert words in told.stdout
    pasted = await headrace("discover", f"rest-api/{name}", "--yaml", "--like", "/items")
    source = yaml.safe_load(pasted.stdout)["deployments"][0]["parameters"]["source"]
    assert (source["connection"], source["path"], source["records"]) == (f"rest-api/{name}", "/items", "data.items")
    assert (await headrace("discover", f"rest-api/{name}")).exit_code == 1


async def test_nothing_to_go_by(rest_space: Space) -> None:
    """An API without the name of an endpoint, one that is not there, and one that has no records."""
    with pytest.raises(ConfigurationError, match=r"does not list its endpoints: name one, such as .* --like /orders"):
        await tables(block(rest_space))
    with pytest.raises(ConfigurationError, match=r"was answered with 404 .*check the field path"):
        await tables(block(rest_space), "", "/nowhere")
    found = await discovered(rest_space, "/empty?as=bare")
    assert (found.fields, found.key, found.cursors) == ((), (), ())
