"""What a decoder is told: how the connector was set, and which types the columns have where messages do not say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from tasks.extractors.contract import Column, Frozen
from tasks.extractors.fields import Declared
from tasks.extractors.kafka.debezium.forms import UNAVAILABLE, Binary
from tasks.extractors.kafka.fields import Part

Connector = Literal["", "postgresql", "mysql", "mariadb"]


class Modes(Frozen):
    """Settings of the connector that decide what a value looks like, by their names there; its defaults.

    Only those of ``binary`` count for messages that carry their schemas; the rest is for those without.
    """

    decimal: Literal["precise", "string", "double"] = "precise"
    """``decimal.handling.mode``"""
    time: Literal["adaptive", "adaptive_time_microseconds", "connect", "isostring", "microseconds", "nanoseconds"] = (
        "adaptive"
    )
    """``time.precision.mode``; MySQL's connectors have no ``adaptive``, and mean ``adaptive_time_microseconds``."""
    interval: Literal["numeric", "string"] = "numeric"
    """``interval.handling.mode``"""
    binary: Binary = "bytes"
    """``binary.handling.mode``"""
    hstore: Literal["json", "map"] = "json"
    """``hstore.handling.mode``"""
    bigint_unsigned: Literal["long", "precise", "string"] = "long"
    """``bigint.unsigned.handling.mode``"""


@dataclass(frozen=True)
class DebeziumOptions:
    """What is known of the events beside themselves. Of the defaults all is right for events that carry schemas."""

    tables: Mapping[str, tuple[Column, ...]] = field(default_factory=dict)
    """The columns of tables (``public.orders``, ``shop.orders``) with their types as the database shows them: what our own
    SELECT's plan has. For messages without schemas, and for what schemas leave out (digits of a fraction, BIT(1), …)."""
    modes: Modes = field(default_factory=Modes)
    connector: Connector = ""
    """Of flattened events, which do not say it; empty: told by their fields, if they have any of the log."""
    schema: Callable[[int], str] | None = None
    """The text of a schema of the registry, by its number; may block."""
    unavailable: str = UNAVAILABLE
    """``unavailable.value.placeholder``"""
    prefix: str = "__"
    """Before the fields that ExtractNewRecordState adds: ``add.fields.prefix``."""
    tables_wanted: Callable[[str], bool] | None = None
    """Whether a table (``public.orders``) is read; the rest is passed over, and counted."""
    declared: Declared = field(default_factory=Declared)
    """The columns of MongoDB's documents, which have no schema."""
    looks_up: bool = False
    """Whether MongoDB's connector looks up the documents of updates, so that one without is of a document that is gone."""
    parts: tuple[Part, ...] = ()
    """What of a message becomes a column before those of the row."""
    hex_key: bool = False
    """Whether the part ``key`` is written as bytes, not as text."""
    deduplicate: bool = True
    """Whether what a connector sent again after a restart is left out: see `positions`."""
