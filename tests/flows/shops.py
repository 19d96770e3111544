"""A table with rows of known content, a lake, and a reader of what is committed."""

from __future__ import annotations

import csv
import gzip
import io
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import asyncpg
from prefect.blocks.core import Block
from prefect_aws import AwsCredentials

from blocks.postgres import Postgres
from blocks.s3 import S3Destination
from flows.extract import extract
from flows.sweep import sweep
from tasks.commits import Commit, CommitLog, Entry
from tests.servers.mongodb import MongoServer, database_of
from tests.servers.mysql import MySQLServer, connected
from tests.servers.postgres import PostgresServer
from tests.servers.s3 import S3Server
from tests.tasks.extractors import test_mongodb
from tests.tasks.extractors.test_mysql import block_of
from tests.windows import Execute

ROWS = 3_000

Row = dict[str, str]

_as_saved: dict[tuple[type[Block], str], dict[str, Any]] = {}


async def save_block(block: Block, name: str) -> None:
    """Save a block under a name of this test's own, unless that was done already: it takes as long as half a run."""
    fields = {field: getattr(block, field) for field in type(block).model_fields}
    if _as_saved.get((type(block), name)) != fields:
        await block.asave(name, overwrite=True)
        _as_saved[type(block), name] = fields


@dataclass
class Shop:
    """One stream from a table to a bucket, and what can be asked of both."""

    server: PostgresServer
    s3: S3Server
    bucket: str
    options: dict[str, Any] = field(default_factory=dict)
    name: str = field(default_factory=lambda: f"t-{secrets.token_hex(4)}")

    async def create(self) -> None:
        await self.execute(
            "CREATE TABLE things (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, payload text NOT NULL,"
            " updated_at timestamptz NOT NULL DEFAULT now() - interval '2 seconds');"
            "CREATE INDEX ON things (updated_at)"
        )
        await self.add(ROWS)
        await self.execute("ANALYZE things")

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Execute]:
        """A connection to the database, closed at the end."""
        connection = await asyncpg.connect(self.server.dsn())
        try:
            yield connection.execute
        finally:
            await connection.close()

    async def execute(self, *statements: str) -> None:
        async with self.session() as execute:
            for statement in statements:
                await execute(statement)

    async def add(self, count: int) -> None:
        # Random text does not compress, so sizes are what they seem.
        await self.execute(
            f"INSERT INTO things (payload) SELECT string_agg(md5(random()::text), '') FROM generate_series(1, {count}) i,"
            " generate_series(1, 64) GROUP BY i"
        )

    async def ids(self) -> list[int]:
        connection = await asyncpg.connect(self.server.dsn())
        try:
            return [row["id"] for row in await connection.fetch("SELECT id FROM things ORDER BY id")]
        finally:
            await connection.close()

    def destination(self, endpoint: str | None = None, **changes: Any) -> S3Destination:
        return S3Destination(
            bucket=changes.pop("bucket", self.bucket),
            prefix="raw",
            region=self.s3.region,
            endpoint=endpoint or self.s3.endpoint,
            credentials=AwsCredentials(
                aws_access_key_id=changes.pop("access_key", self.s3.access_key),
                aws_secret_access_key=changes.pop("secret_key", self.s3.secret_key),
            ),
            **{"part_size_mb": 5, **self.options, **changes},
        )

    def block(self, host: str | None = None, port: int | None = None, **changes: Any) -> Postgres:
        server = self.server
        return Postgres(
            host=host or server.host,
            port=port or server.port,
            **{"database": server.database, "user": server.user, "password": server.password, **changes},
        )

    async def save(self, to: S3Destination | None = None, block: Postgres | None = None) -> dict[str, Any]:
        """Save both blocks under the stream's name; the parameters of `extract` that use them."""
        await save_block(to or self.destination(), self.name)
        await save_block(block or self.block(), self.name)
        source = {"connection": f"postgres/{self.name}", "table": "public.things"}
        return {"stream": self.name, "source": source, "to": f"s3-destination/{self.name}"}

    async def run(
        self, mode: str = "full", to: S3Destination | None = None, block: Postgres | None = None, **changes: Any
    ) -> dict[str, Any]:
        """One run of `extract`; incremental by id."""
        parameters = await self.save(to, block)
        parameters["source"] |= {"cursor": "id"} if mode == "incremental" else {}
        parameters["source"] |= changes.pop("source", {})
        outcome: dict[str, Any] = await extract(**parameters, mode=mode, **changes)
        return outcome

    async def commits(self, stream: str | None = None) -> list[Commit]:
        async with self.destination().client() as client:
            log = CommitLog(client, self.destination(), stream or self.name)
            return [found for number in await log.after(0) if (found := await log.read(number)) is not None]

    async def committed_rows(self, commits: list[Commit]) -> list[Row]:
        """All rows of the files these commits list, by column."""
        return [row for _, rows in await self.committed_files(commits) for row in rows]

    async def committed_files(self, commits: list[Commit]) -> list[tuple[Entry, list[Row]]]:
        """Each file these commits list, and its rows by column."""
        found = []
        async with self.destination().client() as client:
            for entry in [entry for commit in commits for entry in commit.entries]:
                body = await (await client.get_object(Bucket=self.bucket, Key=entry.key))["Body"].read()
                assert len(body) == entry.meta.content_length
                text = gzip.decompress(body) if entry.key.endswith(".gz") else body
                rows = list(csv.DictReader(io.StringIO(text.decode(), newline="")))
                assert len(rows) == entry.rows
                found.append((entry, rows))
        return found

    async def changes(self) -> dict[str, list[Row]]:
        """All committed records of each table, in the order of their positions."""
        found: dict[str, list[Row]] = {}
        for entry, rows in await self.committed_files(await self.commits()):
            found.setdefault(entry.table.split(".")[1], []).extend(rows)
        for rows in found.values():
            rows.sort(key=lambda row: row["_position"])
        return found

    async def counted(self) -> dict[str, int]:
        """What was counted in all commits."""
        found: dict[str, int] = {}
        for commit in await self.commits():
            for entry in commit.entries:
                for what, times in entry.counted.items():
                    found[what] = found.get(what, 0) + times
        return found

    async def committed_ids(self, commits: list[Commit] | None = None) -> list[int]:
        """The ids in all committed files, sorted; duplicates stay."""
        rows = await self.committed_rows(await self.commits() if commits is None else commits)
        return sorted(int(row["id"]) for row in rows)

    async def assert_sound(self, mode: str) -> None:
        """Committed files hold the table exactly; a sweep leaves them and nothing else."""
        for swept in (False, True):
            commits = await self.commits()
            for wanted in [commits[-1:]] if mode == "full" else [commits]:
                assert await self.committed_ids(wanted) == await self.ids()
            if not swept:
                await sweep(to=self.destination(), streams=[self.name], older_than="0 seconds", dry_run=False)
        assert await self.leftovers() == []

    async def leftovers(self) -> list[str]:
        """Keys of unfinished uploads, and of objects no commit lists."""
        async with self.destination().client() as client:
            uploads = (await client.list_multipart_uploads(Bucket=self.bucket)).get("Uploads", [])
            objects = (await client.list_objects_v2(Bucket=self.bucket)).get("Contents", [])
        listed = {entry.key for commit in await self.commits() for entry in commit.entries}
        kept = [found["Key"] for found in objects if "/_commits/" not in found["Key"] and found["Key"] not in listed]
        return [upload["Key"] for upload in uploads] + kept


@dataclass
class MySQLShop(Shop):
    """The same stream, from a table on a MySQL or MariaDB server."""

    @property
    def mysql(self) -> MySQLServer:
        return cast("MySQLServer", self.server)

    async def create(self) -> None:
        await self.execute(
            "CREATE TABLE things (id BIGINT AUTO_INCREMENT PRIMARY KEY, payload TEXT NOT NULL,"
            " updated_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)"
        )
        await self.add(ROWS)
        await self.execute("ANALYZE TABLE things")

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Execute]:
        async with connected(self.mysql) as connection, connection.cursor() as cursor:
            yield cursor.execute

    async def add(self, count: int) -> None:
        random = ", ".join(["SHA2(RAND(), 512)"] * 16)
        await self.execute(
            self.mysql.deep_recursion,
            "INSERT INTO things (payload) WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
            f" WHERE i < {count}) SELECT CONCAT({random}) FROM n",
        )

    async def ids(self) -> list[int]:
        return [row[0] for row in await self.mysql.fetch("SELECT id FROM things ORDER BY id")]

    async def save(self, to: S3Destination | None = None, block: Any = None) -> dict[str, Any]:
        await save_block(to or self.destination(), self.name)
        await save_block(block or block_of(self.mysql), self.name)
        source = {"connection": f"mysql/{self.name}", "table": "things"}
        return {"stream": self.name, "source": source, "to": f"s3-destination/{self.name}"}


@dataclass
class MongoShop(Shop):
    """The same stream, from a MongoDB collection."""

    @property
    def mongodb(self) -> MongoServer:
        return cast("MongoServer", self.server)

    async def create(self) -> None:
        await self.add(ROWS)
        async with database_of(self.mongodb) as database:
            await database.things.create_index("id")

    async def add(self, count: int) -> None:
        last = max(await self.ids(), default=0)
        stamp = datetime.now(UTC) - timedelta(seconds=2)
        made = [
            {"id": number, "payload": secrets.token_hex(1024), "updated_at": stamp}
            for number in range(last + 1, last + count + 1)
        ]
        async with database_of(self.mongodb) as database:
            await database.things.insert_many(made)

    async def ids(self) -> list[int]:
        async with database_of(self.mongodb) as database:
            return sorted([one["id"] async for one in database.things.find({}, {"id": 1})])

    async def save(self, to: S3Destination | None = None, block: Any = None) -> dict[str, Any]:
        await save_block(to or self.destination(), self.name)
        await save_block(block or test_mongodb.block_of(self.mongodb), self.name)
        fields = [{"name": "id", "type": "integer", "key": True}, {"name": "payload"}]
        source = {"connection": f"mongodb/{self.name}", "collection": "things", "fields": fields}
        return {"stream": self.name, "source": source, "to": f"s3-destination/{self.name}"}
