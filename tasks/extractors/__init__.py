"""The kinds of source a stream can have. A new one is a module here, and a line in `_KINDS` and in `AnySource`."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import Discriminator, Tag

from tasks.extractors.kafka.source import KafkaTopics
from tasks.extractors.mongodb.source import MongoDBCollection
from tasks.extractors.mysql.binlog.source import MySQLChanges
from tasks.extractors.mysql.source import MySQLQuery, MySQLTable
from tasks.extractors.postgres.source import PostgresQuery, PostgresTable
from tasks.extractors.rest.source import RestEndpoint
from tasks.extractors.source import Source
from tasks.extractors.tabs import AsTabs

# The slug of the connection's block and the field that names what is read → the kind of source.
_KINDS: dict[tuple[str, str], str] = {
    ("postgres", "table"): "postgres-table",
    ("postgres", "query"): "postgres-query",
    ("mysql", "table"): "mysql-table",
    ("mysql", "query"): "mysql-query",
    ("mysql", "tables"): "mysql-changes",
    ("mongodb", "collection"): "mongodb-collection",
    ("rest-api", "path"): "rest-endpoint",
    ("kafka", "topics"): "kafka-topics",
}


def _kind(value: Any) -> str | None:
    """Which kind a source is: by what it names (a table, a query) and by the block it connects through."""
    if isinstance(value, Source):
        return next((tag for tag, model in _MODELS.items() if isinstance(value, model)), None)
    if not isinstance(value, dict):
        return None
    connection = value.get("connection")
    slug = connection.split("/")[0] if isinstance(connection, str) and "/" in connection else _slug(connection)
    return next((tag for (block, field), tag in _KINDS.items() if field in value and slug in (block, None)), None)


def _slug(connection: Any) -> str | None:
    slug = getattr(type(connection), "get_block_type_slug", None)
    return str(slug()) if slug is not None else None


AnySource = Annotated[
    Annotated[PostgresTable, Tag("postgres-table")]
    | Annotated[PostgresQuery, Tag("postgres-query")]
    | Annotated[MySQLTable, Tag("mysql-table")]
    | Annotated[MySQLQuery, Tag("mysql-query")]
    | Annotated[MySQLChanges, Tag("mysql-changes")]
    | Annotated[MongoDBCollection, Tag("mongodb-collection")]
    | Annotated[RestEndpoint, Tag("rest-endpoint")]
    | Annotated[KafkaTopics, Tag("kafka-topics")],
    Discriminator(
        _kind,
        custom_error_type="source",
        custom_error_message="name a connection (such as postgres/shop) and what to read from it: "
        "table or query for postgres and mysql, tables for the changes of mysql tables, collection for mongodb, "
        "path for rest-api, topics for kafka",
    ),
    AsTabs(),
]

# By tag, as the union above has them.
_MODELS: dict[str, type[Source]] = {tag.tag: model for model, tag in map(get_args, get_args(get_args(AnySource)[0]))}

__all__ = ["AnySource", "Source"]
