# mypy: ignore-errors
"""mysql-replication and the csv module into a local file: what one writes to follow a table in Python. Prints JSON.

A program of a virtual environment of its own, run by path; nothing of the project is imported.
"""

import csv
import json
import os
import time
from pathlib import Path
from urllib.parse import urlsplit

from pymysqlreplication import BinLogStreamReader
from pymysqlreplication.row_event import DeleteRowsEvent, UpdateRowsEvent, WriteRowsEvent

url = urlsplit(os.environ["SOURCE_URL"])
account = {"user": url.username, "passwd": url.password, "host": url.hostname, "port": url.port}
target = Path("orders.csv")
started = time.perf_counter()
rows = 0
stream = BinLogStreamReader(
    connection_settings=account,
    server_id=4_000_001,
    log_file=os.environ["LOG_FILE"],
    log_pos=int(os.environ["LOG_POSITION"]),
    resume_stream=True,
    blocking=False,
    only_events=[WriteRowsEvent, UpdateRowsEvent, DeleteRowsEvent],
    only_tables=["orders"],
)
with target.open("w", newline="") as file:
    writer = csv.writer(file)
    for event in stream:
        place = f"{stream.log_file}:{stream.log_pos}"
        for row in event.rows:
            values = row.get("values") or row["after_values"]
            writer.writerow(["I", event.timestamp, place, *values.values()])
            rows += 1
stream.close()
print(json.dumps({"seconds": time.perf_counter() - started, "rows": rows, "bytes": target.stat().st_size}))
