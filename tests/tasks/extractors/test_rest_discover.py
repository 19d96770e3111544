"""`headrace discover` of an endpoint: what its first page shows, and that what is proposed can be read."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
import yaml

from blocks.errors import ConfigurationError
from blocks.postgres import Postgres
from tasks.discover import tables
from tasks.extractors.catalog import Found, Nested, deployment
from tasks.extractors.contract import Plan
from tasks.extractors.rest.source import RestEndpoint
from tests.contract import Row
from tests.flows.test_cli import headrace
from tests.servers.rest import Space
from tests.tasks.extractors.rest import SOME, block, in_thread, item, items, read, stamp


async def discovered(space: Space, path: str, nested: Nested = "columns") -> Found:
    (found,) = await tables(block(space), "", path, nested)
    return found


async def read_as_proposed(space: Space, found: Found) -> tuple[list[Row], Plan]:
    """What the deployment reads that is proposed; nothing may be left over."""
    (entry,) = yaml.safe_load(deployment(found, found.stream, "rest-api/shop", "s3-destination/lake"))
    assert entry["parameters"]["mode"] == "incremental"
    source = entry["parameters"]["source"] | {"connection": block(space), "extra": "refuse", "lag": "0 seconds"}
    source["pagination"] = {"kind": "none"}
    return await read(RestEndpoint(**source), mode="incremental")


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
    rows, plan = await read_as_proposed(rest_space, found)
    assert len(rows) == (1 if "one" in form else 10)
    assert [column.name for column in plan.columns if column.key] == ["id"]
    assert len(plan.columns) == len(found.fields)


async def test_nested_objects_as_columns_or_as_json(rest_space: Space) -> None:
    """A column for each member, called by its path; or one for each object. What is proposed reads all of it."""
    made = {
        "id": 1,
        "updated_at": stamp(SOME),
        "geo": {"city": "Rome", "at": {"lat": 1.50}},
        "meta": {"changed_at": stamp(SOME)},
    }
    await in_thread(rest_space.add, [made])
    flat, whole = [await discovered(rest_space, "/items", nested) for nested in ("columns", "json")]
    assert [field.name for field in flat.fields] == ["id", "updated_at", "geo_city", "geo_at_lat", "meta_changed_at"]
    assert [(field.name, field.type) for field in whole.fields[2:]] == [("geo", "json"), ("meta", "json")]
    assert flat.cursors == whole.cursors  # also one that is in an object
    assert (await read_as_proposed(rest_space, flat))[0][0][2:4] == ("Rome", "1.5")
    assert (await read_as_proposed(rest_space, whole))[0][0][2] == '{"city":"Rome","at":{"lat":1.5}}'


async def test_tables_have_no_nested_objects() -> None:
    """The option is refused where it would do nothing."""
    with pytest.raises(ConfigurationError, match=r"--nested json: the columns of Postgres are not proposed .*leave it"):
        await tables(Postgres(host="127.0.0.1", database="shop", user="reader"), nested="json")


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
    assert {"name": "geo_city", "path": "geo.city"} in source["fields"]
    whole = await headrace("discover", f"rest-api/{name}", "--yaml", "--like", "/items", "--nested", "json")
    assert '{name: "geo", type: "json"}' in whole.stdout
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
