"""The binary logs of MySQL and MariaDB pass the suite of change streams."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tasks.extractors.contract import ChangeExtractor, ReadOptions
from tasks.extractors.mysql.binlog.source import MySQLChanges
from tests.changes_contract import ChangesContract, note
from tests.servers.mysql import MySQLServer
from tests.tasks.extractors.test_binlog_starts import STATUS
from tests.tasks.extractors.test_mysql import block_of


@dataclass
class Log:
    """One table, from a place in the log on."""

    server: MySQLServer
    start: str
    count: int = 0

    def open(self, options: ReadOptions) -> ChangeExtractor:
        named = {"connection": block_of(self.server), "tables": ("events",), "snapshot": False, "start": self.start}
        return MySQLChanges.model_validate(named).open(options)

    def misnamed(self, options: ReadOptions) -> ChangeExtractor:
        # With a snapshot: without, a table may be one that the log has and the server has no more.
        named = {"connection": block_of(self.server), "tables": ("evnets",)}
        return MySQLChanges.model_validate(named).open(options)

    async def add(self, count: int) -> None:
        numbers = range(self.count + 1, self.count + count + 1)
        notes = ("NULL" if (text := note(number)) is None else f"'{text}'" for number in numbers)
        values = ", ".join(f"({number}, {text})" for number, text in zip(numbers, notes, strict=True))
        await self.server.execute(f"INSERT INTO events VALUES {values}")
        self.count += count

    def order_of(self, _position: str) -> str:
        return ""


class TestLog(ChangesContract):
    @pytest.fixture
    async def subject(self, mysql_database: MySQLServer) -> Log:
        await mysql_database.execute("CREATE TABLE events (id INT PRIMARY KEY, note TEXT)")
        file, position, *_ = (await mysql_database.fetch(STATUS[mysql_database.flavour]))[0]
        return Log(mysql_database, f"{file}:{position}")
