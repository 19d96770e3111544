"""The parts of an event that are the same in every format: what happened, and where in the source's log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

LETTERS = {"c": "I", "u": "U", "d": "D", "r": "S", "t": "T"}
"""``op`` → ``_op``; ``m`` (pg_logical_emit_message) is no record of a table."""


class Source(msgspec.Struct, gc=False):
    """Where a change comes from: https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-create-events"""

    name: str = ""
    """The connector's: ``topic.prefix``."""
    db: str | None = None
    schema: str | None = None
    table: str | None = None
    ts_ms: int | None = None
    ts_us: int | None = None
    """When the transaction was committed."""
    lsn: int | None = None
    sequence: str | None = None
    """PostgreSQL: JSON of the end of the last transaction before this one, and of ``lsn``."""
    file: str | None = None
    pos: int | None = None
    row: int | None = None
    server_id: int | None = None

    @property
    def of_table(self) -> str:
        """``public.orders``; MySQL has databases for schemas."""
        return f"{self.schema or self.db}.{self.table}" if self.schema or self.db else str(self.table or "")


class Flat(msgspec.Struct, gc=False):
    """A flattened event, or one of Avro, in the form of an envelope."""

    op: str
    source: Source
    after: Any = None
    before: Any = None


_RAW_NULL = msgspec.Raw(b"null")


class Probe(msgspec.Struct):
    """What is looked at of a message to find out what it is."""

    op: str | None = None
    source: msgspec.Raw = _RAW_NULL
    before: msgspec.Raw = _RAW_NULL
    after: msgspec.Raw = _RAW_NULL
    ddl: msgspec.Raw = _RAW_NULL
    status: msgspec.Raw = _RAW_NULL
    id: msgspec.Raw = _RAW_NULL


class ProbedSource(Source):
    """With what only the first event of a shape is asked for."""

    connector: str = ""


def is_null(raw: msgspec.Raw) -> bool:
    return bytes(raw) == b"null"


OTHERS = {
    "io.debezium.connector.common.TransactionMetadataValue": "transaction boundaries, passed over",
    "io.debezium.connector.common.Heartbeat": "heartbeats, passed over",
    "io.debezium.connector.mysql.SchemaChangeValue": "schema changes, passed over",
    "io.debezium.connector.mariadb.SchemaChangeValue": "schema changes, passed over",
    "io.debezium.connector.common.Notification": "notifications, passed over",
}
"""Schemas of messages that are no rows, and as what they are counted."""

MESSAGES = "messages of pg_logical_emit_message, passed over"

GONE = "updates of documents that were deleted since, passed over"


def other_kind(names: Mapping[str, Any]) -> str | None:
    """As what a message without a schema is counted that is no row; None where it is not known."""
    if "ddl" in names and "tableChanges" in names:
        return OTHERS["io.debezium.connector.mysql.SchemaChangeValue"]
    if {"status", "id", "event_count"} <= names.keys():
        return OTHERS["io.debezium.connector.common.TransactionMetadataValue"]
    if names.keys() == {"ts_ms"}:
        return OTHERS["io.debezium.connector.common.Heartbeat"]
    if names.get("op") == "m" or {"message", "source"} <= names.keys():
        return MESSAGES
    return None
