"""Brings what a stream has committed into a destination: each commit once, in order, and none left out.

A commit is loaded in one transaction, together with a line in the table `BOOKS`. So a load that dies leaves nothing, and
one that is done again finds that it is done.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from blocks.duck import DuckDB
from blocks.errors import ConfigurationError, PositionLost
from blocks.postgres import Postgres
from tasks.commits import Commit, CommitLog
from tasks.loads import into_duckdb, into_postgres
from tasks.loads.files import Files
from tasks.loads.sessions import Session
from tasks.loads.sql import BOOKED_ID, BOOKS, drop
from tasks.loads.targets import How, Naming, Target, begins, targets_of

_STAGE = "headrace_stage"


def session_of(block: Postgres | DuckDB, naming: Naming) -> AbstractAsyncContextManager[Session]:
    """A session with the destination that a block names."""
    if isinstance(block, Postgres):
        return into_postgres.session(block, naming)
    return into_duckdb.session(block, naming)


@dataclass(frozen=True)
class Loader:
    """Loads one stream."""

    log: CommitLog
    files: Files
    session: Session
    naming: Naming
    how: How = "by mode"

    async def begin(self) -> None:
        """Make the table that tells what is loaded."""
        async with self.session.transaction():
            # Two sessions that make one table at once would be in each other's way.
            await self.session.lock(BOOKS)
            if schema := self.naming.schema:
                quoted = ".".join(map(self.session.warehouse.identifier, schema.split(".")))
                await self.session.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted}")
            await self.session.execute(self.session.warehouse.books())
            # Only where it is not there: to alter the table waits for all loads under way.
            if BOOKED_ID not in await self.session.types_of(self.session.warehouse.qualified(BOOKS)):
                await self.session.execute(self.session.warehouse.add_booked_id())

    async def missing(self, sequence: int = 0) -> list[Commit]:
        """The commits up to ``sequence`` (0: the newest) that are to be loaded, in order.

        Those before the last that has everything are passed over, unless all records are wanted. `PositionLost` where one
        is missing, or the lake is not the one that was loaded from.
        """
        last = await self._last()
        later = await self.log.after(last)
        await self._check_lake(last, later)
        numbers = [number for number in later if not sequence or number <= sequence]
        if sequence > last and (not numbers or numbers[-1] != sequence):
            raise ConfigurationError(f"stream {self.log.stream}: there is no commit {sequence} in {self.log.folder}")
        found: list[Commit] = []
        async for commit in self._backwards(numbers):
            found.append(commit)
            if begins(commit) and (self.how == "by mode" or commit.sequence - 1 not in numbers):
                break
        found.reverse()
        self._check_complete(found, last)
        return found

    async def load(self, commit: Commit) -> bool:
        """Load one commit; False: another load was first, and nothing is changed."""
        targets = targets_of(commit, self.naming, self.how)
        async with self.session.transaction():
            await self.session.lock(commit.stream)
            last = await self._last()
            if last >= commit.sequence:
                return False
            self._check_complete([commit], last)
            for target in targets:
                await self._bring(target, commit)
            await self.session.execute(self.session.warehouse.book(commit, with_id=True))
        return True

    async def _last(self) -> int:
        return int(await self.session.value(self.session.warehouse.loaded(self.log.stream)) or 0)

    async def _backwards(self, numbers: list[int]) -> AsyncIterator[Commit]:
        for number in reversed(numbers):
            commit = await self.log.read(number)
            if commit is None:
                raise self.log.gap(numbers)
            yield commit

    async def _check_lake(self, last: int, later: list[int]) -> None:
        """`PositionLost` where the last commit that was loaded is none of this lake's: numbers of two lakes say nothing.

        A lake that goes on behind it may lack it: its first commits were removed, or the stream was moved here.
        """
        standing = await self.log.read(last) if last else None
        if standing is None and (later or not last):
            return
        booked = await self.session.value(self.session.warehouse.booked_id(self.log.stream, last))
        if standing is not None and booked in (None, standing.id):
            return
        found = "that is another one" if standing else "there is none of that number"
        raise PositionLost(
            f"stream {self.log.stream}: the destination has its commits up to {last}, and in {self.log.folder} {found}. Was it "
            "loaded from another lake? Choose: name that lake; or, where the stream began anew in this one, load it from its "
            f"first commit on: DELETE FROM {BOOKS} WHERE stream = '{self.log.stream}' (tables with a key and those of mode "
            "full take it well, to others its rows are added)"
        )

    def _check_complete(self, commits: list[Commit], last: int) -> None:
        expected = last + 1
        for commit in commits:
            if commit.sequence != expected and not begins(commit):
                raise PositionLost(
                    f"stream {self.log.stream}: the destination has its commits up to {last}, and {commit.sequence} builds on "
                    f"{commit.sequence - 1}, which is missing. Load the stream from a commit that has everything (a run in "
                    "mode full, or of a new snapshot), or put the missing commit back; to go on without it: INSERT INTO "
                    f"{BOOKS} (stream, sequence) VALUES ('{self.log.stream}', {commit.sequence - 1})"
                )
            expected = commit.sequence + 1

    async def _bring(self, target: Target, commit: Commit) -> None:
        session, warehouse = self.session, self.session.warehouse
        await session.execute(warehouse.create(target))
        types = await session.types_of(warehouse.qualified(target.name))
        new = [column for column in target.columns if column.name not in types]
        for statement in warehouse.add_columns(target, new):
            await session.execute(statement)
        await session.execute(warehouse.create_stage(target, _STAGE))
        for shape in target.shapes:
            for entry in shape.entries:
                async with self.files.fetched(entry) as file:
                    await session.fill(shape.columns, file, _STAGE, commit)
        await self._check_rows(target)
        statements = warehouse.prepare(target, _STAGE, commit, types)
        statements += warehouse.apply(target, _STAGE, commit, types=types)
        for statement in [*statements, *drop(_STAGE, target)]:
            await session.execute(statement)

    async def _check_rows(self, target: Target) -> None:
        query = self.session.warehouse.moved(target, _STAGE)
        if query and (found := await self.session.value(query)) is not None:
            raise ConfigurationError(
                f"stream {self.log.stream}: {target.source} has a row that got another key, and the log does not have all of "
                f"its columns (_position {found}). Have the source log whole rows (binlog_row_image = FULL; PostgreSQL: "
                f"REPLICA IDENTITY FULL) and begin with a new snapshot (`headrace state set {self.log.stream} null`), or "
                "load with how: append"
            )
        query = self.session.warehouse.duplicates(target, _STAGE)
        if query and (found := await self.session.value(query)) is not None:
            raise ConfigurationError(
                f"stream {self.log.stream}: {', '.join(target.keys)} = {found} comes twice in one commit, and no cursor tells "
                "which row is the newer one; name another key in the source, or load with how: append"
            )
