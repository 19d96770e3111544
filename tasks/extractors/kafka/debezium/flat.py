"""Events that ExtractNewRecordState has flattened: the row itself, and what ``add.fields`` has put into it.

https://debezium.io/documentation/reference/stable/transformations/event-flattening.html
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from tasks.extractors.kafka.debezium.events import Flat, Source
from tasks.extractors.kafka.debezium.readers import Decode, TableShape, json_fields

_OF_TRANSACTION = frozenset({"id", "total_order", "data_collection_order"})
_OF_EVENT = _OF_TRANSACTION | {"op", "deleted", "ts_ms", "ts_us", "ts_ns"}
_OF_SOURCE = frozenset(
    {"version", "connector", "name", "db", "schema", "table", "lsn", "txId", "xmin", "sequence", "snapshot", "gtid"}
    | {"file", "pos", "row", "server_id", "thread", "query", "origin", "origin_lsn", "keyspace", "shard"}
)
_PARTS = ("source_", "transaction_")
_TIMES = frozenset({"ts_ms", "ts_us"})


def is_added(name: str, prefix: str) -> bool:
    """Whether a field is none of the row's."""
    rest = name[len(prefix) :]
    return name.startswith(prefix) and (rest in _OF_EVENT | _OF_SOURCE or rest.startswith(_PARTS))


def refuse_documents(names: Sequence[str], prefix: str) -> None:
    """`ValueError` for what ExtractNewDocumentState has made of MongoDB's events, as far as that can be told."""
    if any(name in names for name in (f"{prefix}collection", f"{prefix}source_collection")):
        raise ValueError(
            "events of MongoDB that were flattened are no documents any more; leave out ExtractNewDocumentState, or read the "
            "topic as format json"
        )


def added(names: Sequence[str], prefix: str) -> dict[str, str]:
    """What the fields are that were added: ``op``, ``deleted`` or an attribute of `Source` → the field's name."""
    found: dict[str, str] = {}
    for name in names:
        if not is_added(name, prefix):
            continue
        rest = name[len(prefix) :]
        what = rest.removeprefix("source_")
        # Without its struct, a time is that of the connector's work, not of the source's.
        if (what in Source.__struct_fields__ and (rest != what or what not in _TIMES)) or rest in ("op", "deleted"):
            found[what] = name
    return found


def told(names: Sequence[str], prefix: str) -> tuple[dict[str, str], dict[str, str]]:
    """The members of ``source`` and of ``transaction`` that were added, by their names there → the field's name."""
    source: dict[str, str] = {}
    transaction: dict[str, str] = {}
    for name in names:
        rest = name[len(prefix) :]
        if not is_added(name, prefix):
            continue
        if rest.startswith("transaction_") or rest in _OF_TRANSACTION:
            transaction[rest.removeprefix("transaction_")] = name
        elif rest.startswith("source_") or rest in _OF_SOURCE:
            source[rest.removeprefix("source_")] = name
    return source, transaction


def connector_of(fields: dict[str, str]) -> str:
    """Which connector adds such fields; empty: not known."""
    return "postgresql" if "lsn" in fields else "mysql" if {"file", "pos"} & fields.keys() else ""


_KINDS: dict[str, Any] = {
    "op": str | None, "deleted": str | bool | None, "name": str, "sequence": str | None,
    **dict.fromkeys(("db", "schema", "table", "file"), str | None),
    **dict.fromkeys(("ts_ms", "ts_us", "lsn", "pos", "row", "server_id"), int | None),
}  # fmt: skip


def json_flat(
    shape: TableShape, fields: dict[str, str], others: Sequence[str], where: tuple[str, str], *, strict: bool
) -> Decode:
    """Decodes flattened events. ``others``: fields that are neither columns nor looked at; ``where``: schema and table."""
    columns, rename = json_fields(shape, strict=strict)
    added_fields: list[Any] = [(f"m_{what}", _KINDS[what], "" if what == "name" else None) for what in fields]
    ignored: list[Any] = [(f"i{place}", msgspec.Raw, msgspec.Raw(b"null")) for place, _ in enumerate(others)]
    rename |= {f"m_{what}": name for what, name in fields.items()}
    rename |= {f"i{place}": name for place, name in enumerate(others)}
    row = msgspec.defstruct(
        "FlatRow", [*columns, *added_fields, *ignored], rename=rename, forbid_unknown_fields=strict, gc=False
    )
    decode = msgspec.json.Decoder(row).decode
    event = of_row({what: f"m_{what}" for what in fields}, where, getattr)
    return lambda payload: event(decode(payload))


def of_row(fields: dict[str, str], where: tuple[str, str], get: Callable[[Any, str], Any]) -> Callable[[Any], Flat]:
    """Makes an event of a row; ``get`` takes what was added out of it."""
    op, deleted = fields.get("op"), fields.get("deleted")
    of_source = [(what, name) for what, name in fields.items() if what not in ("op", "deleted")]
    schema, table = where

    def event(row: Any) -> Flat:
        source = Source(**{what: get(row, name) for what, name in of_source})
        if source.table is None:
            source.table = table
        if source.schema is None and source.db is None:
            source.schema = schema or None
        # Without `op`, all that is known is that the row is so now.
        found = get(row, op) if op else "u"
        if deleted and str(get(row, deleted)).lower() == "true":
            found = "d"
        return Flat(op=found or "u", source=source, after=row)

    return event


def where_of(topic: str) -> tuple[str, str]:
    """The schema and table that a topic is called after: ``prefix.schema.table``."""
    parts = topic.split(".")
    return (parts[-2], parts[-1]) if len(parts) > 2 else ("", parts[-1])
