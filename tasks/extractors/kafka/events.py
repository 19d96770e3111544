"""What a person fills in for Debezium's events: which tables, and how the connector was set."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from blocks.kafka import Kafka
from tasks.extractors.contract import Column
from tasks.extractors.fields import Declared
from tasks.extractors.kafka.debezium import DebeziumOptions, Modes
from tasks.extractors.kafka.debezium.forms import UNAVAILABLE
from tasks.extractors.kafka.fields import Part
from tasks.extractors.kafka.patterns import is_meant
from tasks.extractors.kafka.registry import Registry

_ONLY = "For messages without schemas: the connector's "


class DebeziumEvents(BaseModel, frozen=True, extra="forbid", title="Debezium"):
    """Events with their schemas (JSON with schemas.enable, Avro, JSON Schema) need nothing of this."""

    tables: tuple[str, ...] = Field(
        default=(),
        title="Tables",
        description="Those to read, as public.orders, with * and ? as wildcards and a leading - to leave out. None: all that "
        "come.",
    )
    types: dict[str, dict[str, str]] = Field(
        default={},
        title="Types of columns",
        description='By table, as the database names them: {"public.orders": {"price": "numeric(10,2)"}}. For messages without '
        "schemas, whose numbers do not say that they are dates or decimals.",
    )
    decimal: Literal["precise", "string", "double"] = Field(
        default="precise", title="Decimals", description=_ONLY + "decimal.handling.mode."
    )
    time: Literal[
        "adaptive", "adaptive_time_microseconds", "connect", "isostring", "microseconds", "nanoseconds"
    ] = Field(default="adaptive", title="Times", description=_ONLY + "time.precision.mode.")  # fmt: skip
    interval: Literal["numeric", "string"] = Field(
        default="numeric", title="Intervals", description=_ONLY + "interval.handling.mode."
    )
    hstore: Literal["json", "map"] = Field(default="json", title="hstore", description=_ONLY + "hstore.handling.mode.")
    bigint_unsigned: Literal["long", "precise", "string"] = Field(
        default="long", title="BIGINT UNSIGNED", description=_ONLY + "bigint.unsigned.handling.mode."
    )
    binary: Literal["bytes", "base64", "base64-url-safe", "hex"] = Field(
        default="bytes", title="Bytes", description="The connector's binary.handling.mode."
    )
    connector: Literal["", "postgresql", "mysql", "mariadb"] = Field(
        default="", title="Connector", description="Of flattened events that have none of the source's fields."
    )
    prefix: str = Field(
        default="__",
        min_length=1,
        title="Prefix",
        description="Of the fields that ExtractNewRecordState adds: add.fields.prefix. Not empty: columns such as id and name "
        "could not be told from them.",
    )
    unavailable: str = Field(
        default=UNAVAILABLE,
        title="Unavailable values",
        description="What stands for a large value that an update left as it was: unavailable.value.placeholder.",
    )
    duplicates: Literal["remove", "keep"] = Field(
        default="remove",
        title="Duplicates",
        description="Events that a connector sent again after it was restarted. remove: they are told by their place in the "
        "source's log, left out, and counted; keep: they come again.",
    )

    updates_without_document: Literal["", "fail", "pass-over"] = Field(
        default="",
        title="Updates without their document",
        description="Of MongoDB. A connector whose capture.mode is change_streams_update_full (its default) looks an update's "
        "document up, and finds none where it, or its collection, was deleted since: pass-over counts such an update, for the "
        "deletion follows. With another capture.mode no update has its document, and passing over would lose them all: fail "
        "stops at the first. Not given: fail, and pass-over where the stream's capture sets such a connector up.",
    )

    def options(
        self, block: Kafka, parts: tuple[Part, ...], declared: Declared, *, hex_key: bool, looks_up: bool
    ) -> DebeziumOptions:
        """What the decoder is told. ``looks_up``: whether the connector is known to look up the documents of updates."""
        without = self.updates_without_document or ("pass-over" if looks_up else "fail")
        names = ("decimal", "time", "interval", "binary", "hstore", "bigint_unsigned")
        return DebeziumOptions(
            tables={
                table: tuple(Column(name=name, type=kind) for name, kind in types.items())
                for table, types in self.types.items()
            },
            modes=Modes(**{name: getattr(self, name) for name in names}),
            connector=self.connector,
            schema=Registry(block).schema,
            unavailable=self.unavailable,
            prefix=self.prefix,
            tables_wanted=self._is_wanted if self.tables else None,
            declared=declared,
            looks_up=without == "pass-over",
            parts=parts,
            hex_key=hex_key,
            deduplicate=self.duplicates == "remove",
        )

    def _is_wanted(self, table: str) -> bool:
        return is_meant(table, self.tables)
