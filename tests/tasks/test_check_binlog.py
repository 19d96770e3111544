"""`headrace check` of change streams: each missing privilege with its GRANT, each setting with the statement for it."""

from __future__ import annotations

from typing import Any

import pytest

from tasks import check_mysql
from tasks.extractors.contract import ReadOptions
from tasks.extractors.mysql.binlog.source import MySQLChanges
from tasks.findings import Finding
from tests.servers.mysql import MySQLServer
from tests.tasks.extractors.test_mysql import block_of


@pytest.fixture
async def shop(mysql_database: MySQLServer) -> MySQLServer:
    await mysql_database.execute("CREATE TABLE orders (id INT PRIMARY KEY)", "CREATE TABLE items (id INT PRIMARY KEY)")
    return mysql_database


async def findings(server: MySQLServer, **fields: Any) -> list[Finding]:
    source = MySQLChanges(connection=block_of(server), **{"tables": ("orders", "it*"), **fields})
    return [finding async for finding in check_mysql.look(source, ReadOptions(mode="changes"))]


async def test_everything_in_order(shop: MySQLServer) -> None:
    """Nothing to mend, and the tables are told."""
    found = await findings(shop)
    assert [finding for finding in found if finding.level == "error"] == []
    assert "2 table(s) are followed" in found[-1].text


async def test_each_privilege_is_named_and_its_grant_mends_it(shop: MySQLServer) -> None:
    """Granting what the findings say, and nothing else, makes them good."""
    user = await shop.create_user("SELECT ON {database}.*")
    missing = [finding for finding in await findings(user) if finding.level == "error"]
    assert len(missing) == 3
    for finding in missing:
        await shop.execute(finding.way_out.split(", or ")[0])
    assert [finding for finding in await findings(user) if finding.level == "error"] == []


async def test_settings_are_told_with_the_statement_that_mends_them(shop: MySQLServer) -> None:
    """What is in the way of a stream is an error, what makes it less a warning; both say what to do."""
    changed = {"binlog_row_image": "MINIMAL", "binlog_row_metadata": "MINIMAL", "binlog_format": "MIXED"}
    before = {name: await shop.fetch_value(f"SELECT @@GLOBAL.{name}") for name in changed}
    try:
        await shop.execute(*(f"SET GLOBAL {name} = '{value}'" for name, value in changed.items()))
        found = {name: f for name in changed for f in await findings(shop) if f.text.startswith(f"source: {name} ")}
    finally:
        await shop.execute(*(f"SET GLOBAL {name} = '{value}'" for name, value in before.items()))
    assert {name: finding.level for name, finding in found.items()} == {
        "binlog_row_image": "warning", "binlog_row_metadata": "warning", "binlog_format": "error",
    }  # fmt: skip
    for name, finding in found.items():
        assert f"SET GLOBAL {name} = " in finding.way_out


async def test_a_log_that_is_not_kept_for_long_is_told(shop: MySQLServer) -> None:
    """A stream that does not run for that long loses its place."""
    before = await shop.fetch_value("SELECT @@GLOBAL.binlog_expire_logs_seconds")
    try:
        await shop.execute("SET GLOBAL binlog_expire_logs_seconds = 3600")
        (kept,) = [finding for finding in await findings(shop) if "is kept" in finding.text]
    finally:
        await shop.execute(f"SET GLOBAL binlog_expire_logs_seconds = {before}")
    assert (kept.level, "1 hours" in kept.text) == ("warning", True)
    assert "binlog_expire_logs_seconds = 259200" in kept.way_out
