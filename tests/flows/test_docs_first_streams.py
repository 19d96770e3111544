"""The first stream of each source's page, typed as it stands there against a real server; and every stream that a page shows."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import get_client

from blocks.pipeline_conf import configure
from blocks.s3 import S3Destination
from blocks.watermark import Watermark
from flows.deployments import read
from flows.extract_all import Stream
from tasks import check_mysql, check_postgres
from tasks.commits import Commit, CommitLog
from tasks.extractors.contract import ReadOptions
from tasks.findings import Finding
from tests.flows.pages import PAGES, blocks, commands, lines, settings, streams
from tests.flows.test_cli import headrace
from tests.flows.test_deployments import forget_deployments, prefect
from tests.servers.mongodb import MongoServer, database_of
from tests.servers.mysql import MySQLServer
from tests.servers.postgres import PostgresServer, connected
from tests.servers.rest import Space
from tests.servers.s3 import S3Server
from tests.tasks.extractors.rest import in_thread

SECRETS = dict.fromkeys(("SHOP_PASSWORD", "SHOP_TOKEN", "KAFKA_PASSWORD", "GITHUB_TOKEN"), "change-me")
_LAKE = "README.md"


@dataclass
class Folder:
    """A person's folder: a `pipeline.conf`, a `prefect.yaml`, and a bucket of its own."""

    path: Path
    s3: S3Server
    bucket: str

    def write(self, page: str, *names: str, **instead: str) -> None:
        """The page's sections, with the places of this test's servers, and its streams of those names as deployments."""
        section = settings(page)
        for key, value in instead.items():
            line = f"{key} = {value}".replace("\\", r"\\")
            section, changed = re.subn(rf"(?m)^{key} = .*$", line, section)
            assert changed == 1, key
        if page != _LAKE:
            section += "\n[s3-destination:lake]\nbucket = acme-lake\n"
        section = section.replace("bucket = acme-lake", f"bucket = {self.bucket}") + (
            f"endpoint = {self.s3.endpoint}\nregion = {self.s3.region}\ncompression = none\n"
            f"credentials.aws_access_key_id = {self.s3.access_key}\n"
            f"credentials.aws_secret_access_key = {self.s3.secret_key}\n"
        )
        (self.path / "pipeline.conf").write_text(section)
        (self.path / "pipeline.conf").chmod(0o600)
        entries = [
            {"name": found["stream"], "entrypoint": "flows/extract.py:extract", "parameters": found}
            for found in streams(page)
            if found["stream"] in names
        ]
        assert len(entries) == len(names)
        (self.path / "prefect.yaml").write_text(yaml.safe_dump({"deployments": entries}))

    async def commits(self, stream: str) -> list[Commit]:
        lake: Any = await S3Destination.aload("lake")
        async with lake.client() as client:
            log = CommitLog(client, lake, stream)
            return [found for number in await log.after(0) if (found := await log.read(number)) is not None]


async def forget_streams() -> None:
    """The pages have the same names for their streams, and other tests as well."""
    await Watermark.aregister_type_and_schema()  # a kind of block that is not there has no list
    async with get_client() as client:
        for document in await client.read_block_documents_by_type("watermark"):
            if document.name in _STREAMS:
                await client.delete_block_document(document.id)


_STREAMS = {found["stream"] for page in PAGES for found in streams(page)} | {"customers", "order-items"}


@pytest.fixture
async def folder(
    tmp_path: Path, s3_server: S3Server, bucket: str, prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Folder]:
    assert prefect_api
    monkeypatch.chdir(tmp_path)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    await forget_streams()
    yield Folder(tmp_path, s3_server, bucket)
    await forget_streams()


async def typed(page: str) -> str:
    """Type what the page says, its redirections too; all that was said."""
    said = []
    for line, words in zip(lines(page), commands(page), strict=True):
        ended = await headrace(*words)
        assert ended.exit_code == 0, (line, ended.output)
        if into := line.partition(" > ")[2]:
            await asyncio.to_thread(Path(into).write_text, ended.output)
        said.append(ended.output)
    return "\n".join(said)


def statements(page: str) -> list[str]:
    """Its SQL, statement by statement."""
    return [each.strip() for block in blocks(page, "sql") for each in block.text.split(";") if each.strip()]


def ungranted(found: list[Finding]) -> list[Finding]:
    """What a check finds to mend, apart from the password that goes to this machine in clear."""
    return [finding for finding in found if finding.level != "ok"]


@pytest.fixture
async def reader(database: PostgresServer) -> AsyncIterator[str]:
    """A role made by the statements of the page, on a shop with some orders."""
    name = f"reader_{secrets.token_hex(4)}"
    async with connected(database) as connection:
        await connection.execute(
            "CREATE TABLE orders (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, status text NOT NULL DEFAULT 'new',"
            " updated_at timestamptz NOT NULL DEFAULT now() - interval '2 seconds');"
            "INSERT INTO orders SELECT FROM generate_series(1, 100)"
        )
        for statement in statements("docs/postgres.md"):
            await connection.execute(re.sub(r"\breader\b", name, statement))
        yield name
        await connection.execute(f"DROP OWNED BY {name}")
        await connection.execute(f"DROP ROLE {name}")


async def test_postgres(folder: Folder, database: PostgresServer, reader: str) -> None:
    """With the grants of the page there is nothing to mend, and both of its streams run."""
    page = "docs/postgres.md"
    place = {"host": f"{database.host}\nport = {database.port}", "database": database.database, "user": reader}
    folder.write(page, "orders", "sales-by-day", **place)
    said = await typed(page)
    assert "updated_at" in said
    assert [commit.rows for commit in await folder.commits("orders")] == [100]
    ended = await headrace("run", "sales-by-day")
    assert ended.exit_code == 0, ended.output
    (sales,) = await folder.commits("sales-by-day")
    assert (sales.rows, [column.name for column in sales.columns if column.key]) == (1, ["day", "status"])
    source = Stream.model_validate(streams(page)[0]).source
    found = [finding async for finding in check_postgres.look(source, ReadOptions(mode="incremental"))]
    assert ungranted(found) == []


async def test_mysql(folder: Folder, mysql_database: MySQLServer) -> None:
    """The same on MySQL and MariaDB, with the change stream of the page."""
    page, server = "docs/mysql.md", mysql_database
    reader = f"{server.database}_r"
    await server.execute(
        "CREATE TABLE orders (id INT AUTO_INCREMENT PRIMARY KEY, note TEXT,"
        " updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6))",
        "CREATE TABLE order_items (id INT PRIMARY KEY)",
        "CREATE TABLE order_drafts (id INT PRIMARY KEY)",
        "INSERT INTO orders (note, updated_at) VALUES ('a', NOW() - INTERVAL 20 SECOND), ('b', NOW() - INTERVAL 20 SECOND)",
        *(
            each.replace("'reader'", f"'{reader}'").replace("shop.*", f"{server.database}.*")
            for each in statements(page)
        ),
    )
    place = {"host": f"{server.host}\nport = {server.port}", "database": server.database, "user": reader}
    folder.write(page, "orders", "shop-changes", **place)
    await typed(page)
    assert [commit.rows for commit in await folder.commits("orders")] == [2]
    ended = await headrace("run", "shop-changes")
    assert ended.exit_code == 0, ended.output
    (changes,) = await folder.commits("shop-changes")
    assert {(entry.table.rpartition(".")[2], entry.rows) for entry in changes.entries} >= {("orders", 2)}
    assert "order_drafts" not in {entry.table.rpartition(".")[2] for entry in changes.entries}
    for found, mode in zip(map(Stream.model_validate, streams(page)), ("incremental", "changes"), strict=True):
        findings = [finding async for finding in check_mysql.look(found.source, ReadOptions(mode=mode))]
        assert ungranted(findings) == []


async def test_mongodb(folder: Folder, mongodb_database: MongoServer) -> None:
    """The collection with all the fields that the page declares; the account's statement is one that can be read."""
    page, server = "docs/mongodb.md", mongodb_database
    stamp = datetime.now(UTC) - timedelta(minutes=5)
    async with database_of(server) as database:
        await database.orders.insert_many(
            [
                {"shipping": {"address": {"city": "Ulm"}}, "items": [{"price": 9.5}], "updated_at": stamp, "more": n}
                for n in range(5)
            ]
        )
    place = {"hosts": f"{server.host}:{server.port}", "user": server.user, "password": server.password}
    folder.write(page, "orders", database=server.database, replica_set="", **place)
    assert "shipping.address.city" in await typed(page)
    (commit,) = await folder.commits("orders")
    assert commit.rows == 5
    assert [column.name for column in commit.columns] == [
        *(field["name"] for field in streams(page)[0]["source"]["fields"]), "_extra"
    ]  # fmt: skip
    (made,) = blocks(page, "js")
    account = re.fullmatch(r"db\.getSiblingDB\('admin'\)\.createUser\((\{.*\})\)\n", made.text)
    assert account
    told = yaml.safe_load(account[1].replace("passwordPrompt()", "x"))
    assert (set(told), told["roles"]) == ({"user", "pwd", "roles"}, [{"role": "read", "db": "shop"}])


async def test_rest(folder: Folder, rest_space: Space) -> None:
    """An endpoint with nothing but its path, and one with columns."""
    page = "docs/rest.md"
    await in_thread(rest_space.add, [{"id": n, "kind": "view"} for n in range(7)], "events")
    orders = [{"id": n, "properties": {"geo": {}}, "lines": [{"amount": 1.5}, {"amount": 2}]} for n in range(3)]
    await in_thread(rest_space.add, orders, "orders")
    folder.write(page, "events", "orders")
    conf, deployments = folder.path / "pipeline.conf", folder.path / "prefect.yaml"
    conf.write_text(conf.read_text().replace("https://api.shop.example/v1", rest_space.url))
    # The server has many forms of answer; this one is an array, as most APIs without an envelope give it.
    deployments.write_text(deployments.read_text().replace("source:\n", "source:\n      params: {as: bare}\n"))
    await typed(page)
    assert [(commit.rows, [c.name for c in commit.columns]) for commit in await folder.commits("events")] == [
        (7, ["_extra"])
    ]
    ended = await headrace("run", "orders")
    assert ended.exit_code == 0, ended.output
    assert [commit.rows for commit in await folder.commits("orders")] == [3]


async def test_the_readme(folder: Folder, database: PostgresServer, reader: str) -> None:
    """From nothing to a commit by what stands there, on the reader's own server; then everything is deployed."""
    # What is proposed goes to the first destination that there is: a person has one here, and other tests leave theirs.
    await S3Destination.aregister_type_and_schema()
    async with get_client() as client:
        while some := await client.read_block_documents_by_type("s3-destination", limit=100):
            for document in some:
                await client.delete_block_document(document.id)
    place = {"host": f"{database.host}\nport = {database.port}", "database": database.database, "user": reader}
    folder.write(_LAKE, **place)
    await typed(_LAKE)
    assert [commit.rows for commit in await folder.commits("orders")] == [100]
    deployments = await asyncio.to_thread(read, folder.path / "streams.yaml")
    assert set(deployments) == {"orders"}
    Stream.model_validate(streams(_LAKE)[0])

    # Typed by `tests.walkthrough`; a pool, the deployments, a worker and a run by test_deployments, too.
    assert [line.split()[1] for line in lines(_LAKE, "prefect")] == [
        "server", "config", "work-pool", "deploy", "automation", "worker", "deployment"
    ]  # fmt: skip
    await prefect("work-pool", "create", "default", "--type", "process", "--overwrite")
    said = await prefect("--no-prompt", "deploy", "--all", "--prefect-file", str(folder.path / "streams.yaml"))
    assert "extract/orders" in said
    await forget_deployments()


async def test_streams_of_all_pages_are_valid(folder: Folder) -> None:
    """Sections make blocks, and streams that name them are taken by the flow as they stand."""
    pages = [page for page in PAGES if page != "docs/adding-a-source.md"]  # whose source is there in its own test alone
    known = (Path(__file__).parent.parent.parent / "pipeline.example.conf").read_text()
    texts = [known, *filter(None, map(settings, pages))]
    for text in texts:
        file = folder.path / "any.conf"
        file.write_text(text)
        file.chmod(0o600)
        await asyncio.to_thread(configure, file, environment=os.environ | SECRETS)
    checked = 0
    for page in pages:
        for found in streams(page):
            Stream.model_validate(found)
            checked += 1
        for block in blocks(page, "yaml"):
            if isinstance(content := yaml.safe_load(block.text), list):
                file = folder.path / "deployments.yaml"
                file.write_text(yaml.safe_dump({"deployments": content}))
                deployments = await asyncio.to_thread(read, file)
                assert all(found.flow() for found in deployments.values())
                checked += len(content)
    assert checked > 10
    async with get_client() as client:  # their hosts are nobody's, and other tests would wait for them
        for slug, name in set(re.findall(r"(?m)^\[([\w-]+):([\w-]+)\]", "\n".join(texts))):
            document = await client.read_block_document_by_name(name, slug)
            await client.delete_block_document(document.id)
