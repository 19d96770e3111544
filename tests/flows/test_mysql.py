"""Runs of MySQL and MariaDB streams: what is committed is the table, once, whatever happened to the connections."""

from __future__ import annotations

from typing import Any, cast

import pytest

from tests.flows.shops import ROWS, MySQLShop
from tests.servers.faults import TcpProxy
from tests.tasks.extractors.test_mysql import block_of


@pytest.mark.parametrize("mode", ["full", "incremental"])
async def test_two_runs_bring_everything_once(mysql_shop: MySQLShop, mode: str) -> None:
    """A run commits all rows; the next brings what is new (incremental) or all again (full)."""
    first = await mysql_shop.run(mode, partitions=3)
    await mysql_shop.add(20)
    second = await mysql_shop.run(mode, partitions=3)
    assert (first["sequence"], second["sequence"]) == (1, 2)
    assert second["rows"] == (20 if mode == "incremental" else first["rows"] + 20)
    await mysql_shop.assert_sound(mode)


async def test_the_log_position_is_in_the_commit(mysql_shop: MySQLShop) -> None:
    """A change stream can begin where the committed snapshot ends."""
    await mysql_shop.run("full", partitions=3)
    (commit,) = await mysql_shop.commits()
    seen = commit.model_dump(mode="json")["snapshot"]
    assert seen["exact"]
    assert seen["binlog"].keys() == {"file", "position", "gtids"}


@pytest.mark.parametrize("mode", ["full", "incremental"])
async def test_a_lost_connection_makes_a_new_plan(mysql_shop: MySQLShop, mysql_wire: TcpProxy, mode: str) -> None:
    """Connections cut in the middle of a result cost a new plan; the commits hold every row once."""
    block = block_of(mysql_shop.mysql.through(mysql_wire.port))
    mysql_wire.cut_after(3 << 20)
    outcome = await mysql_shop.run(mode, block=cast("Any", block), partitions=2)
    assert outcome["rows"] == ROWS
    await mysql_shop.assert_sound(mode)
