"""Debezium's events of a Kafka topic to CSV: headrace beside the bare consumer and beside aiokafka, json and csv.writer.

    python -m benchmarks.kafka                                              # 300,000 events; writes benchmarks/results/kafka*
    python -m benchmarks.kafka --rows 1000000 --results benchmarks/results  # about 6 GB of disk
    python -m benchmarks.kafka --rows 100000 --only headrace --rounds 5
    python -m benchmarks.kafka --rows 100000 --partitions 4

Twice, for the same rows: events of about 600 bytes without their schemas, and of about 5 kB with them. Both are in topics of
`--partitions` partitions, one by default; headrace reads a partition in one thread.

A run of the flow costs a second or two for Prefect, the plan and the commit, however many events there are: with few of them
that is what is measured, and the line *extractor alone* tells what an event costs.

Where it goes, of some 3.6 µs CPU that an event of 600 bytes takes (aiokafka's loop: 12): 0.3 in librdkafka's own threads, 0.5
for the objects that it hands over, 0.7 in msgspec, which makes a typed struct of the event, 1 for the fields of the row (times
0.2, texts and their quotes 0.3), 0.2 for ``_op``, ``_committed_at`` and ``_position``, 0.2 to find out that it was not seen
before; the rest is memory that is not in the processor's cache. All but the first holds Python's lock: more partitions do not go
faster in one process, and do in several, by `processes`.

Kafka Connect (standalone) has Apache Kafka's own file sink, which writes messages as they are, and no CSV: for the events
with schemas it needs another 5 GB of disk.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import contest, kafka_connect
from benchmarks import debezium_events as events
from benchmarks.contest import OURS, PROCESSES, Bench, Contest, Headrace, LineUp, Options
from benchmarks.harness import REPOSITORY, Contender, Result, Target, find, ratio
from tests.servers import kafka

ALONE = "headrace, extractor alone"
BARE, AIOKAFKA, CONNECT = "confluent-kafka, dropped", "aiokafka + json + csv", "Kafka Connect, file sink"
ROWS = 300_000


@dataclass(frozen=True)
class Filled:
    """The topic."""

    values: int
    """Bytes of its messages, keys left out."""
    csv: int
    """Bytes of their CSV."""


def fill(server: kafka.KafkaServer, rows: int, partitions: int, *, schemas: bool) -> Filled:
    """Write the events into a new topic, to each of its partitions in turn."""
    server.topic(events.TOPIC, partitions=partitions)
    # In order, as Connect's producers write: what is behind its turn would be taken for an event that was sent again.
    producer = server.producer(
        **{
            "enable.idempotence": True,
            "linger.ms": 50,
            "batch.num.messages": 10_000,
            "queue.buffering.max.kbytes": 128 << 10,
        }
    )
    values = size = 0
    for number in range(rows):
        key, value = events.key(number), events.event(number)
        if schemas:
            key, value = events.with_schema(events.KEY_SCHEMA, key), events.with_schema(events.SCHEMA, value)
        values += len(value)
        size += events.csv_size(number)
        while True:
            try:
                producer.produce(events.TOPIC, value, key, number % partitions)
                break
            except BufferError:
                producer.poll(0.1)
    if left := producer.flush(120):
        raise TimeoutError(f"the broker did not take {left} of the events")
    return Filled(values, size)


def contenders(bench: Bench, server: kafka.KafkaServer, options: Options, filled: Filled) -> list[Contender]:
    env = {"KAFKA_BOOTSTRAP": server.bootstrap, "TOPIC": events.TOPIC, "ROWS": str(bench.rows)}
    ours = Headrace(bench, options.loop, ["--database", "kafka", "--table", events.TOPIC], env)
    counted, here = contest.by_its_words(bench), env | {"PYTHONPATH": str(REPOSITORY)}
    partitions = "one partition" if options.partitions == 1 else f"{options.partitions} partitions"

    def program(name: str, note: str, module: str) -> Contender:
        """A program of this folder's, which counts for itself."""
        words = [sys.executable, "-m", module]
        return Contender(name, note, lambda _: words, counted, here)

    return [
        ours.idle(),
        ours.contender(OURS, f"mode `changes`, {partitions}, to S3 by multipart; from the plan to the commit."),
        *(
            [ours.contender(PROCESSES, "the same; their start is in it.", "--processes", "2")]
            if options.partitions > 1
            else []
        ),
        program(ALONE, "the extractor, its CSV dropped: no Prefect, no S3.", "benchmarks.kafka_read"),
        program(
            BARE,
            "its consumer, 400 messages at a time, whose values are counted and dropped: the floor.",
            "benchmarks.kafka_bare",
        ),
        Contender(
            AIOKAFKA,
            "`async for`, `json.loads` and `csv.writer` to a local file; no S3, no look at duplicates, deletions or types.",
            contest.script("kafka", "aiokafka_csv.py"),
            counted,
            env,
        ),
        Contender(
            CONNECT,
            "standalone, `FileStreamSinkConnector` with `StringConverter`: each message as it is, as a line of a local file; no "
            "CSV, no S3, no look into the events, at least once. From the request for the connector to the last line: the "
            "worker's start is in *process s* alone.",
            kafka_connect.command,
            counted,
            here | {"BYTES": str(filled.values)},
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
        filled, header = fill(server, options.rows, options.partitions, schemas=schemas), len(events.HEADER)
        bench = Bench(sink, base / "prefect", options.rows, filled.csv + header, filled.csv, header)
        versions = contest.versions(("Kafka and Connect", server.version), "confluent-kafka", ("kafka",))
        pids = (server.broker.pid,) if server.broker else ()
        yield LineUp(bench, contenders(bench, server, options, filled), pids, versions)


def main() -> None:
    for name, title, data, schemas in (
        ("kafka", "Debezium events of 600 B to CSV", "events without schemas", False),
        ("kafka_schemas", "Debezium events of 5 kB to CSV", "events with schemas", True),
    ):
        made = partial(line_up, schemas=schemas)
        columns = events.HEADER.count(",") + 1
        contest.run(Contest(title, name, __doc__ or "", [BARE], made, targets, ROWS, data, columns))


if __name__ == "__main__":
    main()
