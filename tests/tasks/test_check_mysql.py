"""`headrace check` of MySQL and MariaDB sources: what it finds, and that the GRANT it names is the one that is missing."""

from __future__ import annotations

from typing import Any

import pytest

from blocks.connect import BlockOrName
from blocks.errors import ConfigurationError
from blocks.mysql import MySQL
from tasks import check_mysql
from tasks.checks import SOURCES
from tasks.extractors.contract import Extractor, ReadOptions
from tasks.extractors.source import Source, ZonedWindow
from tasks.findings import Finding
from tests.blocks.test_mysql import block_of
from tests.servers.mysql import MySQLServer

INCREMENTAL = ReadOptions(mode="incremental")


class Subject(Source, ZonedWindow):
    """What the checks want to know of a source."""

    connection: BlockOrName[MySQL]
    table: str = ""
    where: str = ""
    query: str = ""

    def open(self, options: ReadOptions) -> Extractor:
        raise NotImplementedError


@pytest.fixture
async def shop(mysql_database: MySQLServer) -> MySQLServer:
    await mysql_database.execute(
        "CREATE TABLE orders (id int PRIMARY KEY, note text, `odd``name` int) ENGINE=InnoDB",
        "CREATE VIEW seen AS SELECT id FROM orders",
    )
    return mysql_database


async def findings(server: MySQLServer, options: ReadOptions = INCREMENTAL, **fields: Any) -> list[Finding]:
    wanted = {"cursor": "id"} | fields
    source = Subject(connection=block_of(server), **(wanted if "query" in wanted else {"table": "orders"} | wanted))
    return [finding async for finding in check_mysql.look(source, options)]


def levels(found: list[Finding]) -> str:
    return " ".join(finding.level for finding in found)


async def grant(server: MySQLServer, to: MySQLServer, way_out: str) -> None:
    """Do as a finding says, and nothing else."""
    assert way_out.endswith(f" TO '{to.user}'@'%'")
    await server.execute(way_out)


async def test_everything_in_order(shop: MySQLServer) -> None:
    """An all-powerful account has nothing to mend; server, version and TLS are told."""
    found = await findings(shop)
    assert levels(found) == "ok ok ok ok ok ok", found
    assert f"answers: {shop.flavour} " in found[0].text
    assert "TLSv1.3" in found[0].text
    assert "orders can be read, 3 columns" in found[1].text
    assert SOURCES[MySQL] is check_mysql.look


async def test_each_missing_privilege_and_its_grant(shop: MySQLServer) -> None:
    """SELECT alone reads, and every warning names the statement after which it is gone."""
    user = await shop.create_user("SELECT ON {database}.orders")
    found = await findings(user)
    assert levels(found) == "ok ok warning warning ok warning", found
    lock, transactions, position = (finding for finding in found if finding.level == "warning")
    assert "RELOAD" in lock.way_out
    assert "LOCK TABLES" in lock.way_out
    await grant(shop, user, lock.way_out.split(", or ")[1])
    await grant(shop, user, transactions.way_out.removesuffix(", or set lag"))
    await grant(shop, user, position.way_out)
    assert levels(await findings(user)) == "ok ok ok ok ok ok"


async def test_no_select(shop: MySQLServer) -> None:
    """Without SELECT on the table, or on one of the columns that are read, the error names the GRANT that mends it."""
    user = await shop.create_user("INSERT ON {database}.*")
    found = (await findings(user))[1]
    assert found.level == "error"
    await grant(shop, user, found.way_out)
    assert (await findings(user))[1].level == "ok"
    narrow = await shop.create_user("SELECT (id), INSERT (note) ON {database}.orders")
    assert (await findings(narrow, ReadOptions(columns=("id", "note"))))[1].level == "error"
    assert (await findings(narrow, ReadOptions(columns=("-note",))))[1].level == "ok"
    assert (await findings(narrow, cursor="note"))[1].level == "error"


async def test_privileges_of_a_role(shop: MySQLServer) -> None:
    """What an active role brings counts."""
    user = await shop.create_user("SELECT ON {database}.*")
    role = f"{shop.database}_role"
    default = f"'{role}' FOR '{user.user}'@'%'" if shop.is_mariadb else f"'{role}' TO '{user.user}'@'%'"
    await shop.execute(
        f"CREATE ROLE '{role}'",
        f"GRANT RELOAD, PROCESS, REPLICATION CLIENT ON *.* TO '{role}'",
        f"GRANT '{role}' TO '{user.user}'@'%'",
        f"SET DEFAULT ROLE {default}",
    )
    try:
        assert levels(await findings(user)) == "ok ok ok ok ok ok"
    finally:
        await shop.execute(f"DROP ROLE '{role}'")


async def test_grants_on_patterns_of_databases(shop: MySQLServer) -> None:
    """A privilege on all databases of a name like this one's counts, on others it does not."""
    near = shop.database.replace("_", "\\_")
    user = await shop.create_user("SELECT ON {database}.*", f"LOCK TABLES ON `{near[:-2]}%`.*")
    assert (await findings(user))[2].level == "ok"
    other = await shop.create_user("SELECT ON {database}.*", f"LOCK TABLES ON `{near}x`.*")
    assert (await findings(other))[2].level == "warning"


async def test_one_slice_needs_no_lock(shop: MySQLServer) -> None:
    """Where a run is in one slice, locks are not looked at, and a full read needs no cursor."""
    user = await shop.create_user("SELECT ON {database}.*", "REPLICATION CLIENT ON *.*")
    found = await findings(user, ReadOptions(partitions=1), cursor="")
    assert levels(found) == "ok ok ok"


async def test_views_and_queries(shop: MySQLServer) -> None:
    """Views are checked like tables; a query is checked whole, with any bounds in it, trailing comment and semicolon."""
    assert (await findings(shop, table="seen"))[1].level == "ok"
    bounded = "SELECT id, count(*) AS n FROM orders WHERE id > {since} AND id <= {until} GROUP BY id -- a note"
    found = await findings(shop, query=bounded + ";\n")
    assert found[1].text == "source: the query can be read"
    user = await shop.create_user("SELECT ON {database}.seen")
    denied = (await findings(user, query="SELECT * FROM orders"))[1]
    assert (denied.level, denied.way_out) == ("error", f"GRANT SELECT ON … TO '{user.user}'@'%'")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"table": "nowhere"}, "nowhere cannot be read: Table"),
        ({"table": "a.b.c"}, "field table: 'a.b.c' is not a table name"),
        ({"where": "id >"}, "syntax"),
        ({"cursor": "nix"}, "Unknown column 't.nix'"),
        ({"cursor": ""}, "field cursor: mode incremental needs one"),
        ({"query": "DELETE FROM orders"}, "syntax"),
    ],
)
async def test_what_a_person_has_to_mend(shop: MySQLServer, fields: dict[str, Any], told: str) -> None:
    """Names and SQL that the server does not understand are told in its own words, and nothing is run."""
    with pytest.raises(ConfigurationError) as caught:
        await findings(shop, **fields)
    assert told in str(caught.value)


async def test_a_replica(shop: MySQLServer) -> None:
    """A server that takes no writes is taken for a replica, and lag is the way out."""
    await shop.execute("SET GLOBAL read_only = 1")
    try:
        warned = (await findings(shop))[4]
        assert "set lag" in warned.way_out
        assert (await findings(shop, lag="5 minutes"))[4].level == "ok"
    finally:
        await shop.execute("SET GLOBAL read_only = 0")
