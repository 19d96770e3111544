"""The command line on deployments that read from MySQL and MariaDB."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from blocks.mysql import MySQL
from blocks.watermark import Watermark
from tests.flows.test_cli import Project, in_project
from tests.servers.mysql import MySQLServer
from tests.servers.s3 import S3Server
from tests.tasks.extractors.test_mysql import block_of

ROOT = Path(__file__).parent.parent.parent

_SETUP = (
    "CREATE TABLE orders (id INT AUTO_INCREMENT PRIMARY KEY, note TEXT)",
    "INSERT INTO orders (note) WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100)"
    " SELECT CONCAT('note ', i) FROM n",
    "ANALYZE TABLE orders",
)


@dataclass
class MySQLProject(Project):
    """The same, with its stream from a `mysql/…` block."""

    table: str = "orders"

    @property
    def mysql(self) -> MySQLServer:
        return cast("MySQLServer", self.server)

    @property
    def block(self) -> MySQL:
        return block_of(self.mysql)


@pytest.fixture
async def project(
    tmp_path: Path, mysql_database: MySQLServer, s3_server: S3Server, bucket: str, prefect_api: str
) -> MySQLProject:
    server = cast("Any", mysql_database)
    made = MySQLProject(tmp_path / "prefect.yaml", f"cli-{secrets.token_hex(4)}", server, s3_server, bucket)
    await mysql_database.execute(*_SETUP)
    await made.save()
    made.write()
    return made


async def test_check_and_plan_look_and_write_nothing(project: MySQLProject) -> None:
    """Everything is in order, the plan is shown with its SQL and target; bucket and watermark stay as they were."""
    checked = await in_project(project, "check", "orders")
    assert checked.exit_code == 0, checked.output
    assert checked.stdout.count("✓") >= 8
    assert "✗" not in checked.stdout
    assert f"answers: {project.mysql.flavour}" in checked.stdout
    planned = await in_project(project, "plan", "orders")
    assert planned.exit_code == 0, planned.output
    for expected in ("incremental", "SELECT t.`id`", '"value": "100"', f"{project.stream}/data/{1:020d}/"):
        assert expected in planned.stdout
    assert await project.keys() == []
    assert await Watermark.of(project.stream) is None


async def test_run_extracts_and_a_second_run_brings_what_is_new(project: MySQLProject) -> None:
    """The first run commits all rows, the second nothing, the third the row that was added."""
    told = [await in_project(project, "run", "orders") for _ in range(2)]
    await project.mysql.execute("INSERT INTO orders VALUES (101, 'one more')")
    told.append(await in_project(project, "run", "orders"))
    assert [each.exit_code for each in told] == [0, 0, 0], [each.output for each in told]
    assert f"s3://{project.bucket}/{project.stream}/_commits/{1:020d}.json" in told[0].stdout
    assert "nothing new" in told[1].stdout
    assert f"_commits/{2:020d}.json" in told[2].stdout
    mark = await Watermark.of(project.stream)
    assert mark is not None
    assert (mark.sequence, mark.position) == (2, {"cursor": "id", "value": "101"})


async def test_what_stands_in_the_way_is_told(project: MySQLProject) -> None:
    """A missing table, a wrong password: the field to mend is named, without a traceback and without the password."""
    ended = await in_project(project, "run", "broken")
    assert (ended.exit_code, ended.stderr.count("there is no table or view 'nix'")) == (1, 1), ended.output
    await project.save(password="not-the-password")
    checked = await in_project(project, "check", "orders")
    assert checked.exit_code == 1
    assert "fields user and password" in checked.stdout
    assert "✓ destination" in checked.stdout
    for output in (ended.output, checked.output):
        assert "Traceback" not in output
        assert "not-the-password" not in output


async def test_the_samples_of_change_streams_run(project: MySQLProject) -> None:
    """The deployments of the project's own prefect.yaml, on blocks and tables of this test: once, and until stopped."""
    content = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    entries = [entry for entry in content["deployments"] if entry["name"] in ("shop-changes", "shop-follow")]
    for entry in entries:
        entry["parameters"] |= {"stream": project.stream, "to": f"s3-destination/{project.stream}"}
        entry["parameters"]["source"] = {"connection": project.connection, "tables": ["order*"]}
    project.file.write_text(yaml.safe_dump({"deployments": entries}))

    told = [await in_project(project, *words) for words in (
        ("check", "shop-follow"), ("plan", "shop-follow"), ("run", "--all"), ("list",),
    )]  # fmt: skip
    assert [each.exit_code for each in told] == [0, 0, 0, 0], [each.output for each in told]
    _, planned, ran, listed = told
    assert "then the binary log from" in planned.stdout
    assert ran.stdout.count(f"_commits/{1:020d}.json") == 1  # of the two only the one that ends
    assert listed.stdout.count("order*") == 2
    await project.mysql.execute("INSERT INTO orders VALUES (101, 'one more')")
    planned = await in_project(project, "plan", "shop-follow")
    place = r"[\w.-]+\.\d{6}:\d+"
    assert re.search(rf"^window +{place} → {place}$", planned.stdout, re.MULTILINE), planned.output
    assert re.search(rf"^  log +{place} → {place}$", planned.stdout, re.MULTILINE), planned.output
    followed = await in_project(project, "run", "shop-follow", "-p", "every=0.2", "-p", "stop_after=3")
    assert (followed.exit_code, f"_commits/{2:020d}.json" in followed.stdout) == (0, True), followed.output
