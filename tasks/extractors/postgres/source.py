"""What a person fills in for a PostgreSQL stream: a table (or view), or a query."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from blocks.connect import BlockOrName
from blocks.postgres import Postgres
from tasks.extractors.contract import Extractor, ReadOptions
from tasks.extractors.postgres.extractor import PostgresExtractor
from tasks.extractors.postgres.select import Subject
from tasks.extractors.source import Source, ZonedWindow


class PostgresTable(Source, ZonedWindow):
    """A PostgreSQL table, partitioned table, view or materialized view."""

    model_config = ConfigDict(title="PostgreSQL table")

    connection: BlockOrName[Postgres] = Field(title="Connection", description="A Postgres block, such as postgres/shop")
    table: str = Field(
        title="Table",
        description='schema.table, as it is written in the database; odd names in double quotes: "My Schema"."my.table"',
    )
    where: str = Field(
        default="", title="Where", description="An SQL condition; only rows for which it holds are read."
    )

    def open(self, options: ReadOptions) -> Extractor:
        subject = Subject(self.connection, self, table=self.table, where=self.where)
        return PostgresExtractor(subject, options)


class PostgresQuery(Source, ZonedWindow):
    """Any SELECT."""

    model_config = ConfigDict(title="PostgreSQL query")

    connection: BlockOrName[Postgres] = Field(title="Connection", description="A Postgres block, such as postgres/shop")
    query: str = Field(
        title="Query",
        description="A SELECT. In mode incremental it is wrapped in a condition on the cursor column; where the bounds "
        "have to stand inside (before a GROUP BY, say), write {since} and {until}: since < cursor <= until.",
    )
    key: tuple[str, ...] = Field(
        default=(), title="Key columns", description="The columns a loader merges by; told in the commit."
    )

    def open(self, options: ReadOptions) -> Extractor:
        subject = Subject(self.connection, self, query=self.query, key=self.key)
        return PostgresExtractor(subject, options)
