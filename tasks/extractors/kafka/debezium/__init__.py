"""Debezium's change events → records: JSON, Avro, JSON Schema; whole events or flattened ones."""

from __future__ import annotations

from pydantic import JsonValue

from blocks.s3 import CsvDialect
from tasks.extractors.kafka.debezium.decoder import DebeziumDecoder
from tasks.extractors.kafka.debezium.options import DebeziumOptions, Modes

__all__ = ["DebeziumDecoder", "DebeziumOptions", "Modes", "debezium_decoder"]


def debezium_decoder(dialect: CsvDialect, options: DebeziumOptions, state: JsonValue = None) -> DebeziumDecoder:
    """A decoder of the events of one or more topic partitions. ``state``: what an earlier decoder of them ended with."""
    return DebeziumDecoder(dialect, options, state)
