"""Destinations that commits are loaded into, and commits written by hand: objects in a real bucket, records of one's own."""

from __future__ import annotations

import csv
import io
import secrets
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import duckdb

from blocks.duck import DuckDB
from blocks.postgres import Postgres
from blocks.s3 import S3Destination
from flows.load import load
from tasks.commits import Commit, CommitLog, Entry, EntryMeta
from tasks.extractors.contract import Column
from tasks.objects import header
from tests.servers.postgres import PostgresServer
from tests.tasks.extractors.test_postgres import block_of


@dataclass
class Into:
    """A database that commits are loaded into: a DuckDB file, or a database of a PostgreSQL server."""

    block: Postgres | DuckDB
    server: PostgresServer | None = None

    async def load(self, stream: str, lake: S3Destination, **options: Any) -> dict[str, Any]:
        outcome: dict[str, Any] = await load(stream=stream, lake=lake, into=self.block, **options)
        return outcome

    async def fetch(self, query: str) -> list[tuple[Any, ...]]:
        if self.server is None:
            with self.duck() as duck:
                return [tuple(row) for row in duck.execute(query).fetchall()]
        connection = await asyncpg.connect(self.server.dsn())
        try:
            return [tuple(row) for row in await connection.fetch(query)]
        finally:
            await connection.close()

    async def execute(self, statement: str) -> None:
        if self.server is None:
            with self.duck() as duck:
                duck.execute(statement)
            return
        connection = await asyncpg.connect(self.server.dsn())
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    @contextmanager
    def duck(self) -> Iterator[duckdb.DuckDBPyConnection]:
        assert isinstance(self.block, DuckDB)
        with duckdb.connect(self.block.path) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            yield connection

    async def tables(self) -> set[str]:
        query = "SELECT table_name FROM information_schema.tables WHERE table_schema IN ('main', 'public')"
        return {name for (name,) in await self.fetch(query)}


def into_duckdb(folder: Path) -> Into:
    return Into(DuckDB(path=str(folder / f"{secrets.token_hex(4)}.duckdb")))


def into_postgres(server: PostgresServer) -> Into:
    return Into(block_of(server), server)


@dataclass
class Lake:
    """A destination in which commits are put by hand."""

    destination: S3Destination
    stream: str = field(default_factory=lambda: f"t-{secrets.token_hex(4)}")
    sequence: int = 0

    async def commit(
        self,
        mode: str,
        columns: Sequence[Column],
        *tables: Objects,
        since: Any = "before",
        until: Any = "after",
        **more: Any,
    ) -> Commit:
        """Put the objects and their commit, as a run does."""
        self.sequence += 1
        async with self.destination.client() as client:
            entries = [await self._put(client, number, each) for number, each in enumerate(tables)]
            wanted = Commit.model_validate(
                {
                    "stream": self.stream, "sequence": self.sequence, "mode": mode, "columns": tuple(columns),
                    "entries": tuple(entries), "rows": sum(entry.rows for entry in entries), "since": since,
                    "until": until, "csv": self.destination.csv, "committed_at": datetime.now(UTC), **more,
                }
            )  # fmt: skip
            return await CommitLog(client, self.destination, self.stream).put(wanted)

    async def _put(self, client: Any, number: int, made: Objects) -> Entry:
        body = header(made.columns, self.destination.csv) + made.body
        key = self.destination.key(
            self.stream, "data", f"{self.sequence:020d}", f"{number:05d}-{secrets.token_hex(4)}.csv"
        )
        await client.put_object(Bucket=self.destination.bucket, Key=key, Body=body)
        return Entry(
            url=self.destination.url(key), meta=EntryMeta(content_length=len(body)), key=key, partition="log",
            rows=len(made.rows), bytes=len(body), crc32=f"{zlib.crc32(body):08x}", table=made.table,
            columns=tuple(made.columns) if made.table else (), unchanged=made.unchanged,
        )  # fmt: skip


@dataclass
class Objects:
    """The rows of one object; None is NULL."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str | None]]
    table: str = ""
    unchanged: tuple[str, ...] = ()

    @property
    def body(self) -> bytes:
        made = io.StringIO()
        for row in self.rows:
            quoted = ["" if value is None else _quoted(value) for value in row]
            made.write(",".join(quoted) + "\n")
        return made.getvalue().encode()


def _quoted(value: str) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow([value, ""])
    return line.getvalue()[:-1] or '""'
