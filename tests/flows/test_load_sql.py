"""`headrace load-sql`: what it prints is executed by DuckDB, which reads the bucket itself, and by psql."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import duckdb
import pytest
import yaml

from blocks.errors import ConfigurationError
from tasks.commits import Commit
from tasks.extractors.contract import CHANGE_COLUMNS, Column
from tasks.loads.script import Into, script, warehouse_of
from tasks.loads.targets import Naming
from tests.flows.changes import ChangesShop
from tests.flows.loads import Lake, Objects
from tests.flows.shops import Shop
from tests.flows.test_cli import headrace
from tests.servers.postgres import PostgresServer
from tests.servers.s3 import S3Server
from tests.servers.support import ServerUnavailableError

INTO: tuple[Into, ...] = ("redshift", "snowflake", "bigquery", "duckdb", "postgres")

Send = Callable[[str], Awaitable[list[Any]]]
"""Sends a script to a warehouse; the row of its last statement."""


def in_duckdb(path: Path, s3: S3Server) -> Send:
    """DuckDB with the extension by which it reads S3, as a person sets it up."""
    found = importlib.util.find_spec("duckdb_ext")
    if found is None or not found.submodule_search_locations:
        raise ServerUnavailableError("DuckDB reads S3 by duckdb-ext-httpfs: pip install 'headrace[test]'")
    folder = Path(next(iter(found.submodule_search_locations)), "extensions")

    def send(text: str) -> list[Any]:
        with duckdb.connect(path) as connection:
            connection.execute(
                f"SET extension_directory = '{folder}'; SET autoinstall_known_extensions = false; LOAD httpfs"
            )
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute(
                f"CREATE SECRET (TYPE s3, KEY_ID '{s3.access_key}', SECRET '{s3.secret_key}', REGION '{s3.region}',"
                f" ENDPOINT '{s3.endpoint.partition('//')[2]}', USE_SSL false, URL_STYLE 'path')"
            )
            return list(connection.execute(text).fetchall()[0])

    return lambda text: asyncio.to_thread(send, text)


_AWS = f"""#!{sys.executable}
# `aws s3 cp s3://bucket/key -`, for machines without the program.
import shutil, sys
import botocore.session
from botocore.config import Config
bucket, _, key = sys.argv[3].removeprefix("s3://").partition("/")
client = botocore.session.get_session().create_client("s3", config=Config(s3={{"addressing_style": "path"}}))
shutil.copyfileobj(client.get_object(Bucket=bucket, Key=key)["Body"], sys.stdout.buffer)
"""


def in_psql(server: PostgresServer, s3: S3Server, folder: Path) -> Send:
    """psql, on a machine that can read the bucket."""
    psql = server.cluster.programs / "psql" if server.cluster else Path("psql")
    if server.cluster and not psql.exists():
        raise ServerUnavailableError("psql is not there: sudo apt-get install postgresql-client")
    (folder / "aws").write_text(_AWS)
    (folder / "aws").chmod(0o755)
    environment = os.environ | s3.environment | {"PATH": f"{folder}:{os.environ['PATH']}"}

    async def send(text: str) -> list[Any]:
        process = await asyncio.create_subprocess_exec(
            psql, server.dsn(), "-v", "ON_ERROR_STOP=1", "-X", "-q", "-A", "-t", env=environment,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        said, errors = await process.communicate(text.encode())
        assert process.returncode == 0, errors.decode()
        return [int((said.decode().split() or ["0"])[-1])]

    return send


@pytest.fixture(params=["duckdb", "postgres"])
def engine(request: pytest.FixtureRequest, tmp_path: Path, s3_server: S3Server) -> tuple[Into, Send, Path]:
    """A warehouse that can be had here."""
    if request.param == "duckdb":
        return "duckdb", in_duckdb(tmp_path / "w.duckdb", s3_server), tmp_path / "w.duckdb"
    server: PostgresServer = request.getfixturevalue("database")
    return "postgres", in_psql(server, s3_server, tmp_path), tmp_path


async def fetch(engine: tuple[Into, Send, Path], server: PostgresServer, query: str) -> list[tuple[Any, ...]]:
    if engine[0] == "duckdb":
        with duckdb.connect(engine[2]) as duck:
            return [tuple(row) for row in duck.execute(query).fetchall()]
    connection = await asyncpg.connect(server.dsn())
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


async def test_the_last_commit_of_a_deployment(shop: Shop, engine: tuple[Into, Send, Path], tmp_path: Path) -> None:
    """Printed by the command, sent twice, it loads once; a commit behind a gap loads nothing, and says where it stands."""
    parameters = await shop.save(shop.destination(compression="gzip"))
    file = tmp_path / "prefect.yaml"
    entry = {"name": "things", "entrypoint": "flows/extract.py:extract", "parameters": parameters}
    file.write_text(yaml.safe_dump({"deployments": [entry]}))
    for mode in ("full", "incremental", "incremental"):
        await shop.run(mode, to=shop.destination(compression="gzip"))
        await shop.add(5)
    into, send, _ = engine

    async def printed(*more: str) -> str:
        result = await headrace("load-sql", "things", "--into", into, "--file", str(file), *more)
        assert result.exit_code == 0, result.output
        return result.output

    assert await send(await printed("--sequence", "3")) in ([None], [0])
    assert await send(await printed("--sequence", "1")) == [1]
    assert await send(await printed("--sequence", "3")) == [1]
    assert await send(await printed("-n", "2")) == [2]
    for _ in range(2):
        assert await send(await printed()) == [3]
    table = shop.name.replace("-", "_")
    rows = await fetch(engine, shop.server, f"SELECT id FROM {table} ORDER BY id")
    assert [row[0] for row in rows] == (await shop.ids())[:-5]


async def test_changes(changes_shop: ChangesShop, engine: tuple[Into, Send, Path], database: PostgresServer) -> None:
    """The scripts of a change stream make the tables."""
    execute = changes_shop.mysql.execute
    into, send, _ = engine
    await execute(
        "INSERT INTO orders (id, counter, note) VALUES (1, 1, ''), (2, 1, NULL)",
        "INSERT INTO items VALUES (1, 1, 9.90)",
    )
    await changes_shop.capture()
    await execute(
        "SET SESSION binlog_row_image = 'MINIMAL'",
        "UPDATE orders SET counter = 5 WHERE id = 1",
        "TRUNCATE TABLE items",
        "ALTER TABLE orders ADD COLUMN extra INT",
        "INSERT INTO orders (id, counter, note, at, extra) VALUES (3, 3, 'x', NOW(), 3)",
    )
    await changes_shop.capture()
    for commit in await changes_shop.commits():
        await send(script(commit, warehouse_of(into, Naming(), "", "")))
    rows = await fetch(engine, database, "SELECT id, counter, note, extra FROM orders ORDER BY id")
    assert rows == [(1, 5, "", None), (2, 1, None, None), (3, 3, "x", 3)]
    assert await fetch(engine, database, "SELECT count(*) FROM items") == [(0,)]


async def test_a_script_of_a_commit_that_has_not_everything_waits(shop: Shop, engine: tuple[Into, Send, Path]) -> None:
    """One that came from no position builds on those before it all the same; the first of all builds on none."""
    lake, columns = Lake(shop.destination()), [Column(name="k", type="int", key=True)]
    commits = [await lake.commit("incremental", columns, Objects(columns, [[key]]), since=None) for key in "123"]
    into, send, _ = engine
    first, second, third = (script(commit, warehouse_of(into, Naming(), "", "")) for commit in commits)
    said = [await send(each) for each in (third, first, third, second, third)]
    assert said[0] in ([None], [0])
    assert said[1:] == [[1], [1], [2], [3]]
    rows = await fetch(engine, shop.server, f"SELECT k FROM {lake.stream.replace('-', '_')} ORDER BY k")
    assert rows == [(1,), (2,), (3,)]


@pytest.fixture
async def made(shop: Shop) -> dict[str, Commit]:
    """A commit of each mode, with a column of every kind."""
    lake = Lake(shop.destination())
    types = (
        "bigint",
        "bytea",
        "json",
        "timestamp",
        "numeric",
        "numeric(38,4)",
        "text",
        "boolean",
        "double precision",
        "date",
    )
    columns = [Column(name=f"c{n}", type=kind, key=n == 0) for n, kind in enumerate(types)]
    row = ["1", "00ff", "{}", "2026-01-01 00:00:00+00", "1", "1", "x", "true", "1", "2026-01-01"]
    plain = Objects(columns, [row])
    changed = Objects([*CHANGE_COLUMNS, *columns], [["U", None, "001", '["c6"]', *row]], "shop.orders", ("c6",))
    dropped = Objects([*CHANGE_COLUMNS, *columns[:-1]], [["T", None, "002", None, *[None] * 9]], "shop.orders")
    return {
        "replace": await lake.commit("full", columns, plain),
        "merge": await lake.commit("incremental", columns, plain, until={"cursor": "c3", "value": "x"}),
        "append": await lake.commit("incremental", [c.model_copy(update={"key": False}) for c in columns], plain),
        "apply": await lake.commit("changes", [], changed, dropped),
    }


async def test_every_warehouse_has_every_action(made: dict[str, Commit]) -> None:
    """One transaction around what changes tables, every change guarded, DDL before it where DDL would end it."""
    for into in INTO:
        for action, commit in made.items():
            text = script(commit, warehouse_of(into, Naming("lake.raw"), "", ""))
            assert f"-- {action} " in text
            statements = [each.strip() for each in re.split(r";\n", text) if each.strip()]
            begin = next(n for n, each in enumerate(statements) if each.splitlines()[-1].startswith("BEGIN"))
            end = next(n for n, each in enumerate(statements) if each.startswith("COMMIT"))
            inside = statements[begin + 1 : end]
            changing = [
                each for each in inside if re.match(r"(DELETE|INSERT)", each) and "headrace_stage_1 (" not in each
            ]
            assert changing, text
            assert all("MAX(sequence)" in each for each in changing), (into, action)
            if into in ("snowflake", "bigquery"):
                assert not any(re.match(r"(CREATE|ALTER|DROP|COPY|LOAD)", each) for each in inside)
            assert "headrace_loads" in statements[-1].lower()


async def test_dialects_are_said_to_loaders(made: dict[str, Commit]) -> None:
    """Header, NULL marker and compression of the commit are in each loader's options."""
    commit = made["replace"]
    other = commit.model_copy(
        update={
            "compression": "zstd",
            "csv": commit.csv.model_copy(update={"header": False, "null": "\\N", "binary": "base64"}),
        }
    )
    texts = {into: script(commit, warehouse_of(into, Naming(), "", "s3://b/c.json")) for into in INTO}
    assert "FROM 's3://b/c.json' MANIFEST" in texts["redshift"]
    assert "IGNOREHEADER 1 NULL AS ''" in texts["redshift"]
    assert "SKIP_HEADER = 1" in texts["snowflake"]
    assert "NULL_IF = () EMPTY_FIELD_AS_NULL = TRUE" in texts["snowflake"]
    assert "skip_leading_rows = 1, null_marker = ''" in texts["bigquery"]
    others = {into: script(other, warehouse_of(into, Naming(), "", "")) for into in INTO if into != "bigquery"}
    assert "CSV ZSTD NULL AS '\\N'" in others["redshift"]
    assert "COMPRESSION = ZSTD SKIP_HEADER = 0" in others["snowflake"]
    assert "NULL_IF = ('\\\\N') EMPTY_FIELD_AS_NULL = FALSE" in others["snowflake"]
    assert "TO_VARBYTE(s.\"c1\", 'base64')" in others["redshift"]
    with pytest.raises(ConfigurationError, match="BigQuery reads no CSV in zstd"):
        script(other, warehouse_of("bigquery", Naming(), "", ""))


async def test_misuse_is_told(shop: Shop) -> None:
    """An unknown warehouse is wrong usage; a commit that is not there is an error that names the folder."""
    await shop.save()
    to = ["--to", f"s3-destination/{shop.name}"]
    wrong = await headrace("load-sql", shop.name, "--into", "oracle", *to)
    assert (wrong.exit_code, "redshift, snowflake" in wrong.output) == (2, True)
    none = await headrace("load-sql", shop.name, "--into", "duckdb", *to)
    assert (none.exit_code, "there is no commit in s3://" in none.output) == (1, True)
