"""One run of headrace in a process of its own, as a person's script would start it; prints what the flow said as JSON.

    python -m benchmarks.headrace_run --idle
    python -m benchmarks.headrace_run --sink http://127.0.0.1:9000 --table public.orders --partitions 2
    python -m benchmarks.headrace_run --sink http://127.0.0.1:9000 --database mysql --table orders
    python -m benchmarks.headrace_run --sink http://127.0.0.1:9000 --database mongodb --table orders

A PostgreSQL database is named by libpq's variables (PGHOST …), a MySQL one by MYSQL_HOST, MYSQL_TCP_PORT, MYSQL_USER,
MYSQL_PWD and MYSQL_DATABASE, a MongoDB one by MONGODB_URL and MONGODB_DATABASE, an API by REST_URL, a Kafka cluster by
KAFKA_BOOTSTRAP. With `--idle` Prefect
starts and runs a flow that does nothing: what a run costs before any of this project's code.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from typing import Any

# Before Prefect is imported, which reads them once.
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")

from prefect import flow

BUCKET = "bench"


@flow
async def nothing() -> None:
    """Starts and ends."""


async def saved_connection(database: str, concurrency: int) -> str:
    """Save the block of the database that the environment names; how a source refers to it."""
    if database == "mongodb":
        await mongodb().save("bench", overwrite=True)
        return "mongodb/bench"
    if database == "rest":
        from blocks.rest import RestApi

        await RestApi(base_url=os.environ["REST_URL"], concurrency=concurrency).save("bench", overwrite=True)
        return "rest-api/bench"
    if database == "kafka":
        from blocks.kafka import Kafka

        block = Kafka(bootstrap_servers=os.environ["KAFKA_BOOTSTRAP"], tls="disable")
        await block.save("bench", overwrite=True)
        return "kafka/bench"
    if database == "mysql":
        await mysql().save("bench", overwrite=True)
        return "mysql/bench"
    await postgres().save("bench", overwrite=True)
    return "postgres/bench"


def postgres() -> Any:
    from pydantic import SecretStr

    from blocks.postgres import Postgres

    return Postgres(
        host=os.environ["PGHOST"],
        port=int(os.environ["PGPORT"]),
        database=os.environ["PGDATABASE"],
        user=os.environ["PGUSER"],
        password=SecretStr(os.environ["PGPASSWORD"]),
    )


def mysql() -> Any:
    from pydantic import SecretStr

    from blocks.mysql import MySQL

    return MySQL(
        host=os.environ["MYSQL_HOST"],
        port=int(os.environ["MYSQL_TCP_PORT"]),
        database=os.environ["MYSQL_DATABASE"],
        user=os.environ["MYSQL_USER"],
        password=SecretStr(os.environ["MYSQL_PWD"]),
    )


def mongodb() -> Any:
    from pydantic import SecretStr

    from blocks.mongodb import MongoDB

    return MongoDB(uri=SecretStr(os.environ["MONGODB_URL"]), database=os.environ["MONGODB_DATABASE"])


def take_fallback() -> None:
    """Read MySQL through aiomysql's public API, as where its internals are not the ones that headrace knows."""
    from unittest.mock import patch

    from tasks.extractors.mysql import wire

    patch.object(wire, "unusable", lambda _: "asked for by the benchmark").start()


async def extracted(arguments: argparse.Namespace) -> dict[str, Any]:
    """Save the blocks, run the flow, and return its result."""
    from prefect_aws import AwsCredentials
    from pydantic import SecretStr

    from blocks.s3 import S3Destination
    from flows.extract import extract

    connection = await saved_connection(arguments.database, arguments.concurrency)
    destination = S3Destination(
        bucket=BUCKET,
        region="us-east-1",
        endpoint=arguments.sink,
        credentials=AwsCredentials(aws_access_key_id="bench", aws_secret_access_key=SecretStr("bench")),
        compression=arguments.compression,
    )
    await destination.save("bench", overwrite=True)
    source: Any = {"connection": connection, **asked(arguments)}
    to: Any = "s3-destination/bench"
    before = time.process_time()
    result: Any = await extract(
        stream=arguments.stream,
        source=source,
        to=to,
        mode="changes" if arguments.start or arguments.database == "kafka" else "full",
        partitions=arguments.partitions,
        processes=arguments.processes,
    )
    return {**result, "cpu": time.process_time() - before}


def asked(arguments: argparse.Namespace) -> dict[str, Any]:
    """What is read of the database."""
    if arguments.database == "mongodb":
        from benchmarks.orders_mongodb import FIELDS

        return {"collection": arguments.table, "fields": FIELDS}
    if arguments.database == "rest":
        return endpoint()
    if arguments.database == "kafka":
        from benchmarks.debezium_events import TYPES

        events = {"types": {"public.orders": TYPES}, "decimal": "string"}
        return {"topics": [arguments.table], "format": "debezium", "debezium": events}
    if arguments.start:
        return {"tables": [arguments.table], "snapshot": False, "start": arguments.start}
    return {"query": arguments.query} if arguments.query else {"table": arguments.table}


def endpoint() -> dict[str, Any]:
    """The API's orders, with a column for each of their fields."""
    from benchmarks.shop_api import COLUMNS, PAGE, PATHS

    fields = [{"name": name, "type": kind, "path": PATHS.get(name, "")} for name, kind in COLUMNS.items()]
    pagination = {"kind": "page", "size_param": "per_page", "size": PAGE, "pages": "pages"}
    return {"path": "/orders", "records": "data", "pagination": pagination, "fields": fields, "extra": "refuse"}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--idle", action="store_true")
    parser.add_argument("--sink")
    parser.add_argument("--database", choices=["postgres", "mysql", "mongodb", "rest", "kafka"], default="postgres")
    parser.add_argument("--concurrency", type=int, default=8, help="rest: requests at once")
    parser.add_argument("--fallback", action="store_true", help="MySQL: the reader for an unknown aiomysql")
    parser.add_argument("--stream", default="orders")
    parser.add_argument("--table", default="public.orders")
    parser.add_argument("--query", default="")
    parser.add_argument("--start", default="", help="MySQL: the table's changes since this place in the log")
    parser.add_argument("--partitions", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--compression", choices=["none", "gzip", "zstd"], default="none")
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    arguments = parser.parse_args()
    if arguments.fallback:
        take_fallback()
    work: Any = nothing() if arguments.idle else extracted(arguments)
    if arguments.loop == "uvloop":
        import uvloop

        result = uvloop.run(work)
    else:
        result = asyncio.run(work)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
