"""What a capture needs of each kind of database: its settings, what is looked at, what is made there and removed."""

from __future__ import annotations

import re
import zlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import asyncpg

from blocks.errors import ConfigurationError
from blocks.mongodb import MongoDB
from blocks.mysql import MySQL
from blocks.postgres import Postgres
from tasks.cdc import mongodb, mysql, postgres, settings
from tasks.cdc.stream import Stream
from tasks.extractors.postgres.sql import Connection
from tasks.extractors.postgres.sql import connect as connect_postgres
from tasks.findings import Finding, Findings

Config = Mapping[str, str]
Check = Callable[[Sequence[str]], None]
"""Raises `ConfigurationError` for names of tables that cannot be captured."""


@dataclass(frozen=True)
class Ready:
    """A database that can be captured now."""

    config: dict[str, str]
    """The connector's settings."""
    told: str
    added: list[str]
    """Tables that come new to a connector that is there."""


class Side(Protocol):
    """One stream's database."""

    @property
    def own(self) -> Config:
        """The settings by which a connector is known to be this stream's."""
        ...

    @property
    def scope(self) -> tuple[str, str]:
        """The setting that says which database a connector's place in the log is of, and its value; empty: none does."""
        ...

    async def ready(self, before: Config | None, check: Check, /) -> Ready:
        """Look, and make what is needed there. ``before``: the connector's settings, if there is one; ``check``: what the tables
        have to pass. `ConfigurationError` for what has to be mended first; nothing is made then."""
        ...

    def look(self) -> Findings:
        """What `headrace check` and status say of the database."""
        ...

    async def behind(self, offset: Mapping[str, Any], /) -> Finding | None:
        """How far the connector is, by the offset that it stored last; None where `look` tells."""
        ...

    async def drop(self) -> list[str]:
        """Remove what `ready` has made; says what it did."""
        ...


def side_of(stream: Stream) -> Side:
    """The side of the stream's database."""
    database = stream.capture.database
    if isinstance(database, Postgres):
        return _Postgres(stream, database)
    if isinstance(database, MySQL):
        return _MySQL(stream, database)
    return _MongoDB(stream, database)


async def refuse(findings: Findings) -> None:
    """`ConfigurationError` where there are errors among them."""
    errors = [finding async for finding in findings if finding.level == "error"]
    if errors:
        raise ConfigurationError("; ".join(f"{error.text} → {error.way_out}" for error in errors))


def _counted(names: list[str], what: str) -> Finding:
    return Finding("ok", f"capture: {len(names)} {what}(s): {', '.join(names[:5])}{', …' * (len(names) > 5)}")


@dataclass(frozen=True)
class _Postgres:
    stream: Stream
    block: Postgres

    @property
    def own(self) -> Config:
        return {"connector.class": settings.POSTGRES, "slot.name": self.stream.slot}

    @property
    def scope(self) -> tuple[str, str]:
        return "database.dbname", self.block.database

    async def ready(self, _before: Config | None, check: Check) -> Ready:
        stream = self.stream
        async with _connected(self.block) as connection:
            wanted = await postgres.tables(connection, stream.tables)
            names = [table.name for table in wanted]
            check(names)
            await refuse(postgres.look(connection, stream.slot, wanted))
            added = await postgres.publish(connection, stream.publication, wanted)
            messages = await postgres.has_messages(connection)
        told = f"publication {stream.publication}: {len(wanted)} table(s)"
        return Ready(settings.of_postgres(self.block, stream.asked(names), messages=messages), told, added)

    async def look(self) -> Findings:
        async with _connected(self.block) as connection:
            wanted = await postgres.tables(connection, self.stream.tables)
            async for finding in postgres.look(connection, self.stream.slot, wanted):
                yield finding

    async def behind(self, _offset: Mapping[str, Any]) -> Finding | None:
        return None  # the slot tells

    async def drop(self) -> list[str]:
        async with _connected(self.block) as connection:
            removed = await postgres.drop(connection, self.stream.slot, self.stream.publication)
        return [f"{what}: removed" for what in removed]


@asynccontextmanager
async def _connected(block: Postgres) -> AsyncIterator[Connection]:
    connection = await connect_postgres(block)
    try:
        yield connection
    except asyncpg.PostgresError as error:
        raise ConfigurationError(f"{block.describe()}: {error}") from error
    finally:
        connection.terminate()


@dataclass(frozen=True)
class _MySQL:
    stream: Stream
    block: MySQL

    @property
    def own(self) -> Config:
        return {"connector.class": settings.MYSQL}

    @property
    def scope(self) -> tuple[str, str]:
        return "", ""

    async def ready(self, before: Config | None, check: Check) -> Ready:
        async with mysql.connected(self.block) as database:
            await refuse(mysql.look(database))
            names = await mysql.tables(database, self.stream.tables)
        check(names)
        config = self._config(names)
        told = f"{len(names)} table(s) of {self.block.describe()}"
        return Ready(config, told, self._added(names, before, config["database.include.list"]))

    def _config(self, names: list[str]) -> dict[str, str]:
        kafka, given = self.stream.source.connection, self.stream.capture.settings
        if kafka.client_config()["security.protocol"] != "PLAINTEXT" and settings.HISTORY_SECURITY not in given:
            raise ConfigurationError(
                f"field capture.settings: the brokers want TLS or a log-in, and a MySQL connector keeps the history of tables "
                f"there by clients of its own: give {settings.HISTORY_SECURITY} and what else they need (sasl.*, ssl.*), and the "
                "same for schema.history.internal.consumer"
            )
        # Of the upper half of the numbers, which people do not give to their servers.
        number = (1 << 31) | zlib.crc32(self.stream.name.encode())
        asked = self.stream.asked(names)
        return settings.of_mysql(self.block, asked, bootstrap=kafka.bootstrap_servers, server_id=number)

    def _added(self, names: list[str], before: Config | None, databases: str) -> list[str]:
        """A connector that is there knows the shapes of the tables of its databases alone."""
        if before is None:
            return []
        known, name = before.get("database.include.list"), self.stream.name
        if known != databases:
            raise ConfigurationError(
                f"field debezium.tables: connector {name} captures the databases {known}, and knows nothing of the tables of "
                f"others: give them a stream of their own, or `headrace cdc disable {name}` first: it begins anew then"
            )
        listed = before.get("table.include.list", "").split(",")
        return [table for table in names if re.escape(table) not in listed]

    async def look(self) -> Findings:
        async with mysql.connected(self.block) as database:
            async for finding in mysql.look(database):
                yield finding
            yield _counted(await mysql.tables(database, self.stream.tables), "table")

    async def behind(self, offset: Mapping[str, Any]) -> Finding | None:
        return await mysql.behind(self.block, offset) if "file" in offset else None

    async def drop(self) -> list[str]:
        history = settings.history_topic(self.stream.prefix)
        return [f"topic {history}: stays, as the others do; remove it where they are removed"]


@dataclass(frozen=True)
class _MongoDB:
    stream: Stream
    block: MongoDB

    @property
    def own(self) -> Config:
        return {"connector.class": settings.MONGODB}

    @property
    def scope(self) -> tuple[str, str]:
        return "capture.target", self.block.database

    async def ready(self, before: Config | None, check: Check) -> Ready:
        by_password = self.block.mechanism.upper().startswith("SCRAM-") or not self.block.mechanism
        if not by_password and settings.CONNECTION_STRING not in self.stream.capture.settings:
            raise ConfigurationError(
                "field capture.database: the connector is told a user and a password, and this account logs in by "
                f"{self.block.mechanism}: give {settings.CONNECTION_STRING}, and what else the workers need for it, in "
                "capture.settings"
            )
        async with mongodb.connected(self.block) as database:
            await refuse(mongodb.look(database))
            names = await mongodb.collections(database, self.stream.tables)
            replica_set = await mongodb.replica_set(database)
        check(names)
        config = settings.of_mongodb(self.block, self.stream.asked(names), replica_set=replica_set)
        listed = (before or {}).get("collection.include.list", "").split(",")
        added = [] if before is None else [name for name in names if name not in listed]
        return Ready(config, f"{len(names)} collection(s) of {self.block.describe()}", added)

    async def look(self) -> Findings:
        async with mongodb.connected(self.block) as database:
            async for finding in mongodb.look(database):
                yield finding
            yield _counted(await mongodb.collections(database, self.stream.tables), "collection")

    async def behind(self, offset: Mapping[str, Any]) -> Finding | None:
        if not offset.get("resume_token"):
            return None
        async with mongodb.connected(self.block) as database:
            return await mongodb.behind(database, offset)

    async def drop(self) -> list[str]:
        return []  # the server keeps nothing for a change stream
