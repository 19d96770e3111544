"""Windows of an API: no record is passed over, none comes twice, whatever the API takes for its bounds and its clock shows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import JsonValue

from blocks.errors import ConfigurationError, PositionLost
from tasks.extractors.contract import Partition, Plan, ReadOptions
from tasks.extractors.rest.source import RestEndpoint
from tests.contract import collected
from tests.servers.rest import Space
from tests.tasks.extractors.rest import SOME, block, endpoint, ids, in_thread, item, items, read, stamp

BOTH = {"since": "{since}", "until": "{until}"}


def windowed(space: Space, **fields: Any) -> RestEndpoint:
    return endpoint(space, **({"cursor": "updated_at", "params": BOTH, "lag": "0 seconds"} | fields))


def at(value: str) -> JsonValue:
    return {"cursor": "updated_at", "value": value}


async def asked_last(space: Space) -> dict[str, str]:
    found: dict[str, str] = (await in_thread(space.asked))[-1]["query"]
    return found


@pytest.mark.parametrize("inclusive", [{}, {"inclusive": "1"}], ids=["exclusive", "inclusive"])
@pytest.mark.parametrize("params", [BOTH, {"since": "{since}"}, {}], ids=["both", "since", "neither"])
async def test_windows_do_not_overlap(rest_space: Space, params: dict[str, str], inclusive: dict[str, str]) -> None:
    """Whether the API takes its bounds in, or knows none: rows outside of the window are left out by their cursor."""
    now = datetime.now(UTC).replace(microsecond=0)
    await in_thread(rest_space.add, [item(n, now - timedelta(seconds=20 - n)) for n in range(1, 18)])
    source = windowed(rest_space, params=params | inclusive)
    first = await ids(source, at(stamp(now - timedelta(seconds=15))), mode="incremental")
    assert first == list(range(6, 18))
    rows, plan = await read(source, None, mode="incremental")
    assert len(rows) == 17
    assert (await read(source, plan.until, mode="incremental"))[1].partitions == ()


@pytest.mark.parametrize("inclusive", [{}, {"inclusive": "1"}], ids=["exclusive", "inclusive"])
@pytest.mark.parametrize("form", ["iso", "epoch", "epoch-ms"])
async def test_an_api_that_leaves_the_end_out(rest_space: Space, form: str, inclusive: dict[str, str]) -> None:
    """Of an API that gives what is before `{until}` alone, no row at the end of a window is lost, nor doubled by the next."""
    await in_thread(rest_space.add, items(30))
    params = BOTH | inclusive | {"half_open": "1"}
    source = windowed(rest_space, params=params, window={"format": form})
    found = []
    async with source.open(ReadOptions(mode="incremental")) as extractor:
        for lower, upper in ((0, 10), (10, 20), (20, 30)):
            bounds = [stamp(SOME + timedelta(seconds=bound)) for bound in (lower, upper)]
            part = Partition(name="1", lower=bounds[0], upper=bounds[1])
            plan = Plan(id="a", mode="incremental", partitions=(part,))
            found += [int(row[0]) for row in await collected(extractor, plan)]
    assert found == list(range(1, 31))


@pytest.mark.parametrize(
    ("form", "since", "until"),
    [
        ("iso", "2026-01-31T12:00:05Z", "2026-01-31T12:00:21Z"),
        ("epoch", "1769860805", "1769860821"),
        ("epoch-ms", "1769860805000", "1769860821000"),
    ],
)
@pytest.mark.parametrize("place", ["params", "headers", "path", "body"])
async def test_bounds_are_written_where_and_as_they_are_wanted(
    rest_space: Space, form: str, since: str, until: str, place: str
) -> None:
    """In parameters, headers, the path or the body: as a number there, where nothing else is in the string.

    The end is asked for a second later than the window's: its rows come whether the API takes it in or not.
    """
    await in_thread(rest_space.add, items(30))
    await in_thread(rest_space.add, items(30), f"{since}..{until}")
    ways: dict[str, dict[str, Any]] = {
        "params": {"params": {"since": "{since}", "until": "{until}"}},
        "headers": {"params": {}, "headers": {"X-Range": "{since}..{until}"}},
        "path": {"params": {}, "path": "/{since}..{until}"},
        "body": {
            "params": {},
            "method": "POST",
            "body": {"since": "{since}", "q": ["from {until}", "{other}"], "size": 1},
        },
    }
    given = ways[place]
    window = {"format": form, "start": "2026-01-31T12:00:05Z"}
    source = windowed(rest_space, window=window, pagination={"kind": "none"}, **given)
    plan = Plan(id="a", mode="incremental")
    part = Partition(name="1", lower="2026-01-31T12:00:05Z", upper="2026-01-31T12:00:20Z")
    async with source.open(ReadOptions(mode="incremental")) as extractor:
        rows = await collected(extractor, plan.model_copy(update={"partitions": (part,)}))
    assert [int(row[0]) for row in rows] == list(range(6, 21))
    request = (await in_thread(rest_space.seen))[-1]
    shown = {
        "params": request["query"].get("until"),
        "headers": request["headers"].get("x-range", "..").split("..")[1],
        "path": request["path"].split("..")[-1],
        "body": request["body"],
    }[place]
    if place == "body":
        wanted = since if form.startswith("epoch") else f'"{since}"'
        assert shown == f'{{"since":{wanted},"q":["from {until}","{{other}}"],"size":1}}'
    else:
        assert shown == until


async def test_days(rest_space: Space) -> None:
    """A window of the format date is whole days that are over; each is asked for once."""
    today = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
    await in_thread(rest_space.add, [item(n, today - timedelta(days=5 - n)) for n in range(1, 6)])
    source = windowed(rest_space, params=BOTH | {"by": "day", "inclusive": "1"}, window={"format": "date"})
    rows, plan = await read(source, at(f"{today - timedelta(days=4):%Y-%m-%d}"), mode="incremental")
    assert [row[0] for row in rows] == ["2", "3", "4"]
    assert plan.until == at(f"{today - timedelta(days=1):%Y-%m-%d}")
    query = await asked_last(rest_space)
    assert query["since"] == f"{today - timedelta(days=3):%Y-%m-%d}"
    assert query["until"] == f"{today - timedelta(days=1):%Y-%m-%d}"


async def test_the_first_window(rest_space: Space) -> None:
    """Without a start the parameter is left out, a path refuses; with one it begins there."""
    await in_thread(rest_space.add, items(30))
    assert await ids(windowed(rest_space), mode="incremental") == list(range(1, 31))
    assert "since" not in await asked_last(rest_space)
    begun = windowed(rest_space, window={"start": "2026-01-31T13:00:10+01:00"})
    assert await ids(begun, mode="incremental") == list(range(11, 31))
    assert (await asked_last(rest_space))["since"] == "2026-01-31T12:00:10Z"
    with pytest.raises(ConfigurationError, match=r"field path: \{since\} needs a bound; set window.start"):
        await ids(windowed(rest_space, path="/items/{since}"), mode="incremental")
    with pytest.raises(ConfigurationError, match=r"field window.start: 'soon' is no time"):
        await ids(windowed(rest_space, window={"start": "soon"}), mode="incremental")


@pytest.mark.parametrize("skew", [-7200, 7200])
async def test_the_window_ends_by_the_servers_clock(rest_space: Space, skew: int) -> None:
    """A server two hours off stamps its rows by its own clock, and the windows end by it."""
    await in_thread(rest_space.rule, path="items", times=-1, skew=skew)
    theirs = datetime.now(UTC) + timedelta(seconds=skew)
    await in_thread(rest_space.add, [item(1, theirs - timedelta(seconds=5)), item(2, theirs + timedelta(seconds=60))])
    rows, plan = await read(windowed(rest_space), None, mode="incremental")
    assert [row[0] for row in rows] == ["1"]
    assert any("the server's clock is 7,2" in note or "the server's clock is 7,1" in note for note in plan.notes)
    reached = datetime.fromisoformat(plan.until["value"])  # type: ignore[index, call-overload, arg-type]  # as above
    assert abs((reached - theirs).total_seconds()) < 3


async def test_a_server_without_a_clock(rest_space: Space) -> None:
    """Ours has to do, and the plan says so."""
    await in_thread(rest_space.rule, path="items", times=-1, no_date=True)
    await in_thread(rest_space.add, items(3))
    rows, plan = await read(windowed(rest_space), None, mode="incremental")
    assert len(rows) == 3
    assert any("does not tell its time" in note for note in plan.notes)


async def test_lag_and_lookback(rest_space: Space) -> None:
    """lag holds fresh rows back; lookback brings rows before the position again."""
    now = datetime.now(UTC).replace(microsecond=0)
    await in_thread(rest_space.add, [item(n, now - timedelta(minutes=11 - n)) for n in range(1, 11)])
    rows, plan = await read(windowed(rest_space, lag="5 minutes 30 seconds"), mode="incremental")
    assert [int(row[0]) for row in rows] == [1, 2, 3, 4, 5]
    again = await ids(windowed(rest_space, lookback="2 minutes"), plan.until, mode="incremental")
    assert again == [4, 5, 6, 7, 8, 9, 10]
    with pytest.raises(ConfigurationError, match="field lag: 'often'"):
        await ids(windowed(rest_space, lag="often"))


@pytest.mark.parametrize("mode", ["full", "incremental"])
async def test_windows_are_cut_into_partitions(rest_space: Space, mode: Any) -> None:
    """By a span or by number; together they bring every row once."""
    await in_thread(rest_space.add, items(30))
    window = {"start": "2026-01-31T12:00:00Z"}
    by_number, plan = await read(windowed(rest_space, window=window), mode=mode, partitions=4)
    assert len(plan.partitions) == 4
    assert plan.resumable == (mode == "incremental")
    spans = -(-(datetime.now(UTC) - SOME) // timedelta(days=30))
    by_span, plan = await read(windowed(rest_space, window=window | {"split": "30 days"}), mode=mode)
    assert len(plan.partitions) == spans
    assert sorted(int(row[0]) for row in by_number) == [int(row[0]) for row in by_span] == list(range(1, 31))
    _, plan = await read(windowed(rest_space, params={"since": "{since}"}), mode=mode, partitions=4)
    assert len(plan.partitions) == 1
    assert any("read in one partition" in note for note in plan.notes)
    with pytest.raises(ConfigurationError, match=r"field window.split: the window would be cut into"):
        await read(windowed(rest_space, window=window | {"split": "1 second"}), mode=mode)


@pytest.mark.parametrize(
    "pagination",
    [{"kind": "page", "size_param": "per_page", "size": 10}, {"kind": "next", "value": "next"}],
    ids=lambda pagination: pagination["kind"],
)
async def test_a_sorted_api_is_not_read_to_its_end(rest_space: Space, pagination: dict[str, Any]) -> None:
    """Newest first: the read ends with the first page that is all before the window, and asks for none behind it."""
    await in_thread(rest_space.add, items(300))
    source = windowed(
        rest_space, params={"sort": "newest", "limit": "10"}, pagination=pagination, window={"order": "newest-first"},
        connection=block(rest_space, concurrency=1),
    )  # fmt: skip
    since = at(stamp(SOME + timedelta(seconds=285)))
    assert await ids(source, since, mode="incremental") == list(range(300, 285, -1))
    # One to plan, and three pages: of one request at a time none is sent before the page before it is looked at.
    assert len(await in_thread(rest_space.asked)) == 4
    none = await read(source, at(stamp(SOME + timedelta(seconds=300))), mode="incremental")
    assert none[1].partitions == ()


async def test_rows_without_a_cursor_value(rest_space: Space) -> None:
    """They stop the run by default; they can be left out, or come with every run."""
    await in_thread(rest_space.add, [*items(3), item(4) | {"updated_at": None}, {"id": 5}])
    with pytest.raises(ConfigurationError, match=r"null_cursor.*updated_at.*exclude.*include"):
        await ids(windowed(rest_space, params={}), mode="incremental")
    assert await ids(windowed(rest_space, params={}, null_cursor="exclude"), mode="incremental") == [1, 2, 3]
    assert await ids(windowed(rest_space, params={}, null_cursor="include"), mode="incremental") == [1, 2, 3, 4, 5]
    assert await ids(windowed(rest_space, params={})) == [1, 2, 3, 4, 5]  # all there is, in mode full
    await in_thread(rest_space.add, [item(6) | {"updated_at": "soon"}])
    with pytest.raises(ConfigurationError, match="field cursor: updated_at of a record is no time"):
        await ids(windowed(rest_space, params={}, null_cursor="include"), mode="incremental")


@pytest.mark.parametrize(
    "value",
    [1769860801, "1769860801", 1769860801000, 1769860801.5, "2026-01-31T13:00:01.5+01:00", "2026-01-31 12:00:01"],
)
async def test_times_of_records(rest_space: Space, value: Any) -> None:
    """ISO 8601 with or without an offset, and numbers since 1970: seconds, milliseconds."""
    await in_thread(rest_space.add, [item(1) | {"updated_at": value}])
    source = windowed(rest_space, params={})
    assert await ids(source, at("2026-01-31T12:00:00Z"), mode="incremental") == [1]
    assert await ids(source, at("2026-01-31T12:00:02Z"), mode="incremental") == []


async def test_a_zone_for_times_without_one(rest_space: Space) -> None:
    """The field cursor_timezone says which."""
    await in_thread(rest_space.add, [item(1) | {"updated_at": "2026-01-31T12:00:00"}])
    source = windowed(rest_space, params={}, cursor_timezone="Europe/Berlin")
    assert await ids(source, at("2026-01-31T11:00:00Z"), mode="incremental") == []
    assert await ids(source, at("2026-01-31T10:59:59Z"), mode="incremental") == [1]
    with pytest.raises(ConfigurationError, match="field cursor_timezone: there is no time zone 'Mars'"):
        await ids(windowed(rest_space, cursor_timezone="Mars"))


async def test_positions_that_cannot_be_gone_on_from(rest_space: Space) -> None:
    """Another cursor's, and one that holds no time; without a cursor mode incremental is refused."""
    await in_thread(rest_space.add, items(3))
    with pytest.raises(PositionLost, match="id = 7"):
        await ids(windowed(rest_space), {"cursor": "id", "value": "7"}, mode="incremental")
    with pytest.raises(ConfigurationError, match="the position 'x' is no time"):
        await ids(windowed(rest_space), at("x"), mode="incremental")
    with pytest.raises(ConfigurationError, match="field cursor: mode incremental"):
        await ids(endpoint(rest_space), mode="incremental")
    with pytest.raises(ConfigurationError, match="field mode: an API has no log of changes"):
        await ids(endpoint(rest_space), mode="changes")
    _, plan = await read(windowed(rest_space), at("2199-01-01T00:00:00Z"), mode="incremental")
    assert (plan.partitions, plan.until) == ((), at("2199-01-01T00:00:00Z"))
    assert any("nothing is read now" in note for note in plan.notes)


async def test_an_api_that_is_relied_upon(rest_space: Space) -> None:
    """Without a cursor what the API gives for a window is taken as it is."""
    await in_thread(rest_space.add, items(5))
    source = windowed(rest_space, cursor="", window={"start": "2026-01-31"})
    rows, plan = await read(source, mode="incremental")
    assert len(rows) == 5
    assert isinstance(plan.until, dict)
    assert plan.until["cursor"] == "time"
    assert any("no cursor" in note for note in plan.notes)
    assert (await read(source, plan.until, mode="incremental"))[1].partitions == ()


async def test_nothing_is_read_while_nothing_changes(rest_space: Space) -> None:
    """Mode full with if_changed: the ETag of the first page decides; without the option everything is read."""
    await in_thread(rest_space.rule, path="items", times=-1, etag=True)
    await in_thread(rest_space.add, items(5))
    source = endpoint(rest_space, if_changed=True)
    rows, plan = await read(source)
    assert len(rows) == 5
    _, same = await read(source, plan.until)
    assert (same.partitions, same.until) == ((), plan.until)
    assert "nothing has changed" in same.notes[0]
    await in_thread(rest_space.add, items(6))
    rows, later = await read(source, plan.until)
    assert len(rows) == 6
    assert later.until != plan.until
    assert len(await ids(endpoint(rest_space), later.until)) == 6
    with pytest.raises(PositionLost, match="if_changed"):
        await ids(windowed(rest_space), plan.until, mode="incremental")
