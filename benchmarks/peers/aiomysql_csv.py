# mypy: ignore-errors
"""aiomysql's server-side cursor and the csv module into a local file: what one writes in an afternoon. Prints JSON.

A program of a virtual environment of its own, run by path; nothing of the project is imported.
"""

import asyncio
import csv
import json
import os
import time
from pathlib import Path
from urllib.parse import urlsplit

import aiomysql

PAGE = 10_000


async def extracted(target):
    url = urlsplit(os.environ["SOURCE_URL"])
    account = {"user": url.username, "password": url.password, "charset": "utf8mb4"}
    place = {"host": url.hostname, "port": url.port, "db": url.path[1:]}
    rows = 0
    async with aiomysql.connect(**place, **account) as connection, connection.cursor(aiomysql.SSCursor) as cursor:
        await cursor.execute("SELECT * FROM orders")
        with target.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([column[0] for column in cursor.description])
            while page := await cursor.fetchmany(PAGE):
                writer.writerows(page)
                rows += len(page)
    return rows


target = Path("orders.csv")
started = time.perf_counter()
rows = asyncio.run(extracted(target))
print(json.dumps({"seconds": time.perf_counter() - started, "rows": rows, "bytes": target.stat().st_size}))
