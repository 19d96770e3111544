"""Debezium's events of a Kafka topic to CSV: headrace beside the bare consumer and beside aiokafka, json and csv.writer.

    python -m benchmarks.kafka                                              # 300,000 events; writes benchmarks/results/kafka*
    python -m benchmarks.kafka --rows 1000000 --results benchmarks/results  # about 6 GB of disk
    python -m benchmarks.kafka --rows 100000 --only headrace --rounds 5

Twice, for the same rows: events of about 600 bytes without their schemas, and of about 5 kB with them. Both are in topics of
one partition, and headrace reads a partition in one thread.

A run of the flow costs a second or two for Prefect, the plan and the commit, however many events there are: with few of them
that is what is measured, and the line *extractor alone* tells what an event costs.

Where it goes, of some 3.6 µs CPU that an event of 600 bytes takes (aiokafka's loop: 12): 0.3 in librdkafka's own threads, 0.5
for the objects that it hands over, 0.7 in msgspec, which makes a typed struct of the event, 1 for the fields of the row (times
0.2, texts and their quotes 0.3), 0.2 for ``_op``, ``_committed_at`` and ``_position``, 0.2 to find out that it was not seen
before; the rest is memory that is not in the processor's cache. All but the first holds Python's lock: more partitions do not go
faster in one process, and do with `work_pool`.

Kafka Connect is left out: the FileStreamSink of Apache Kafka writes messages as they are, and no CSV.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks import contest
from benchmarks import debezium_events as events
from benchmarks.contest import OURS, Bench, Contest, Headrace, LineUp, Options
from benchmarks.harness import REPOSITORY, Contender, Result, Target, find, ratio
from tests.servers import kafka

ALONE = "headrace, extractor alone"
BARE, AIOKAFKA = "confluent-kafka, dropped", "aiokafka + json + csv"
ROWS = 300_000


def fill(server: kafka.KafkaServer, rows: int, *, schemas: bool) -> int:
    """Write the events into a new topic; bytes of their CSV."""
    server.topic(events.TOPIC)
    producer = server.producer(
        **{"linger.ms": 50, "batch.num.messages": 10_000, "queue.buffering.max.kbytes": 128 << 10}
    )
    size = 0
    for number in range(rows):
        key, value = events.key(number), events.event(number)
        if schemas:
            key, value = events.with_schema(events.KEY_SCHEMA, key), events.with_schema(events.SCHEMA, value)
        size += events.csv_size(number)
        while True:
            try:
                producer.produce(events.TOPIC, value, key)
                break
            except BufferError:
                producer.poll(0.1)
    if left := producer.flush(120):
        raise TimeoutError(f"the broker did not take {left} of the events")
    return size


def contenders(bench: Bench, server: kafka.KafkaServer, loop: str) -> list[Contender]:
    env = {"KAFKA_BOOTSTRAP": server.bootstrap, "TOPIC": events.TOPIC, "ROWS": str(bench.rows)}
    ours = Headrace(bench, loop, ["--database", "kafka", "--table", events.TOPIC], env)
    return [
        ours.idle(),
        ours.contender(OURS, "mode `changes`, one partition, to S3 by multipart; from the plan to the commit."),
        Contender(
            ALONE,
            "the extractor, its CSV dropped: no Prefect, no S3.",
            lambda _: [sys.executable, "-m", "benchmarks.kafka_read"],
            contest.by_its_words(bench),
            env | {"PYTHONPATH": str(REPOSITORY)},
        ),
        Contender(
            BARE,
            "its consumer, 400 messages at a time, whose values are counted and dropped: the floor.",
            lambda _: [sys.executable, "-m", "benchmarks.kafka_bare"],
            contest.by_its_words(bench),
            env | {"PYTHONPATH": str(REPOSITORY)},
        ),
        Contender(
            AIOKAFKA,
            "`async for`, `json.loads` and `csv.writer` to a local file; no S3, no look at duplicates, deletions or types.",
            contest.script("kafka", "aiokafka_csv.py"),
            contest.by_its_words(bench),
            env,
        ),
    ]


def targets(results: list[Result]) -> list[Target]:
    ours, alone = find(results, OURS), find(results, ALONE)
    bare, peer = find(results, BARE), find(results, AIOKAFKA)
    return [
        *contest.lead(results, {AIOKAFKA: 5.0}),
        Target(f"{ALONE} over {AIOKAFKA}", 5.0, ratio(peer, alone)),
        Target(f"{OURS} over {BARE}", 0.4, ratio(bare, ours)),
        Target(f"{ALONE} over {BARE}", 0.4, ratio(bare, alone)),
        contest.memory(results, 150),
    ]


@contextmanager
def line_up(base: Path, sink: str, options: Options, *, schemas: bool) -> Iterator[LineUp]:
    """A broker of its own with the topic."""
    with kafka.started() as server:
        print(f"producing {options.rows:,} events …", flush=True)
        size, header = fill(server, options.rows, schemas=schemas), len(events.HEADER)
        bench = Bench(sink, base / "prefect", options.rows, size + header, size, header)
        versions = contest.versions(("Kafka", server.version), "confluent-kafka", ("kafka",))
        yield LineUp(bench, contenders(bench, server, options.loop), (), versions)


def main() -> None:
    for name, title, data, schemas in (
        ("kafka", "Debezium events of 600 B to CSV", "events without schemas", False),
        ("kafka_schemas", "Debezium events of 5 kB to CSV", "events with schemas", True),
    ):
        made = partial(line_up, schemas=schemas)
        contest.run(Contest(title, name, __doc__ or "", [BARE], made, targets, rows=ROWS, data=data))


if __name__ == "__main__":
    main()
