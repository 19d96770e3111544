"""Parameters that take a block or its name: inside and outside an event loop, and what a person reads when it fails."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.filesystems import LocalFileSystem
from prefect.utilities.callables import parameter_schema
from pydantic import BaseModel, TypeAdapter

from blocks.connect import BlockOrName, kinds_of, load_by_name, names_of
from blocks.errors import ConfigurationError
from blocks.mysql import MySQL
from blocks.postgres import Postgres
from blocks.s3 import S3Destination
from blocks.watermark import Watermark

PASSWORD = "s3cret%pass"


class Source(BaseModel):
    """A model with a connection, as flows have them."""

    connection: BlockOrName[Postgres]


ANY: TypeAdapter[Any] = TypeAdapter(BlockOrName[Postgres | S3Destination])


@pytest.fixture
async def shop(prefect_api: str) -> Postgres:
    """A saved connection ``postgres/shop``."""
    block = Postgres(host="db.example", database="shop", user="reader", password=PASSWORD)
    await block.asave("shop", overwrite=True)
    return block


@pytest.mark.parametrize("name", ["postgres/shop", "shop"])
async def test_name_becomes_the_block_inside_an_event_loop(shop: Postgres, name: str) -> None:
    """Validation is synchronous code, and loads the block, not a coroutine, while a loop is running."""
    assert Source(connection=name).connection == shop


async def test_name_becomes_the_block_without_an_event_loop(shop: Postgres) -> None:
    """The same validation works in a thread that has no loop."""
    assert (await asyncio.to_thread(Source, connection="shop")).connection == shop


async def test_block_stays_as_it_is(shop: Postgres) -> None:
    """A block given as such is taken, saved or not."""
    unsaved = Postgres(host="localhost", database="d", user="u")
    assert Source(connection=shop).connection is shop
    assert Source(connection=unsaved).connection is unsaved


async def test_reference_becomes_the_block(shop: Postgres) -> None:
    """The safe way to write a block into a deployment, by slug, is understood without Prefect's help too."""
    assert Source(connection={"$ref": {"block_document_slug": "postgres/shop"}}).connection == shop


@pytest.mark.parametrize(
    "value", ["postgres/shop", "shop", {"$ref": {"block_document_slug": "postgres/shop"}}, "the block itself"]
)
async def test_flow_parameters(shop: Postgres, tmp_path: Path, value: Any) -> None:
    """A running flow gets the block, whichever way it was named."""

    # With a storage of its own: see test_s3.
    storage = LocalFileSystem(basepath=str(tmp_path))
    await storage.asave("connect", overwrite=True)

    @flow(result_storage=storage)
    async def read(connection: BlockOrName[Postgres], source: Source) -> tuple[Postgres, Postgres]:
        return connection, source.connection

    given: Any = shop if value == "the block itself" else value
    as_json: Any = {"connection": given}
    assert await read(given, Source(connection=given)) == (shop, shop)
    assert await read(given, as_json) == (shop, shop)


def test_form_offers_the_block_and_its_name() -> None:
    """The schema that the UI draws forms from has the block picker and a text field called Name."""

    def read(connection: BlockOrName[Postgres]) -> None: ...

    schema: Any = parameter_schema(read)
    reference, text = schema.properties["connection"]["anyOf"]
    assert schema.definitions[reference["$ref"].rpartition("/")[2]]["block_type_slug"] == "postgres"
    assert (text["type"], text["title"]) == ("string", "Name")


@pytest.mark.parametrize("name", ["postgres/absent", "absent"])
async def test_missing_block_is_named(shop: Postgres, name: str) -> None:
    """A block that is not there is an error that lists those that are, and the two ways to make one."""
    with pytest.raises(ConfigurationError) as caught:
        Source(connection=name)
    for part in (repr(name), "postgres/shop", "headrace configure", "Blocks page"):
        assert part in str(caught.value)


@pytest.mark.parametrize("value", ["s3-destination/lake", "nonsense/shop", Watermark(stream="orders")])
async def test_wrong_kind_is_named(shop: Postgres, value: Any) -> None:
    """A block of another kind is an error that says which kind is wanted."""
    with pytest.raises(ConfigurationError, match=r"wrong kind: wanted is postgres \(.*postgres/shop"):
        Source(connection=value)


async def test_kind_that_was_never_saved(prefect_api: str) -> None:
    """With no block of the kind at all, the error says so."""

    class Unseen(Postgres):
        _block_type_name = "Unseen"
        _block_type_slug = "unseen"

    assert names_of(Unseen) == []
    with pytest.raises(ConfigurationError, match="none is saved yet"):
        load_by_name((Unseen,), "unseen/one")


async def test_union_of_kinds(shop: Postgres) -> None:
    """Where several kinds will do, the name alone finds the one there is, and the error names all kinds."""
    assert kinds_of(Postgres | S3Destination | str) == (Postgres, S3Destination)
    assert ANY.validate_python("shop") == shop
    with pytest.raises(ConfigurationError, match="postgres or s3-destination"):
        ANY.validate_python("absent")


async def test_name_of_two_kinds(shop: Postgres) -> None:
    """A bare name that blocks of two kinds have is not guessed at: the error tells both ways to write it."""
    other = MySQL(host="db.example", database="shop", user="reader")
    await other.asave("shop", overwrite=True)
    try:
        with pytest.raises(ConfigurationError, match="write postgres/shop or mysql/shop"):
            load_by_name((Postgres, MySQL), "shop")
        assert isinstance(load_by_name((Postgres, MySQL), "mysql/shop"), MySQL)
    finally:
        await MySQL.adelete("shop")


async def test_fields_instead_of_a_name_are_refused(shop: Postgres) -> None:
    """A connection written out would be stored readable with the run, so it is refused, and its password not shown."""
    with pytest.raises(ConfigurationError, match="name of a saved block") as caught:
        Source(connection={"host": "h", "database": "d", "user": "u", "password": PASSWORD})
    assert PASSWORD not in str(caught.value)


async def test_stored_block_that_is_no_longer_valid(prefect_api: str) -> None:
    """Stored fields that do not pass validation are a configuration error that shows no secret."""
    bad = Postgres(host="h", database="d", user="u", password=PASSWORD)
    bad.port = 0
    await bad.asave("bad", overwrite=True)
    with pytest.raises(ConfigurationError, match="postgres/bad has to be configured anew") as caught:
        Source(connection="bad")
    assert PASSWORD not in str(caught.value)
    assert "port" in str(caught.value)
    await Postgres.adelete("bad")
