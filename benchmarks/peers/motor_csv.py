# mypy: ignore-errors
"""motor's find() and the csv module into a local file: what one writes in an afternoon. Prints JSON.

A program of a virtual environment of its own, run by path; nothing of the project is imported.
"""

import asyncio
import csv
import json
import os
import time
from pathlib import Path

from motor.motor_asyncio import AsyncIOMotorClient

PAGE = 10_000
PATHS = [
    path.split(".")
    for path in (
        "_id", "customer_id", "status", "email", "total", "weight", "note", "paid", "updated_at", "attrs.channel",
        "attrs.ref", "uid",
    )
]  # fmt: skip


def value(document, path):
    for step in path:
        if not isinstance(document, dict):
            return None
        document = document.get(step)
    return document


async def extracted(target):
    client = AsyncIOMotorClient(os.environ["MONGODB_URL"], uuidRepresentation="standard")
    cursor = client[os.environ["MONGODB_DATABASE"]].orders.find({}, batch_size=PAGE)
    rows = 0
    with target.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([".".join(path) for path in PATHS])
        while page := await cursor.to_list(PAGE):
            writer.writerows([[value(document, path) for path in PATHS] for document in page])
            rows += len(page)
    return rows


target = Path("orders.csv")
started, cpu = time.perf_counter(), time.process_time()
rows = asyncio.run(extracted(target))
done = {"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu}
print(json.dumps(done | {"rows": rows, "bytes": target.stat().st_size}))
