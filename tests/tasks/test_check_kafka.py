"""What `headrace check` and `headrace discover` say of topics on a real broker."""

from __future__ import annotations

import re
from typing import Any

from tasks import check_kafka, discover
from tasks.extractors.catalog import deployment
from tasks.extractors.contract import ReadOptions
from tests.servers.kafka import KafkaServer
from tests.tasks.extractors.kafka import a_capture, block_of, secured_block_of, topics


async def told(source: Any) -> list[str]:
    return [
        f"{finding.level}: {finding.text}" async for finding in check_kafka.look(source, ReadOptions(mode="changes"))
    ]


async def test_topics_that_can_be_read(kafka_server: KafkaServer) -> None:
    """The brokers, the topics, how long they keep messages, and whether these are what the format says."""
    topic = kafka_server.topic(partitions=2)
    kafka_server.send(topic, b'{"a": 1}', b'{"a": 2}', partition=1)
    found = await told(topics(kafka_server, topic, connection=secured_block_of(kafka_server)))
    assert [line.partition(":")[0] for line in found] == ["ok"] * 4
    assert "TLS (verify-full)" in found[0]
    assert f"1 topic(s), 2 partition(s), up to 2 messages: {topic}" in found[1]
    assert found[2].endswith("keeps its messages for good")
    assert found[3].endswith(f"can be read; 2 message(s) are json: {topic}")


async def test_what_would_go_wrong(kafka_server: KafkaServer) -> None:
    """Short retention and compaction are warnings, messages of another format an error, or a warning with dead letters."""
    short = kafka_server.topic(retention_ms="3600000")
    compacted = kafka_server.topic(cleanup_policy="compact")
    kafka_server.send(compacted, b"no json", key="k")
    found = await told(topics(kafka_server, short, compacted))
    assert any(line.startswith("warning") and "for 1.0 hours" in line for line in found)
    assert any(line.startswith("warning") and "is compacted" in line for line in found)
    assert any(line.startswith("error") and "it is not JSON" in line for line in found)
    lenient = await told(topics(kafka_server, compacted, undecodable="dead-letter"))
    assert any(line.startswith("warning") and "it is not JSON" in line for line in lenient)
    assert not any(line.startswith("error") for line in lenient)


async def test_topics_that_are_not_there_yet(kafka_server: KafkaServer) -> None:
    """Of a stream with a connector of its own they are a warning, with the commands that make and show it."""
    topic = kafka_server.topic()
    found = [
        line
        async for line in check_kafka.look(
            topics(kafka_server, f"{topic}.*", capture=a_capture()), ReadOptions(mode="changes")
        )
    ]
    assert [line.level for line in found] == ["ok", "warning"]
    assert "headrace cdc enable" in found[1].way_out
    found = [
        line
        async for line in check_kafka.look(
            topics(kafka_server, f"{topic}.a", topic, capture=a_capture()), ReadOptions(mode="changes")
        )
    ]
    assert f"1 topic(s), 1 partition(s), up to 0 messages: {topic}" in found[2].text


async def test_what_a_cluster_holds(kafka_server: KafkaServer) -> None:
    """Topics with how many messages they hold and of which format they seem to be, as deployments to paste."""
    prefix = kafka_server.topic() + "."
    event = b'{"before": null, "after": {"id": 1}, "op": "c", "source": {}}'
    wrapped = b'{"schema": {}, "payload": ' + event + b"}"
    for name, value, looks in (
        ("json", b'{"a": 1}', "json"),
        ("text", b"plain", "text"),
        ("raw", b"\xff\xfe", "bytes"),
        ("event", event, "debezium"),
        ("wrapped", wrapped, "debezium"),
        ("avro", b"\0\0\0\0\1\2", "debezium"),
    ):
        topic = kafka_server.topic(prefix + name, partitions=2)
        kafka_server.send(topic, *[value] * 30)
        found = await discover.tables(block_of(kafka_server), like=topic)
        assert [(one.written, one.rows, one.bytes) for one in found] == [(topic, 30, 30 * len(value))]
        shown = re.fullmatch(rf"2 partition\(s\), offsets 0-(\d+) 0-(\d+), looks like {looks}", found[0].told)
        assert shown is not None
        assert sum(map(int, shown.groups())) == 30
        yaml = deployment(found[0], "s", "kafka/events", "s3-destination/lake")
        assert f'topics: ["{topic}"]\n        format: {looks}' in yaml
        assert "mode: changes" in yaml
    assert len(await discover.tables(block_of(kafka_server), like=f"{prefix}*")) == 6
