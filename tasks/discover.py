"""The tables behind a connection, whichever kind it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from prefect.blocks.core import Block

from blocks.errors import ConfigurationError
from blocks.kafka import Kafka
from blocks.mongodb import MongoDB
from blocks.mysql import MySQL
from blocks.postgres import Postgres
from blocks.rest import RestApi
from tasks.extractors.catalog import Found, Nested
from tasks.extractors.kafka import discover as kafka
from tasks.extractors.mongodb import discover as mongodb
from tasks.extractors.mysql import discover as mysql
from tasks.extractors.postgres import discover as postgres
from tasks.extractors.rest import discover as rest

_TABLES: dict[type[Block], Callable[[Any, str, str], Awaitable[list[Found]]]] = {
    Postgres: postgres.tables,
    MySQL: mysql.tables,
    Kafka: kafka.topics,
}
"""How each kind of connection is asked. A new source adds its line here."""

_DOCUMENTS: dict[type[Block], Callable[[Any, str, str, Nested], Awaitable[list[Found]]]] = {
    MongoDB: mongodb.collections,
    RestApi: rest.endpoint,
}
"""The same for sources without a schema, whose columns are proposed."""

KINDS = (*_TABLES, *_DOCUMENTS)


async def tables(block: Block, schema: str = "", like: str = "*", nested: Nested = "columns") -> list[Found]:
    """The tables of ``schema`` (empty: all, or the block's own database) whose name, or ``schema.name``, matches."""
    kind = type(block)
    if kind in _DOCUMENTS:
        return await _DOCUMENTS[kind](block, schema, like, nested)
    if nested != "columns":
        raise ConfigurationError(
            f"--nested {nested}: the columns of {kind.__name__} are not proposed from documents; leave it out"
        )
    return await _TABLES[kind](block, schema, like)
