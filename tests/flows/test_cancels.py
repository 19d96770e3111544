"""Runs that are asked to end in the middle of an upload: they undo what they have begun, at once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.flows.shops import Shop
from tests.servers.faults import Call, FaultProxy, Request

PART: dict[str, Any] = {"method": "PUT", "path": "/data/", "query": "partNumber"}


async def interrupted(command: list[str], number: signal.Signals, s3: FaultProxy) -> tuple[int, str]:
    """Run a program, send it a signal while its first part is on its way; its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *command, env=os.environ | {"COLUMNS": "200"}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )

    async def interrupt(_request: Request) -> None:
        process.send_signal(number)
        # The part is on its way for longer than the process has: waiting for it to end would not do.
        await asyncio.sleep(20)

    rule = s3.before(Call(interrupt), **PART)
    async with asyncio.timeout(60):
        said, _ = await process.communicate()
    assert rule.fired == 1
    return process.returncode or 0, said.decode()


@pytest.mark.parametrize("mode", ["full", "incremental"])
async def test_sigterm_leaves_nothing(shop: Shop, s3_faults: FaultProxy, mode: str) -> None:
    """A flow that gets SIGTERM, as a worker sends it, aborts its upload and commits nothing; the next run brings all."""
    parameters = await shop.save(shop.destination(s3_faults.endpoint))
    parameters["source"] |= {"cursor": "id"} if mode == "incremental" else {}
    parameters |= {"mode": mode}
    command = [sys.executable, "-m", "tests.flows.one_run", json.dumps(parameters)]
    code, said = await interrupted(command, signal.SIGTERM, s3_faults)
    assert code != 0, said
    assert await shop.leftovers() == []
    assert await shop.commits() == []
    await shop.run(mode)
    await shop.assert_sound(mode)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_command_leaves_nothing(
    shop: Shop, s3_faults: FaultProxy, tmp_path: Path, number: signal.Signals
) -> None:
    """`headrace run` ends with 128 + the signal, says that it was cancelled, and leaves no upload behind."""
    parameters = await shop.save(shop.destination(s3_faults.endpoint))
    file = tmp_path / "prefect.yaml"
    entry = {"name": "things", "entrypoint": "flows/extract.py:extract", "parameters": parameters}
    file.write_text(yaml.safe_dump({"deployments": [entry]}))
    command = [sys.executable, "-m", "flows.cli", "run", "things", "--file", str(file)]
    code, said = await interrupted(command, number, s3_faults)
    assert code == 128 + number
    assert "Cancelled." in said
    assert "Traceback" not in said
    assert await shop.leftovers() == []
    assert await shop.commits() == []
