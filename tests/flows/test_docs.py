"""The code in docs/ does what it says: commands are run, statements sent, the trigger is that of the file."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from prefect.blocks.system import Secret
from prefect.client.orchestration import get_client

from blocks.mysql import MySQL
from blocks.pipeline_conf import configure
from blocks.postgres import Postgres
from blocks.references import reveal
from blocks.rest import RestApi
from blocks.s3 import S3Destination
from tests.blocks.conftest import aws_server, secrets_manager
from tests.flows.pages import blocks, commands, lines
from tests.flows.test_cli import headrace
from tests.flows.test_deployments import ROOT, lake, prefect

__all__ = ["aws_server", "lake", "secrets_manager"]  # lake: the shop that prefect.yaml names


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


async def test_secrets_kept_elsewhere(
    prefect_api: str, secrets_manager: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks of the page's file log in with what is kept at the places that it names; others may read the file."""
    assert prefect_api
    secrets_manager.create_secret(Name="prod/shop", SecretString='{"username": "reader", "password": "from-aws"}')
    monkeypatch.setenv("SHOP_PASSWORD", "from-env")
    await Secret(value="from-block").asave("shop-token", overwrite=True)
    (block,) = blocks("docs/operations.md", "ini")
    file = tmp_path / "pipeline.conf"
    file.write_text(block.text)
    file.chmod(0o644)
    assert [change.action for change in await asyncio.to_thread(configure, file)] == ["created"] * 3
    postgres: Postgres = await Postgres.aload("orders-db")
    arguments = (await reveal(postgres)).connect_arguments()
    assert (arguments["user"], arguments["password"]) == ("reader", "from-aws")
    mysql: MySQL = await MySQL.aload("orders-db")
    assert (await reveal(mysql)).connect_arguments()["password"] == "from-env"
    api: RestApi = await RestApi.aload("orders-api")
    assert (await reveal(api)).token.get_secret_value() == "from-block"


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
    (made_by,) = [line for line in lines("docs/operations.md", "prefect") if line.startswith("prefect automation")]
    await prefect(*shlex.split(made_by)[1:])
    async with get_client() as client:
        (made,) = await client.read_automations_by_name("headrace: lost runs")
        await client.delete_automation(made.id)
