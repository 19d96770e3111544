# mypy: ignore-errors
"""PyMongo's raw batches, dropped: what the server can send. Prints JSON.

A program of a virtual environment of its own, run by path; nothing of the project is imported.
"""

import json
import os
import struct
import time

from pymongo import MongoClient

collection = MongoClient(os.environ["MONGODB_URL"])[os.environ["MONGODB_DATABASE"]].orders
started = time.perf_counter()
rows = size = 0
for batch in collection.find_raw_batches({}, batch_size=10_000):
    size += len(batch)
    at = 0
    while at < len(batch):
        at += struct.unpack_from("<i", batch, at)[0]
        rows += 1
print(json.dumps({"seconds": time.perf_counter() - started, "rows": rows, "bytes": size}))
