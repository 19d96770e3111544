"""The settings of a Debezium connector that lose nothing, and whose events are decoded to the bytes of our own SELECT."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from blocks.mongodb import MongoDB
from blocks.mysql import MySQL
from blocks.postgres import Postgres
from tasks.extractors.kafka.capture import LOOKS_UP

POSTGRES = "io.debezium.connector.postgresql.PostgresConnector"
MYSQL = "io.debezium.connector.mysql.MySqlConnector"
MONGODB = "io.debezium.connector.mongodb.MongoDbConnector"

_EXACT = {
    # With their schemas events say what each value is.
    "key.converter": "org.apache.kafka.connect.json.JsonConverter",
    "value.converter": "org.apache.kafka.connect.json.JsonConverter",
    "key.converter.schemas.enable": "true",
    "value.converter.schemas.enable": "true",
    # Else a column's default stands where NULL should, and nothing tells them apart.
    "key.converter.replace.null.with.default": "false",
    "value.converter.replace.null.with.default": "false",
    "column.propagate.source.type": ".*",  # the database's own name of each type
    "decimal.handling.mode": "string",  # precise makes NULL of NaN
    "time.precision.mode": "adaptive",
    "binary.handling.mode": "bytes",
    "skipped.operations": "none",  # a truncate is a change, too
    "tombstones.on.delete": "false",  # for compaction, which would lose changes
    "heartbeat.interval.ms": "10000",
    "errors.max.retries": "-1",
    "max.batch.size": "8192",
    "max.queue.size": "32768",
}


@dataclass(frozen=True)
class Capture:
    """What a connector is asked for."""

    name: str
    """Of the connector, its slot and its publication."""
    prefix: str
    """What its topics begin with."""
    tables: tuple[str, ...]
    """``public.orders``, ``shop.orders``: these and no others."""
    password: str = field(repr=False)
    """The database user's, or how Connect's config provider is asked for it."""


def slot_name(name: str) -> str:
    """Of the replication slot and the publication of a stream: ``a-z 0-9 _``, 63 characters at most.

    >>> slot_name("shop-changes")
    'headrace_shop_changes'
    >>> slot_name("a" * 99) == slot_name("a" * 100)
    False
    """
    whole = f"headrace_{name.replace('-', '_')}"
    # Two long names that begin alike would share slot and publication, and each take the other's tables out of it.
    return whole if len(whole) <= 63 else f"{whole[:54]}_{zlib.crc32(name.encode()):08x}"


def of_postgres(block: Postgres, capture: Capture, *, messages: bool) -> dict[str, str]:
    """``messages``: whether the server's log takes messages (PostgreSQL 14), by which a slot moves on in idle tables."""
    beat = "SELECT pg_logical_emit_message(false, 'headrace', 'heartbeat')"
    return {
        **_EXACT,
        "connector.class": POSTGRES,
        "tasks.max": "1",
        "topic.prefix": capture.prefix,
        "plugin.name": "pgoutput",
        "database.hostname": block.host,
        "database.port": str(block.port),
        "database.dbname": block.database,
        "database.user": block.user,
        "database.password": capture.password,
        "database.sslmode": block.tls_mode,
        "slot.name": slot_name(capture.name),
        "publication.name": slot_name(capture.name),
        "publication.autocreate.mode": "disabled",
        "table.include.list": _listed(capture.tables),
        "interval.handling.mode": "string",
        "hstore.handling.mode": "json",
        "include.unknown.datatypes": "true",  # else columns of such types are left out
        **({"heartbeat.action.query": beat} if messages else {}),
    }


_SSL_MODES = {
    "verify-full": "verify_identity",
    "verify-ca": "verify_ca",
    "require": "required",
    "prefer": "preferred",
    "disable": "disabled",
}
HISTORY_SECURITY = "schema.history.internal.producer.security.protocol"
"""By which a connector reaches brokers that want a log-in or TLS; it keeps its history by clients of its own."""


def history_topic(prefix: str) -> str:
    """Where a connector keeps the history of the tables' shapes: named so that no pattern of the stream's topics fits it."""
    return f"schema-history.{prefix}"


def of_mysql(block: MySQL, capture: Capture, *, bootstrap: str, server_id: int) -> dict[str, str]:
    """``bootstrap``: the brokers that keep the history of the tables' shapes; ``server_id``: like no other replica's."""
    return {
        **_EXACT,
        "connector.class": MYSQL,
        "tasks.max": "1",
        "topic.prefix": capture.prefix,
        "database.hostname": block.host,
        "database.port": str(block.port),
        "database.user": block.user,
        "database.password": capture.password,
        "database.ssl.mode": _SSL_MODES[block.tls_mode],
        # In clear a log-in with caching_sha2_password needs the server's key, which nobody vouches for.
        **({"driver.allowPublicKeyRetrieval": "true"} if block.tls_mode == "disable" else {}),
        "database.server.id": str(server_id),
        "database.include.list": _listed(sorted({table.partition(".")[0] for table in capture.tables})),
        "table.include.list": _listed(capture.tables),
        "time.precision.mode": "adaptive_time_microseconds",
        "bigint.unsigned.handling.mode": "precise",  # long makes -1 of the largest
        "include.schema.changes": "false",
        "schema.history.internal.kafka.bootstrap.servers": bootstrap,
        "schema.history.internal.kafka.topic": history_topic(capture.prefix),
        # Of all tables of these databases: of one that is captured later the connector would not know the shape.
        "schema.history.internal.store.only.captured.tables.ddl": "false",
        "schema.history.internal.store.only.captured.databases.ddl": "true",
    }


CONNECTION_STRING = "mongodb.connection.string"


def of_mongodb(block: MongoDB, capture: Capture, *, replica_set: str) -> dict[str, str]:
    """``replica_set``: the server's own name of it; empty for a sharded cluster."""
    user, _, database = block.account
    account = {"mongodb.user": user, "mongodb.password": capture.password, "mongodb.authsource": database}
    mode = block.tls_mode
    tls = {} if mode is None else {"mongodb.ssl.enabled": str(mode != "disable").lower()}
    if mode in ("verify-ca", "require"):
        tls["mongodb.ssl.invalid.hostname.allowed"] = "true"
    return {
        **_EXACT,
        # Documents have no schema: it would say the same of every event, in more bytes than most have.
        "key.converter.schemas.enable": "false",
        "value.converter.schemas.enable": "false",
        "connector.class": MONGODB,
        "tasks.max": "1",
        "topic.prefix": capture.prefix,
        CONNECTION_STRING: block.place(replicaSet=replica_set),
        **(account if user else {}),
        **tls,
        "capture.mode": LOOKS_UP,
        "capture.scope": "database",  # which needs no rights on others
        "capture.target": block.database,
        "collection.include.list": ",".join(capture.tables),
        "filters.match.mode": "literal",
    }


def _listed(tables: Sequence[str]) -> str:
    """Regular expressions, in which every sign stands for itself."""
    return ",".join(map(re.escape, tables))
