"""What an event says of itself beside its row: where it stands in the source's log, and in which transaction.

For the parts ``source`` and ``transaction`` only: each message is then looked through a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from tasks.extractors.kafka.debezium.events import is_null


class Origin(NamedTuple):
    """JSON; None: not told."""

    source: str | None = None
    """https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-create-events"""
    transaction: str | None = None
    """``id``, ``total_order`` and ``data_collection_order``, of connectors with ``provide.transaction.metadata``."""


Names = Mapping[str, str]
"""Of members → of the fields that they are in."""

Tell = Callable[[Any], Origin]
"""A payload → its origin."""


class _Parts(msgspec.Struct, gc=False):
    source: msgspec.Raw = msgspec.Raw(b"null")
    transaction: msgspec.Raw = msgspec.Raw(b"null")


def of_json() -> Tell:
    """Of envelopes in JSON: as the connector wrote it."""
    decode = msgspec.json.Decoder(_Parts).decode

    def tell(payload: Any) -> Origin:
        parts = decode(payload)
        return Origin(_text(parts.source), _text(parts.transaction))

    return tell


def of_items(read: Callable[[bytes], Any]) -> Tell:
    """Of envelopes that are read as dicts (Avro's)."""

    def tell(payload: Any) -> Origin:
        event = read(bytes(payload))
        return Origin(_json(event.get("source")), _json(event.get("transaction")))

    return tell


def of_flat_json(fields: tuple[Names, Names]) -> Tell:
    """Of flattened events in JSON: objects of what ``add.fields`` has put into the row. ``fields``: see `flat.told`."""
    return of_flat_items(fields, msgspec.json.Decoder(dict[str, msgspec.Raw]).decode)


def of_flat_items(fields: tuple[Names, Names], read: Callable[[bytes], Any]) -> Tell:
    """Of flattened events that are read as dicts."""
    source, transaction = fields

    def tell(payload: Any) -> Origin:
        row = read(bytes(payload))
        return Origin(_json(_members(row, source)), _json(_members(row, transaction)))

    return tell


def _members(row: Mapping[str, Any], names: Names) -> dict[str, Any]:
    return {what: row[name] for what, name in names.items() if name in row}


def _text(raw: msgspec.Raw) -> str | None:
    return None if is_null(raw) else bytes(raw).decode()


def _json(members: Any) -> str | None:
    return msgspec.json.encode(members).decode() if members else None
