"""PostgreSQL tables and queries pass the contract."""

from __future__ import annotations

from dataclasses import dataclass

import asyncpg
import pytest

from blocks.postgres import Postgres
from tasks.extractors.contract import Extractor, ReadOptions
from tasks.extractors.postgres.source import PostgresQuery, PostgresTable
from tests.contract import ExtractorContract
from tests.servers.postgres import PostgresServer

ROWS = 5_000


def block_of(server: PostgresServer) -> Postgres:
    """The block that reaches a test's own database."""
    return Postgres(
        host=server.host, port=server.port, database=server.database, user=server.user, password=server.password
    )


@dataclass
class Table:
    """A table with a primary key, read by it."""

    server: PostgresServer
    cursor: str = "id"
    can_increment: bool = True
    can_partition: bool = True

    async def create(self) -> None:
        await self._execute(
            'CREATE TABLE "Odd ""Names" (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,'
            " note text, amount int NOT NULL DEFAULT 100, updated_at timestamptz NOT NULL DEFAULT now())"
        )
        await self.add(ROWS)
        await self._execute('ANALYZE "Odd ""Names"')

    def open(self, options: ReadOptions) -> Extractor:
        return PostgresTable(connection=block_of(self.server), table='public."Odd ""Names"', cursor=self.cursor).open(
            options
        )

    def misnamed(self, options: ReadOptions) -> Extractor:
        return PostgresTable(connection=block_of(self.server), table="public.odd_names").open(options)

    async def add(self, count: int) -> None:
        await self._execute(
            """INSERT INTO "Odd ""Names" (note, updated_at)
               SELECT (ARRAY['plain', NULL, '', 'a "quote", and' || chr(10) || 'a line', 'ünï✓', '\\N'])[1 + i % 6],
                      now() - interval '2 seconds'
               FROM generate_series(1, $1) i""",
            count,
        )

    async def move(self, amount: int) -> None:
        await self._execute(
            """UPDATE "Odd ""Names" t SET amount = amount + CASE WHEN id = 1 THEN -$1::int ELSE $1::int END
               WHERE id IN (1, (SELECT max(id) FROM "Odd ""Names"))""",
            amount,
        )

    async def count(self) -> int:
        connection = await asyncpg.connect(self.server.dsn())
        try:
            return int(await connection.fetchval('SELECT count(*) FROM "Odd ""Names"'))
        finally:
            await connection.close()

    async def _execute(self, statement: str, *arguments: object) -> None:
        connection = await asyncpg.connect(self.server.dsn())
        try:
            await connection.execute(statement, *arguments)
        finally:
            await connection.close()


class Query(Table):
    """The same rows through a query that has the bounds inside."""

    def open(self, options: ReadOptions) -> Extractor:
        statement = """SELECT id, note, amount, updated_at FROM "Odd ""Names" -- all of it
                       WHERE id > {since} AND id <= {until};"""
        return PostgresQuery(connection=block_of(self.server), query=statement, cursor="id", key=("id",)).open(options)

    def misnamed(self, options: ReadOptions) -> Extractor:
        return PostgresQuery(connection=block_of(self.server), query="SELECT 1 FORM t").open(options)


class TestTable(ExtractorContract):
    @pytest.fixture
    async def subject(self, database: PostgresServer) -> Table:
        table = Table(database)
        await table.create()
        return table


class TestQuery(ExtractorContract):
    @pytest.fixture
    async def subject(self, database: PostgresServer) -> Query:
        query = Query(database)
        await query.create()
        return query
