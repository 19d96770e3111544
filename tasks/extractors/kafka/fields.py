"""What of a message goes into which column, beside its value."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args

from blocks.s3 import CsvDialect
from tasks.extractors.contract import Column
from tasks.extractors.kafka.message import Message

MessagePart = Literal["key", "topic", "partition", "offset", "timestamp", "headers"]
EventPart = Literal["source", "transaction"]
"""Of Debezium's events alone."""
EVENT_PARTS = frozenset(get_args(EventPart))
Part = Literal[MessagePart, EventPart]

COLUMNS: dict[Part, Column] = {
    "key": Column(name="_key", type="text"),
    "topic": Column(name="_topic", type="text", nullable=False),
    "partition": Column(name="_partition", type="integer", nullable=False),
    "offset": Column(name="_offset", type="bigint", nullable=False),
    "timestamp": Column(name="_timestamp", type="timestamptz"),
    "headers": Column(name="_headers", type="json"),
    "source": Column(name="_source", type="json"),
    "transaction": Column(name="_transaction", type="json"),
}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PERIOD = 146097 * 86_400_000
"""Milliseconds of 400 years, after which the calendar repeats itself."""
_UNQUOTED = re.compile(r'[^",\r\n]+').fullmatch


class Fields:
    """Writes fields in a dialect."""

    def __init__(self, dialect: CsvDialect) -> None:
        self.null = dialect.null
        self._encode: Callable[[bytes], str] = bytes.hex if dialect.binary == "hex" else _base64

    def text(self, text: str | None) -> str:
        """A text as PostgreSQL's COPY would quote it."""
        if text is None:
            return self.null
        if text != self.null and _UNQUOTED(text):
            return text
        return '"' + text.replace('"', '""') + '"'

    def binary(self, data: bytes | None) -> str:
        """Bytes as the dialect has them."""
        return self.text(None if data is None else self._encode(data))

    def instant(self, milliseconds: int) -> str:
        """A message's timestamp."""
        if milliseconds < 0:
            return self.null
        try:
            return (_EPOCH + timedelta(milliseconds=milliseconds)).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "+00"
        except OverflowError:  # a producer's microseconds, say, of which brokers before 4.0 make a year past 9999
            periods, rest = divmod(milliseconds, _PERIOD)
            moment = _EPOCH + timedelta(milliseconds=rest)
            return f"{moment.year + 400 * periods}{moment.strftime('-%m-%d %H:%M:%S.%f')[:-3]}+00"

    def key(self, key: bytes | None) -> str:
        """A key as text. UnicodeDecodeError where it is none."""
        return self.null if key is None else self.text(key.decode())

    def headers(self, headers: tuple[tuple[str, bytes | None], ...]) -> str:
        """JSON: an array of names and values, for a name may come twice; a value that is no text is ``{"hex": …}``."""
        told = [[name, _told(value)] for name, value in headers]
        return self.text(json.dumps(told, ensure_ascii=False, separators=(",", ":"))) if told else self.null

    def of(self, part: MessagePart, *, hex_key: bool) -> Callable[[Message], str]:
        """What writes a part of a message."""
        ways: dict[MessagePart, Callable[[Message], str]] = {
            "key": (lambda message: self.binary(message.key)) if hex_key else (lambda message: self.key(message.key)),
            "topic": lambda message: self.text(message.topic),
            "partition": lambda message: str(message.partition),
            "offset": lambda message: str(message.offset),
            "timestamp": lambda message: self.instant(message.timestamp),
            "headers": lambda message: self.headers(message.headers),
        }
        return ways[part]


def _base64(data: bytes) -> str:
    return b64encode(data).decode()


def _told(value: bytes | None) -> str | dict[str, str] | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return {"hex": bytes(value or b"").hex()}
