"""The worked example of docs/rest.md, as it stands there, against a server of the shape of GitHub's issues API."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.extractors.contract import ReadOptions
from tasks.extractors.rest.source import RestEndpoint
from tests.contract import collected
from tests.servers.rest import Space
from tests.tasks.extractors.rest import block, in_thread, read, stamp

PAGE = Path(__file__).parent.parent.parent.parent / "docs" / "rest.md"


def example(number: int) -> dict[str, Any]:
    """The sources in the page's blocks of YAML, in order."""
    found = re.findall(r"```yaml\n(stream: github.*?)```", PAGE.read_text(), re.DOTALL)
    source: dict[str, Any] = yaml.safe_load(found[number])["source"]
    return source


def issue(number: int, updated: datetime) -> dict[str, Any]:
    """As https://docs.github.com/en/rest/issues/issues#list-repository-issues has one, in short."""
    return {
        "id": number,
        "number": number,
        "title": f'Issue {number}, "quoted"',
        "state": "open" if number % 3 else "closed",
        "user": {"login": f"user{number % 5}", "id": number % 5, "site_admin": False},
        "labels": [{"id": n, "name": f"l{n}"} for n in range(number % 3)],
        "pull_request": {"url": "…"} if number % 4 == 0 else None,
        "comments": number % 7,
        "created_at": stamp(updated - timedelta(days=1)),
        "updated_at": stamp(updated),
        "body": None if number % 2 else "line 1\r\nline 2",
        "reactions": {"+1": 1, "total_count": 1},
    }


@pytest.fixture
async def github(rest_space: Space) -> Space:
    """Issues of one repository, 230 of them; the API tells its quota, its time and an ETag."""
    now = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    made = [issue(n, now + timedelta(seconds=n)) for n in range(1, 231)]
    await in_thread(rest_space.add, made, "issues")
    limits = {"X-RateLimit-Limit": "5000", "X-RateLimit-Remaining": "4900", "X-RateLimit-Reset": "1372700873"}
    await in_thread(
        rest_space.rule,
        path="issues",
        times=-1,
        etag=True,
        headers=limits,
        needs={"x-github-api-version": "2022-11-28"},
    )
    return rest_space


def source(space: Space, number: int) -> RestEndpoint:
    """The example, with the connection that the page's first lines make."""
    given = example(number)
    assert given.pop("connection") == "rest-api/github"
    # The server gives GitHub's form where it is asked for it; its bound is inclusive, as GitHub's is.
    given["params"] = given.get("params", {}) | {"as": "github", "page": "1", "inclusive": "1"}
    connection = block(space, auth="bearer", token="t0ken", headers={"X-GitHub-Api-Version": "2022-11-28"})
    return RestEndpoint(connection=connection, **given)


async def test_issues_as_they_change(github: Space) -> None:
    """All of them at first, then those updated since, each once, by Link and since."""
    first, plan = await read(source(github, 0), mode="incremental")
    assert [row[0] for row in first] == [str(n) for n in range(230, 0, -1)]
    names = [column.name for column in plan.columns]
    row = dict(zip(names, first[-5], strict=True))
    assert (row["author"], row["labels"]) == ("user0", '[{"id":0,"name":"l0"},{"id":1,"name":"l1"}]')
    assert '"reactions":{"+1":1,"total_count":1}' in row["_extra"]
    asked = await in_thread(github.asked, "issues")
    assert {request["query"].get("page") for request in asked} == {"1", "2", "3"}
    assert asked[0]["headers"]["authorization"] == "Bearer t0ken"
    until = datetime.fromisoformat(plan.until["value"])  # type: ignore[index, call-overload, arg-type]  # as above
    await in_thread(
        github.add, [issue(7, until + timedelta(seconds=1)), issue(231, until + timedelta(seconds=2))], "issues"
    )
    await in_thread(github.rule, path="issues", times=-1, skew=3600)
    again, _ = await read(source(github, 0), plan.until, mode="incremental")
    assert sorted(row[0] for row in again) == ["231", "7"]
    assert (await in_thread(github.asked, "issues"))[-1]["query"]["since"] == plan.until["value"]  # type: ignore[index, call-overload]  # as above


async def test_an_issue_that_is_edited_meanwhile_takes_no_other_away(github: Space) -> None:
    """It moves in the order of the pages, which have numbers; the others are all read, and it comes with the next run."""
    await in_thread(github.rule, path="issues", query="page=2", edit=[3])
    first, plan = await read(source(github, 0), mode="incremental")
    assert {row[0] for row in first} >= {str(n) for n in range(1, 231) if n != 3}
    await in_thread(github.rule, path="issues", times=-1, skew=3600)
    again, _ = await read(source(github, 0), plan.until, mode="incremental")
    assert [row[0] for row in again] == ["3"]


async def test_labels_only_when_they_change(github: Space) -> None:
    """The second example: everything, but only if the ETag is another one."""
    labels = [{"id": n, "name": f"l{n}", "color": "fff"} for n in range(3)]
    await in_thread(github.add, labels, "labels")
    await in_thread(github.rule, path="labels", times=-1, etag=True)
    rows, plan = await read(source(github, 1))
    assert [row[:2] for row in rows] == [("0", "l0"), ("1", "l1"), ("2", "l2")]
    async with source(github, 1).open(ReadOptions()) as extractor:
        assert await collected(extractor, await extractor.plan(plan.until)) == []
