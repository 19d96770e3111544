"""The Kafka extractor alone: the topic of the environment decoded to CSV, which is dropped. Prints JSON."""

from __future__ import annotations

import asyncio
import json
import os
import time

from benchmarks.debezium_events import TYPES
from blocks.kafka import Kafka
from tasks.extractors.contract import Output, ReadOptions, Records
from tasks.extractors.kafka.source import KafkaTopics


async def read() -> tuple[int, int]:
    """Records and bytes, from the plan to the last one."""
    rows = size = 0

    async def emit(_output: Output, records: Records) -> None:
        nonlocal rows, size
        rows += records.count
        size += len(records.data)

    block = Kafka(bootstrap_servers=os.environ["KAFKA_BOOTSTRAP"], tls="disable")
    events = {"types": {"public.orders": TYPES}, "decimal": "string"}
    source = KafkaTopics.model_validate(
        {"connection": block, "topics": [os.environ["TOPIC"]], "format": "debezium", "debezium": events}
    )
    async with source.open(ReadOptions(mode="changes")) as extractor:
        plan = await extractor.plan(None)
        for partition in plan.partitions:
            await extractor.capture(plan, partition, emit)
    return rows, size


def main() -> None:
    started, cpu = time.perf_counter(), time.process_time()
    rows, size = asyncio.run(read())
    used = time.process_time() - cpu
    print(json.dumps({"seconds": time.perf_counter() - started, "cpu": used, "rows": rows, "bytes": size}))


if __name__ == "__main__":
    main()
