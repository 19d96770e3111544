"""The tables behind a connection, whichever kind it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from prefect.blocks.core import Block

from blocks.kafka import Kafka
from blocks.mongodb import MongoDB
from blocks.mysql import MySQL
from blocks.postgres import Postgres
from blocks.rest import RestApi
from tasks.extractors.catalog import Found
from tasks.extractors.kafka import discover as kafka
from tasks.extractors.mongodb import discover as mongodb
from tasks.extractors.mysql import discover as mysql
from tasks.extractors.postgres import discover as postgres
from tasks.extractors.rest import discover as rest

KINDS: dict[type[Block], Callable[[Any, str, str], Awaitable[list[Found]]]] = {
    Postgres: postgres.tables,
    MySQL: mysql.tables,
    MongoDB: mongodb.collections,
    Kafka: kafka.topics,
    RestApi: rest.endpoint,
}
"""How each kind of connection is asked. A new source adds its line here."""


async def tables(block: Block, schema: str = "", like: str = "*") -> list[Found]:
    """The tables of ``schema`` (empty: all, or the block's own database) whose name, or ``schema.name``, matches."""
    return await KINDS[type(block)](block, schema, like)
