"""Topics of a real broker: each message once, whatever happens to offsets between two runs."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from aws_msk_iam_sasl_signer import MSKAuthTokenProvider
from confluent_kafka import Consumer, TopicPartition

from blocks.errors import ConfigurationError, PositionLost, SnapshotLost
from blocks.s3 import CsvDialect
from tasks.extractors.contract import Behind, Limits, Output, ReadOptions, Records, TellsBehind
from tasks.extractors.kafka import consumer
from tasks.extractors.kafka.debezium.decoder import SEEN_BEFORE
from tasks.extractors.kafka.decoding import UndecodableError
from tasks.extractors.kafka.source import KafkaTopics
from tests.servers import oauth
from tests.servers.kafka import KafkaServer
from tests.tasks.extractors.kafka import a_capture, block_of, captured, run, secured_block_of, topics


def send(server: KafkaServer, topic: str, *values: bytes | str | None, **arguments: Any) -> None:
    server.send(topic, *values, **arguments)


async def text_run(server: KafkaServer, topic: str, since: Any = None, **fields: Any) -> tuple[list[str], Any]:
    """The values that a run brings, and where it has come to."""
    made = await run(topics(server, topic, format="text", **fields), since)
    return made.values(), made.until


# -- windows -----------------------------------------------------------------------------------------------------------


async def test_each_message_once(kafka_server: KafkaServer) -> None:
    """A run brings what came since the one before, of all partitions, and nothing twice."""
    topic = kafka_server.topic(partitions=3)
    send(kafka_server, topic, *(f"a{number}" for number in range(100)))
    first, since = await text_run(kafka_server, topic)
    assert first == sorted(f"a{number}" for number in range(100))
    source = topics(kafka_server, topic, format="text")
    again = await run(source, since)
    assert (again.plan.partitions, again.until) == ((), since)
    extractor = source.open(ReadOptions(mode="changes"))
    assert isinstance(extractor, TellsBehind)
    assert await extractor.behind(since) == Behind(seconds=0, bytes=0, rows=0)
    send(kafka_server, topic, "b1", "b2", key="one key, one partition")
    assert await extractor.behind(since) == Behind(rows=2)
    assert (await text_run(kafka_server, topic, since))[0] == ["b1", "b2"]


async def test_positions_sort_in_the_order_of_the_partition(kafka_server: KafkaServer) -> None:
    """``_position`` is unique, and its order as text is that of the messages."""
    topic = kafka_server.topic()
    send(kafka_server, topic, *map(str, range(12)))
    rows = (await run(topics(kafka_server, topic, format="text"))).all
    assert [row["value"] for row in sorted(rows, key=lambda row: row["_position"])] == [str(n) for n in range(12)]
    assert len({row["_position"] for row in rows}) == 12


async def test_topics_by_pattern(kafka_server: KafkaServer) -> None:
    """Wildcards name topics, a leading minus leaves some out; each topic is a table of its own."""
    prefix = kafka_server.topic() + "."
    for name in ("a", "b", "c"):
        send(kafka_server, kafka_server.topic(prefix + name), name)
    made = await run(topics(kafka_server, f"{prefix}*", f"-{prefix}b", format="text"))
    assert {table: [row["value"] for row in rows] for table, rows in made.rows.items()} == {
        f"{prefix}a": ["a"],
        f"{prefix}c": ["c"],
    }


async def test_new_partitions_and_topics_are_picked_up(kafka_server: KafkaServer) -> None:
    """What is added between two runs is read from its first message on, also where the stream began at the end."""
    prefix = kafka_server.topic() + "."
    topic = kafka_server.topic(prefix + "a")
    send(kafka_server, topic, "old")
    source = topics(kafka_server, f"{prefix}*", format="text", start="latest")
    since = (await run(source)).until
    kafka_server.add_partitions(topic, 3)
    send(kafka_server, topic, "p2", partition=2)
    send(kafka_server, kafka_server.topic(prefix + "b"), "b")
    made = await run(source, since)
    assert made.values() == ["b", "p2"]
    assert (await run(source, made.until)).all == []


async def test_where_a_stream_begins(kafka_server: KafkaServer) -> None:
    """At the first message, at the end, at a time, or at offsets; the place is kept though nothing was read there."""
    for start, values in {
        "earliest": ["p0-0", "p0-1", "p1-0"],
        "latest": [],
        "2025-01-31 12:00:00+00": ["p1-0"],
        "2023-11-14T22:13:20": ["p0-0", "p0-1", "p1-0"],
        "2100-01-01": [],
        "0:1": ["p0-1", "p1-0"],
        "0:2, 1:1": [],
        "1": ["p0-1"],
    }.items():
        topic = kafka_server.topic(partitions=2)
        send(kafka_server, topic, "p0-0", "p0-1", partition=0, timestamp=1_700_000_000_000)
        send(kafka_server, topic, "p1-0", partition=1, timestamp=1_750_000_000_000)
        found, since = await text_run(kafka_server, topic, start=start)
        assert found == values, start
        send(kafka_server, topic, "later", partition=0)
        assert (await text_run(kafka_server, topic, since, start=start))[0] == ["later"]


@pytest.mark.parametrize("start", ["0:99", "9:0", "yesterday", "-1", "0:1:2"])
async def test_a_start_that_is_none_is_named(kafka_server: KafkaServer, start: str) -> None:
    """An offset that the topic does not hold, or what is no place at all, is an error of the field."""
    with pytest.raises(ConfigurationError, match="field start"):
        await text_run(kafka_server, kafka_server.topic(), start=start)


async def test_an_unknown_topic_is_named(kafka_server: KafkaServer) -> None:
    """A misspelt name, a pattern that fits nothing, and nothing but exclusions are errors of the field."""
    topic = kafka_server.topic()
    for names in (["tpoic"], ["no-such-*"], [f"-{topic}"]):
        with pytest.raises(ConfigurationError, match="field topics"):
            await run(topics(kafka_server, *names))


async def test_topics_that_the_streams_connector_will_make(kafka_server: KafkaServer) -> None:
    """They are waited for, and read from their first message; one that was there and is gone is an error all the same."""
    prefix = kafka_server.topic() + "."
    one, other = f"{prefix}one", f"{prefix}other"
    source = topics(kafka_server, one, other, format="text", capture=a_capture())
    nothing = await run(source)
    assert (nothing.plan.partitions, nothing.plan.until) == ((), None)
    assert f"{one}, {other} yet" in nothing.plan.notes[0]
    with pytest.raises(ConfigurationError, match="field topics"):  # which are the latest is not known yet
        await run(topics(kafka_server, one, other, format="text", capture=a_capture(), start="latest"))
    send(kafka_server, kafka_server.topic(one), "a")
    first = await run(source)
    assert first.values() == ["a"]
    assert f"{other} yet" in first.plan.notes[0]
    send(kafka_server, kafka_server.topic(other), "b")
    second = await run(source, first.until)
    assert (second.values(), second.plan.notes) == (["b"], ())
    kafka_server.drop(one)
    with pytest.raises(PositionLost, match=f"topic {one} was deleted"):
        await run(source, second.until)


async def test_what_is_asked_for_has_a_digest(kafka_server: KafkaServer) -> None:
    """Other topics, another format or dialect are another question; limits are none."""
    options = ReadOptions(mode="changes")
    asked = [
        topics(kafka_server, "a").open(options).asked,
        topics(kafka_server, "b").open(options).asked,
        topics(kafka_server, "a", format="text").open(options).asked,
        topics(kafka_server, "a").open(ReadOptions(mode="changes", dialect=CsvDialect(null="NULL"))).asked,
    ]
    assert len(set(asked)) == 4
    limited = topics(kafka_server, "a").open(ReadOptions(mode="changes", limits=Limits(rows=1)))
    assert limited.asked == asked[0]


async def test_limits_end_a_run_within_its_window(kafka_server: KafkaServer) -> None:
    """A run that has read enough stops, the next one goes on there, and no partition starves."""
    topic = kafka_server.topic(partitions=3)
    for partition in range(3):
        send(kafka_server, topic, *(f"{partition}-{n:04d}" for n in range(1500)), partition=partition)
    source = topics(kafka_server, topic, format="text")
    since, found, runs = None, [], 0
    while True:
        made = await run(source, since, limits=Limits(rows=1000))
        if not made.plan.partitions:
            break
        assert made.all
        found += made.values()
        since, runs = made.until, runs + 1
    assert sorted(found) == [f"{partition}-{n:04d}" for partition in range(3) for n in range(1500)]
    assert runs >= 3


# -- what stands between messages --------------------------------------------------------------------------------------


async def test_aborted_transactions_leave_holes(kafka_server: KafkaServer) -> None:
    """Aborted messages are not read; their places and the markers of transactions are passed over, at the end too."""
    topic = kafka_server.topic()
    producer = kafka_server.producer(**{"transactional.id": f"writer-of-{topic}"})
    producer.init_transactions(30)
    since, expected, found = None, [], []
    for round_ in range(6):
        for end in ("commit", "abort"):
            producer.begin_transaction()
            values = [f"{round_}-{end}-{n}" for n in range(3)]
            for value in values:
                producer.produce(topic, value)
            producer.flush(30)
            if end == "commit":
                producer.commit_transaction(30)
                expected += values
            else:
                producer.abort_transaction(30)
        if round_ % 2:
            values, since = await text_run(kafka_server, topic, since)
            found += values
    assert found == expected
    assert (await run(topics(kafka_server, topic, format="text"), since)).plan.partitions == ()


async def test_an_open_transaction_is_waited_for(kafka_server: KafkaServer) -> None:
    """A run ends before the first transaction that is not decided, and brings none of what may be aborted."""
    topic = kafka_server.topic()
    producer = kafka_server.producer(**{"transactional.id": f"writer-of-{topic}"})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, "open")
    producer.flush(30)
    send(kafka_server, topic, "behind it")
    found, since = await text_run(kafka_server, topic)
    assert found == []
    producer.commit_transaction(30)
    assert (await text_run(kafka_server, topic, since))[0] == ["behind it", "open"]


async def test_compaction_of_a_planned_window(kafka_server: KafkaServer) -> None:
    """A window whose messages, its last one too, are compacted away before it is read ends where it was to end."""
    topic = kafka_server.topic(
        cleanup_policy="compact", segment_ms="100", min_cleanable_dirty_ratio="0.001", max_compaction_lag_ms="200"
    )
    send(kafka_server, topic, *(f"v{number}" for number in range(50)), key="k")
    source = topics(kafka_server, topic, format="text")
    async with source.open(ReadOptions(mode="changes")) as extractor:
        plan = await extractor.plan(None)
        async with asyncio.timeout(60):
            while (made := await captured(extractor, plan)).all:
                send(kafka_server, topic, "after", key="k")
                await asyncio.sleep(0.3)
    assert set((await run(source, made.until)).values()) == {"after"}


async def test_compaction_leaves_holes(kafka_server: KafkaServer) -> None:
    """Messages that a later one of the same key replaced are gone, and a run from before them reads what is left."""
    topic = kafka_server.topic(
        cleanup_policy="compact", segment_ms="100", min_cleanable_dirty_ratio="0.001", max_compaction_lag_ms="200"
    )
    send(kafka_server, topic, "start", key="s")
    _, since = await text_run(kafka_server, topic)
    for number in range(50):
        send(kafka_server, topic, f"v{number}", key="k")
    send(kafka_server, topic, "last", key="l")
    for _ in range(100):
        await asyncio.sleep(0.3)
        send(kafka_server, topic, "roll", key="r")
        found, _ = await text_run(kafka_server, topic, since)
        if found.count("roll") < 3 and "v0" not in found:
            break
    assert "v49" in found
    assert "last" in found
    assert len(found) < 50


async def test_tombstones_are_deletions(kafka_server: KafkaServer) -> None:
    """A message without a value is a record with _op D and the key."""
    topic = kafka_server.topic()
    send(kafka_server, topic, b'{"a": 1}', None, key="k")
    rows = (await run(topics(kafka_server, topic, fields=[{"name": "a", "type": "integer"}]))).all
    assert [(row["_op"], row["_key"], row["a"]) for row in rows] == [("I", "k", "1"), ("D", "k", "")]


# -- positions that are lost -------------------------------------------------------------------------------------------


def proposed(lost: PositionLost) -> Any:
    """The position that the error proposes to go on with."""
    return json.loads(str(lost).split("state set STREAM '")[1].split("'")[0])


async def test_retention_that_overtakes_the_watermark_is_told(kafka_server: KafkaServer) -> None:
    """Messages that were removed before they were read are an error that says which, and how to go on."""
    topic = kafka_server.topic(partitions=2)
    send(kafka_server, topic, *(f"old-{n}" for n in range(5)), partition=0)
    _, since = await text_run(kafka_server, topic)
    send(kafka_server, topic, *(f"lost-{n}" for n in range(5)), partition=0)
    send(kafka_server, topic, "kept", partition=0)
    send(kafka_server, topic, "other", partition=1)
    for done in (admin := kafka_server.admin).delete_records([TopicPartition(topic, 0, 10)]).values():
        done.result(30)
    del admin
    with pytest.raises(PositionLost, match=r"\[0\]: offsets 5 to 9 were removed by retention.*Choose") as lost:
        await text_run(kafka_server, topic, since)
    assert (await text_run(kafka_server, topic, proposed(lost.value)))[0] == ["kept", "other"]


async def test_retention_by_time_that_overtakes_the_watermark_is_told(kafka_server: KafkaServer) -> None:
    """The same of messages that the broker itself removed, as they were too old."""
    topic = kafka_server.topic(retention_ms="1000", segment_ms="100")
    send(kafka_server, topic, "old")
    _, since = await text_run(kafka_server, topic)
    async with asyncio.timeout(60):
        for number in range(1_000):
            send(kafka_server, topic, f"{number}")
            try:
                await text_run(kafka_server, topic, since)
            except PositionLost as error:
                lost = error
                break
            except SnapshotLost:  # removed between this run's plan and its read: the next plan tells it
                pass
            await asyncio.sleep(0.3)
    assert "offsets 1 to" in str(lost)
    assert "were removed by retention" in str(lost)
    send(kafka_server, topic, "last")
    assert "last" in (await text_run(kafka_server, topic, proposed(lost)))[0]


def removed(server: KafkaServer, topic: str, partition: int, before: int) -> None:
    """Offsets that are taken away, as retention does."""
    for done in (admin := server.admin).delete_records([TopicPartition(topic, partition, before)]).values():
        done.result(30)
    del admin


async def test_retention_that_overtakes_a_new_partition_is_told(kafka_server: KafkaServer) -> None:
    """All of its messages came after the run before: those that are gone were lost."""
    topic = kafka_server.topic()
    send(kafka_server, topic, "old")
    _, since = await text_run(kafka_server, topic)
    kafka_server.add_partitions(topic, 2)
    send(kafka_server, topic, *(f"p1-{n}" for n in range(4)), partition=1)
    removed(kafka_server, topic, 1, 3)
    with pytest.raises(PositionLost, match=r"\[1\]: offsets 0 to 2 were removed by retention.*Choose") as lost:
        await text_run(kafka_server, topic, since)
    assert (await text_run(kafka_server, topic, proposed(lost.value)))[0] == ["p1-3"]


async def test_a_new_topic_whose_first_messages_are_gone_is_noted(kafka_server: KafkaServer) -> None:
    """It may be older than the stream: what is left is read, and the plan says what is not, once."""
    prefix = kafka_server.topic() + "."
    send(kafka_server, kafka_server.topic(f"{prefix}a"), "old")
    source = topics(kafka_server, f"{prefix}*", format="text")
    since = (await run(source)).until
    new, whole = kafka_server.topic(f"{prefix}b"), kafka_server.topic(f"{prefix}c")
    send(kafka_server, new, "b0", "b1", "b2")
    send(kafka_server, whole, "c0")
    removed(kafka_server, new, 0, 2)
    made = await run(source, since)
    assert made.values() == ["b2", "c0"]
    (note,) = made.plan.notes
    assert note.startswith(f"{new} [0] is new to the stream, and its offsets 0 to 1 were removed")
    send(kafka_server, new, "b3")
    again = await run(source, made.until)
    assert (again.values(), again.plan.notes) == (["b3"], ())


async def test_retention_while_a_plan_is_read_is_told(kafka_server: KafkaServer) -> None:
    """Offsets of a plan that are not there any more make the run plan anew, which tells what was lost."""
    topic = kafka_server.topic()
    send(kafka_server, topic, *(f"{n}" for n in range(5)))
    source = topics(kafka_server, topic, format="text")
    async with source.open(ReadOptions(mode="changes")) as extractor:
        plan = await extractor.plan(None)
        for done in (admin := kafka_server.admin).delete_records([TopicPartition(topic, 0, 3)]).values():
            done.result(30)
        del admin
        with pytest.raises(SnapshotLost):
            await captured(extractor, plan)


async def test_a_topic_made_anew_is_told(kafka_server: KafkaServer) -> None:
    """Offsets of a topic that was deleted mean nothing in another of its name, though they are there."""
    topic = kafka_server.topic()
    send(kafka_server, topic, "a", "b")
    source = topics(kafka_server, topic, format="text")
    made = await run(source)
    kafka_server.drop(topic)
    await asyncio.sleep(0.5)
    kafka_server.topic(topic)
    send(kafka_server, topic, "c", "d", "e")
    with pytest.raises(PositionLost, match="made anew") as lost:
        await run(source, made.until)
    assert (await run(source, proposed(lost.value))).values() == ["c", "d", "e"]
    async with source.open(ReadOptions(mode="changes")) as extractor:
        with pytest.raises(SnapshotLost, match="made anew"):
            await captured(extractor, made.plan)


async def test_a_topic_that_is_gone_is_told(kafka_server: KafkaServer) -> None:
    """A topic that a pattern brought and that was deleted is an error; one that is left out is not."""
    prefix = kafka_server.topic() + "."
    for name in ("a", "b"):
        send(kafka_server, kafka_server.topic(prefix + name), name)
    since = (await run(topics(kafka_server, f"{prefix}*", format="text"))).until
    kafka_server.drop(f"{prefix}a")
    await asyncio.sleep(0.5)
    with pytest.raises(PositionLost, match=r"a was deleted"):
        await run(topics(kafka_server, f"{prefix}*", format="text"), since)
    left = topics(kafka_server, f"{prefix}*", f"-{prefix}a", format="text")
    assert (await run(left, since)).all == []


# -- what goes wrong ---------------------------------------------------------------------------------------------------


async def test_a_failing_destination_stops_the_read(kafka_server: KafkaServer) -> None:
    """The destination's own error comes out, and the partition can be read again."""
    topic = kafka_server.topic()
    send(kafka_server, topic, "a", "b")
    async with topics(kafka_server, topic, format="text").open(ReadOptions(mode="changes")) as extractor:
        plan = await extractor.plan(None)

        async def fail(_output: Output, _records: Records) -> None:
            raise ZeroDivisionError("destination")

        with pytest.raises(ZeroDivisionError, match="destination"):
            await extractor.capture(plan, plan.partitions[0], fail)
        assert (await captured(extractor, plan)).values() == ["a", "b"]


async def test_a_cancelled_read_ends_at_once(kafka_server: KafkaServer) -> None:
    """A read that is cancelled while its destination waits, or while nothing comes, ends within seconds."""
    topic = kafka_server.topic()
    send(kafka_server, topic, "a")
    async with topics(kafka_server, topic, format="text").open(ReadOptions(mode="changes")) as extractor:
        plan = await extractor.plan(None)
        far = plan.partitions[0].model_copy(update={"upper": 1_000_000})
        for partition in (plan.partitions[0], far):
            begun = asyncio.Event()

            async def emit(
                _output: Output, _records: Records, begun: asyncio.Event = begun, stall: bool = partition is not far
            ) -> None:
                begun.set()
                if stall:
                    await asyncio.sleep(3600)

            reading = asyncio.create_task(extractor.capture(plan, partition, emit))
            await begun.wait()
            await asyncio.sleep(0.1)
            reading.cancel()
            cancelled = time.monotonic()
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert time.monotonic() - cancelled < 5


async def test_a_broker_that_is_killed_is_waited_for(kafka_server: KafkaServer) -> None:
    """A read goes on when the broker is back, and brings everything once."""
    topic = kafka_server.topic()
    send(kafka_server, topic, *(f"{n:05d}" + "x" * 1000 for n in range(30_000)))
    async with topics(kafka_server, topic, format="text").open(ReadOptions(mode="changes")) as extractor:
        plan = await extractor.plan(None)
        values: list[bytes] = []
        killed: list[asyncio.Future[None]] = []

        async def emit(_output: Output, records: Records) -> None:
            if not killed:
                await asyncio.to_thread(kafka_server.kill)
                killed.append(asyncio.ensure_future(asyncio.to_thread(kafka_server.restart)))
            values.extend(line.rpartition(b",")[2][:5] for line in records.data.splitlines())

        await extractor.capture(plan, plan.partitions[0], emit)
        await killed[0]
    assert values == [b"%05d" % n for n in range(30_000)]


async def test_messages_that_cannot_be_decoded(kafka_server: KafkaServer) -> None:
    """They stop the run, or go to the dead letters with the reason, and are counted."""
    topic = kafka_server.topic()
    send(kafka_server, topic, b'{"a": 1}', b"no json", b'{"a": 2}', b"\xff\xfe{", b'{"a": 3}', key="k")
    fields = {"fields": [{"name": "a", "type": "integer"}]}
    with pytest.raises(UndecodableError, match=rf"message 1 of {topic} \[0\]: it is not JSON"):
        await run(topics(kafka_server, topic, **fields))
    made = await run(topics(kafka_server, topic, undecodable="dead-letter", **fields))
    assert [row["a"] for row in made.rows[topic]] == ["1", "2", "3"]
    dead = made.rows["_dead_letters"]
    assert [(row["_offset"], row["encoding"], row["key"], row["value"]) for row in dead] == [
        ("1", "text", "k", "no json"),
        ("3", "hex", "6b", "fffe7b"),
    ]
    assert all("JSON" in row["reason"] for row in dead)
    assert made.counted["undecodable, in the dead letters"] == 2


async def test_documents_become_columns(kafka_server: KafkaServer) -> None:
    """Declared columns, the rest in _extra, parts of the message beside them; NULL and the empty string stay apart."""
    topic = kafka_server.topic()
    document = {"id": 12345678901234567890, "note": "", "at": {"city": 'a,"b"'}, "left": None}
    send(
        kafka_server,
        topic,
        json.dumps(document),
        key="ключ",
        headers={"h": b"1", "raw": b"\xff"},
        timestamp=1_700_000_000_123,
    )
    source = topics(
        kafka_server,
        topic,
        fields=[
            {"name": "id", "type": "integer"},
            {"name": "note"},
            {"name": "city", "path": "at.city"},
            {"name": "none"},
        ],
        parts=["key", "timestamp", "partition", "offset", "topic", "headers"],
    )
    made = await run(source)
    assert made.all == [
        {
            "_op": "I", "_committed_at": "2023-11-14 22:13:20.123+00", "_position": f"{topic}-00000-{0:020d}-0000",
            "_unchanged": "", "_key": "ключ", "_timestamp": "2023-11-14 22:13:20.123+00", "_partition": "0", "_offset": "0",
            "_topic": topic, "_headers": '[["h","1"],["raw",{"hex":"ff"}]]',
            "id": "12345678901234567890", "note": "", "city": 'a,"b"', "none": "", "_extra": '{"left":null}',
        }
    ]  # fmt: skip
    assert b',"","a,""b""",,' in made.data


async def test_tables_of_any_name_have_folders_of_their_own(kafka_server: KafkaServer) -> None:
    """Names that differ in letters alone that no folder has are told apart; others are folders as they are."""
    topic, tables = kafka_server.topic(), ("orders", "заказы", "товары", "order lines", "order-lines")
    for table in tables:
        source = {"connector": "postgresql", "name": "pg", "schema": "public", "table": table}
        send(
            kafka_server, topic, json.dumps({"before": None, "after": {"id": 1}, "source": source, "op": "c"}), key="1"
        )
    made = await run(topics(kafka_server, topic, format="debezium"))
    folders = {table: made.outputs[f"public.{table}"].name for table in tables}
    assert (folders["orders"], folders["order-lines"]) == ("public.orders", "public.order-lines")
    assert len(set(folders.values())) == len(tables)
    assert all(folder.isascii() and " " not in folder for folder in folders.values())


async def test_what_no_record_follows_is_counted_too(kafka_server: KafkaServer) -> None:
    """Events that are left out at the end of a run, behind records or where there are none, and a transaction's boundary."""
    topic = kafka_server.topic()
    source = {"connector": "postgresql", "name": "pg", "schema": "public", "table": "t", "ts_ms": 1}

    def event(lsn: int) -> str:
        place = {"lsn": lsn, "sequence": json.dumps([None, str(lsn)])}
        return json.dumps({"before": None, "after": {"id": lsn}, "source": source | place, "op": "c"})

    boundary = json.dumps({"status": "END", "id": "7", "ts_ms": 1, "event_count": 1, "data_collections": []})
    events = topics(kafka_server, topic, format="debezium")
    send(kafka_server, topic, event(1), event(2), event(1), event(2), boundary, key="1")
    made = await run(events)
    assert [row["id"] for row in made.all] == ["1", "2"]
    boundaries = "transaction boundaries, passed over"
    assert made.counted == {SEEN_BEFORE: 2, boundaries: 1}
    send(kafka_server, topic, event(2), boundary, key="1")
    again = await run(events, made.until)
    assert (again.all, again.counted) == ([], {SEEN_BEFORE: 1, boundaries: 1})


async def test_bytes_are_written_as_the_dialect_says(kafka_server: KafkaServer) -> None:
    """Hex or base64; empty is not NULL."""
    topic = kafka_server.topic()
    send(kafka_server, topic, b"\x00\xff", b"", key=b"\xfe")
    source = topics(kafka_server, topic, format="bytes", key_format="bytes")
    assert (await run(source)).data.splitlines()[0].endswith(b",,fe,00ff")
    assert (await run(source)).data.splitlines()[1].endswith(b',,fe,""')
    encoded = await run(source, dialect=CsvDialect(binary="base64", null="-"))
    assert encoded.data.splitlines()[0].endswith(b",-,/g==,AP8=")


async def test_timestamps_past_the_year_9999(kafka_server: KafkaServer) -> None:
    """Of a producer that gives microseconds: the message comes, with the time that it says, as a dead letter too."""
    topic = kafka_server.topic(message_timestamp_after_max_ms=str((1 << 63) - 1))
    for timestamp in (253_402_300_799_999, 1_700_000_000_123_000):
        send(kafka_server, topic, "a", timestamp=timestamp)
    texts = ["9999-12-31 23:59:59.999+00", "55840-11-08 22:15:23.000+00"]
    for format_ in ("text", "json"):
        made = await run(topics(kafka_server, topic, format=format_, undecodable="dead-letter"))
        assert [row["_committed_at"] for row in made.all] == texts


async def test_options_of_the_client_win(kafka_server: KafkaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What tunes the client can be set otherwise; an option that would have no effect is refused by the block."""
    given: list[dict[str, Any]] = []

    def made(config: dict[str, Any]) -> Any:
        given.append(config)
        return Consumer(config)

    monkeypatch.setattr(consumer, "Consumer", made)
    options = {"fetch.wait.max.ms": "7", "queued.max.messages.kbytes": "2048"}
    topic = kafka_server.topic()
    send(kafka_server, topic, "a")
    found, _ = await text_run(kafka_server, topic, connection=block_of(kafka_server, client_options=options))
    assert found == ["a"]
    assert options.items() <= given[0].items()
    assert (given[0]["check.crcs"], given[0]["isolation.level"]) == (True, "read_committed")


async def test_large_messages_come_a_few_at_a_time(kafka_server: KafkaServer) -> None:
    """What is held of messages of a megabyte is bounded, also where tiny ones went before, and they all come."""
    topic = kafka_server.topic(max_message_bytes="2000000")
    kafka_server_producer = kafka_server.producer(**{"message.max.bytes": 2_000_000})
    for _ in range(20_000):
        kafka_server_producer.produce(topic, b"tiny")  # after which a batch is as many as it may be
        kafka_server_producer.poll(0)
    for number in range(200):
        kafka_server_producer.produce(topic, f"{number:03d}".encode() + b"x" * 1_000_000)
        kafka_server_producer.poll(0)
    assert kafka_server_producer.flush(60) == 0
    sizes: list[int] = []
    async with topics(kafka_server, topic, format="text").open(ReadOptions(mode="changes")) as extractor:
        plan = await extractor.plan(None)

        async def emit(_output: Output, records: Records) -> None:
            sizes.append(len(records.data))

        await extractor.capture(plan, plan.partitions[0], emit)
    assert sum(sizes) > 200_000_000
    assert max(sizes) < 40 << 20


# -- the connection ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sasl", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_a_log_in_over_tls(kafka_server: KafkaServer, sasl: str) -> None:
    """Topics are read over TLS, whose certificate is checked, by each way to log in."""
    topic = kafka_server.topic()
    send(kafka_server, topic, "a")
    source = topics(kafka_server, topic, format="text", connection=secured_block_of(kafka_server, sasl=sasl))
    assert (await run(source)).values() == ["a"]


async def test_a_log_in_by_a_token(kafka_server: KafkaServer) -> None:
    """OAUTHBEARER: the token comes from the block's URL, for the client's id and secret; a wrong secret is told."""
    topic = kafka_server.topic()
    send(kafka_server, topic, "a")
    with oauth.started() as url:
        given = {
            "sasl": "OAUTHBEARER",
            "user": "",
            "password": "",
            "oauth_token_url": url,
            "oauth_client_id": oauth.CLIENT,
        }
        block = secured_block_of(kafka_server, oauth_client_secret=oauth.SECRET, **given)
        assert (await run(topics(kafka_server, topic, format="text", connection=block))).values() == ["a"]
        wrong = secured_block_of(kafka_server, oauth_client_secret="wrong", timeout=5, **given)
        with pytest.raises(ConfigurationError, match=r"the log-in is refused; check .*oauth_") as caught:
            await run(topics(kafka_server, topic, connection=wrong))
    assert "wrong" not in str(caught.value)


async def test_a_log_in_by_a_token_that_aws_signs(kafka_server: KafkaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS_MSK_IAM: what AWS's own library gives is what the broker gets. Its signature needs AWS, so it is left out here."""
    asked: list[str] = []

    def signed(region: str) -> tuple[str, int]:
        asked.append(region)
        return oauth.token("reader"), int((time.time() + 900) * 1000)

    monkeypatch.setattr(MSKAuthTokenProvider, "generate_auth_token", signed)
    topic = kafka_server.topic()
    send(kafka_server, topic, "a")
    block = secured_block_of(kafka_server, sasl="AWS_MSK_IAM", user="", password="", aws_region="eu-central-1")
    assert (await run(topics(kafka_server, topic, format="text", connection=block))).values() == ["a"]
    assert set(asked) == {"eu-central-1"}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"password": "wrong"}, "the log-in is refused; check sasl, and user and password"),
        ({"tls": "verify-full", "tls_ca_file": None}, "TLS cannot be agreed on; check tls and tls_ca_file"),
        ({"tls": "disable", "tls_ca_file": None}, "check bootstrap_servers, tls and sasl"),
        ({"client_options": {"no.such.option": "1"}}, "no.such.option"),
        ({"tls_ca_file": "/no/such/file"}, "the client takes no such option; check client_options and the tls files"),
    ],
)
async def test_what_is_wrong_with_a_connection_is_told(kafka_server: KafkaServer, fields: Any, told: str) -> None:
    """An error names what to mend, and no secret."""
    block = secured_block_of(kafka_server, timeout=5, **fields)
    with pytest.raises((ConfigurationError, ConnectionError), match=told) as caught:
        await run(topics(kafka_server, "a", connection=block))
    assert block.password.get_secret_value() not in f"{caught.value!r} {caught.value.__cause__!r}"


async def test_a_broker_that_is_not_there_is_told() -> None:
    """Nobody listens: an error that may pass, within the block's timeout."""
    from blocks.kafka import Kafka

    begun = time.monotonic()
    source = KafkaTopics(connection=Kafka(bootstrap_servers="127.0.0.1:1", timeout=2), topics=("a",))
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:1 does not answer within 2 s"):
        await run(source)
    assert time.monotonic() - begun < 10


def test_fields_that_do_not_fit(kafka_server: KafkaServer) -> None:
    """Columns of documents need documents, and the names of parts are taken."""
    for fields in ({"format": "text", "fields": [{"name": "a"}]}, {"fields": [{"name": "_key"}]}):
        with pytest.raises(ValueError, match="fields:"):
            KafkaTopics(connection=block_of(kafka_server), topics=("a",), **fields)
    with pytest.raises(ValueError, match=r"debezium\.prefix"):  # a column `id` would be taken for the transaction's
        KafkaTopics(connection=block_of(kafka_server), topics=("a",), format="debezium", debezium={"prefix": ""})
    with pytest.raises(
        ValueError, match="parts: source, transaction is told by events of format debezium alone, not json"
    ):
        KafkaTopics(connection=block_of(kafka_server), topics=("a",), parts=("source", "key", "transaction"))
