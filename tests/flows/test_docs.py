"""The code in docs/ does what it says: commands are run, statements sent, the trigger is that of the file."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from prefect.client.orchestration import get_client

from blocks.pipeline_conf import configure
from blocks.postgres import Postgres
from blocks.s3 import S3Destination
from tests.flows.pages import blocks, commands, lines
from tests.flows.test_cli import headrace
from tests.flows.test_deployments import ROOT, lake, prefect

__all__ = ["lake"]  # the shop that prefect.yaml names


async def typed(words: list[str]) -> str:
    result = await headrace(*words)
    # doctor finds no pool on this server, and says so by its exit code.
    assert result.exit_code == (1 if words[0] == "doctor" else 0), (words, result.output)
    return result.output


async def test_loading(lake: S3Destination, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lake
    monkeypatch.chdir(ROOT)
    warehouse = tmp_path / "warehouse.duckdb"
    typed_words = commands("docs/loading.md")
    assert [words[0] for words in typed_words][:2] == ["run", "run"]
    said = [await typed(words) for words in typed_words]
    assert all(
        "headrace_loads" in text.lower()
        for words, text in zip(typed_words, said, strict=True)
        if words[0] == "load-sql"
    )
    for block in blocks("docs/loading.md"):
        language, text = block.language, block.text
        match language:
            case "sql":
                with duckdb.connect(warehouse) as connection:
                    ((stream, loaded, _),) = connection.execute(text).fetchall()
                assert (stream, loaded) == ("orders", 1)
            case "yaml":
                (load,) = [
                    each
                    for each in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
                    if each["name"] == "load"
                ]
                assert yaml.safe_load(text)["triggers"] == load["triggers"]
            case "ini":
                file = tmp_path / "pipeline.conf"
                file.write_text(text.replace("/data/", f"{tmp_path}/"))
                assert [str(each) for each in await asyncio.to_thread(configure, file)] == [
                    "duckdb/warehouse: unchanged"
                ]


async def test_operations(lake: S3Destination, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lake
    monkeypatch.chdir(ROOT)
    shop: Any = await Postgres.aload("shop")
    await shop.asave("warehouse", overwrite=True)
    typed_words = commands("docs/operations.md")
    # A first position is for a stream without a commit; all others look at one that has some.
    (begin,) = [words for words in typed_words if words[:2] == ["state", "begin"]]
    assert "updated_at" in await typed(begin)
    await typed(["run", "orders", "-p", "mode=full"])
    for words in typed_words:
        if words != begin:
            await typed(words)
    (made_by,) = lines("docs/operations.md", "prefect")
    await prefect(*shlex.split(made_by)[1:])
    async with get_client() as client:
        (made,) = await client.read_automations_by_name("headrace: lost runs")
        await client.delete_automation(made.id)
