"""One fault at a time: what the run says, and that nothing is lost, doubled or left behind."""

from __future__ import annotations

import asyncio
import time
from contextvars import Context
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from blocks.errors import ConfigurationError, PositionLost
from blocks.watermark import Watermark
from flows.extract_all import Stream, extract_all
from flows.sweep import sweep
from tasks import leftovers
from tasks.commits import Commit, CommitLog, Entry, EntryMeta
from tasks.state import rewind, set_position
from tests.flows.shops import Shop
from tests.servers.faults import (
    Call,
    Delay,
    FaultProxy,
    Request,
    Reset,
    Respond,
    TcpProxy,
    s3_error,
    slow_down,
)
from tests.servers.prefect import PrefectServer
from tests.servers.rules import Action

PART: dict[str, Any] = {"method": "PUT", "path": "/data/", "query": "partNumber"}
COMPLETE: dict[str, Any] = {"method": "POST", "path": "/data/", "query": "uploadId"}
COMMIT: dict[str, Any] = {"method": "PUT", "path": "/_commits/"}


@pytest.mark.parametrize("mode", ["full", "incremental"])
async def test_two_runs_bring_everything_once(shop: Shop, mode: str) -> None:
    """A run commits all rows; the next brings what is new (incremental) or all again (full)."""
    first = await shop.run(mode, partitions=3)
    await shop.add(20)
    second = await shop.run(mode, partitions=3)
    assert (first["sequence"], second["sequence"]) == (1, 2)
    assert second["rows"] == (20 if mode == "incremental" else first["rows"] + 20)
    await shop.assert_sound(mode)


async def test_nothing_new_commits_nothing(shop: Shop) -> None:
    """An incremental run without new rows leaves bucket and watermark as they are."""
    await shop.run("incremental")
    outcome = await shop.run("incremental")
    assert (outcome["sequence"], outcome["rows"]) == (None, 0)
    assert len(await shop.commits()) == 1


async def test_an_empty_table_commits_a_header(shop: Shop) -> None:
    """In mode full an empty table is one object with a header, so that a loader empties its copy."""
    await shop.execute("TRUNCATE things")
    outcome = await shop.run("full", partitions=4)
    (commit,) = await shop.commits()
    assert outcome["rows"] == 0
    assert [entry.rows for entry in commit.entries] == [0]
    assert commit.entries[0].bytes == len(b"id,payload,updated_at\n")


S3_FAULTS: dict[str, tuple[str, Action, dict[str, Any]]] = {
    "a part answered 500": ("before", s3_error(500, "InternalError"), PART),
    "a part answered 503": ("before", slow_down(), PART),
    "a part cut off in the middle": ("before", Reset(1_000_000), PART),
    "a part stored, its answer cut off": ("after", Reset(), PART),
    "a slow part": ("before", Delay(1), PART),
    "Complete answered 500": ("before", s3_error(500, "InternalError"), COMPLETE),
    "Complete done, its answer cut off": ("after", Reset(), COMPLETE),
    "Complete done, answered 500": ("after", s3_error(500, "InternalError"), COMPLETE),
    "the commit answered 503": ("before", slow_down(), COMMIT),
    "the commit done, its answer cut off": ("after", Reset(), COMMIT),
    "the commit done, answered 500": ("after", s3_error(500, "InternalError"), COMMIT),
    "the commit answered 409": ("before", s3_error(409, "ConditionalRequestConflict"), COMMIT),
}


@pytest.mark.parametrize("fault", S3_FAULTS.values(), ids=S3_FAULTS.keys())
async def test_a_fault_of_the_store_heals_within_the_run(
    shop: Shop, s3_faults: FaultProxy, fault: tuple[str, Action, dict[str, Any]]
) -> None:
    """The run commits all the same, once, and recognises its own commit."""
    when, action, match = fault
    rule = (s3_faults.before if when == "before" else s3_faults.after)(action, **match)
    outcome = await shop.run("full", shop.destination(s3_faults.endpoint))
    assert rule.fired == 1
    assert outcome["committed"]
    assert len(await shop.commits()) == 1
    await shop.assert_sound("full")


async def test_of_two_runs_at_once_one_commits(shop: Shop, s3_faults: FaultProxy) -> None:
    """A whole second run in front of the first one's commit wins the number; the first discards its objects."""
    second: dict[str, Any] = {}

    async def rival(_request: Request) -> None:
        # In a context of its own: the flow run that waits here is not its parent.
        second.update(await asyncio.create_task(shop.run("incremental"), context=Context()))

    slow = shop.destination(s3_faults.endpoint)
    s3_faults.before(Call(rival), **COMMIT)
    first = await shop.run("incremental", slow)
    assert (second["committed"], first["committed"]) == (True, False)
    assert len(await shop.commits()) == 1
    assert await shop.leftovers() == []
    await shop.assert_sound("incremental")


async def test_a_store_without_conditional_writes_is_refused(shop: Shop, s3_faults: FaultProxy) -> None:
    """It is found out before a row is read; the option that allows it says what is lost."""
    # The gateway signs the header, so what the store ignores is played by answering 200.
    s3_faults.before(Respond(200), method="PUT", path="/_probe/", times=None)
    with pytest.raises(ConfigurationError, match="allow_unconditional_commits"):
        await shop.run("full", shop.destination(s3_faults.endpoint))
    assert not s3_faults.requests(path="/data/")
    allowed = shop.destination(s3_faults.endpoint, allow_unconditional_commits=True)
    assert (await shop.run("full", allowed))["committed"]


async def test_a_probe_that_is_cancelled_leaves_nothing(shop: Shop, s3_faults: FaultProxy) -> None:
    """Its object is on its way when the run is told to end: it would arrive after it was removed."""
    destination = shop.destination(s3_faults.endpoint)
    async with destination.client() as client:
        probing = asyncio.create_task(CommitLog(client, destination, shop.name).probe())

        async def cancel(_request: Request) -> None:
            probing.cancel()
            await asyncio.sleep(0.5)

        rule = s3_faults.before(Call(cancel), method="PUT", path="/_probe/")
        with pytest.raises(asyncio.CancelledError):
            await probing
    assert rule.fired == 1
    await asyncio.sleep(1)
    assert await shop.leftovers() == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"bucket": "no-such-bucket-here"}, "there is no bucket 'no-such-bucket-here'"),
        ({"secret_key": "wrong"}, "aws_secret_access_key"),
        ({"access_key": "unknown"}, "aws_access_key_id"),
        ({"endpoint": "http://127.0.0.1:9"}, "field endpoint"),
    ],
)
async def test_a_wrong_destination_says_which_field(shop: Shop, changes: dict[str, str], told: str) -> None:
    """The field to mend is named, within seconds, and nothing is retried."""
    begun = time.monotonic()
    with pytest.raises(ConfigurationError, match=told):
        await shop.run("full", shop.destination(**changes))
    assert time.monotonic() - begun < 15


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"password": "wrong"}, "password"),
        ({"database": "nowhere"}, "field database"),
        ({"port": 9}, "host and port"),
        ({"tls": "verify-full"}, "tls"),
    ],
)
async def test_a_wrong_connection_says_which_field(shop: Shop, changes: dict[str, Any], told: str) -> None:
    """The block's field to mend is named, within seconds, and no secret is in the message."""
    begun = time.monotonic()
    with pytest.raises(ConfigurationError, match=told) as caught:
        await shop.run("full", block=shop.block(**changes))
    assert time.monotonic() - begun < 15
    assert "secret" not in str(caught.value)


async def test_access_that_is_denied_says_what_is_needed(shop: Shop) -> None:
    """A user without rights to the bucket is told which ones a run needs."""
    stranger = shop.s3.stranger()
    theirs = shop.destination(access_key=stranger.access_key, secret_key=stranger.secret_key)
    with pytest.raises(ConfigurationError, match=r"(?s)access to s3://.*is denied.*s3:PutObject"):
        await shop.run("full", theirs)


@pytest.mark.parametrize(("status", "code"), [(301, "PermanentRedirect"), (400, "AuthorizationHeaderMalformed")])
async def test_a_wrong_region_is_named(shop: Shop, s3_faults: FaultProxy, status: int, code: str) -> None:
    """What AWS answers for a bucket of another region leads to the field region, without a retry."""
    s3_faults.before(s3_error(status, code), method="PUT", times=None)
    with pytest.raises(ConfigurationError, match="field region"):
        await shop.run("full", shop.destination(s3_faults.endpoint))


async def test_an_unknown_cursor_is_named(shop: Shop) -> None:
    """A cursor column that is not there is told with near matches."""
    with pytest.raises(ConfigurationError, match=r"field cursor: .*'updatedat'; did you mean updated_at"):
        await shop.run("incremental", source={"cursor": "updatedat"})


@pytest.mark.parametrize("statement", ["DROP TABLE things", "ALTER TABLE things DROP COLUMN payload"])
async def test_a_table_changed_in_the_middle_is_read_as_it_was(
    shop: Shop, s3_faults: FaultProxy, statement: str
) -> None:
    """A DROP or ALTER waits for the run, which commits the whole table as it was planned."""
    rows = len(await shop.ids())
    changing: list[asyncio.Task[None]] = []

    async def change(_request: Request) -> None:
        changing.append(asyncio.create_task(shop.execute(statement)))
        await asyncio.sleep(0.2)

    s3_faults.before(Call(change), method="PUT", path="/data/")
    outcome = await shop.run("full", shop.destination(s3_faults.endpoint), partitions=3, parallel=1)
    await changing[0]
    assert outcome["rows"] == rows
    (commit,) = await shop.commits()
    assert [column.name for column in commit.columns] == ["id", "payload", "updated_at"]


async def test_a_reader_lost_while_an_alter_waits_plans_again(
    shop: Shop, s3_faults: FaultProxy, postgres_wire: TcpProxy
) -> None:
    """A reader opened anew would queue behind the ALTER, which waits for this run: the run lets it go first."""
    changing: list[asyncio.Task[None]] = []

    async def change(_request: Request) -> None:
        changing.append(asyncio.create_task(shop.execute("ALTER TABLE things DROP COLUMN payload")))
        await asyncio.sleep(0.2)
        postgres_wire.cut_after(100_000)

    s3_faults.before(Call(change), method="PUT", path="/data/")
    block = shop.block(port=postgres_wire.port, tls="disable")
    outcome = await shop.run("full", shop.destination(s3_faults.endpoint), block, partitions=3, parallel=1)
    await changing[0]
    assert outcome["committed"]
    (commit,) = await shop.commits()
    assert [column.name for column in commit.columns] == ["id", "updated_at"]
    await shop.assert_sound("full")


async def test_a_clock_that_was_set_back_is_told(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    """With the watermark in the server's future nothing is read, the watermark stays, and the run says why."""
    source = {"cursor": "updated_at"}
    await shop.run("incremental", source=source)
    await _log(
        shop, lambda log: set_position(log, {"cursor": "updated_at", "value": "2999-01-01 00:00:00+00"}, note="")
    )
    await shop.add(3)
    outcome = await shop.run("incremental", source=source)
    assert (outcome["sequence"], outcome["rows"]) == (None, 0)
    assert "clock set back" in caplog.text
    mark = await Watermark.of(shop.name)
    assert mark is not None
    assert mark.position == {"cursor": "updated_at", "value": "2999-01-01 00:00:00+00"}


async def test_a_sweep_goes_by_the_clock_of_the_store(shop: Shop) -> None:
    """What is young by the store's clock stays, whatever this machine's says."""
    async with shop.destination().client() as client:
        key = shop.destination().key(shop.name, "data", "1", "x.csv")
        await client.put_object(Bucket=shop.bucket, Key=key, Body=b"")
        told = await leftovers.store_time(client, shop.destination())
        stamped = (await client.head_object(Bucket=shop.bucket, Key=key))["LastModified"]
    assert abs(told - stamped) < timedelta(seconds=5)
    await sweep(to=shop.destination(), streams=[shop.name], older_than="1 hour", dry_run=False)
    assert await shop.leftovers() == [key]


async def test_a_sweep_takes_nothing_that_may_still_be_committed(shop: Shop) -> None:
    """Whatever its age, an object stays until the commit that could list it stands and does not, also one that was removed."""
    to = shop.destination()
    keys = [to.key(shop.name, "data", f"{1:020d}", f"0000{number}-dead.csv") for number in (1, 2)]
    async with to.client() as client:
        for key in keys:
            await client.put_object(Bucket=shop.bucket, Key=key, Body=b"x")
        found = await leftovers.find(client, to, shop.name, await leftovers.store_time(client, to))
        # A run that takes them up commits between the sweep's look and its deed.
        entry = Entry(
            url=to.url(keys[0]),
            meta=EntryMeta(content_length=1),
            key=keys[0],
            partition="00001",
            rows=1,
            bytes=1,
            crc32="",
        )
        log = CommitLog(client, to, shop.name)
        await log.put(Commit(stream=shop.name, sequence=1, entries=(entry,), committed_at=datetime.now(UTC)))
        await leftovers.remove(client, to, found)
        assert await shop.leftovers() == keys[1:]
        await sweep(to=to, streams=[shop.name], older_than="0 seconds", dry_run=False)
        assert await shop.leftovers() == []
        await client.delete_object(Bucket=shop.bucket, Key=log.key(1))
        await sweep(to=to, streams=[shop.name], older_than="0 seconds", dry_run=False)
        assert await shop.leftovers() == keys[:1]


async def test_a_server_that_does_not_answer_is_given_up(shop: Shop, postgres_wire: TcpProxy) -> None:
    """A connection that stalls ends with the block's connect_timeout, once."""
    with postgres_wire.stalled(), pytest.raises(ConfigurationError, match="no answer within 1 s"):
        await shop.run("full", block=shop.block(port=postgres_wire.port, connect_timeout=1))
    assert postgres_wire.accepted == 1


async def test_an_unknown_block_is_named(shop: Shop) -> None:
    """A connection that is not saved is named, with what there is."""
    with pytest.raises(ConfigurationError, match="no block 'postgres/nowhere'"):
        await shop.run("full", source={"connection": "postgres/nowhere"})


async def test_a_connection_cut_in_the_middle_heals(shop: Shop, postgres_wire: TcpProxy) -> None:
    """A COPY that is cut is read again, under the same snapshot or a new plan."""
    block = shop.block(port=postgres_wire.port, tls="disable")
    postgres_wire.cut_after(2_000_000)
    assert (await shop.run("full", block=block))["committed"]
    await shop.assert_sound("full")


@pytest.mark.parametrize("mode", ["full", "incremental"])
async def test_all_connections_cut_at_once_heal(shop: Shop, postgres_wire: TcpProxy, mode: str) -> None:
    """Readers and the holder of their snapshot are lost together: the run plans again and commits every row once."""
    block = shop.block(port=postgres_wire.port, tls="disable")
    for size in (100_000, 3_000_000):
        postgres_wire.cut_after(size)
        assert (await shop.run(mode, block=block, partitions=2))["committed"]
        await shop.add(500)
    await shop.run(mode)
    await shop.assert_sound(mode)


async def test_a_server_restart_in_the_middle_heals(shop: Shop, s3_faults: FaultProxy) -> None:
    """The snapshot is lost with the server: the run plans again."""

    def restart(_request: Request) -> None:
        shop.server.kill()
        shop.server.restart()

    s3_faults.before(Call(restart), method="PUT", path="/data/")
    assert (await shop.run("full", shop.destination(s3_faults.endpoint), partitions=2, parallel=1))["committed"]
    await shop.assert_sound("full")


async def _log(shop: Shop, work: Any) -> Any:
    async with shop.destination().client() as client:
        return await work(CommitLog(client, shop.destination(), shop.name))


async def test_a_deleted_block_is_rebuilt(shop: Shop) -> None:
    """The bucket knows the watermark; the next run goes on from there."""
    await shop.run("incremental")
    await _delete(shop.name)
    await shop.add(5)
    assert (await shop.run("incremental"))["rows"] == 5
    await shop.assert_sound("incremental")


async def _delete(name: str) -> None:
    from prefect.client.orchestration import get_client

    async with get_client() as client:
        document = await client.read_block_document_by_name(name, "watermark")
        await client.delete_block_document(document.id)


async def test_a_block_behind_the_bucket_moves_forward(shop: Shop) -> None:
    """A run that died between its commit and its block save is made up for."""
    await shop.run("incremental")
    old = await Watermark.of(shop.name)
    await shop.add(5)
    await shop.run("incremental")
    assert old is not None
    await old.put()
    await shop.add(7)
    assert (await shop.run("incremental"))["sequence"] == 3
    await shop.assert_sound("incremental")


async def test_a_block_ahead_of_the_bucket_stops_the_run(shop: Shop) -> None:
    """A commit that is gone is not guessed at: the choices are named, and each of them helps."""
    await shop.run("incremental")
    mark = await Watermark.of(shop.name)
    assert mark is not None
    mark.sequence = 9
    await mark.put()
    with pytest.raises(PositionLost, match=r"(?s)commit 9.*state rebuild.*state set"):
        await shop.run("incremental")
    await _log(shop, lambda log: set_position(log, {"cursor": "id", "value": "2990"}, note="by hand"))
    assert (await shop.run("incremental"))["rows"] == 10


async def test_an_edited_block_stops_the_run(shop: Shop) -> None:
    """A position edited by hand in the UI is not taken silently."""
    await shop.run("incremental")
    mark = await Watermark.of(shop.name)
    assert mark is not None
    mark.position = {"cursor": "id", "value": "1"}
    await mark.put()
    with pytest.raises(PositionLost, match="edited by hand"):
        await shop.run("incremental")


async def test_a_hole_in_the_commits_stops_the_run(shop: Shop) -> None:
    """A commit that somebody removed is named."""
    for _ in range(3):
        await shop.run("incremental")
        await shop.add(3)
    await _delete(shop.name)
    async with shop.destination().client() as client:
        log = CommitLog(client, shop.destination(), shop.name)
        await client.delete_object(Bucket=shop.bucket, Key=log.key(2))
    with pytest.raises(PositionLost, match="commit 2 is missing"):
        await shop.run("incremental")


async def test_rewind_goes_back_by_a_commit(shop: Shop) -> None:
    """Rows after the commit that was rewound to come again; the log keeps all that happened."""
    await shop.run("incremental")
    await shop.add(5)
    await shop.run("incremental")
    await _log(shop, lambda log: rewind(log, 1))
    outcome = await shop.run("incremental")
    assert (outcome["sequence"], outcome["rows"]) == (4, 5)
    assert [commit.kind for commit in await shop.commits()] == ["extract", "extract", "set", "extract"]


async def test_one_stream_that_fails_does_not_stop_the_others(shop: Shop, prefect_server: PrefectServer) -> None:
    """extract_all fails at the end, and its message says which stream and why."""
    assert prefect_server.running
    parameters = await shop.save()
    broken = {**parameters, "stream": f"{shop.name}-b", "source": {**parameters["source"], "table": "public.nowhere"}}
    streams = [Stream.model_validate(broken), Stream.model_validate(parameters)]
    state = await extract_all(streams=streams, return_state=True)
    assert state.is_failed()
    assert f"1 of 2 stream(s) failed: {shop.name}-b" in str(state.message)
    assert "public.nowhere" in str(state.message)
    await shop.assert_sound("full")
