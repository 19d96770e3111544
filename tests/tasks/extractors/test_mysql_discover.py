"""What `headrace discover` finds in MySQL and MariaDB."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
import yaml

from blocks.errors import ConfigurationError
from tasks.extractors.catalog import Found
from tasks.extractors.mysql.discover import tables
from tests.blocks.test_mysql import block_of
from tests.flows.test_cli import headrace
from tests.servers.mysql import MySQLServer

_SETUP = (
    """CREATE TABLE orders (
        id bigint unsigned AUTO_INCREMENT PRIMARY KEY, note text, placed_at datetime NOT NULL DEFAULT now(),
        seen timestamp NULL, updated_at datetime(6), checked_on date, quantity int,
        stamp timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
        KEY (stamp), KEY (note(10)), KEY (quantity, placed_at)) ENGINE=InnoDB""",
    "INSERT INTO orders (note) VALUES ('a'), ('b'), ('c')",
    "ANALYZE TABLE orders",
    "CREATE TABLE items (order_id int, line int, text varchar(9), PRIMARY KEY (order_id, line)) ENGINE=InnoDB",
    "CREATE TABLE `odd.na``me` (a int, modified timestamp NULL) ENGINE=InnoDB",
    "CREATE TABLE parts (id int PRIMARY KEY) ENGINE=InnoDB PARTITION BY HASH (id) PARTITIONS 3",
    "CREATE VIEW recent AS SELECT * FROM orders",
)


@pytest.fixture
async def shop(mysql_database: MySQLServer) -> MySQLServer:
    await mysql_database.execute(*_SETUP)
    return mysql_database


async def found_in(server: MySQLServer, **arguments: Any) -> dict[str, Found]:
    return {table.written: table for table in await tables(block_of(server), **arguments)}


async def test_tables_with_keys_and_sizes(shop: MySQLServer) -> None:
    """Tables are listed once, partitioned ones too, views are not; the key is in its own order."""
    found = await found_in(shop)
    assert list(found) == ["items", "`odd.na``me`", "orders", "parts"]
    assert found["items"].key == ("order_id", "line")
    assert found["orders"].key == ("id",)
    assert found["orders"].rows == 3
    assert found["orders"].bytes > 0
    assert all(table.readable for table in found.values())


async def test_cursor_candidates(shop: MySQLServer) -> None:
    """A stamp the server keeps comes first, then what counts up; a prefix index is none, and a plain number no cursor."""
    found = await found_in(shop)
    told = [str(cursor) for cursor in found["orders"].cursors]
    assert told == [
        "stamp",
        "id",
        "placed_at (no index)",
        "updated_at (no index, nullable)",
        "seen (no index, nullable)",
    ]
    assert [cursor.name for cursor in found["orders"].cursors if cursor.sees_changes] == ["stamp", "updated_at"]
    assert found["orders"].proposed == found["orders"].cursors[0]
    assert found["items"].cursors == ()
    assert [cursor.name for cursor in found["parts"].cursors] == ["id"]
    assert found["`odd.na``me`"].stream == "odd-na-me"


async def test_another_database(shop: MySQLServer) -> None:
    """Tables of another database are named with it, and the pattern may be too."""
    other = await shop.create_database()
    try:
        found = {t.written: t for t in await tables(block_of(other), schema=shop.database, like="*.ord*")}
        assert list(found) == [f"{shop.database}.orders"]
        assert found[f"{shop.database}.orders"].stream == f"{shop.database}-orders".replace("_", "-")
    finally:
        await other.drop()


async def test_only_what_the_user_may_see(shop: MySQLServer) -> None:
    """A table without SELECT is marked, one without any privilege is not there; a privilege through a role counts."""
    user = await shop.create_user("INSERT ON {database}.orders", "SELECT (a) ON {database}.`odd.na``me`")
    found = await found_in(user)
    assert {name: table.readable for name, table in found.items()} == {"orders": False, "`odd.na``me`": True}
    role = f"role_{secrets.token_hex(4)}"
    default = f"'{role}' FOR '{user.user}'@'%'" if shop.is_mariadb else f"'{role}' TO '{user.user}'@'%'"
    await shop.execute(
        f"CREATE ROLE '{role}'",
        f"GRANT SELECT ON {shop.database}.orders TO '{role}'",
        f"GRANT '{role}' TO '{user.user}'@'%'",
        f"SET DEFAULT ROLE {default}",
    )
    try:
        assert (await found_in(user))["orders"].readable
    finally:
        await shop.execute(f"DROP ROLE '{role}'")


async def test_unreachable_server(mysql_database: MySQLServer) -> None:
    """What keeps the connection from being made is told as everywhere."""
    with pytest.raises(ConfigurationError, match="fields user and password"):
        await tables(block_of(mysql_database, password="wrong"))


async def test_command_line(shop: MySQLServer, prefect_api: str) -> None:
    """`headrace discover` takes a mysql block by its name, and prints deployments that name it."""
    name = f"discover-{secrets.token_hex(4)}"
    await block_of(shop).asave(name, overwrite=True)
    listed = await headrace("discover", f"mysql/{name}", "--like", "ord*")
    assert listed.exit_code == 0, listed.output
    (line,) = listed.stdout.splitlines()[1:]
    assert line.split()[:2] == ["orders", "3"]
    printed = await headrace("discover", name, "--yaml")
    assert printed.exit_code == 0, printed.output
    entries = {entry["name"]: entry["parameters"] for entry in yaml.safe_load(printed.stdout)["deployments"]}
    assert entries["orders"]["source"] == {"connection": f"mysql/{name}", "table": "orders", "cursor": "stamp"}
    assert entries["odd-na-me"]["source"]["table"] == "`odd.na``me`"
    assert (entries["items"]["mode"], entries["orders"]["mode"]) == ("full", "incremental")
