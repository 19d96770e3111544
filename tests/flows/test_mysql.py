"""Runs of MySQL and MariaDB streams: what is committed is the table, once, whatever happened to the connections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import pytest

from blocks.mysql import MySQL
from blocks.s3 import S3Destination
from tests.flows.conftest import ROWS, Shop
from tests.servers.faults import TcpProxy
from tests.servers.mysql import MySQLServer
from tests.servers.s3 import S3Server
from tests.tasks.extractors.test_mysql import block_of


@dataclass
class MySQLShop(Shop):
    """The same stream, from a table on a MySQL or MariaDB server."""

    @property
    def mysql(self) -> MySQLServer:
        return cast("MySQLServer", self.server)

    async def create(self) -> None:
        await self.mysql.execute(
            "CREATE TABLE things (id BIGINT AUTO_INCREMENT PRIMARY KEY, payload TEXT NOT NULL,"
            " updated_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)"
        )
        await self.add(ROWS)
        await self.mysql.execute("ANALYZE TABLE things")

    async def add(self, count: int) -> None:
        random = ", ".join(["SHA2(RAND(), 512)"] * 16)
        variable = "max_recursive_iterations" if self.mysql.is_mariadb else "cte_max_recursion_depth"
        await self.mysql.execute(
            f"SET @@{variable} = 100000",
            "INSERT INTO things (payload) WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
            f" WHERE i < {count}) SELECT CONCAT({random}) FROM n",
        )

    async def ids(self) -> list[int]:
        return [row[0] for row in await self.mysql.fetch("SELECT id FROM things ORDER BY id")]

    async def save(self, to: S3Destination | None = None, block: Any = None) -> dict[str, Any]:
        await (to or self.destination()).asave(self.name, overwrite=True)
        saved: MySQL = block or block_of(self.mysql)
        await saved.asave(self.name, overwrite=True)
        source = {"connection": f"mysql/{self.name}", "table": "things"}
        return {"stream": self.name, "source": source, "to": f"s3-destination/{self.name}"}


@pytest.fixture
async def mysql_shop(mysql_database: MySQLServer, s3_server: S3Server, bucket: str, prefect_api: str) -> MySQLShop:
    """A table of `ROWS` rows (6 MB of text that does not compress), and an empty bucket."""
    assert prefect_api
    made = MySQLShop(cast("Any", mysql_database), s3_server, bucket, {"compression": "none"})
    await made.create()
    return made


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
