"""MySQL and MariaDB tables and queries pass the contract, over the wire and through aiomysql's public API."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from blocks.mysql import MySQL
from tasks.extractors.contract import Extractor, ReadOptions
from tasks.extractors.mysql import wire
from tasks.extractors.mysql.source import MySQLQuery, MySQLTable
from tests.contract import ExtractorContract
from tests.servers.mysql import MySQLServer

ROWS = 5_000


def block_of(server: MySQLServer) -> MySQL:
    """The block that reaches a test's own database."""
    return MySQL(
        host=server.host, port=server.port, database=server.database, user=server.user, password=server.password
    )


@dataclass
class Table:
    """A table with a primary key, read by it."""

    server: MySQLServer
    cursor: str = "id"
    can_increment: bool = True
    can_partition: bool = True

    async def create(self) -> None:
        await self.server.execute(
            "CREATE TABLE `Odd ``Names` (id BIGINT AUTO_INCREMENT PRIMARY KEY, note TEXT,"
            " amount INT NOT NULL DEFAULT 100, updated_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)"
        )
        await self.add(ROWS)
        await self.server.execute("ANALYZE TABLE `Odd ``Names`")

    def open(self, options: ReadOptions) -> Extractor:
        return MySQLTable(connection=block_of(self.server), table="`Odd ``Names`", cursor=self.cursor).open(options)

    def misnamed(self, options: ReadOptions) -> Extractor:
        return MySQLTable(connection=block_of(self.server), table="odd_names").open(options)

    async def add(self, count: int) -> None:
        last = await self.count()  # an INSERT … SELECT leaves gaps in what AUTO_INCREMENT gives
        await self.server.execute(
            self.server.deep_recursion,
            f"""INSERT INTO `Odd ``Names` (id, note, updated_at)
                WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
                SELECT {last} + i, ELT(1 + i % 6, NULL, '', 'a "quote", and\na line', 'ünï✓', '\\\\N', 'plain'),
                       NOW() - INTERVAL 2 SECOND FROM n""",
        )

    async def move(self, amount: int) -> None:
        await self.server.execute(
            f"""UPDATE `Odd ``Names` SET amount = amount + IF(id = 1, -{amount}, {amount})
                WHERE id IN (1, (SELECT * FROM (SELECT MAX(id) FROM `Odd ``Names`) AS m))"""
        )

    async def count(self) -> int:
        return int(await self.server.fetch_value("SELECT COUNT(*) FROM `Odd ``Names`"))


class Query(Table):
    """The same rows through a query that has the bounds inside."""

    def open(self, options: ReadOptions) -> Extractor:
        statement = """SELECT id, note, amount, updated_at FROM `Odd ``Names` -- all of it
                       WHERE id > {since} AND id <= {until};"""
        return MySQLQuery(connection=block_of(self.server), query=statement, cursor="id", key=("id",)).open(options)

    def misnamed(self, options: ReadOptions) -> Extractor:
        return MySQLQuery(connection=block_of(self.server), query="SELECT 1 FORM t").open(options)


class TestTable(ExtractorContract):
    @pytest.fixture
    async def subject(self, mysql_database: MySQLServer) -> Table:
        table = Table(mysql_database)
        await table.create()
        return table


class TestQuery(ExtractorContract):
    @pytest.fixture
    async def subject(self, mysql_database: MySQLServer) -> Table:
        query = Query(mysql_database)
        await query.create()
        return query


class TestFallback(ExtractorContract):
    @pytest.fixture
    async def subject(self, mysql_database: MySQLServer, monkeypatch: pytest.MonkeyPatch) -> Table:
        monkeypatch.setattr(wire, "unusable", lambda _connection: "aiomysql 9 has no _reader")
        table = Table(mysql_database)
        await table.create()
        return table

    async def test_the_plan_says_that_it_is_slow(self, subject: Table) -> None:
        """Whoever falls back learns it from a note, with the way out."""
        async with subject.open(ReadOptions()) as extractor:
            assert "aiomysql 9 has no _reader" in " ".join((await extractor.plan(None)).notes)
