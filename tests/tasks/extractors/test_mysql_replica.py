"""What is taken for a replica, and what is not."""

from __future__ import annotations

import asyncio

import pytest

from tasks.extractors.mysql.replica import is_replica
from tasks.extractors.mysql.session import Session
from tests.servers.mysql import MySQLServer, replica_of
from tests.tasks.extractors.test_mysql import block_of
from tests.tasks.extractors.test_mysql_windows import MySQLEvents
from tests.windows import settle


async def _taken_for_one(server: MySQLServer) -> bool:
    session = await Session.open(block_of(server))
    try:
        return await is_replica(session.rows)
    finally:
        session.close()


async def _applied(source: MySQLServer, replica: MySQLServer) -> None:
    """Return when what is written to the source comes to the replica."""
    written = await source.create_database()
    async with asyncio.timeout(100):
        while not await replica.fetch(f"SHOW DATABASES LIKE '{written.database}'"):
            await asyncio.sleep(0.1)
    await written.drop()


async def test_a_server_that_applies_what_another_writes(mysql_database: MySQLServer) -> None:
    """A replica that may be written to is told from its source, which sends it the log and has an event scheduler."""
    await mysql_database.execute("SET GLOBAL event_scheduler = ON")
    try:
        async with replica_of(mysql_database) as replica:
            await _applied(mysql_database, replica)
            users = {row[1] for row in await mysql_database.fetch("SHOW PROCESSLIST")}
            assert "event_scheduler" in users
            assert await replica.fetch_value("SELECT @@GLOBAL.read_only") in (0, "OFF")
            assert (await _taken_for_one(mysql_database), await _taken_for_one(replica)) == (False, True)
            await replica.execute("STOP REPLICA")
            assert not await _taken_for_one(replica)
    finally:
        await mysql_database.execute("SET GLOBAL event_scheduler = DEFAULT")


async def test_who_applies_holds_back_nothing(mysql_database: MySQLServer) -> None:
    """Threads that wait for the source's next changes are no statements that began with the last ones."""
    async with replica_of(mysql_database) as replica:
        await _applied(mysql_database, replica)
        await asyncio.sleep(2)
        events = MySQLEvents(await replica.create_database())
        await events.create()
        await events.write("INSERT INTO events (kind) VALUES ('here')")
        await settle()
        assert (await events.window(None))[0] == [1]


@pytest.mark.parametrize(
    ("command", "read_only", "taken_for_one"),
    [
        ("Daemon", "0", False),  # MariaDB 10: InnoDB's purge
        ("Daemon", "OFF", False),
        ("Daemon", 1, True),
        ("Daemon", "NO_LOCK_NO_ADMIN", True),  # MariaDB 12
        ("Slave_SQL", 0, True),
        ("Connect", "0", True),
        ("Sleep", "0", True),  # Galera: nothing to apply just now
    ],
)
async def test_processes_of_the_system(command: str, read_only: str | int, taken_for_one: bool) -> None:
    """A daemon of the server's own applies nothing; whatever else runs under its name does."""

    async def rows(statement: str) -> list[tuple[object, ...]]:
        if "read_only" in statement:
            return [(read_only,)]
        return [("1", "system user", None, None, command, None, "", None), ("7", "reader", "", "shop", "Query", "0")]

    assert await is_replica(rows) is taken_for_one
