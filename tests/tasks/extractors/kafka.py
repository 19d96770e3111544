"""What the tests of topics share: a source of a broker, and all records of a run of it."""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from pydantic import JsonValue

from blocks.kafka import Kafka
from blocks.s3 import CsvDialect
from tasks.extractors.contract import ChangeExtractor, Limits, Output, Plan, ReadOptions, Records
from tasks.extractors.kafka.source import KafkaTopics
from tests.servers.kafka import PASSWORD, USER, KafkaServer

Row = dict[str, str]


def block_of(server: KafkaServer, **fields: Any) -> Kafka:
    """The block that reaches a broker in clear."""
    return Kafka(**({"bootstrap_servers": server.bootstrap, "tls": "disable", "timeout": 15} | fields))


def secured_block_of(server: KafkaServer, **fields: Any) -> Kafka:
    """The block that logs in over TLS."""
    account = {"sasl": "SCRAM-SHA-512", "user": USER, "password": PASSWORD}
    return Kafka(
        **({"bootstrap_servers": server.secured, "tls_ca_file": str(server.ca_file), "timeout": 15} | account | fields)
    )


def topics(server: KafkaServer, *names: str, **fields: Any) -> KafkaTopics:
    """A source of these topics."""
    return KafkaTopics(connection=fields.pop("connection", None) or block_of(server), topics=names, **fields)


@dataclass
class Run:
    """What a run brought."""

    plan: Plan
    until: JsonValue
    rows: dict[str, list[Row]] = field(default_factory=dict)
    """By table."""
    outputs: dict[str, Output] = field(default_factory=dict)
    counted: Counter[str] = field(default_factory=Counter)
    data: bytes = b""

    @property
    def all(self) -> list[Row]:
        """Rows of all tables."""
        return [row for rows in self.rows.values() for row in rows]

    def values(self, column: str = "value") -> list[str]:
        """The values of a column, sorted."""
        return sorted(row[column] for row in self.all)


async def run(
    source: KafkaTopics, since: JsonValue = None, *, limits: Limits | None = None, dialect: CsvDialect | None = None
) -> Run:
    """One run: a plan, and all of its partitions."""
    options = ReadOptions(mode="changes", limits=limits or Limits(), dialect=dialect or CsvDialect())
    async with source.open(options) as extractor:
        plan = await extractor.plan(since)
        return await captured(extractor, plan)


async def captured(extractor: ChangeExtractor, plan: Plan) -> Run:
    """All partitions of a plan."""
    made = Run(plan, plan.until)
    reached = []

    async def emit(output: Output, records: Records) -> None:
        assert records.data.endswith(b"\n")
        names = [column.name for column in output.columns]
        rows = [
            dict(zip(names, row, strict=True)) for row in csv.reader(io.StringIO(records.data.decode(), newline=""))
        ]
        assert len(rows) == records.count
        made.rows.setdefault(output.table, []).extend(rows)
        made.outputs[output.table] = output
        made.counted.update(records.counted)
        made.data += records.data

    for partition in plan.partitions:
        position = await extractor.capture(plan, partition, emit)
        if position is not None:
            reached.append(position)
    if reached:
        made.until = extractor.reached(plan, reached)
    return made
