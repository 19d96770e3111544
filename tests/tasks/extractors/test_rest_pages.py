"""Every way of paging brings every record once, in order, whatever the server does; and no walk goes on for ever."""

from __future__ import annotations

from typing import Any

import pytest

from blocks.errors import ConfigurationError
from tasks.extractors.rest.errors import PagesMoved
from tests.servers.rest import Space
from tests.tasks.extractors.rest import block, endpoint, ids, in_thread, items

WAYS: dict[str, dict[str, Any]] = {
    "page": {"pagination": {"kind": "page", "size_param": "per_page", "size": 10}},
    "page, size unknown": {"pagination": {"kind": "page"}, "params": {"per_page": "10"}},
    "page, pages told": {
        "pagination": {"kind": "page", "size_param": "per_page", "size": 10, "pages": "pages", "total": "total"}
    },
    "page in the body": {
        "pagination": {"kind": "page", "size_param": "per_page", "size": 10, "place": "body"},
        "method": "POST",
        "body": {"search": "all"},
    },
    "offset": {"pagination": {"kind": "offset", "limit": 10}},
    "offset, total told": {"pagination": {"kind": "offset", "limit": 10, "total": "total"}},
    "cursor": {"pagination": {"kind": "cursor", "value": "next_cursor"}, "params": {"limit": "10"}},
    "cursor in a header": {"pagination": {"kind": "cursor", "header": "X-Next-Cursor"}, "params": {"limit": "10"}},
    "cursor, until told": {
        "pagination": {"kind": "cursor", "value": "next_cursor", "stop": "!has_more"},
        "params": {"limit": "10"},
    },
    "next": {"pagination": {"kind": "next", "value": "next"}, "params": {"limit": "10"}},
    "link": {"pagination": {"kind": "link"}, "params": {"limit": "10", "as": "bare"}, "records": ""},
    "link, by default": {
        "params": {"page": "1", "per_page": "10", "as": "bare"},
        "records": "",
        "pagination": {"kind": "link"},
    },
    "none": {"pagination": {"kind": "none"}},
}
NUMBERED = [name for name in WAYS if name.startswith(("page", "offset"))]


@pytest.mark.parametrize("count", [0, 1, 10, 11, 137])
@pytest.mark.parametrize("way", WAYS)
async def test_every_record_comes_once_and_in_order(rest_space: Space, way: str, count: int) -> None:
    """None, one, a full page, one more, and many."""
    await in_thread(rest_space.add, items(count))
    assert await ids(endpoint(rest_space, **WAYS[way])) == list(range(1, count + 1))


@pytest.mark.parametrize("way", NUMBERED)
async def test_pages_whose_numbers_are_known_come_at_once(rest_space: Space, way: str) -> None:
    """As many requests are under way as the connection allows, and no more; order stays."""
    await in_thread(rest_space.add, items(400))
    await in_thread(rest_space.rule, path="/items", times=-1, delay=0.05)
    found = await ids(endpoint(rest_space, connection=block(rest_space, concurrency=5), **WAYS[way]))
    assert found == list(range(1, 401))
    assert max(request["under_way"] for request in await in_thread(rest_space.asked)) == 5


async def test_slow_pages_keep_their_place(rest_space: Space) -> None:
    """A page that is slower than those behind it is written before them."""
    await in_thread(rest_space.add, items(100))
    for page in (1, 3, 4):
        await in_thread(rest_space.rule, query=f"page={page}&", times=-1, delay=0.3)
    assert await ids(endpoint(rest_space, **WAYS["page"])) == list(range(1, 101))


@pytest.mark.parametrize("way", ["offset", "offset, total told", "cursor", "next", "page, size unknown"])
async def test_a_server_that_gives_smaller_pages(rest_space: Space, way: str) -> None:
    """Asked for ten at a time, it gives seven: nothing is passed over."""
    await in_thread(rest_space.add, items(100))
    await in_thread(rest_space.rule, path="/items", times=-1, shrink=7)
    assert await ids(endpoint(rest_space, **WAYS[way])) == list(range(1, 101))


async def test_a_server_whose_pages_change_in_size(rest_space: Space) -> None:
    """By offset, pages that were asked for ahead are asked for anew where one before them was smaller."""
    await in_thread(rest_space.add, items(200))
    await in_thread(rest_space.rule, query="offset=40&", times=-1, shrink=3)
    await in_thread(rest_space.rule, query="offset=83&", times=-1, shrink=1)
    assert await ids(endpoint(rest_space, **WAYS["offset"])) == list(range(1, 201))


async def test_few_requests_are_made_for_nothing(rest_space: Space) -> None:
    """Nothing is asked for behind a page that is not full, nor behind the last page that the API tells of."""
    await in_thread(rest_space.add, items(35))
    await ids(endpoint(rest_space, **WAYS["page, pages told"]))
    assert len(await in_thread(rest_space.asked)) == 5  # one to plan
    (await in_thread(rest_space.add, items(5, 1, kind="few"), "few"))
    await ids(endpoint(rest_space, "/few", **WAYS["offset"]))
    assert len(await in_thread(rest_space.asked, "few")) == 3  # one to plan, and one behind the page, which is empty


@pytest.mark.parametrize("way", ["offset, total told", "page, pages told"])
async def test_records_that_are_passed_over_are_found_out(rest_space: Space, way: str) -> None:
    """Rows removed between two pages move the others: the count that the API tells does not fit, and the read is repeated."""
    await in_thread(rest_space.add, items(60))
    await in_thread(rest_space.rule, path="/items", skip=1, remove=[1, 2, 3])
    source = endpoint(rest_space, connection=block(rest_space, concurrency=1), **WAYS[way])
    with pytest.raises(PagesMoved, match=r"field pagination.total"):
        await ids(source)
    assert await ids(source) == list(range(4, 61))


async def test_an_empty_page_before_the_end_is_found_out(rest_space: Space) -> None:
    """A page that is empty while the next one is not stands for records that are missing."""
    await in_thread(rest_space.add, items(100))
    await in_thread(rest_space.rule, query="page=5&", times=-1, empty=True)
    with pytest.raises(PagesMoved, match="a page is empty, and the one at 6"):
        await ids(endpoint(rest_space, **WAYS["page"]))


async def test_records_that_come_again_on_the_next_page_are_left_out(rest_space: Space) -> None:
    """Rows added in front move the others to the next page; with a key the doubles are dropped, and counted."""
    await in_thread(rest_space.add, items(30))
    source = endpoint(rest_space, connection=block(rest_space, concurrency=1), **WAYS["page"])
    await in_thread(rest_space.rule, query="page=2&", times=-1, skip=0, body=_page(range(8, 21)))
    assert await ids(source) == list(range(1, 31))


def _page(numbers: range) -> str:
    import json

    made = [made for made in items(max(numbers)) if made["id"] in numbers]
    return json.dumps({"data": {"items": made}, "total": 0, "pages": 3})


@pytest.mark.parametrize("way", ["page", "offset"])
async def test_a_parameter_that_is_not_heeded_is_found_out(rest_space: Space, way: str) -> None:
    """The same page again and again is an error that names the field; or the end, where that is said."""
    await in_thread(rest_space.add, items(5))
    pagination = WAYS[way]["pagination"] | {"param": "pgae"}
    source = endpoint(rest_space, pagination=pagination, params={"per_page": "5"})
    with pytest.raises(ConfigurationError, match="field pagination: page 2 has the same records"):
        await ids(source)
    stopping = endpoint(rest_space, pagination=pagination | {"repeats": "stop"}, params={"per_page": "5"})
    assert await ids(stopping) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("form", ["ndjson", "csv", "large"])
@pytest.mark.parametrize("way", ["page", "offset"])
async def test_a_page_that_comes_again_is_found_out_in_every_form(rest_space: Space, way: str, form: str) -> None:
    """Lines, and responses that are read as they come: none of a repeated page's records is written."""
    await in_thread(rest_space.add, items(5))
    pagination: dict[str, Any] = WAYS[way]["pagination"] | {"param": "pgae", "max_pages": 4}
    asked: dict[str, Any] = {"params": {"as": form}, "records": ""}
    if form == "large":
        asked = {"path": "/large", "params": {"bytes": "4500000"}}
    with pytest.raises(ConfigurationError, match="field pagination: page 2 has the same records"):
        await ids(endpoint(rest_space, pagination=pagination, **asked))
    found = await ids(endpoint(rest_space, pagination=pagination | {"repeats": "stop"}, **asked))
    assert found == ([1, 2, 3, 4, 5] if form != "large" else list(range(len(found))))
    assert found


@pytest.mark.parametrize("form", ["ndjson", "csv"])
async def test_pages_without_records_are_alike_and_no_repetition(rest_space: Space, form: str) -> None:
    """An API that filters its pages gives some that are empty, of CSV a header alone, and goes on behind them."""
    await in_thread(rest_space.add, items(50))
    for cursor in (10, 20, 30):
        await in_thread(rest_space.rule, query=f"cursor={cursor}", times=-1, empty=True)
    way = WAYS["cursor in a header"] | {"params": {"limit": "10", "as": form}, "records": ""}
    assert await ids(endpoint(rest_space, **way)) == [*range(1, 11), *range(41, 51)]


async def test_large_pages_that_differ_are_no_repetition(rest_space: Space) -> None:
    """Each is read as it comes, and the beginning that it is known by is not lost."""
    await in_thread(rest_space.add, items(4400, x="0" * 2000))
    pagination = {"kind": "page", "size_param": "per_page", "size": 2200}
    assert await ids(endpoint(rest_space, pagination=pagination)) == list(range(1, 4401))


@pytest.mark.parametrize(("way", "told"), [("next", "next"), ("cursor", "next_cursor")])
async def test_a_circle_is_found_out(rest_space: Space, way: str, told: str) -> None:
    """A next page that was read before ends the run."""
    await in_thread(rest_space.add, items(30))
    again = '{"data": {"items": [{"id": %d}]}, "next": "?limit=10&cursor=10", "next_cursor": "10"}'
    await in_thread(rest_space.rule, query="cursor=20", times=-1, body=again % 99)
    with pytest.raises(ConfigurationError, match="in a circle"):
        await ids(endpoint(rest_space, **WAYS[way]))
    assert told


async def test_there_is_a_most_of_pages(rest_space: Space) -> None:
    """A walk that is longer than was said ends with an error."""
    await in_thread(rest_space.add, items(100))
    source = endpoint(rest_space, pagination={"kind": "offset", "limit": 10, "max_pages": 5})
    with pytest.raises(ConfigurationError, match=r"field pagination\.max_pages: there are more than 5 pages"):
        await ids(source)


async def test_pages_that_nobody_asked_for_are_not_overlooked(rest_space: Space) -> None:
    """By default the header Link is followed; a response that speaks of more in another way is not taken for all."""
    await in_thread(rest_space.add, items(30))
    with pytest.raises(ConfigurationError, match=r"field pagination: .* no Link header but says has_more"):
        await ids(endpoint(rest_space, params={"limit": "10"}, pagination={"kind": "link"}))
    assert await ids(endpoint(rest_space, params={"limit": "40"}, pagination={"kind": "link"})) == list(range(1, 31))


@pytest.mark.parametrize(
    ("pagination", "told"),
    [
        ({"kind": "next", "value": "links.next"}, r"pagination.value: .* has an object at links.next, which is no URL"),
        ({"kind": "cursor", "value": "key"}, "pagination.value: .* has an object at key, which is no parameter"),
        ({"kind": "next", "value": "next_page"}, "pagination: .* has nothing at next_page but says links.next"),
        ({"kind": "cursor", "header": "X-Next"}, "pagination: .* has nothing at X-Next but says links.next"),
    ],
)
async def test_a_next_page_that_is_told_otherwise_is_not_overlooked(
    rest_space: Space, pagination: dict[str, Any], told: str
) -> None:
    """Where the next page is not found as it was declared, the first one is not taken for all there is."""
    body = (
        '{"data": {"items": [{"id": 1}]}, "links": {"next": {"href": "?cursor=1"}}, "key": {"id": 1}, "has_more": true}'
    )
    await in_thread(rest_space.add, items(3))
    await in_thread(rest_space.rule, path="/items", times=-1, body=body)
    with pytest.raises(ConfigurationError, match=f"field {told}"):
        await ids(endpoint(rest_space, pagination=pagination))


@pytest.mark.parametrize("cursor", ['[1700000000.25, "a"]', '{"id":{"S":"7"}}', "1700000000.25"])
async def test_a_cursor_that_is_no_text_is_sent_back_as_it_came(rest_space: Space, cursor: str) -> None:
    """As Elasticsearch's search_after and DynamoDB's LastEvaluatedKey; numbers with their digits."""
    await in_thread(rest_space.add, items(1))
    body = '{"data": {"items": [{"id": %d}]}, "key": %s}'
    await in_thread(rest_space.rule, path="/items", body=body % (1, cursor), times=2)
    await in_thread(rest_space.rule, path="/items", body=body % (2, "null"), times=-1, skip=2)
    pagination = {"kind": "cursor", "value": "key", "param": "after", "place": "body"}
    plain = endpoint(rest_space, pagination=pagination, method="POST", body={"size": 1})
    assert await ids(plain) == [1, 2]
    sent = [one["body"] for one in await in_thread(rest_space.asked)]
    assert sent[-1] == f'{{"size":1,"after":{cursor.replace(", ", ",")}}}'
    if cursor.startswith("1"):
        await in_thread(rest_space.rule, path="/few", body=body % (1, cursor), times=2)
        await in_thread(rest_space.add, items(1), "few")
        await in_thread(rest_space.rule, path="/few", body=body % (2, "null"), times=-1, skip=2)
        assert await ids(endpoint(rest_space, "/few", pagination=pagination | {"place": "params"})) == [1, 2]
        assert (await in_thread(rest_space.asked, "few"))[-1]["query"] == {"after": cursor}


async def test_the_next_page_is_not_looked_for_elsewhere(rest_space: Space) -> None:
    """A URL of another host would be given what is asked for here."""
    await in_thread(rest_space.add, items(3))
    elsewhere = '{"data": {"items": [{"id": 1}]}, "next": "https://elsewhere.example/items?access_token=s3cr3t"}'
    await in_thread(rest_space.rule, path="/items", times=-1, body=elsewhere)
    with pytest.raises(ConfigurationError, match="field pagination: the next page would be at another place") as raised:
        await ids(endpoint(rest_space, **WAYS["next"]))
    assert "s3cr3t" not in str(raised.value)
