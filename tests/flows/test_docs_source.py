"""The worked example of docs/adding-a-source.md: its files in a copy of the project, its tests, and a run of its stream there."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from tasks.commits import Commit
from tests.flows.pages import ROOT, blocks, commands, lines, settings
from tests.flows.shops import Shop

PAGE = "docs/adding-a-source.md"
_FILE = re.compile(r"# (\S+\.py)\n")


_TYPED = """
# All commands in one process, because each would take seconds to start; before the last one a row comes.
import json, sqlite3, sys
from typer.testing import CliRunner
from flows.cli import app
import tasks.extractors.sqlite
print(tasks.extractors.sqlite.__file__)
*first, last = json.loads(sys.argv[1])
def typed(words):
    ended = CliRunner().invoke(app, words)
    print(words, ended.output)
    assert ended.exit_code == 0
for words in first:
    typed(words)
with sqlite3.connect(sys.argv[2]) as connection:
    connection.execute("INSERT INTO orders (note) VALUES ('late')")
typed(last)
"""


async def done(folder: Path, *words: str) -> str:
    """Run a program in the folder; what it said. Python finds the modules there before those of the project."""
    environment = os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "300"}
    process = await asyncio.create_subprocess_exec(
        *words, cwd=folder, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    return said.decode()


@pytest.fixture
async def extended(tmp_path: Path) -> Path:
    """The project with what the page adds."""
    folder = tmp_path / "project"
    for part in ("flows", "tasks", "blocks", "tests"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    for block in blocks(PAGE, "python"):
        named = _FILE.match(block.text)
        assert named, block.text[:80]
        (folder / named[1]).write_text(block.text[named.end() :])
    for number, block in enumerate(blocks(PAGE, "diff")):
        (folder / f"{number}.diff").write_text(block.text)
        await done(folder, "git", "apply", "-p1", f"{number}.diff")
    return folder


async def test_the_source_passes_the_contract(extended: Path) -> None:
    """The tests of the page, which inherit the suite of all sources."""
    (typed,) = lines(PAGE, "python")
    said = await done(extended, sys.executable, *shlex.split(typed)[1:], "-q", "-p", "no:cacheprovider")
    assert re.search(r"\b1[0-9] passed", said), said
    assert "failed" not in said


async def test_its_stream_is_run_by_the_flow(extended: Path, shop: Shop) -> None:
    """Configured and run by the commands of the page: a first commit, and one of what came since."""
    database = extended / "shop.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute(
            "CREATE TABLE orders (id INTEGER PRIMARY KEY AUTOINCREMENT, note TEXT, price REAL, raw BLOB)"
        )
        connection.executemany(
            "INSERT INTO orders (note, price, raw) VALUES (?, ?, ?)",
            [("a,b", 0.1, b"\x00\xff"), (None, float("inf"), None), ("", 1e16, b"")],
        )
    conf = settings(PAGE).replace("/data/", f"{extended}/").replace("acme-lake", shop.bucket)
    conf += (
        f"prefix = raw\nendpoint = {shop.s3.endpoint}\nregion = {shop.s3.region}\ncompression = none\n"
        f"credentials.aws_access_key_id = {shop.s3.access_key}\n"
        f"credentials.aws_secret_access_key = {shop.s3.secret_key}\n"
    )
    (extended / "pipeline.conf").write_text(conf)
    (extended / "pipeline.conf").chmod(0o600)
    (block,) = blocks(PAGE, "yaml")
    (extended / "streams.yaml").write_text(block.text)
    stream = yaml.safe_load(block.text)["deployments"][0]["parameters"]["stream"]

    typed = commands(PAGE)
    assert [words[0] for words in typed] == ["configure", "plan", "run", "run"]
    (extended / "typed.py").write_text(_TYPED)
    said = await done(extended, sys.executable, "typed.py", json.dumps(typed), str(database))
    assert f"{extended}/tasks/extractors/sqlite.py" in said
    first, second = await shop.commits(stream)
    assert await _lines(shop, first) == ["id,note,price,raw", '1,"a,b",0.1,00ff', "2,,Infinity,", '3,"",1e+16,""']
    assert await _lines(shop, second) == ["id,note,price,raw", "4,late,,"]
    assert second.since == first.until == {"cursor": "id", "value": 3}


async def _lines(shop: Shop, commit: Commit) -> list[str]:
    async with shop.destination().client() as client:
        found = await client.get_object(Bucket=shop.bucket, Key=commit.entries[0].key)
        return (await found["Body"].read()).decode().splitlines()
