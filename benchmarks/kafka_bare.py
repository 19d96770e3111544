"""The floor of a Kafka benchmark: confluent-kafka's consumer, whose messages are thrown away. Prints JSON."""

from __future__ import annotations

import json
import os
import time

from confluent_kafka import Consumer, TopicPartition


def main() -> None:
    topic, wanted = os.environ["TOPIC"], int(os.environ["ROWS"])
    started, cpu = time.perf_counter(), time.process_time()
    consumer = Consumer(
        {"bootstrap.servers": os.environ["KAFKA_BOOTSTRAP"], "group.id": "bench", "enable.auto.commit": False}
    )
    partitions = consumer.list_topics(topic, 30).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
    rows = size = 0
    while rows < wanted:
        values = [message.value() or b"" for message in consumer.consume(400, 1) if message.error() is None]
        rows += len(values)
        size += sum(map(len, values))
    consumer.close()
    used = time.process_time() - cpu
    print(json.dumps({"seconds": time.perf_counter() - started, "cpu": used, "rows": rows, "bytes": size}))


if __name__ == "__main__":
    main()
