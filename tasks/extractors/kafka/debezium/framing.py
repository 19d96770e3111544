"""How a value or a key lies in a message: JSON with its schema beside it, JSON alone, or a number of a registry's schema.

The schema of Connect's JsonConverter stands before the payload, some kilobytes that are the same in every message. Where
the payload begins is found once by a parser; whatever begins with the very same bytes has its payload there too.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

MAGIC = 0
"""Of Confluent's wire format: a zero, four bytes of a schema's number, and the payload."""

_WITH_SCHEMA = b'{"schema":'
_PAYLOAD = b',"payload":'


class _Enveloped(msgspec.Struct):
    schema: msgspec.Raw
    payload: msgspec.Raw


_split = msgspec.json.Decoder(_Enveloped).decode


@dataclass(frozen=True)
class Frame:
    """Where a payload is, and by what its schema is found."""

    kind: Literal["schema", "json", "registry"]
    start: bytes
    """Everything before the payload."""
    end: int
    """How many bytes stand behind it."""

    @property
    def document(self) -> Any:
        """The schema that stands in the message."""
        return json.loads(self.start[len(_WITH_SCHEMA) : -len(_PAYLOAD)])

    @property
    def number(self) -> int:
        """Of the schema."""
        return int.from_bytes(self.start[1:5], "big")


_BARE = Frame("json", b"", 0)


def framed(value: bytes) -> Frame:
    """How a value lies; `msgspec.DecodeError` for JSON that is none, ValueError for neither JSON nor a registry's."""
    if value[:1] == b"\0" and len(value) >= 5:
        return Frame("registry", value[:5], 0)
    if value[: len(_WITH_SCHEMA)] == _WITH_SCHEMA:
        try:
            parts = _split(value)
        except msgspec.ValidationError:
            return _BARE
        start = _WITH_SCHEMA + bytes(parts.schema) + _PAYLOAD
        if bytes(parts.schema)[:1] == b"{" and value == start + bytes(parts.payload) + b"}":
            return Frame("schema", start, 1)
    return _BARE
