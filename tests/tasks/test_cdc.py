"""Capture switched on, looked at, and off: on a real Kafka Connect with Debezium, and a real PostgreSQL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from secrets import token_hex
from typing import Any

import pytest

from blocks.errors import ConfigurationError
from blocks.kafka_connect import KafkaConnect
from blocks.postgres import Postgres
from blocks.s3 import S3Destination
from tasks import checks
from tasks.cdc import postgres
from tasks.cdc.settings import Capture, of_postgres, slot_name
from tasks.extractors.contract import ReadOptions
from tasks.extractors.kafka.source import KafkaTopics
from tasks.findings import Finding
from tests.servers.connect import ConnectServer
from tests.servers.kafka import KafkaServer
from tests.servers.postgres import PostgresServer, connected
from tests.tasks.cdc import Commands
from tests.tasks.extractors.kafka import block_of, run


@dataclass
class Captured(Commands):
    """A stream of two tables."""

    database: PostgresServer
    kafka: KafkaServer
    connect: ConnectServer
    name: str = field(default_factory=lambda: f"c-{token_hex(4)}")

    def source(self, *tables: str, **fields: Any) -> KafkaTopics:
        server = self.database
        block = Postgres(
            host=server.host, port=server.port, database=server.database, user=server.user, password=server.password
        )
        password = self.connect.secret(self.name, server.password)
        told = {"connect": KafkaConnect(url=self.connect.url), "database": block, "password": password, **fields}
        return KafkaTopics(
            connection=block_of(self.kafka),
            topics=(f"{self.name}.public.*",),
            format="debezium",
            debezium={"tables": tables or ("public.*", "-*.left_out")},
            capture=told,
        )

    async def execute(self, *statements: str) -> None:
        async with connected(self.database) as connection:
            for statement in statements:
                await connection.execute(statement)

    async def fetch(self, query: str) -> list[Any]:
        async with connected(self.database) as connection:
            return [row[0] for row in await connection.fetch(query)]


@pytest.fixture
async def captured(
    database: PostgresServer, kafka_server: KafkaServer, connect_server: ConnectServer
) -> AsyncIterator[Captured]:
    made = Captured(database, kafka_server, connect_server)
    await made.execute(
        "CREATE TABLE a (id int PRIMARY KEY, note text)",
        'CREATE TABLE "B.b" (id int PRIMARY KEY)',
        "CREATE TABLE left_out (id int PRIMARY KEY)",
        "INSERT INTO a VALUES (1, 'x')",
    )
    yield made
    if not connect_server.running:
        connect_server.start()
    await made.disable(made.source())


async def test_capture_on_and_off(captured: Captured) -> None:
    """Publication of the tables that are meant, slot, running connector; again changes nothing; off leaves nothing."""
    source = captured.source("public.a", "public.left*", "-*.left_out")
    source = source.model_copy(update={"parts": ("source", "transaction")})
    made = await captured.enable(source)
    assert any(line == f"connector {captured.name}: created" for line in made)
    assert any("RUNNING, tasks: RUNNING" in line for line in made)
    published = f"SELECT tablename FROM pg_publication_tables WHERE pubname = '{slot_name(captured.name)}'"
    assert await captured.fetch(published) == ["a"]
    again = await captured.enable(source)
    assert any(line == f"connector {captured.name}: unchanged" for line in again)
    assert not any(captured.database.password in line for line in [*made, *again])
    config = captured.connect.ask("GET", f"/connectors/{captured.name}/config")
    assert config["database.password"].startswith("${file:")
    assert config["provide.transaction.metadata"] == "true"  # for the part `transaction`

    async with asyncio.timeout(30):
        while not (rows := await _rows(source)):
            await asyncio.sleep(0.3)
    assert [(row["_op"], row["id"], row["note"]) for row in rows] == [("S", "1", "x")]
    assert (json.loads(rows[0]["_source"])["table"], rows[0]["_transaction"]) == ("a", "")
    status = await captured.status(source)
    assert status[0] == f"ok: connector {captured.name}: RUNNING, tasks: RUNNING"
    assert any(f"slot {slot_name(captured.name)}: read" in line and "retained" in line for line in status)
    assert not any(line.startswith("error") for line in status)

    removed = await captured.disable(source)
    assert len(removed) == 3
    assert await captured.fetch("SELECT slot_name FROM pg_replication_slots WHERE database = current_database()") == []
    assert await captured.fetch("SELECT pubname FROM pg_publication") == []
    assert await captured.disable(source) == [f"connector {captured.name}: there was none"]
    assert (await captured.status(source))[0].startswith("error: connector")


async def test_a_slot_of_a_name_that_was_given(captured: Captured) -> None:
    """The settings have the last word; it is that slot which is looked at, and which does not stay."""
    name = f"own_{token_hex(4)}"
    source = captured.source("public.a", settings={"slot.name": name})
    await captured.enable(source)
    async with asyncio.timeout(30):  # a task that runs has its slot in a moment
        while not any(f"slot {name}: read" in line for line in await captured.status(source)):
            await asyncio.sleep(0.3)
    async with connected(captured.database) as connection:
        with pytest.raises(ConfigurationError, match=rf"slot {name} is still read after 0\.3 s.*active_pid"):
            await postgres.drop(connection, name, slot_name(captured.name), 0.3)
    assert f"slot {name}: removed" in await captured.disable(source)
    assert await captured.fetch("SELECT slot_name FROM pg_replication_slots WHERE database = current_database()") == []


async def test_a_check_looks_at_the_slot_of_the_stream(captured: Captured) -> None:
    """Also where all slots of the server are used, of which it has one."""
    create = "SELECT pg_create_logical_replication_slot('{}', 'pgoutput')"
    destination = S3Destination(bucket="b", endpoint="http://127.0.0.1:1")
    (most,) = map(int, await captured.fetch("SHOW max_replication_slots"))
    names = [slot_name(captured.name)]
    names += [f"other_{n}" for n in range(most - 1 - len(await captured.fetch("SELECT 1 FROM pg_replication_slots")))]
    try:
        await captured.execute(*map(create.format, names))
        checked = checks.check(captured.name, captured.source("public.a"), destination, ReadOptions(mode="changes"))
        found = [finding async for finding in checked if "capture:" in finding.text]
        assert f"capture: slot {names[0]}: not read" in found[-1].text
        assert not any("max_replication_slots" in finding.text for finding in found)
    finally:
        for name in names:
            await captured.fetch(f"SELECT pg_drop_replication_slot('{name}')")


async def test_a_connector_of_somebody_else(captured: Captured) -> None:
    """That has the stream's name: it is neither changed nor removed, and nothing is made."""
    block, password = captured.source("public.a").capture.database, captured.database.password  # type: ignore[union-attr]  # it has one
    config = of_postgres(block, Capture(captured.name, "else", ("public.a",), password), messages=True)  # type: ignore[arg-type]  # a Postgres
    config |= {"slot.name": "else", "publication.name": "else"}
    created = {"name": captured.name, "config": config, "initial_state": "STOPPED"}
    captured.connect.ask("POST", "/connectors", created)
    before = captured.connect.ask("GET", f"/connectors/{captured.name}/config")
    try:
        for command in (captured.enable, captured.disable):
            with pytest.raises(ConfigurationError, match=r"not this stream's \(slot\.name else\).*another name"):
                await command(captured.source("public.a"))
        assert captured.connect.ask("GET", f"/connectors/{captured.name}/config") == before
        assert await captured.fetch("SELECT pubname FROM pg_publication") == []
    finally:
        captured.connect.ask("DELETE", f"/connectors/{captured.name}")


async def test_a_capture_that_moved_to_another_database(captured: Captured) -> None:
    """It would bring no snapshot, as the connector keeps its place in the former log: refused, and nothing is made."""
    await captured.enable(captured.source("public.a"))
    async with asyncio.timeout(30):
        while not await _rows(captured.source("public.a")):
            await asyncio.sleep(0.3)
    before = captured.connect.ask("GET", f"/connectors/{captured.name}/config")
    other = f"{captured.database.database}_b"
    await captured.execute(f"CREATE DATABASE {other}")
    former, captured.database = captured.database, replace(captured.database, database=other)
    try:
        await captured.execute("CREATE TABLE a (id int PRIMARY KEY, note text)", "INSERT INTO a VALUES (7, 'moved')")
        with pytest.raises(ConfigurationError, match=rf"captures the database {former.database}.*cdc disable"):
            await captured.enable(captured.source("public.a"))
        assert captured.connect.ask("GET", f"/connectors/{captured.name}/config") == before
        assert await captured.fetch("SELECT pubname FROM pg_publication") == []
        moved, captured.database = captured.database, former
        await captured.disable(captured.source("public.a"))
        captured.database = moved
        await captured.enable(captured.source("public.a"))
        async with asyncio.timeout(30):
            while not any(row["note"] == "moved" for row in await _rows(captured.source("public.a"))):
                await asyncio.sleep(0.3)
    finally:
        await captured.disable(captured.source("public.a"))
        captured.database = former
        await captured.execute(f"DROP DATABASE {other} WITH (FORCE)")


async def test_another_table(captured: Captured) -> None:
    """A table that comes to a capture is published, and one is told that its rows are not brought."""
    await captured.enable(captured.source("public.a"))
    told = await captured.enable(captured.source())
    assert any(line == f"connector {captured.name}: updated" for line in told)
    assert any(line.startswith("public.B.b is new") for line in told)
    published = f"SELECT tablename FROM pg_publication_tables WHERE pubname = '{slot_name(captured.name)}' ORDER BY 1"
    assert await captured.fetch(published) == ["B.b", "a"]
    # At once: no task that has the old settings reads on, and passes over it.
    await captured.execute('INSERT INTO "B.b" VALUES (7)')
    async with asyncio.timeout(30):
        while not any(row.get("id") == "7" for row in await _rows(captured.source())):
            await asyncio.sleep(0.3)


async def test_what_has_to_be_mended_first(captured: Captured) -> None:
    """A table without a key, a name that fits none, a prefix that is none: errors that say what to do, and nothing is made."""
    await captured.execute("CREATE TABLE keyless (id int)")
    with pytest.raises(ConfigurationError, match=r"keyless has no key.*REPLICA IDENTITY FULL"):
        await captured.enable(captured.source())
    with pytest.raises(ConfigurationError, match=r"field debezium\.tables: no table is like public\.nope"):
        await captured.enable(captured.source("public.nope"))
    with pytest.raises(ConfigurationError, match=r"no table is like public\.nope; there are: public\.B\.b, public\.a"):
        await captured.enable(captured.source("public.a", "public.nope"))  # passed over, it would be missed by nobody
    wrong = captured.source("public.a").model_copy(update={"topics": ("*.public.a",)})
    with pytest.raises(ConfigurationError, match="field topics"):
        await captured.enable(wrong)
    without = captured.source().model_copy(update={"capture": None})
    with pytest.raises(ConfigurationError, match="field capture"):
        await captured.enable(without)
    assert captured.connect.ask("GET", "/connectors") is not None
    assert captured.name not in captured.connect.ask("GET", "/connectors")


async def test_what_is_published_can_still_be_written(database: PostgresServer) -> None:
    """No table whose updates the server would refuse once it is published passes, and no other is published beside it."""
    statements = (
        "CREATE TABLE cut (id int, at int) PARTITION BY RANGE (at)",
        "CREATE TABLE cut_1 PARTITION OF cut FOR VALUES FROM (0) TO (10)",
        "ALTER TABLE cut REPLICA IDENTITY FULL",  # which its partitions do not have
        "CREATE TABLE late (id int PRIMARY KEY DEFERRABLE)",
        "CREATE TABLE keyed (id int, at int, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)",
        "CREATE TABLE keyed_1 PARTITION OF keyed FOR VALUES FROM (0) TO (10)",
        "CREATE TABLE parent (id int PRIMARY KEY)",
        "CREATE TABLE child () INHERITS (parent)",  # without its key
        *(f"INSERT INTO {table} VALUES (1)" for table in ("late", "child")),
        *(f"INSERT INTO {table} VALUES (1, 1)" for table in ("cut", "keyed")),
    )
    async with connected(database) as connection:
        for statement in statements:
            await connection.execute(statement)

        async def refused() -> list[str]:
            patterns = ["public.cut", "public.late", "public.keyed", "public.parent"]
            wanted = await postgres.tables(connection, patterns)
            found = [finding async for finding in postgres.look(connection, "s", wanted) if finding.level == "error"]
            if not found:
                await postgres.publish(connection, "s", wanted)
            assert all("no key in the log" in finding.text for finding in found)
            return [finding.way_out for finding in found]

        ways_out = await refused()
        assert ways_out == [f"ALTER TABLE public.{name} REPLICA IDENTITY FULL" for name in ("cut_1", "late")]
        for statement in ways_out:
            await connection.execute(statement)
        assert await refused() == []
        for table in ("cut", "late", "keyed", "parent", "child"):
            await connection.execute(f"UPDATE {table} SET id = 2")
        published = await connection.fetch("SELECT tablename FROM pg_publication_tables ORDER BY 1")
        assert [row[0] for row in published] == ["cut", "keyed", "late", "parent"]


def test_long_names_share_nothing() -> None:
    """Each stream has a slot and a publication of its own, of no more characters than PostgreSQL takes."""
    one, other = (slot_name(f"{'a' * 80}-{end}") for end in ("orders", "items"))
    assert one != other
    assert len(one) == len(other) == 63


async def test_a_connect_that_refuses(captured: Captured) -> None:
    """A connector that fails is told with its reason; workers that are not there are, too."""
    bad = captured.source("public.a", settings={"connector.class": "no.such.Connector"})
    with pytest.raises(ConfigurationError, match=r"(?s)Kafka Connect refuses.*no\.such\.Connector"):
        await captured.enable(bad)
    gone = captured.source("public.a", connect=KafkaConnect(url="http://127.0.0.1:1"))
    with pytest.raises(ValueError, match="fields of their own"):
        KafkaConnect(url="http://user:secret@connect.example")
    with pytest.raises(ConfigurationError, match=r"does not answer.*check url"):
        await captured.status(gone)


async def _rows(source: KafkaTopics) -> list[dict[str, str]]:
    try:
        return (await run(source)).all
    except ConfigurationError:  # no topic yet
        return []


async def test_a_slot_that_nobody_reads(database: PostgresServer) -> None:
    """While its WAL may go at the next checkpoint that is a warning, once it is gone an error."""
    name = f"s_{token_hex(4)}"

    async def said() -> list[Finding]:
        return [finding async for finding in postgres.look(connection, name, []) if f"slot {name}" in finding.text]

    async with connected(database) as connection:
        await connection.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
        await connection.execute("SELECT pg_reload_conf()")
        await connection.execute("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", name)
        try:
            assert [finding.level for finding in await said()] == ["ok"]
            for _ in range(3):
                await connection.execute(
                    "SELECT pg_logical_emit_message(false, 'x', repeat('x', 1000)), pg_switch_wal()"
                )
            (risky,) = await said()
            assert (risky.level, "next checkpoint" in risky.way_out) == ("warning", True), risky
            await connection.execute("CHECKPOINT")
            (lost,) = await said()
            assert (lost.level, "new snapshot" in lost.way_out) == ("error", True), lost
        finally:
            await connection.execute("SELECT pg_drop_replication_slot($1)", name)
            await connection.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
            await connection.execute("SELECT pg_reload_conf()")
