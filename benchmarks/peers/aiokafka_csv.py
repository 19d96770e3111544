# mypy: ignore-errors
"""aiokafka, json and the csv module into a local file: what one writes to bring a topic into CSV in Python. Prints JSON.

A program of a virtual environment of its own, run by path; nothing of the project is imported.
"""

import asyncio
import csv
import json
import os
import time
from pathlib import Path

from aiokafka import AIOKafkaConsumer

TARGET = Path("orders.csv")


async def main():
    topic, wanted = os.environ["TOPIC"], int(os.environ["ROWS"])
    started, cpu = time.perf_counter(), time.process_time()
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=os.environ["KAFKA_BOOTSTRAP"], auto_offset_reset="earliest", enable_auto_commit=False
    )
    await consumer.start()
    rows = 0
    with TARGET.open("w", newline="") as file:
        writer = csv.writer(file)
        async for message in consumer:
            event = json.loads(message.value)
            event = event.get("payload") or event
            row = event["after"] or event["before"]
            writer.writerow([event["op"], event["source"]["ts_us"], message.offset, *row.values()])
            rows += 1
            if rows == wanted:
                break
    seconds, used = time.perf_counter() - started, time.process_time() - cpu
    await consumer.stop()
    print(json.dumps({"seconds": seconds, "cpu": used, "rows": rows, "bytes": TARGET.stat().st_size}))


asyncio.run(main())
