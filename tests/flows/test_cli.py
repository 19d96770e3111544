"""The command line, in this process, against real servers."""

from __future__ import annotations

import asyncio
import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import yaml
from prefect_aws import AwsCredentials
from pydantic import SecretStr
from typer.testing import CliRunner, Result

from blocks.mysql import MySQL
from blocks.postgres import Postgres
from blocks.s3 import S3Destination
from blocks.watermark import Watermark
from flows.cli import app
from tests.servers.postgres import PostgresServer
from tests.servers.s3 import S3Server
from tests.tasks.extractors.test_postgres import block_of

_SETUP = """
    CREATE TABLE orders (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, note text,
                         updated_at timestamptz NOT NULL DEFAULT now() - interval '2 seconds');
    CREATE INDEX ON orders (updated_at);
    INSERT INTO orders (note) SELECT 'note ' || i FROM generate_series(1, 100) i;
    CREATE TABLE "Odd.Names" (a int, seen timestamp);
    ANALYZE orders"""


@dataclass
class Project:
    """A prefect.yaml with one stream, its blocks saved under names of this test's own."""

    file: Path
    stream: str
    server: PostgresServer
    s3: S3Server
    bucket: str
    table: str = "public.orders"

    @property
    def block(self) -> Postgres | MySQL:
        return block_of(self.server)

    @property
    def connection(self) -> str:
        return f"{self.block.get_block_type_slug()}/{self.stream}"

    async def save(self, *, password: str | None = None, bucket: str | None = None) -> None:
        block = self.block
        if password is not None:
            block = block.model_copy(update={"password": SecretStr(password)})
        await block.asave(self.stream, overwrite=True)
        destination = S3Destination(
            bucket=bucket or self.bucket,
            endpoint=self.s3.endpoint,
            region=self.s3.region,
            credentials=AwsCredentials(aws_access_key_id=self.s3.access_key, aws_secret_access_key=self.s3.secret_key),
        )
        await destination.asave(self.stream, overwrite=True)

    def write(self) -> None:
        parameters = {
            "stream": self.stream,
            "source": {"connection": self.connection, "table": self.table, "cursor": "id"},
            "to": f"s3-destination/{self.stream}",
            "mode": "incremental",
        }
        missing = parameters | {
            "stream": f"{self.stream}-no",
            "source": {"connection": self.connection, "table": "nix"},
        }
        entries = [
            {"name": "orders", "entrypoint": "flows/extract.py:extract", "parameters": parameters},
            {"name": "broken", "entrypoint": "flows/extract.py:extract", "parameters": missing},
        ]
        self.file.write_text(yaml.safe_dump({"deployments": entries}))

    async def keys(self) -> list[str]:
        async with self.s3.client() as client:
            found = await client.list_objects_v2(Bucket=self.bucket)
        return [entry["Key"] for entry in found.get("Contents", [])]

    async def execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.server.dsn())
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


@pytest.fixture
async def project(
    tmp_path: Path, database: PostgresServer, s3_server: S3Server, bucket: str, prefect_api: str
) -> Project:
    made = Project(tmp_path / "prefect.yaml", f"cli-{secrets.token_hex(4)}", database, s3_server, bucket)
    await made.execute(_SETUP)
    await made.save()
    made.write()
    return made


async def headrace(*words: str) -> Result:
    """Run a command as a person would."""
    return await asyncio.to_thread(CliRunner().invoke, app, words, env={"COLUMNS": "300"})


async def in_project(project: Project, *words: str) -> Result:
    return await headrace(*words, "--file", str(project.file))


async def test_run_extracts_and_a_second_run_has_nothing_new(project: Project) -> None:
    """The first run commits all rows, the second ends well and commits nothing."""
    first = await in_project(project, "run", "orders")
    assert first.exit_code == 0, first.output
    assert "100" in first.stdout
    assert f"s3://{project.bucket}/{project.stream}/_commits/{1:020d}.json" in first.stdout
    second = await in_project(project, "run", "orders")
    assert second.exit_code == 0, second.output
    assert "nothing new" in second.stdout


async def test_run_goes_on_after_a_failure(project: Project) -> None:
    """A deployment that fails does not stop the next one; its reason is told once, without a traceback, and exit is 1."""
    ended = await in_project(project, "run", "broken", "orders")
    assert ended.exit_code == 1
    assert "_commits" in ended.stdout
    assert ended.stderr.count("there is no table or view 'nix'") == 1
    assert "1 of 2 deployments failed" in ended.stderr
    assert "Traceback" not in ended.output


async def test_parameters_override_those_of_the_file(project: Project) -> None:
    """``-p`` takes JSON or text."""
    ended = await in_project(project, "run", "orders", "-p", "mode=full", "-p", 'columns=["id"]')
    assert ended.exit_code == 0, ended.output
    planned = await in_project(project, "plan", "orders", "-p", "mode=full")
    assert "mode        full" in planned.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "ordres"], "did you mean orders?"),
        (["run"], "--all"),
        (["run", "orders", "-p", "mode"], "key=value"),
        (["run", "orders", "-p", "mod=full"], "no parameter mod"),
        (["plan", "ordres"], "did you mean orders?"),
        (["check", "ordres"], "did you mean orders?"),
        (["state", "set", "orders", "{"], "not JSON"),
        (["state", "show", "strange"], "--to"),
    ],
)
async def test_wrong_usage_exits_with_2(project: Project, words: list[str], told: str) -> None:
    """A wrong name, a malformed ``-p`` or position is told with the way out, and nothing is run."""
    ended = await in_project(project, *words)
    assert (ended.exit_code, told in ended.stderr) == (2, True), ended.output
    assert await project.keys() == []


async def test_a_parameter_that_is_not_valid_fails_the_run(project: Project) -> None:
    """What the flow refuses is told without a traceback."""
    ended = await in_project(project, "run", "orders", "-p", "mode=most")
    assert ended.exit_code == 1
    assert "mode" in ended.stderr
    assert "Traceback" not in ended.output


async def test_list_shows_streams_with_their_watermarks(project: Project) -> None:
    """A line for each deployment; the watermark once there is one."""
    await in_project(project, "run", "orders")
    listed = await in_project(project, "list")
    assert listed.exit_code == 0, listed.output
    line = next(line for line in listed.stdout.splitlines() if line.startswith("orders"))
    assert line.split()[-2:] == ["1:", "100"]


async def test_plan_writes_nothing(project: Project) -> None:
    """The plan is shown with its SQL and target; bucket and watermark stay as they were."""
    planned = await in_project(project, "plan", "orders")
    assert planned.exit_code == 0, planned.output
    for expected in ("incremental", "SELECT", '"value": "100"', f"{project.stream}/data/{1:020d}/"):
        assert expected in planned.stdout
    assert await project.keys() == []
    assert await Watermark.of(project.stream) is None


async def test_check_passes_and_leaves_nothing(project: Project) -> None:
    """Everything in order: exit 0, each look told, no test object left."""
    checked = await in_project(project, "check", "orders")
    assert checked.exit_code == 0, checked.output
    assert checked.stdout.count("✓") >= 8
    assert "✗" not in checked.stdout
    assert await project.keys() == []
    assert await Watermark.of(project.stream) is None


async def test_check_names_a_wrong_password(project: Project) -> None:
    """The field to mend is named, the destination is looked at all the same, and the password is not shown."""
    await project.save(password="not-the-password")
    checked = await in_project(project, "check", "orders")
    assert checked.exit_code == 1
    assert "fields user and password" in checked.stdout
    assert "✓ destination" in checked.stdout
    assert "not-the-password" not in checked.output


async def test_check_names_a_missing_bucket(project: Project) -> None:
    """One line says that there is no such bucket; what depends on it is not tried."""
    await project.save(bucket=f"{project.bucket}-gone")
    checked = await in_project(project, "check", "orders")
    assert checked.exit_code == 1
    assert checked.stdout.count("✗") == 1
    assert "there is no bucket" in checked.stdout


async def test_check_names_a_missing_privilege(project: Project) -> None:
    """A role without SELECT is told the GRANT that it lacks."""
    role = f"r_{secrets.token_hex(4)}"
    await project.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'p'")
    try:
        await (
            block_of(project.server)
            .model_copy(update={"user": role, "password": SecretStr("p")})
            .asave(project.stream, overwrite=True)
        )
        checked = await in_project(project, "check", "orders")
    finally:
        await project.execute(f"DROP ROLE {role}")
    assert checked.exit_code == 1
    assert "GRANT SELECT" in checked.stdout


async def test_check_tells_when_block_and_bucket_disagree(project: Project) -> None:
    """A block edited by hand is an error of its own, and stays as it is."""
    await in_project(project, "run", "orders")
    mark = await Watermark.of(project.stream)
    assert mark is not None
    mark.position = {"cursor": "id", "value": "7"}
    await mark.put()
    checked = await in_project(project, "check", "orders")
    assert checked.exit_code == 1
    assert "rebuild" in checked.stdout
    assert await _position(project) == {"cursor": "id", "value": "7"}


async def test_state_moves_by_commits(project: Project) -> None:
    """set and rewind are commits of their own, rebuild takes the bucket's word, show and log tell all of it."""
    await in_project(project, "run", "orders")
    wanted = {"cursor": "id", "value": "40"}
    moved = await in_project(project, "state", "set", project.stream, json.dumps(wanted), "--yes")
    assert moved.exit_code == 0, moved.output
    assert await _position(project) == wanted
    rewound = await in_project(project, "state", "rewind", project.stream, "1", "--yes")
    assert rewound.exit_code == 0, rewound.output
    assert await _position(project) == {"cursor": "id", "value": "100"}
    mark = await Watermark.of(project.stream)
    assert mark is not None
    mark.position = None
    await mark.put()
    rebuilt = await in_project(
        project, "state", "rebuild", project.stream, "--to", f"s3-destination/{project.stream}", "-y"
    )
    assert rebuilt.exit_code == 0, rebuilt.output
    assert await _position(project) == {"cursor": "id", "value": "100"}
    shown = await in_project(project, "state", "show", project.stream)
    assert "agree on commit 3" in shown.stdout
    logged = await in_project(project, "state", "log", project.stream)
    assert [line.split()[0] for line in logged.stdout.splitlines()] == ["3", "2", "1"]


async def test_state_does_not_move_unasked(project: Project) -> None:
    """Where nobody can be asked and --yes is not given, nothing changes."""
    await in_project(project, "run", "orders")
    ended = await in_project(project, "state", "rewind", project.stream, "0")
    assert ended.exit_code == 2
    assert "--yes" in ended.stderr
    assert await _position(project) == {"cursor": "id", "value": "100"}


async def test_state_refuses_a_commit_that_is_not_there(project: Project) -> None:
    """The span of commits there are is told, and nothing is shown as a change."""
    await in_project(project, "run", "orders")
    ended = await in_project(project, "state", "rewind", project.stream, "9", "--yes")
    assert ended.exit_code == 1
    assert "there are 1 to 1" in ended.stderr


async def test_discover_proposes_cursors(project: Project) -> None:
    """Tables come with their key and candidates, the one that sees changes first."""
    found = await headrace("discover", project.connection, "--like", "ord*")
    assert found.exit_code == 0, found.output
    (line,) = found.stdout.splitlines()[1:]
    assert line.split() == ["public.orders", "100", line.split()[2], "id", "updated_at,", "id"]


async def test_discovered_deployments_are_valid(project: Project) -> None:
    """--yaml prints deployments whose parameters the flow takes as they are, odd table names included."""
    found = await headrace("discover", project.connection, "--yaml")
    assert found.exit_code == 0, found.output
    entries: list[dict[str, Any]] = yaml.safe_load(found.stdout)["deployments"]
    assert {entry["name"] for entry in entries} == {"orders", "odd-names"}
    for entry in entries:
        entry["parameters"]["to"] = f"s3-destination/{project.stream}"
        # Another test may have left a watermark of the name that is proposed.
        entry["parameters"]["stream"] = f"{project.stream}-{entry['name']}"
    project.file.write_text(yaml.safe_dump({"deployments": entries}))
    for name in ("orders", "odd-names"):
        planned = await in_project(project, "plan", name)
        assert planned.exit_code == 0, planned.output


async def test_sweep_looks_only(project: Project) -> None:
    """Without --delete what would go is shown and stays."""
    await in_project(project, "run", "orders")
    async with project.s3.client() as client:
        await client.put_object(Bucket=project.bucket, Key=f"{project.stream}/data/{1:020d}/00001-x.csv", Body=b"x")
    before = await project.keys()
    looked = await headrace("sweep", f"s3-destination/{project.stream}", "--older-than", "0 seconds")
    assert looked.exit_code == 0, looked.output
    assert "00001-x.csv" in looked.stdout
    assert "would remove" in looked.stdout
    assert await project.keys() == before


async def test_a_missing_block_is_told_without_a_traceback(project: Project) -> None:
    """A name that is not saved gets one clear block on stderr."""
    ended = await headrace("discover", "postgres/not-there")
    assert ended.exit_code == 1
    assert "there is no block 'postgres/not-there'" in ended.stderr
    assert "Traceback" not in ended.output


async def _position(project: Project) -> Any:
    mark = await Watermark.of(project.stream)
    return mark.position if mark else None
