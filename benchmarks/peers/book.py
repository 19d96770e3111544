# mypy: ignore-errors
"""The way the books show it: fetch all rows, write them with the csv module, upload the file. Prints JSON.

A program of its own virtual environment, run by path; nothing of the project is imported.
"""

import csv
import json
import os
import time
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import psycopg2
import pymysql


def connected(url):
    parts = urlsplit(url)
    if parts.scheme != "mysql":
        return psycopg2.connect(url)
    account = {"user": parts.username, "password": parts.password, "charset": "utf8mb4"}
    return pymysql.connect(host=parts.hostname, port=parts.port, database=parts.path[1:], **account)


started = time.perf_counter()
target = Path("orders.csv")
with connected(os.environ["SOURCE_URL"]) as connection, connection.cursor() as cursor:
    cursor.execute("SELECT * FROM orders")
    rows = cursor.fetchall()
    with target.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([column[0] for column in cursor.description])
        writer.writerows(rows)
s3 = boto3.client(
    "s3",
    endpoint_url=os.environ["SINK_URL"],
    region_name="us-east-1",
    aws_access_key_id="bench",
    aws_secret_access_key="bench",
)
s3.upload_file(str(target), "bench", "book/orders.csv")
print(json.dumps({"seconds": time.perf_counter() - started, "rows": len(rows), "bytes": target.stat().st_size}))
