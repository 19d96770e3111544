"""The kinds of source a stream can have. A new one is a module here, and a line in `KINDS`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, GetJsonSchemaHandler, Tag
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from tasks.extractors.kafka.source import KafkaTopics
from tasks.extractors.mysql.binlog.source import MySQLChanges
from tasks.extractors.mysql.source import MySQLQuery, MySQLTable
from tasks.extractors.postgres.source import PostgresQuery, PostgresTable
from tasks.extractors.source import Source

# The slug of the connection's block and the field that names what is read → the kind of source.
_KINDS: dict[tuple[str, str], str] = {
    ("postgres", "table"): "postgres-table",
    ("postgres", "query"): "postgres-query",
    ("mysql", "table"): "mysql-table",
    ("mysql", "query"): "mysql-query",
    ("mysql", "tables"): "mysql-changes",
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


class _AsTabs:
    """Shows the union as plain ``anyOf``: the forms of the Prefect UI make tabs of that, and a JSON editor of oneOf."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        shown = handler(schema)
        shown.pop("discriminator", None)
        if "oneOf" in shown:
            shown["anyOf"] = shown.pop("oneOf")
        return shown


AnySource = Annotated[
    Annotated[PostgresTable, Tag("postgres-table")]
    | Annotated[PostgresQuery, Tag("postgres-query")]
    | Annotated[MySQLTable, Tag("mysql-table")]
    | Annotated[MySQLQuery, Tag("mysql-query")]
    | Annotated[MySQLChanges, Tag("mysql-changes")]
    | Annotated[KafkaTopics, Tag("kafka-topics")],
    Discriminator(
        _kind,
        custom_error_type="source",
        custom_error_message="name a connection (such as postgres/shop) and what to read from it: "
        "table or query for postgres and mysql, tables for the changes of mysql tables, topics for kafka",
    ),
    _AsTabs(),
]

_MODELS: dict[str, type[Source]] = {
    "postgres-table": PostgresTable,
    "postgres-query": PostgresQuery,
    "mysql-table": MySQLTable,
    "mysql-query": MySQLQuery,
    "mysql-changes": MySQLChanges,
    "kafka-topics": KafkaTopics,
}

__all__ = ["AnySource", "Source"]
