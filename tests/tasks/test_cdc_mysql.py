"""Capture of MySQL switched on, looked at, and off: on a real Kafka Connect with Debezium, as an account with few rights."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any

import pytest

from blocks.errors import ConfigurationError
from blocks.kafka_connect import KafkaConnect
from tasks.cdc.settings import history_topic
from tasks.extractors.kafka.source import KafkaTopics
from tests.servers.connect import ConnectServer
from tests.servers.kafka import PASSWORD, USER, KafkaServer
from tests.servers.mysql import MySQLServer
from tests.tasks.cdc import Commands
from tests.tasks.extractors.kafka import Row, block_of, run, secured_block_of
from tests.tasks.extractors.test_mysql import block_of as mysql_block_of

GRANTS = ("SELECT ON {database}.*", "RELOAD, REPLICATION SLAVE, REPLICATION CLIENT ON *.*")
"""What docs/debezium.md says that the account needs."""


@dataclass
class Captured(Commands):
    """A stream of tables of one database."""

    database: MySQLServer
    account: MySQLServer
    kafka: KafkaServer
    connect: ConnectServer
    name: str = field(default_factory=lambda: f"m-{token_hex(4)}")

    def source(self, *tables: str, connection: Any = None, **fields: Any) -> KafkaTopics:
        password = self.connect.secret(self.name, self.account.password)
        block = mysql_block_of(self.account)
        told = {"connect": KafkaConnect(url=self.connect.url), "database": block, "password": password, **fields}
        named = [f"{self.database.database}.{table}" for table in tables or ("a",)]
        return KafkaTopics(
            connection=connection or block_of(self.kafka),
            topics=(f"{self.name}.*",),
            format="debezium",
            debezium={"tables": named},
            capture=told,
        )

    async def rows(self, source: KafkaTopics, count: int) -> dict[str, list[Row]]:
        """All records by table, once there are so many."""
        async with asyncio.timeout(60):
            while True:
                try:
                    found = (await run(source)).rows
                except ConfigurationError:  # no topic yet
                    found = {}
                if sum(map(len, found.values())) >= count:
                    return {table.rpartition(".")[2]: rows for table, rows in found.items()}
                await asyncio.sleep(0.3)


@pytest.fixture
async def captured(
    only_mysql_database: MySQLServer, kafka_server: KafkaServer, connect_server: ConnectServer
) -> AsyncIterator[Captured]:
    database = only_mysql_database
    await database.execute(
        "CREATE TABLE a (id INT PRIMARY KEY, note TEXT)",
        "CREATE TABLE b (id INT PRIMARY KEY, at DATETIME(3))",
        "INSERT INTO a VALUES (1, 'x')",
        "INSERT INTO b VALUES (1, NULL)",
    )
    made = Captured(database, await database.create_user(*GRANTS), kafka_server, connect_server)
    yield made
    if not connect_server.running:
        connect_server.start()
    await made.disable(made.source())


async def test_capture_on_and_off(captured: Captured) -> None:
    """A running connector for the tables that are meant; again changes nothing; off leaves none."""
    source = captured.source("a*", "-*.b")
    made = await captured.enable(source)
    assert f"connector {captured.name}: created" in made
    assert any("RUNNING, tasks: RUNNING" in line for line in made)
    assert f"connector {captured.name}: unchanged" in await captured.enable(source)
    assert not any(captured.account.password in line for line in made)
    config = captured.connect.ask("GET", f"/connectors/{captured.name}/config")
    assert config["database.password"].startswith("${file:")
    assert (config["database.server.id"].isdigit(), 1 << 31 <= int(config["database.server.id"]) < 1 << 32) == (
        True,
        True,
    )

    await captured.rows(source, 1)
    await captured.database.execute(
        "UPDATE a SET note = ''", "DELETE FROM a", "TRUNCATE TABLE a", "UPDATE b SET id = 2"
    )
    rows = await captured.rows(source, 4)
    assert [(row["_op"], row["id"], row["note"]) for row in rows.pop("a")] == [
        ("S", "1", "x"), ("U", "1", ""), ("D", "1", ""), ("T", "", ""),
    ]  # fmt: skip
    assert rows == {}
    status = await captured.status(source)
    assert status[0] == f"ok: connector {captured.name}: RUNNING, tasks: RUNNING"
    assert any("the connector is at binlog." in line and "of log behind" in line for line in status)
    assert not any(line.startswith("error") for line in status), status

    on = await captured.enabled_after_a_stop(captured.connect, source)
    assert f"connector {captured.name}: RUNNING, tasks: RUNNING" in on

    removed = await captured.disable(source)
    assert removed[0] == f"connector {captured.name}: removed"
    assert history_topic(captured.name) in removed[1]
    assert (await captured.disable(source))[0] == f"connector {captured.name}: there was none"
    assert (await captured.status(source))[0].startswith("error: connector")


async def test_another_table(captured: Captured) -> None:
    """The changes of a table that comes to a capture are brought; one of another database is refused, with the way out."""
    await captured.enable(captured.source("a"))
    await captured.rows(captured.source("a"), 1)
    both = captured.source("a", "b")
    told = await captured.enable(both)
    assert f"connector {captured.name}: updated" in told
    assert any(line.startswith(f"{captured.database.database}.b is new") for line in told)
    await captured.database.execute(
        "INSERT INTO b VALUES (2, '2026-01-31 12:00:00.5')", "INSERT INTO a VALUES (2, 'y')"
    )
    rows = await captured.rows(both, 3)
    assert [(row["_op"], row["id"], row["at"]) for row in rows["b"]] == [("I", "2", "2026-01-31 12:00:00.500")]
    other = await captured.database.create_database()
    await other.execute("CREATE TABLE c (id INT PRIMARY KEY)")
    await captured.database.execute(f"GRANT SELECT ON {other.database}.* TO '{captured.account.user}'@'%'")
    source = captured.source("a")
    elsewhere = source.debezium.model_copy(
        update={"tables": (f"{other.database}.c", f"{captured.database.database}.a")}
    )
    with pytest.raises(ConfigurationError, match=r"field debezium\.tables.*headrace cdc disable"):
        await captured.enable(source.model_copy(update={"debezium": elsewhere}))
    await other.drop()


async def test_what_the_connector_does_otherwise(captured: Captured) -> None:
    """Rows of an XA transaction come when it is prepared, and stay; a table that is dropped is not told (docs/debezium.md)."""
    source = captured.source("a")
    await captured.enable(source)
    await captured.rows(source, 1)
    xid = f"'{captured.name}'"
    await captured.database.execute(
        f"XA START {xid}", "INSERT INTO a VALUES (2, 'prepared')", f"XA END {xid}", f"XA PREPARE {xid}"
    )
    await captured.rows(source, 2)
    await captured.database.execute(
        f"XA ROLLBACK {xid}", "INSERT INTO a VALUES (3, 'last')", "DROP TABLE a", "CREATE TABLE a (id INT PRIMARY KEY)",
        "INSERT INTO a VALUES (4)",
    )  # fmt: skip
    rows = await captured.rows(source, 4)
    assert [(row["_op"], row["id"]) for row in rows["a"]] == [("S", "1"), ("I", "2"), ("I", "3"), ("I", "4")]


async def test_brokers_that_want_a_log_in(captured: Captured) -> None:
    """The history of tables is kept by clients of the connector's own, which have to be told how to log in."""
    secured = secured_block_of(captured.kafka)
    with pytest.raises(
        ConfigurationError, match=r"field capture\.settings: .*schema\.history\.internal\.producer\.security"
    ):
        await captured.enable(captured.source(connection=secured))
    jaas = f'org.apache.kafka.common.security.scram.ScramLoginModule required username="{USER}" password="{PASSWORD}";'
    settings = {
        f"schema.history.internal.{client}.{name}": value
        for client in ("producer", "consumer")
        for name, value in {
            "security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "sasl.jaas.config": jaas,
            "ssl.truststore.type": "PEM", "ssl.truststore.location": str(captured.kafka.ca_file),
        }.items()
    }  # fmt: skip
    source = captured.source(connection=secured, settings=settings)
    made = await captured.enable(source)
    assert any("RUNNING, tasks: RUNNING" in line for line in made)
    assert [row["_op"] for row in (await captured.rows(source, 1))["a"]] == ["S"]
    assert captured.kafka.end(history_topic(captured.name)) > 0


async def test_what_has_to_be_mended_first(captured: Captured) -> None:
    """An account that may too little, a name that fits none, a socket: errors that say what to do, and nothing is made."""
    lesser = await captured.database.create_user("SELECT ON {database}.*")
    with pytest.raises(ConfigurationError, match=r"may not read the log.*GRANT REPLICATION SLAVE.*GRANT RELOAD"):
        await captured.enable(captured.source(database=mysql_block_of(lesser)))
    with pytest.raises(ConfigurationError, match=r"field debezium\.tables: no table is like .*nope"):
        await captured.enable(captured.source("nope"))
    with pytest.raises(ConfigurationError, match=r"no table is like \S+\.nope; there are"):
        await captured.enable(captured.source("a", "nope"))
    socket = mysql_block_of(captured.account).model_copy(update={"host": "/run/mysqld.sock"})
    with pytest.raises(ConfigurationError, match="the workers need a host and a port"):
        await captured.enable(captured.source(database=socket))
    assert captured.name not in captured.connect.ask("GET", "/connectors")


async def test_mariadb_is_refused(captured: Captured, mariadb_server: MySQLServer) -> None:
    """The error names what reads its log."""
    with pytest.raises(ConfigurationError, match=r"is MariaDB.*source of connection mysql/"):
        await captured.enable(captured.source(database=mysql_block_of(mariadb_server)))
