"""How the keys of messages lie, and which columns they name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from tasks.extractors.kafka.debezium.avro import AvroReader
from tasks.extractors.kafka.debezium.framing import framed
from tasks.extractors.kafka.debezium.schemas import Schema, of_connect

_PHYSICAL_TABLE = "__dbz__physicalTableIdentifier"
"""What ByLogicalTableRouter adds to a key."""

Registered = Callable[[int], tuple[Schema, AvroReader | None]]
"""A number → the registry's schema, and what reads its bytes if they are Avro's."""


@dataclass(frozen=True)
class Key:
    """How the keys of a shape lie."""

    names: tuple[str, ...] = ()
    """The columns."""
    start: bytes | None = None
    """What all begin with; None: there are none."""
    size: int = 0
    """Where the payload begins, …"""
    end: int = 0
    """… and how many bytes follow it."""
    avro: AvroReader | None = None


def key_of(key: bytes | None, registered: Registered) -> Key:
    """How this key lies, and those like it."""
    if key is None:
        return Key()
    frame = framed(key)
    if frame.kind == "schema":
        return Key(_columns([name for name, _ in of_connect(frame.document).fields]), frame.start, len(frame.start), 1)
    if frame.kind == "registry":
        schema, avro = registered(frame.number)
        return Key(_columns([name for name, _ in schema.fields]), frame.start, len(frame.start), 0, avro)
    try:
        names = list(msgspec.json.decode(key, type=dict[str, msgspec.Raw]))
    except msgspec.DecodeError:
        return Key(start=b"")  # another converter's: it names no columns
    return Key(_columns(names), msgspec.json.encode(dict.fromkeys(names[:1], 0)).rstrip(b"0}"))


def _columns(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name != _PHYSICAL_TABLE)
