"""Debezium events of a topic → CSV: headrace beside the bare consumer and beside aiokafka, json and csv.

``python -m benchmarks.kafka [EVENTS]``.
aiokafka is no dependency of headrace's: `pip install aiokafka` first, or its line is left out.
"""

from __future__ import annotations

import asyncio
import csv
import importlib.util
import io
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable

from confluent_kafka import Consumer, TopicPartition

from blocks.kafka import Kafka
from tasks.extractors.contract import Output, ReadOptions, Records
from tasks.extractors.kafka.source import KafkaTopics
from tests.servers import kafka

TYPES = {
    "id": "bigint",
    "customer": "text",
    "status": "text",
    "price": "numeric(10,2)",
    "at": "timestamp",
    "note": "text",
}
EVENTS = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000


def event(number: int) -> bytes:
    """About 600 bytes, without a schema."""
    row = {
        "id": number,
        "customer": f"customer {number % 9973}",
        "status": "shipped",
        "price": "1234.50",
        "at": 1_700_000_000_000_000 + number,
    }
    row |= {"note": "left at the neighbour's, second floor, behind the door", "tags": '["a","b"]'}
    source = {
        "version": "3.6.1.Final",
        "connector": "postgresql",
        "name": "shop",
        "ts_ms": 1_700_000_000_000,
        "snapshot": "false",
    }
    source |= {
        "db": "shop",
        "sequence": f'["{number}","{number + 1}"]',
        "ts_us": 1_700_000_000_000_000,
        "schema": "public",
    }
    source |= {
        "table": "orders",
        "txId": 700 + number,
        "lsn": number + 1,
        "xmin": None,
        "origin": None,
        "origin_lsn": None,
    }
    made = {"before": None, "after": row, "source": source, "transaction": None, "op": "c", "ts_ms": 1_700_000_000_000}
    return json.dumps(made, separators=(",", ":")).encode()


def fill(server: kafka.KafkaServer, topic: str) -> int:
    """Produce the events; how many bytes one has."""
    producer = server.producer(
        **{"linger.ms": 50, "batch.num.messages": 10_000, "queue.buffering.max.messages": 200_000}
    )
    for number in range(EVENTS):
        while True:
            try:
                producer.produce(topic, event(number), f'{{"id":{number}}}')
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush(120)
    return len(event(EVENTS // 2))


async def bare(server: kafka.KafkaServer, topic: str) -> int:
    """confluent-kafka, whose messages are thrown away."""
    consumer = Consumer({"bootstrap.servers": server.bootstrap, "group.id": "bench", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, 0)])
    seen = 0
    while seen < EVENTS:
        seen += len([message.value() for message in consumer.consume(5000, 1) if message.error() is None])
    consumer.close()
    return seen


async def headrace(server: kafka.KafkaServer, topic: str) -> int:
    """From the plan to the last record."""
    seen = 0

    async def emit(_output: Output, records: Records) -> None:
        nonlocal seen
        seen += records.count

    events = {"types": {"public.orders": TYPES | {"tags": "jsonb"}}, "decimal": "string"}
    block = Kafka(bootstrap_servers=server.bootstrap)
    source = KafkaTopics.model_validate(
        {"connection": block, "topics": [topic], "format": "debezium", "debezium": events}
    )
    async with source.open(ReadOptions(mode="changes")) as extractor:
        plan = await extractor.plan(None)
        for partition in plan.partitions:
            await extractor.capture(plan, partition, emit)
    return seen


async def aiokafka(server: kafka.KafkaServer, topic: str) -> int:
    """What people write: aiokafka, json and csv.writer."""
    from aiokafka import AIOKafkaConsumer

    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=server.bootstrap, auto_offset_reset="earliest", enable_auto_commit=False
    )
    await consumer.start()
    seen, out = 0, io.StringIO()
    writer = csv.writer(out)
    async for message in consumer:
        found = json.loads(message.value)
        source, row = found["source"], found["after"] or found["before"]
        writer.writerow([found["op"], source["ts_us"], message.offset, *row.values()])
        seen += 1
        if seen % 10_000 == 0:
            out.seek(0)
            out.truncate()
        if seen == EVENTS:
            break
    await consumer.stop()
    return seen


async def main() -> None:
    """A line for each way: events per second, and CPU seconds of this process."""
    with kafka.started() as server:
        topic = server.topic()
        size = await asyncio.to_thread(fill, server, topic)
        print(f"{EVENTS:,} events of {size} bytes, Kafka {server.version}")
        ways: list[Callable[[kafka.KafkaServer, str], Awaitable[int]]] = [bare, headrace]
        if importlib.util.find_spec("aiokafka"):
            ways.append(aiokafka)
        for way in ways * 2:
            begun, cpu = time.perf_counter(), time.process_time()
            seen = await way(server, topic)
            assert seen == EVENTS, f"{way.__name__}: {seen}"
            seconds = time.perf_counter() - begun
            print(f"{way.__name__:9} {seen / seconds:10,.0f} /s {time.process_time() - cpu:6.1f} CPU s")
        print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    asyncio.run(main())
