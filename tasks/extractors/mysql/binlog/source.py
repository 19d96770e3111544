"""What a person fills in for a stream of changes of MySQL or MariaDB tables."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from blocks.connect import BlockOrName
from blocks.errors import ConfigurationError
from blocks.mysql import MySQL
from tasks.extractors.contract import ChangeExtractor, ReadOptions
from tasks.extractors.mysql.binlog.extractor import ChangesExtractor, ChangesSubject
from tasks.extractors.source import Source


class MySQLChanges(Source):
    """What the binary log of a MySQL or MariaDB server has recorded of some tables."""

    model_config = ConfigDict(title="MySQL changes")

    connection: BlockOrName[MySQL] = Field(title="Connection", description="A MySQL block, such as mysql/shop")
    tables: tuple[str, ...] = Field(
        min_length=1,
        title="Tables",
        description="Those to follow, all in one pass over the log: table, database.table, with * and ? as wildcards; with "
        "a leading - those to leave out.",
    )
    snapshot: bool = Field(
        default=True,
        title="Snapshot first",
        description="Whether the first run brings the tables as they are (_op S) and the changes begin there. Off: they "
        "begin at start.",
    )
    start: str = Field(
        default="now",
        title="Start",
        description="Where the changes begin without a snapshot: now; a place in the log such as binlog.000042:1234; "
        "a set of GTIDs, behind which they begin; or a time such as 2026-01-31 12:00:00+00.",
    )
    zero_dates: Literal["text", "null"] = Field(
        default="text",
        title="Zero dates",
        description="What becomes of dates that no calendar has, such as 0000-00-00 and 2026-02-00. text: written as they "
        "are; null: written as NULL.",
    )
    server_id: int = Field(
        default=0,
        ge=0,
        lt=1 << 32,
        title="Server id",
        description="The number by which the server knows this reader of its log; must be like no other replica's. "
        "0: one is drawn for each run.",
    )

    def open(self, options: ReadOptions) -> ChangeExtractor:
        if options.mode != "changes":
            raise ConfigurationError(f"field mode: a source of changes is read in mode changes, not {options.mode}")
        if options.columns:
            raise ConfigurationError("field columns: a stream of changes brings all columns of its tables")
        if self.snapshot and self.start.strip() != "now":
            raise ConfigurationError(
                f"field start: {self.start!r} is for a stream without a snapshot, which begins where that was taken; set "
                "snapshot: false, or leave start out"
            )
        subject = ChangesSubject(
            self.connection, self.tables, self.snapshot, self.start.strip(), self.zero_dates, self.server_id
        )
        return ChangesExtractor(subject, options)
