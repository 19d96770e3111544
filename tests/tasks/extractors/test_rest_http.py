"""What goes wrong between here and an API: it is tried again where that helps, and told where a person has to mend it."""

from __future__ import annotations

import json
import logging
import time
from typing import Any
from urllib.parse import quote

import pytest

from blocks.errors import ConfigurationError
from tasks.extractors.contract import ReadOptions
from tasks.extractors.rest.errors import ApiError, BadResponse
from tests.contract import collected
from tests.servers.rest import Space
from tests.tasks.extractors.rest import block, endpoint, ids, in_thread, items

ALL = list(range(1, 31))
NEXT: dict[str, Any] = {"pagination": {"kind": "next", "value": "next"}, "params": {"limit": "10"}}


@pytest.fixture
async def space(rest_space: Space) -> Space:
    """Thirty items."""
    await in_thread(rest_space.add, items(30))
    return rest_space


@pytest.mark.parametrize("status", [408, 429, 500, 503])
async def test_what_may_pass_is_tried_again(space: Space, status: int) -> None:
    """Twice the server fails, then it answers."""
    await in_thread(space.rule, query="cursor=10", times=2, status=status)
    assert await ids(endpoint(space, **NEXT)) == ALL


@pytest.mark.parametrize(
    ("rule", "lasts"),
    [
        ({"cut": 100}, "was cut off"),
        ({"body": '{"data": {"items": [{"id": 11}', "type": "application/json"}, "no JSON, or was cut off"),
        ({"body": "<html>Sorry</html>", "type": "text/html"}, "is a page of HTML or XML"),
        ({"body": "<html>Sorry</html>", "type": "application/json"}, "is a page of HTML or XML"),
        ({"body": '{"error": "busy"}'}, "field records: .* has no 'data.items'; it has error"),
        ({"body": "busy", "type": "text/plain"}, "is text/plain; if that is right, set format"),
    ],
    ids=["cut", "half of it", "HTML", "HTML called JSON", "no records", "another type"],
)
async def test_a_response_that_makes_no_sense_is_asked_for_again(
    space: Space, rule: dict[str, Any], lasts: str
) -> None:
    """Once it is repaired by itself; for ever it is an error that says what came."""
    await in_thread(space.rule, query="cursor=10", times=1, **rule)
    assert await ids(endpoint(space, **NEXT)) == ALL
    await in_thread(space.rule, query="cursor=20", times=-1, **rule)
    with pytest.raises(BadResponse, match=lasts):
        await ids(endpoint(space, connection=block(space, retries=1), **NEXT))


async def test_a_type_that_is_wrong_does_not_matter(space: Space) -> None:
    """JSON is JSON, whatever the header says."""
    await in_thread(space.rule, path="items", times=-1, type="text/plain; charset=utf-8")
    assert await ids(endpoint(space, **NEXT)) == ALL


async def test_a_slow_server_is_waited_for_and_a_silent_one_is_not(space: Space) -> None:
    """Pieces may come slowly; a silence longer than read_timeout is a failure."""
    await in_thread(space.rule, query="cursor=10", times=1, drip=0.2)
    slow = block(space, read_timeout=0.8, retries=0)
    assert await ids(endpoint(space, connection=slow, **NEXT)) == ALL
    await in_thread(space.rule, query="cursor=20", times=1, delay=2)
    with pytest.raises(ApiError, match="ReadTimeout"):
        await ids(endpoint(space, connection=slow, **NEXT))
    assert await ids(endpoint(space, connection=block(space, read_timeout=0.8), **NEXT)) == ALL


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_retry_after_holds_all_requests_back(space: Space, status: int, form: str) -> None:
    """The server says when, by its own clock; nothing is asked before, by any of the requests."""
    pagination = {"kind": "page", "size_param": "per_page", "size": 5}
    wait = {"Retry-After": "2" if form == "seconds" else "{date+2}"}
    await in_thread(space.rule, query="page=2&", times=1, status=status, headers=wait, skew=7200)
    assert await ids(endpoint(space, pagination=pagination)) == ALL
    asked = await in_thread(space.asked)
    (refused,) = [n for n, one in enumerate(asked) if one["query"].get("page") == "2"][:1]
    later = [one for one in asked[refused + 1 :] if one["at"] > asked[refused]["at"] + 0.5]
    assert min(one["at"] for one in later) - asked[refused]["at"] > 1.8


async def test_what_was_held_back_goes_on_at_its_pace(space: Space) -> None:
    """After a Retry-After the requests that waited are spread as all others are, and do not go out together."""
    pagination = {"kind": "page", "size_param": "per_page", "size": 5}
    await in_thread(space.rule, query="page=2&", times=1, status=429, headers={"Retry-After": "1"})
    paced = block(space, requests_per_second=4)
    assert await ids(endpoint(space, connection=paced, pagination=pagination)) == ALL
    asked = await in_thread(space.asked)
    refused = next(one["at"] for one in asked if one["query"].get("page") == "2")
    later = [one["at"] - refused for one in asked if one["at"] > refused + 0.5]
    assert len(later) > 4
    assert all(at > 0.95 + number / 4 for number, at in enumerate(later)), later


async def test_a_wait_of_no_time_is_not_taken_at_its_word(space: Space) -> None:
    """Of a server that refuses and tells to wait for 0 seconds, the waits double as of one that tells nothing."""
    await in_thread(space.rule, path="items", times=2, status=429, headers={"Retry-After": "0"})
    assert await ids(endpoint(space, **NEXT)) == ALL
    asked = [one["at"] for one in await in_thread(space.asked)]
    assert asked[2] - asked[0] > 1


async def test_a_wait_that_is_too_long_is_told(space: Space) -> None:
    """The run ends, and says what the server wants."""
    await in_thread(space.rule, path="items", times=-1, status=429, headers={"Retry-After": "3600"})
    with pytest.raises(ConfigurationError, match="3600 s, which is more than the connection's longest_wait of 900 s"):
        await ids(endpoint(space, **NEXT))


@pytest.mark.parametrize(
    "headers",
    [
        {"RateLimit": '"default";r=0;t=2'},
        {"RateLimit": "limit=10, remaining=0, reset=2"},
        {"RateLimit-Remaining": "0", "RateLimit-Reset": "2"},
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "{epoch+2}"},
    ],
    ids=["list", "draft 07", "single", "X, a time"],
)
async def test_a_quota_that_is_used_up_is_waited_for(space: Space, headers: dict[str, str]) -> None:
    """Without being refused: the answer says that it was the last."""
    await in_thread(space.rule, query="cursor=10", times=1, headers=headers, skew=7200)
    assert await ids(endpoint(space, **NEXT)) == ALL
    at = {one["query"].get("cursor"): one["at"] for one in await in_thread(space.asked)}
    assert at["20"] - at["10"] > 1.8


async def test_so_many_requests_a_second(space: Space) -> None:
    """They are spread evenly."""
    pagination = {"kind": "page", "size_param": "per_page", "size": 2}
    started = time.monotonic()
    assert await ids(endpoint(space, connection=block(space, requests_per_second=10), pagination=pagination)) == ALL
    asked = len(await in_thread(space.asked))
    assert time.monotonic() - started >= (asked - 1) / 10 - 0.05


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (400, "check the fields of the endpoint"),
        (401, "check auth"),
        (403, "do not permit"),
        (404, "check the field path"),
    ],
)
async def test_what_does_not_pass_is_told_at_once(space: Space, status: int, told: str) -> None:
    """No second try; the words of the server are in the error."""
    await in_thread(space.rule, path="items", times=-1, status=status, body='{"error": "the reason"}')
    with pytest.raises(ConfigurationError, match=f"answered with {status}.*the reason.*{told}"):
        await ids(endpoint(space, **NEXT))
    assert len(await in_thread(space.asked)) == 1


async def test_actions_by_status(space: Space) -> None:
    """A status can be taken for an empty page, be tried again, or end the run."""
    await in_thread(space.rule, query="cursor=20", times=1, status=409)
    assert await ids(endpoint(space, responses={"409": "retry"}, **NEXT)) == ALL
    await in_thread(space.rule, query="cursor=20", times=-1, status=410)
    assert await ids(endpoint(space, responses={"410": "ignore"}, **NEXT)) == ALL[:20]
    await in_thread(space.rule, query="cursor=10", times=1, status=503)
    with pytest.raises(ConfigurationError, match="answered with 503"):
        await ids(endpoint(space, responses={"503": "fail"}, **NEXT))
    with pytest.raises(ValueError, match="no statuses from 400 to 599: 200"):
        endpoint(space, responses={"200": "fail"})


async def test_a_post_is_repeated_where_that_is_allowed(space: Space) -> None:
    """One that may have been carried out is not sent again, unless it only reads."""
    search: dict[str, Any] = {"method": "POST", "body": {"limit": 10}, "pagination": {"kind": "none"}}
    await in_thread(space.rule, path="items", skip=1, times=1, status=500)
    with pytest.raises(ApiError, match="answered with 500"):
        await ids(endpoint(space, **search))
    await in_thread(space.rule, path="items", skip=1, times=1, status=500)
    assert await ids(endpoint(space, repeatable=True, **search)) == ALL[:10]
    # A 429 was not acted upon.
    await in_thread(space.rule, path="items", skip=1, times=1, status=429)
    assert await ids(endpoint(space, **search)) == ALL[:10]


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd"])
async def test_encodings(space: Space, encoding: str) -> None:
    """They are asked for, and undone."""
    await in_thread(space.rule, path="items", times=-1, encoding=encoding)
    assert await ids(endpoint(space, **NEXT)) == ALL
    assert encoding in (await in_thread(space.asked))[0]["headers"]["accept-encoding"]


async def test_a_response_that_is_too_large_ends_the_run(space: Space) -> None:
    """Also one that is small while it is packed."""
    small = block(space, response_limit_mb=1)
    source = endpoint(space, "/large", connection=small, params={"bytes": "3000000"}, pagination={"kind": "none"})
    with pytest.raises(ConfigurationError, match=r"field response_limit_mb of the connection: .* is larger than 1 MB"):
        await ids(source)
    bomb = json.dumps({"data": {"items": [{"id": 1, "x": "0" * 5_000_000}]}})
    await in_thread(space.rule, path="items", times=-1, encoding="gzip", body=bomb)
    with pytest.raises(ConfigurationError, match="response_limit_mb"):
        await ids(endpoint(space, connection=small, **NEXT))


async def test_nobody_there(space: Space) -> None:
    """A plan that reaches nobody says what to check."""
    nobody = block(space, base_url="http://127.0.0.1:9", retries=1)
    with pytest.raises(ConfigurationError, match=r"http://127.0.0.1:9 cannot be reached.*check base_url"):
        await ids(endpoint(space, connection=nobody))


async def test_a_server_that_goes_away_in_a_large_response(space: Space) -> None:
    """What was written so far is thrown away by who called: the error comes out, and the partition can be read again."""
    body = json.dumps({"data": {"items": [{"id": n, "x": "0" * 1000} for n in range(9000)]}, "next": None})
    await in_thread(space.rule, path="items", skip=1, times=1, cut=len(body) - 100)
    await in_thread(space.rule, path="items", times=-1, body=body)
    async with endpoint(space).open(ReadOptions()) as extractor:
        plan = await extractor.plan(None)
        with pytest.raises(BadResponse, match="was cut off"):
            await collected(extractor, plan)
        assert len(await collected(extractor, plan)) == 9000


async def test_secrets_are_in_no_url_log_or_error(space: Space, caplog: pytest.LogCaptureFixture) -> None:
    """Keys go into the request below everything that tells of it; a server that repeats them is not repeated."""
    caplog.set_level(logging.DEBUG)
    secret = "s3cr3t-0815"
    keyed = block(space, auth="api-key", key=secret, key_name="api_key", key_in="query", retries=0)
    await in_thread(space.rule, query=f"api_key={secret}&cursor=20", times=-1, status=400, body=f"bad key {secret}")
    await in_thread(space.rule, query="cursor=20", times=-1, status=400, body=f"bad key {secret}")
    with pytest.raises(ConfigurationError, match=r"bad key \*\*\*") as raised:
        await ids(endpoint(space, connection=keyed, **NEXT))
    assert (await in_thread(space.asked))[0]["query"]["api_key"] == secret
    told = "".join([repr(raised.value), repr(raised.value.__cause__), repr(keyed), str(keyed.model_dump())])
    assert secret not in told
    assert secret not in caplog.text
    assert "cursor=20" in caplog.text  # what httpx tells of requests is there


async def test_credentials_do_not_leave_the_host(space: Space) -> None:
    """A redirect to another host is followed without them, one on the same host with them."""
    other = space.url.replace("127.0.0.1", "localhost").replace(space.name, f"{space.name}-other")
    beyond = Space(space.server, f"{space.name}-other")
    await in_thread(beyond.add, items(3))
    keyed = block(space, auth="bearer", token="s3cr3t", headers={"X-Tenant": "t3nant"})
    await in_thread(space.rule, path="/moved", times=-1, redirect=f"{other}/items")
    await in_thread(space.rule, path="/near", times=-1, redirect=f"{space.url}/items")
    assert await ids(endpoint(space, "/moved", connection=keyed)) == [1, 2, 3]
    assert await ids(endpoint(space, "/near", connection=keyed)) == ALL
    for request in await in_thread(beyond.seen):
        assert not {"authorization", "x-tenant"} & request["headers"].keys()
    for request in await in_thread(space.seen):
        assert request["headers"]["authorization"] == "Bearer s3cr3t"
        assert request["headers"]["x-tenant"] == "t3nant"
    await in_thread(space.rule, path="/round", times=-1, redirect=f"{space.url}/round")
    with pytest.raises(ConfigurationError, match="redirected without end"):
        await ids(endpoint(space, "/round"))


async def test_a_redirect_that_repeats_the_key(space: Space, caplog: pytest.LogCaptureFixture) -> None:
    """A key in a Location is neither told nor sent on; on the same host it is added anew, once."""
    caplog.set_level(logging.DEBUG)
    secret = "s3cr3t/0815"
    other = space.url.replace("127.0.0.1", "localhost").replace(space.name, f"{space.name}-other")
    beyond = Space(space.server, f"{space.name}-other")
    await in_thread(beyond.add, items(3))
    keyed = block(space, auth="api-key", key=secret, key_name="appid", key_in="query")
    said = quote(secret, safe="")
    back = quote(f"{space.url}/moved?appid={said}", safe="")
    await in_thread(space.rule, path="/moved", times=-1, redirect=f"{other}/items?appid={said}&limit=10&back={back}")
    await in_thread(space.rule, path="/near", times=-1, redirect=f"/s/{space.name}/items?appid={said}&limit=10")
    assert await ids(endpoint(space, "/moved", connection=keyed)) == [1, 2, 3]
    assert await ids(endpoint(space, "/near", connection=keyed)) == ALL
    assert all("s3cr3t" not in json.dumps(request) for request in await in_thread(beyond.seen))
    assert {request["query"]["limit"] for request in await in_thread(beyond.seen)} == {"10"}
    assert {request["query"].get("appid") for request in await in_thread(space.seen)} == {secret}
    assert "s3cr3t" not in caplog.text
    assert "limit=10" in caplog.text  # what httpx tells of redirects is there
