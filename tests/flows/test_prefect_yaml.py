"""The project's prefect.yaml beside its flows, its example configuration, and pools of containers; the Dockerfile as a text."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import shlex
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from prefect.client.orchestration import PrefectClient

from blocks.pipeline_conf import configure
from flows.deployments import read
from tests.flows.pages import blocks
from tests.flows.test_deployments import DEPLOYMENTS, ROOT, client, prefect
from tests.flows.test_kills import SOAK

__all__ = ["client"]

FILE = ROOT / "prefect.yaml"


async def test_every_deployment_fits_its_flow(prefect_api: str, tmp_path: Path) -> None:
    """With the blocks of the example configuration, each deployment's parameters are what its flow takes."""
    assert prefect_api
    conf = tmp_path / "pipeline.conf"
    conf.write_text((ROOT / "pipeline.example.conf").read_text())
    names = re.findall(r"^[^#\n]*\$\{(\w+)\}", conf.read_text(), re.MULTILINE)
    await asyncio.to_thread(configure, conf, environment=dict.fromkeys(names, "s3cret"))
    kinds, streams = set(), set()
    for deployment in (await asyncio.to_thread(read, FILE)).values():
        # Which stream is loaded is said by the commit's event, through the trigger.
        given = ({"stream": "orders"} if deployment.name == "load" else {}) | deployment.parameters
        validated = await asyncio.to_thread(deployment.flow().validate_parameters, given)
        if "source" in deployment.parameters:
            kinds.add(type(validated["source"]).__name__)
            streams.add(validated["stream"])
    assert len(kinds) >= 6, kinds
    assert len(streams) >= 10, streams


def test_every_deployment_can_be_operated() -> None:
    """Each says what it is, is found by a tag, has at most one run at a time, and a schedule that a redeploy leaves alone."""
    for entry in yaml.safe_load(FILE.read_text())["deployments"]:
        assert entry["description"]
        assert entry["tags"]
        assert entry["name"] == "lake" or entry["concurrency_limit"]["limit"] == 1
        assert all(schedule["slug"] and not schedule["active"] for schedule in entry.get("schedules", []))
    assert DEPLOYMENTS


def section(heading: str) -> str:
    """The part of the page under a heading."""
    return (ROOT / "docs" / "operations.md").read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("kind", ["kubernetes", "docker"] if SOAK else ["kubernetes"])
async def test_pools_of_containers(prefect_api: str, client: PrefectClient, tmp_path: Path, kind: str) -> None:
    """What the page puts into prefect.yaml is taken by a pool of that type, and reaches every deployment that names it."""
    assert prefect_api
    pool = f"containers-{secrets.token_hex(4)}"
    (shown,) = [block.text for block in blocks("docs/operations.md", "yaml") if "&pool" in block.text]
    assert "prefect work-pool create containers --type kubernetes" in section("In containers")
    await prefect("work-pool", "create", pool, "--type", kind)
    indented = shown.replace("containers", pool).replace("\n", "\n    ").rstrip()
    text, count = re.subn(r"work_pool: &pool \{ name: default \}", lambda _: indented, FILE.read_text())
    assert count == 1
    file = tmp_path / "prefect.yaml"
    file.write_text(text)
    try:
        await prefect("--no-prompt", "deploy", "--name", "orders", "--name", "load", "--prefect-file", str(file))
        for name in ("extract/orders", "load/load"):
            deployed = await client.read_deployment_by_name(name)
            assert deployed.work_pool_name == pool
            assert deployed.job_variables == yaml.safe_load(shown)["work_pool"]["job_variables"]
            await client.delete_deployment(deployed.id)
        template = (await client.read_work_pool(pool)).base_job_template
        assert {"image", "env"} <= template["variables"]["properties"].keys()
    finally:
        await client.delete_work_pool(pool)


_PULLED = """
import asyncio, json, os, sys
from prefect.deployments.steps.core import run_steps
from prefect.flows import load_flow_from_entrypoint
os.chdir(asyncio.run(run_steps(json.loads(sys.argv[1]), {}))["directory"])
flow = load_flow_from_entrypoint("flows/extract.py:extract")
print(flow.name, sys.modules["tasks"].__file__)
"""


async def test_the_project_from_git(prefect_api: str, tmp_path: Path) -> None:
    """The pull step that the page shows clones the project into where a worker runs, and the flow is that of the clone."""
    assert prefect_api
    (shown,) = [block.text for block in blocks("docs/operations.md", "yaml") if "git_clone" in block.text]
    steps = yaml.safe_load(shown.replace("https://git.example/acme/headrace.git", ROOT.as_uri()))["pull"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PULLED, json.dumps(steps), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said
    (clone,) = (folder for folder in tmp_path.iterdir() if (folder / "prefect.yaml").exists())
    assert f"extract {clone / 'tasks' / '__init__.py'}" in said


def instructions() -> list[tuple[str, list[str]]]:
    """The Dockerfile as instructions and their words; what a shell would read is taken apart as a shell would."""
    text = (ROOT / "Dockerfile").read_text()
    lines = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    return [
        (word.upper(), shlex.split(rest)) for word, _, rest in (line.partition(" ") for line in lines if line.strip())
    ]


def test_the_image_copies_what_git_has() -> None:
    """Each source of a COPY is in git and is let through by .dockerignore, whatever else lies in the folder is not."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    given = {
        word for name, words in instructions() if name == "COPY" and "--from=build" not in words for word in words[:-1]
    }
    assert {"flows", "tasks", "blocks", "constraints.txt"} <= given
    assert {path for path in given if not any(f"{one}/".startswith(f"{path}/") for one in listed)} == set()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert {line[1:] for line in ignored if line.startswith("!")} == given


def test_the_image_is_pinned_and_not_root() -> None:
    """One base by its full version, packages by constraints.txt, a numeric user, and the folder that the pull step names."""
    found = instructions()
    bases = {words[0] for name, words in found if name == "FROM"}
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", bases.pop())
    assert any("--constraint" in words and "/src/constraints.txt" in words for name, words in found if name == "RUN")
    users = [words for name, words in found if name == "USER"]
    assert users
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1][0])
    environment = dict(word.split("=", 1) for name, words in found if name == "ENV" for word in words)
    copied = [words for name, words in found if name == "COPY" and words[0] == "flows"]
    assert f"{environment['HEADRACE_HOME']}/flows" in [words[-1] for words in copied]
    assert "{{ $HEADRACE_HOME }}" in FILE.read_text()


def test_every_package_of_the_image_is_pinned() -> None:
    """What pip would bring, down to the last dependency, has an exact version in constraints.txt."""
    pinned = {
        canonicalize_name(line.partition("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [("headrace", frozenset({"duckdb"}))]
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        waiting.extend(
            (canonicalize_name(one.name), frozenset(one.extras))
            for one in map(Requirement, requires(name) or [])
            if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in {"", *extras})
        )
    assert {name for name, _ in seen} - {"headrace"} - pinned == set()
