"""What a person fills in for a MySQL or MariaDB stream: a table (or view), or a query."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from blocks.connect import BlockOrName
from blocks.mysql import MySQL
from tasks.extractors.contract import Extractor, ReadOptions
from tasks.extractors.mysql.extractor import MySQLExtractor
from tasks.extractors.mysql.select import Subject
from tasks.extractors.source import Source, ZonedWindow


class _Dates(BaseModel):
    zero_dates: Literal["text", "null"] = Field(
        default="text",
        title="Zero dates",
        description="What becomes of dates that no calendar has, such as 0000-00-00 and 2026-02-00. text: written as they "
        "are; null: written as NULL.",
    )


class MySQLTable(Source, ZonedWindow, _Dates):
    """A MySQL or MariaDB table or view."""

    model_config = ConfigDict(title="MySQL table")

    connection: BlockOrName[MySQL] = Field(title="Connection", description="A MySQL block, such as mysql/shop")
    table: str = Field(
        title="Table",
        description="table, or database.table for one outside the connection's database; odd names in backquotes: "
        "`my.schema`.`my table`",
    )
    where: str = Field(
        default="", title="Where", description="An SQL condition; only rows for which it holds are read."
    )

    def open(self, options: ReadOptions) -> Extractor:
        subject = Subject(self.connection, self, self.zero_dates, table=self.table, where=self.where)
        return MySQLExtractor(subject, options)


class MySQLQuery(Source, ZonedWindow, _Dates):
    """Any SELECT."""

    model_config = ConfigDict(title="MySQL query")

    connection: BlockOrName[MySQL] = Field(title="Connection", description="A MySQL block, such as mysql/shop")
    query: str = Field(
        title="Query",
        description="A SELECT. In mode incremental it is wrapped in a condition on the cursor column; where the bounds "
        "have to stand inside (before a GROUP BY, say), write {since} and {until}: since < cursor <= until.",
    )
    key: tuple[str, ...] = Field(
        default=(), title="Key columns", description="The columns a loader merges by; told in the commit."
    )

    def open(self, options: ReadOptions) -> Extractor:
        subject = Subject(self.connection, self, self.zero_dates, query=self.query, key=self.key)
        return MySQLExtractor(subject, options)
