"""headrace's extractor alone, to nowhere: what reading costs without Prefect and S3, in a process of its own. Prints JSON."""

from __future__ import annotations

import asyncio
import json
import os
import time

from pydantic import SecretStr

from benchmarks.orders_mongodb import FIELDS
from blocks.mongodb import MongoDB
from tasks.extractors.contract import ReadOptions
from tasks.extractors.mongodb.source import MongoDBCollection


async def read() -> dict[str, float]:
    """The whole collection in one partition."""
    connection = MongoDB(uri=SecretStr(os.environ["MONGODB_URL"]), database=os.environ["MONGODB_DATABASE"])
    source = MongoDBCollection.model_validate({"connection": connection, "collection": "orders", "fields": FIELDS})
    began, cpu, size = time.perf_counter(), time.process_time(), 0

    async def write(data: bytes) -> None:
        nonlocal size
        size += len(data)

    async with source.open(ReadOptions(partitions=1)) as extractor:
        plan = await extractor.plan(None)
        told = await extractor.read(plan, plan.partitions[0], write)
    return {
        "seconds": time.perf_counter() - began,
        "cpu": time.process_time() - cpu,
        "rows": told.rows,
        "bytes": size,
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(read())))
