"""Capture switched on, looked at, and off: connector, slot and publication of a stream of Debezium's events."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import asyncpg

from blocks.errors import ConfigurationError
from blocks.mysql import MySQL
from blocks.postgres import Postgres
from blocks.references import reveal
from tasks.cdc import connect, postgres, settings
from tasks.extractors.kafka.capture import Capture
from tasks.extractors.kafka.source import KafkaTopics
from tasks.extractors.postgres.sql import Connection
from tasks.extractors.postgres.sql import connect as connect_postgres
from tasks.findings import Finding, Findings


@dataclass(frozen=True)
class _Stream:
    """What is to be captured for which stream."""

    name: str
    source: KafkaTopics
    capture: Capture

    @property
    def slot(self) -> str:
        return settings.slot_name(self.name)

    @property
    def password(self) -> str:
        return self.capture.password or self.capture.database.password.get_secret_value()

    def asked(self, tables: list[str]) -> settings.Capture:
        return settings.Capture(self.name, self._prefix, tuple(tables), self.password)

    @property
    def _prefix(self) -> str:
        """What the names of all topics begin with, before their first point."""
        prefixes = {topic.partition(".")[0] for topic in self.source.topics if not topic.startswith("-")}
        if len(prefixes) != 1 or set(prefix := prefixes.pop()) & set("*?["):
            raise ConfigurationError(
                "field topics: a connector's topics all begin with one prefix and a point, such as shop.public.*"
            )
        return prefix


async def _revealed(stream: _Stream) -> _Stream:
    """With the user and the password that the database's block has now: the connector is given both."""
    database = await reveal(stream.capture.database)
    return replace(stream, capture=stream.capture.model_copy(update={"database": database}))


def _stream(name: str, source: object) -> _Stream:
    if not isinstance(source, KafkaTopics) or source.capture is None or source.format != "debezium":
        raise ConfigurationError(
            f"stream {name}: capture is for a source of Kafka topics of format debezium that has the field capture "
            "(connect: kafka-connect/…, database: postgres/…)"
        )
    return _Stream(name, source, source.capture)


async def enable(name: str, source: object) -> AsyncIterator[str]:
    """Make, or bring up to date, what captures the stream's tables; says what it does. May be repeated.

    `ConfigurationError` for what has to be mended first; nothing is made then.
    """
    stream = await _revealed(_stream(name, source))
    if isinstance(stream.capture.database, Postgres):
        async with _database(stream.capture.database) as connection:
            wanted = await postgres.tables(connection, source_tables(stream))
            await _refuse(postgres.look(connection, stream.slot, wanted))
            added = await postgres.publish(connection, stream.slot, wanted)
            yield f"publication {stream.slot}: {len(wanted)} table(s)"
            messages = await postgres.has_messages(connection)
        config = settings.of_postgres(
            stream.capture.database, stream.asked([t.name for t in wanted]), messages=messages
        )
        for table in added:
            yield f"{table} is new: its changes come from now on, the rows that it has do not (signal a snapshot to Debezium)"
    else:
        config = _of_mysql(stream, stream.capture.database)
    async for line in _connector(stream, {**config, **stream.capture.settings}):
        yield line


def source_tables(stream: _Stream) -> tuple[str, ...]:
    """The patterns of the tables; all, where none are named."""
    return stream.source.debezium.tables or ("*",)


def _of_mysql(stream: _Stream, block: MySQL) -> dict[str, str]:
    tables = stream.source.debezium.tables
    if not tables or any(set(table) & set("*?[-") for table in tables):
        raise ConfigurationError("field debezium.tables: of MySQL name each table to capture, as shop.orders")
    # Of the upper half of the numbers, which people do not give to their servers.
    number = (1 << 31) | zlib.crc32(stream.name.encode())
    bootstrap = stream.source.connection.bootstrap_servers
    return settings.of_mysql(block, stream.asked(list(tables)), bootstrap=bootstrap, server_id=number)


async def _connector(stream: _Stream, config: dict[str, str]) -> AsyncIterator[str]:
    async with connect.connected(stream.capture.connect) as cluster:
        before = await cluster.config(stream.name)
        same = before is not None and {key: value for key, value in before.items() if key != "name"} == config
        if not same:
            await cluster.put(stream.name, config)
        yield f"connector {stream.name}: {'created' if before is None else 'unchanged' if same else 'updated'}"
        state = await cluster.state(stream.name)
        if state is not None and state.trace:
            await cluster.restart_failed(stream.name)
            yield f"connector {stream.name}: what had failed is started again"
        yield f"connector {stream.name}: {await cluster.wait(stream.name)}"
        if not stream.capture.password:
            yield "the database's password is stored with the connector; see the field capture.password"


async def status(name: str, source: object) -> Findings:
    """How the connector is, how far it is behind, and whether the server keeps what it needs."""
    stream = _stream(name, source)
    async with connect.connected(stream.capture.connect) as cluster:
        state = await cluster.state(name)
    if state is None:
        yield Finding("error", f"connector {name}: there is none", f"headrace cdc enable {name}")
    elif state.runs:
        yield Finding("ok", f"connector {name}: {state}")
    else:
        reason = f": {state.trace.splitlines()[0]}" if state.trace else ""
        yield Finding(
            "error", f"connector {name}: {state}{reason}", f"headrace cdc enable {name} starts again what failed"
        )
    async for finding in look(name, source):
        yield finding


async def look(name: str, source: object) -> Findings:
    """What `headrace check` and status say of the database."""
    stream = _stream(name, source)
    if isinstance(stream.capture.database, Postgres):
        async with _database(stream.capture.database) as connection:
            wanted = await postgres.tables(connection, source_tables(stream))
            async for finding in postgres.look(connection, stream.slot, wanted):
                yield finding


async def disable(name: str, source: object) -> AsyncIterator[str]:
    """Remove connector (with how far it had come), slot and publication; says what it does. May be repeated."""
    stream = _stream(name, source)
    async with connect.connected(stream.capture.connect) as cluster:
        removed = await cluster.remove(name)
    yield f"connector {name}: {'removed' if removed else 'there was none'}"
    if isinstance(stream.capture.database, Postgres):
        async with _database(stream.capture.database) as connection:
            for what in await postgres.drop(connection, stream.slot):
                yield f"{what}: removed"


async def _refuse(findings: Findings) -> None:
    errors = [finding async for finding in findings if finding.level == "error"]
    if errors:
        raise ConfigurationError("; ".join(f"{error.text} → {error.way_out}" for error in errors))


@asynccontextmanager
async def _database(block: Postgres) -> AsyncIterator[Connection]:
    connection = await connect_postgres(block)
    try:
        yield connection
    except asyncpg.PostgresError as error:
        raise ConfigurationError(f"{block.describe()}: {error}") from error
    finally:
        connection.terminate()
