"""What the tests of Debezium's events share: connectors on real databases, and the messages they write."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import fastavro
from confluent_kafka import Consumer

from blocks.s3 import CsvDialect
from tasks.cdc import settings
from tasks.cdc.settings import Capture
from tasks.extractors.contract import Output, Records
from tasks.extractors.kafka.debezium import DebeziumDecoder, DebeziumOptions, debezium_decoder
from tasks.extractors.kafka.message import Message
from tests.servers.connect import ConnectServer
from tests.servers.kafka import KafkaServer
from tests.servers.mysql import MySQLServer
from tests.servers.postgres import PostgresServer
from tests.tasks.extractors import test_mysql, test_postgres
from tests.tasks.extractors.binlog import fields

SAMPLES = Path(__file__).parent / "debezium_samples"

_JSON = "org.apache.kafka.connect.json.JsonConverter"


def compact(document: Any) -> bytes:
    """JSON as Connect's converter writes it."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def sample(name: str) -> list[Message]:
    """Events that were recorded of Debezium 3.6, as messages of one partition."""
    lines = (SAMPLES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [message(offset, **json.loads(line)) for offset, line in enumerate(lines)]


def message(offset: int, topic: str, key: Any, value: Any, headers: Mapping[str, Any] | None = None) -> Message:
    """A message of these documents."""
    key, value = (None if part is None else compact(part) for part in (key, value))
    return Message(topic, 0, offset, 1_795_388_467_000, key, value, ())


def decode(
    messages: list[Message], options: DebeziumOptions | None = None, dialect: CsvDialect | None = None
) -> list[tuple[Output, Records]]:
    """Their records."""
    return decoder(options, dialect)(messages)


def decoder(options: DebeziumOptions | None = None, dialect: CsvDialect | None = None) -> DebeziumDecoder:
    return debezium_decoder(dialect or CsvDialect(), options or DebeziumOptions())


def rows(made: list[tuple[Output, Records]], table: str) -> list[dict[str, str]]:
    """The records of a table as raw fields (quotes stay) by the name of the column."""
    found = []
    for output, records in made:
        if output.table == table:
            lines = fields(records.data)
            assert len(lines) == records.count
            names = [column.name for column in output.columns]
            found += [dict(zip(names, [part.decode() for part in line], strict=True)) for line in lines]
    return found


def json_of(field: str) -> Any:
    """What a raw field of JSON says; None where it is NULL."""
    return json.loads(field[1:-1].replace('""', '"')) if field else None


# -- registries ---------------------------------------------------------------------------------------------------------


def _avro(schema: dict[str, Any], name: str = "Envelope") -> Any:
    """The Avro schema that Confluent's AvroData makes of a schema of Connect's."""
    kinds = {"int8": "int", "int16": "int", "int32": "int", "int64": "long", "float": "float"}
    properties: dict[str, Any] = {}
    if schema.get("name") and schema["type"] != "struct":
        properties["connect.name"] = schema["name"]
    if "parameters" in schema:
        properties["connect.parameters"] = schema["parameters"]
    if schema["type"] in ("int8", "int16"):
        properties["connect.type"] = schema["type"]
    made: Any
    if schema["type"] == "struct":
        fields = [{"name": each["field"], "type": _avro(each, f"{name}_{each['field']}")} for each in schema["fields"]]
        made = {"type": "record", "name": name, "fields": fields, "connect.name": schema.get("name", "")}
    elif schema["type"] == "array":
        made = {"type": "array", "items": _avro(schema["items"], f"{name}_item")}
    else:
        kind = kinds.get(schema["type"], schema["type"])
        made = {"type": kind, **properties} if properties else kind
        if schema.get("name", "").endswith(".Decimal"):
            made |= {"logicalType": "decimal", "precision": 64, "scale": int(schema["parameters"]["scale"])}
    return ["null", made] if schema.get("optional") else made


def _as_stored(value: Any, schema: dict[str, Any]) -> Any:
    """A payload of JSON as Avro's library takes it: bytes for base64, numbers for NaN."""
    if value is None:
        return None
    if schema["type"] == "struct":
        return {each["field"]: _as_stored(value.get(each["field"]), each) for each in schema["fields"]}
    if schema["type"] == "array":
        return [_as_stored(each, schema["items"]) for each in value]
    if schema["type"] == "bytes":
        return base64.b64decode(value)
    return float(value) if schema["type"] in ("float", "double") else value


class Registered:
    """Schemas by numbers, and events as a registry's converters write them."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def number(self, text: str) -> bytes:
        if text not in self.texts:
            self.texts.append(text)
        return b"\0" + self.texts.index(text).to_bytes(4, "big")

    def avro(self, document: bytes | None) -> bytes | None:
        if document is None:
            return None
        parts = json.loads(document)
        # Without the logical types the library takes the bytes as they are.
        schema = _avro(parts["schema"])
        bare = json.loads(json.dumps(schema).replace('"logicalType"', '"logical"'))
        out = io.BytesIO()
        fastavro.schemaless_writer(out, fastavro.parse_schema(bare), _as_stored(parts["payload"], parts["schema"]))
        return self.number(json.dumps(schema)) + out.getvalue()

    def json(self, document: bytes | None) -> bytes | None:
        if document is None:
            return None
        parts = json.loads(document)
        return self.number(json.dumps(_json_schema(parts["schema"]))) + compact(parts["payload"])


def _json_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """The JSON Schema that Confluent's JsonSchemaData makes of a schema of Connect's."""
    kinds = {"struct": "object", "bytes": "string", "float": "number", "double": "number"}
    kind = schema["type"]
    made: dict[str, Any] = {"type": kinds.get(kind, "integer" if kind.startswith("int") else kind)}
    if made["type"] in ("integer", "number") or kind == "bytes":
        made["connect.type"] = {"float": "float32", "double": "float64"}.get(kind, kind)
    if schema.get("name"):
        made["title"] = schema["name"]
    if "parameters" in schema:
        made["connect.parameters"] = schema["parameters"]
    if kind == "struct":
        made["properties"] = {
            each["field"]: _json_schema(each) | {"connect.index": place}
            for place, each in reversed(list(enumerate(schema["fields"])))
        }
    if kind == "array":
        made["items"] = _json_schema(schema["items"])
    return {"oneOf": [{"type": "null"}, made]} if schema.get("optional") else made


# -- connectors ---------------------------------------------------------------------------------------------------------


class Connector:
    """A connector, and the messages of all its topics."""

    def __init__(self, kafka: KafkaServer, connect: ConnectServer, config: Mapping[str, str]) -> None:
        self.name = f"c{secrets.token_hex(4)}"
        self._kafka, self._connect = kafka, connect
        self._config = {"tasks.max": "1", **config, "topic.prefix": self.name, "heartbeat.interval.ms": "0"}

    def start(self) -> None:
        self._connect.put(self.name, self._config, 120)

    def messages(self, enough: Callable[[list[Message]], bool], seconds: float = 90) -> list[Message]:
        """All messages of the topics from their beginning, once there are enough."""
        settings = {"bootstrap.servers": self._kafka.bootstrap, "group.id": self.name, "auto.offset.reset": "earliest",
                    "enable.auto.commit": False, "topic.metadata.refresh.interval.ms": 300, "log_level": 2}  # fmt: skip
        consumer, found, seen = Consumer(settings), list[Message](), set[Any]()
        deadline = time.monotonic() + seconds
        try:
            consumer.subscribe([f"^{self.name}.*"])
            while not enough(found):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{len(found)} messages:\n{self._connect.tail(20)}")
                for got in consumer.consume(100, 0.5):
                    # When a topic is new, the group is balanced anew and all of them begin again.
                    if got.error() is None and (at := (got.topic(), got.partition(), got.offset())) not in seen:
                        seen.add(at)
                        found.append(_message(got))
        finally:
            consumer.close()
        return found

    def remove(self) -> None:
        self._connect.remove(self.name)


def _message(got: Any) -> Message:
    headers = tuple(got.headers() or ())
    return Message(got.topic(), got.partition(), got.offset(), got.timestamp()[1], got.key(), got.value(), headers)


def of_postgres(server: PostgresServer, **more: str) -> dict[str, str]:
    """Under the connector's own defaults."""
    return {
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "database.hostname": server.host, "database.port": str(server.port), "database.user": server.user,
        "database.password": server.password, "database.dbname": server.database, "plugin.name": "pgoutput",
        "key.converter": _JSON, "value.converter": _JSON,
    } | _slot() | more  # fmt: skip


def exact_postgres(server: PostgresServer, *tables: str) -> dict[str, str]:
    """As `headrace cdc enable` has it, but for who makes slot and publication, and ends them."""
    capture = Capture("", "", tables, server.password)
    return settings.of_postgres(test_postgres.block_of(server), capture, messages=False) | _slot()


def _slot() -> dict[str, str]:
    name = f"s{secrets.token_hex(4)}"
    return {
        "slot.name": name, "slot.drop.on.stop": "true", "publication.name": name,
        "publication.autocreate.mode": "all_tables",
    }  # fmt: skip


def of_mysql(server: MySQLServer, kafka: KafkaServer) -> dict[str, str]:
    """Under the connector's own defaults."""
    return {
        "connector.class": "io.debezium.connector.mysql.MySqlConnector",
        "database.hostname": server.host, "database.port": str(server.port), "database.user": server.user,
        "database.password": server.password, "database.server.id": str(_server_id()),
        "database.include.list": server.database, "schema.history.internal.kafka.topic": f"h{secrets.token_hex(4)}",
        "schema.history.internal.kafka.bootstrap.servers": kafka.bootstrap,
        "key.converter": _JSON, "value.converter": _JSON,
    }  # fmt: skip


def exact_mysql(server: MySQLServer, kafka: KafkaServer, *tables: str) -> dict[str, str]:
    """As `headrace cdc enable` has it."""
    capture = Capture("", f"h{secrets.token_hex(4)}", tables, server.password)
    block = test_mysql.block_of(server)
    return settings.of_mysql(block, capture, bootstrap=kafka.bootstrap, server_id=_server_id())


def _server_id() -> int:
    return secrets.randbelow(1 << 30) + 1000


async def recorded(connector: Connector, snapshot: int, changes: Callable[[], Any], total: int) -> list[Message]:
    """The messages of a snapshot of so many rows, and of changes made after it."""
    await asyncio.to_thread(connector.start)
    try:
        await asyncio.to_thread(connector.messages, lambda found: _events(found) >= snapshot)
        await changes()
        return await asyncio.to_thread(connector.messages, lambda found: _events(found) >= total)
    finally:
        await asyncio.to_thread(connector.remove)


def _events(found: list[Message]) -> int:
    """How many of the messages are events of rows."""
    return sum(b'"op":"' in (each.value or b"") for each in found)
