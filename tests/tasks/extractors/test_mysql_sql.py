"""MySQL's SQL: names as people write them, quoting, and errors in words a person can act on."""

from __future__ import annotations

import aiomysql
import pytest

from blocks.errors import ConfigurationError
from tasks.extractors.mysql.sql import Server, explained, fetch, identifier, name_parts, number_of
from tests.blocks.test_mysql import block_of, connected
from tests.servers.mysql import MySQLServer


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("orders", ["orders"]),
        ("shop.Orders", ["shop", "Orders"]),
        ("`odd.name`", ["odd.name"]),
        ("shop.`a``b`", ["shop", "a`b"]),
        ("`my shop`.`my table`", ["my shop", "my table"]),
        ("größe", ["größe"]),
    ],
)
def test_table_names(text: str, parts: list[str]) -> None:
    """A name is table or database.table, in backticks where it holds a dot or a backtick."""
    assert name_parts(text) == parts


@pytest.mark.parametrize("text", ["", "a.b.c", ".a", "a.", "a..b", "`a", "a`b"])
def test_what_is_no_table_name(text: str) -> None:
    """Anything else is refused, with the field and how to write it."""
    with pytest.raises(ConfigurationError, match=r"field table: .* write table or database\.table"):
        name_parts(text)


@pytest.mark.parametrize("name", ["plain", "odd`name", "`", "a.b", "sel'ect", 'quo"te', "back\\slash", "ünï✓", "%s"])
async def test_identifiers(mysql_database: MySQLServer, name: str) -> None:
    """Whatever is in a name, its quoted form is that name to the server."""
    async with connected(block_of(mysql_database)) as connection, connection.cursor() as cursor:
        await cursor.execute(f"SELECT 1 AS {identifier(name)}")
        assert cursor.description[0][0] == name


async def failed(server: MySQLServer, statement: str) -> Exception:
    """What becomes of the error of a statement."""
    async with connected(block_of(server)) as connection:
        with pytest.raises(aiomysql.MySQLError) as caught:
            await fetch(connection, statement)
    return explained(caught.value, "field query", statement)


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("SELECT nix", "field query: Unknown column 'nix'"),
        ("SELECT * FROM nowhere", "nowhere' doesn't exist"),
        ("SELECT date '2026-13-01'", "Incorrect DATE value"),
        ("SELECT 'a' COLLATE utf8mb4_bin = 'b' COLLATE utf8mb4_general_ci", "Illegal mix of collations"),
        ("SELECT 1 UNION SELECT 1, 2", "different number of columns"),
        ("SELECT (SELECT 1 UNION SELECT 2)", "more than 1 row"),
        ("CREATE TABLE t (id int)", "READ ONLY"),
    ],
)
async def test_what_a_person_has_to_mend(mysql_database: MySQLServer, statement: str, told: str) -> None:
    """SQL that cannot work is a configuration error, in the server's words after ours."""
    error = await failed(mysql_database, statement)
    assert isinstance(error, ConfigurationError)
    assert told in str(error)


@pytest.mark.parametrize(
    ("statement", "line", "caret"),
    [
        ("SELECT id\nFROM t WHER id = 1", "  FROM t WHER id = 1", "              ^"),
        ("SELECT 1 FROM", "", ""),
        ("SELEC 1", "  SELEC 1", "  ^"),
    ],
)
async def test_syntax_errors_show_the_place(mysql_database: MySQLServer, statement: str, line: str, caret: str) -> None:
    """The line that the server means is shown with a mark under the place, where it names one."""
    told = str(await failed(mysql_database, statement)).split("\n")
    assert told[1:] == ([line, caret] if line else [])


async def test_what_may_pass_goes_through(mysql_database: MySQLServer) -> None:
    """A statement that was killed is the driver's error, with a note of what was being done."""
    async with connected(block_of(mysql_database)) as connection:
        with pytest.raises(aiomysql.MySQLError) as caught:
            await fetch(connection, "KILL QUERY connection_id()")
    error = explained(caught.value, "table orders")
    assert error is caught.value
    assert "table orders" in error.__notes__


def test_numbers_of_errors() -> None:
    """Errors of the driver that have no number do not pass for one."""
    assert number_of(aiomysql.OperationalError(1045, "no")) == 1045
    assert number_of(aiomysql.OperationalError("Unknown packet")) == 0
    assert number_of(OSError(13, "no")) == 0


@pytest.mark.parametrize(
    ("told", "server"),
    [
        ("9.7.4-2", "MySQL 9.7.4"),
        ("8.0.36-28", "MySQL 8.0.36"),
        ("8.0.mysql_aurora.3.05.2", "MySQL 8.0.0"),
        ("11.8.9-MariaDB-4 from Debian-log", "MariaDB 11.8.9"),
        ("5.5.5-10.11.2-MariaDB-log", "MariaDB 10.11.2"),
    ],
)
def test_servers_are_told_apart(told: str, server: str) -> None:
    """Flavour and version are taken from the greeting, past what MariaDB once put before it."""
    assert str(Server.saying(told)) == server
