"""Capture switched on, looked at, and off: connector, slot and publication of a stream of Debezium's events."""

from __future__ import annotations

import re
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import asyncpg

from blocks.errors import ConfigurationError
from blocks.mysql import MySQL
from blocks.postgres import Postgres
from blocks.references import reveal
from tasks.cdc import connect, mysql, postgres, settings
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
        return self.capture.settings.get("slot.name", self.publication)

    @property
    def publication(self) -> str:
        return settings.slot_name(self.name)

    @property
    def password(self) -> str:
        return self.capture.password or self.capture.database.password.get_secret_value()

    def asked(self, tables: list[str]) -> settings.Capture:
        return settings.Capture(self.name, self.prefix, tuple(tables), self.password)

    @property
    def prefix(self) -> str:
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
            "(connect: kafka-connect/…, database: postgres/… or mysql/…)"
        )
    return _Stream(name, source, source.capture)


async def enable(name: str, source: object) -> AsyncIterator[str]:
    """Make, or bring up to date, what captures the stream's tables; says what it does. May be repeated.

    `ConfigurationError` for what has to be mended first; nothing is made then.
    """
    stream = await _revealed(_stream(name, source))
    async with connect.connected(stream.capture.connect) as cluster:
        config = await cluster.config(name)
    _refuse_foreign(stream, config)
    _refuse_moved(stream, config)
    if isinstance(stream.capture.database, Postgres):
        async with _database(stream.capture.database) as connection:
            wanted = await postgres.tables(connection, source_tables(stream))
            await _refuse(postgres.look(connection, stream.slot, wanted))
            added = await postgres.publish(connection, stream.publication, wanted)
            yield f"publication {stream.publication}: {len(wanted)} table(s)"
            messages = await postgres.has_messages(connection)
        config = settings.of_postgres(
            stream.capture.database, stream.asked([t.name for t in wanted]), messages=messages
        )
    else:
        async with mysql.connected(stream.capture.database) as database:
            await _refuse(mysql.look(database))
            names = await mysql.tables(database, source_tables(stream))
        config = _of_mysql(stream, stream.capture.database, names)
        added = await _added(stream, names, config)
        yield f"{len(names)} table(s) of {stream.capture.database.describe()}"
    for table in added:
        yield f"{table} is new: its changes come from now on, the rows that it has do not (signal a snapshot to Debezium)"
    async for line in _connector(stream, {**config, **_told(stream), **stream.capture.settings}):
        yield line


def _told(stream: _Stream) -> dict[str, str]:
    """What the stream's columns need to be in the events."""
    return {"provide.transaction.metadata": "true"} if "transaction" in stream.source.chosen else {}


def source_tables(stream: _Stream) -> tuple[str, ...]:
    """The patterns of the tables; all, where none are named."""
    return stream.source.debezium.tables or ("*",)


def _of_mysql(stream: _Stream, block: MySQL, names: list[str]) -> dict[str, str]:
    kafka = stream.source.connection
    if (
        kafka.client_config()["security.protocol"] != "PLAINTEXT"
        and settings.HISTORY_SECURITY not in stream.capture.settings
    ):
        raise ConfigurationError(
            f"field capture.settings: the brokers want TLS or a log-in, and a MySQL connector keeps the history of tables there "
            f"by clients of its own: give {settings.HISTORY_SECURITY} and what else they need (sasl.*, ssl.*), and the same "
            "for schema.history.internal.consumer"
        )
    # Of the upper half of the numbers, which people do not give to their servers.
    number = (1 << 31) | zlib.crc32(stream.name.encode())
    return settings.of_mysql(block, stream.asked(names), bootstrap=kafka.bootstrap_servers, server_id=number)


async def _added(stream: _Stream, names: list[str], config: dict[str, str]) -> list[str]:
    """The tables that come new to a connector that is there, which knows the shapes of those of its databases alone."""
    async with connect.connected(stream.capture.connect) as cluster:
        before = await cluster.config(stream.name)
    if before is None:
        return []
    known = before.get("database.include.list")
    if known != config["database.include.list"]:
        raise ConfigurationError(
            f"field debezium.tables: connector {stream.name} captures the databases {known}, and knows nothing of the tables "
            f"of others: give them a stream of their own, or `headrace cdc disable {stream.name}` first: it begins anew then"
        )
    listed = before.get("table.include.list", "").split(",")
    return [name for name in names if re.escape(name) not in listed]


async def _connector(stream: _Stream, config: dict[str, str]) -> AsyncIterator[str]:
    async with connect.connected(stream.capture.connect) as cluster:
        before = await cluster.config(stream.name)
        same = before is not None and {key: value for key, value in before.items() if key != "name"} == config
        if before is None:
            await cluster.put(stream.name, config)
        elif not same:
            await cluster.change(stream.name, config)
        yield f"connector {stream.name}: {'created' if before is None else 'unchanged' if same else 'updated'}"
        state = await cluster.state(stream.name)
        if same and state is not None and state.connector in ("STOPPED", "PAUSED"):
            await cluster.resume(stream.name)
            yield f"connector {stream.name}: was {state.connector.lower()}, and goes on"
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
        offset = None if state is None else await cluster.offset(name)
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
    if offset is not None and "file" in offset and isinstance(stream.capture.database, MySQL):
        yield await mysql.behind(stream.capture.database, offset)


async def look(name: str, source: object) -> Findings:
    """What `headrace check` and status say of the database."""
    stream = _stream(name, source)
    if isinstance(stream.capture.database, Postgres):
        async with _database(stream.capture.database) as connection:
            wanted = await postgres.tables(connection, source_tables(stream))
            async for finding in postgres.look(connection, stream.slot, wanted):
                yield finding
    else:
        async with mysql.connected(stream.capture.database) as database:
            async for finding in mysql.look(database):
                yield finding
            names = await mysql.tables(database, source_tables(stream))
            yield Finding("ok", f"capture: {len(names)} table(s): {', '.join(names[:5])}{', …' * (len(names) > 5)}")


async def disable(name: str, source: object) -> AsyncIterator[str]:
    """Remove connector (with how far it had come), slot and publication; says what it does. May be repeated."""
    stream = _stream(name, source)
    async with connect.connected(stream.capture.connect) as cluster:
        _refuse_foreign(stream, await cluster.config(name))
        removed = await cluster.remove(name)
    yield f"connector {name}: {'removed' if removed else 'there was none'}"
    if isinstance(stream.capture.database, Postgres):
        async with _database(stream.capture.database) as connection:
            for what in await postgres.drop(connection, stream.slot, stream.publication):
                yield f"{what}: removed"
    else:
        yield f"topic {settings.history_topic(stream.prefix)}: stays, as the others do; remove it where they are removed"


def _refuse_foreign(stream: _Stream, config: dict[str, str] | None) -> None:
    """A connector that has the stream's name is not the stream's for that: it is neither changed nor removed then."""
    if config is None:
        return
    if isinstance(stream.capture.database, Postgres):
        wanted = {"connector.class": settings.POSTGRES, "slot.name": stream.slot}
    else:
        wanted = {"connector.class": settings.MYSQL}
    wanted |= {key: value for key, value in stream.capture.settings.items() if key in wanted}
    if others := [f"{key} {config.get(key)}" for key, value in wanted.items() if config.get(key) != value]:
        raise ConfigurationError(
            f"field capture.connect: the cluster has a connector {stream.name} that is not this stream's ({', '.join(others)}): "
            "give the stream another name, or remove that connector if nobody needs it"
        )


def _refuse_moved(stream: _Stream, config: dict[str, str] | None) -> None:
    """A connector keeps its place in the log by its name and its topics' prefix alone. In another database it brings no snapshot,
    but fails: that has no slot at this place. A database whose server has another address is no other."""
    known, wanted = (config or {}).get("database.dbname"), stream.capture.settings.get("database.dbname")
    if (
        isinstance(stream.capture.database, Postgres)
        and known != (wanted or stream.capture.database.database)
        and known
    ):
        raise ConfigurationError(
            f"field capture.database: connector {stream.name} captures the database {known}, and has a place in its log. Name "
            f"{known} again and `headrace cdc disable {stream.name}`, which removes the slot there too; then enable begins anew"
        )


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
