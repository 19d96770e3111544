"""Messages that cannot be decoded, kept in a CSV of their own beside the file set, with the reason."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import JsonValue

from blocks.s3 import CsvDialect
from tasks.extractors.contract import CHANGE_COLUMNS, Column, Output, Records
from tasks.extractors.kafka.decoding import Decoder, UndecodableError
from tasks.extractors.kafka.fields import COLUMNS, Fields
from tasks.extractors.kafka.message import Message

COUNTED = "undecodable, in the dead letters"

OUTPUT = Output(
    name="_dead_letters",
    table="_dead_letters",
    columns=(
        *CHANGE_COLUMNS,
        *(COLUMNS[part] for part in ("topic", "partition", "offset", "timestamp", "headers")),
        Column(name="encoding", type="text", nullable=False),
        Column(name="key", type="text"),
        Column(name="value", type="text"),
        Column(name="reason", type="text", nullable=False),
    ),
)
"""``encoding``: of key and value; text where both are UTF-8, hex otherwise."""


class DeadLetters:
    """A decoder that puts aside what another cannot decode."""

    def __init__(self, decoder: Decoder, dialect: CsvDialect) -> None:
        self._decoder = decoder
        self._fields = Fields(dialect)

    @property
    def state(self) -> JsonValue:
        """See `Decoder.state`."""
        return self._decoder.state

    def rest(self) -> list[tuple[Output, Records]]:
        """See `Decoder.rest`."""
        return self._decoder.rest()

    def __call__(self, messages: Sequence[Message]) -> list[tuple[Output, Records]]:
        """See `Decoder.__call__`; raises nothing for a message."""
        made: list[tuple[Output, Records]] = []
        while messages:
            try:
                return [*made, *self._decoder(messages)]
            except UndecodableError as error:
                at = next(place for place, message in enumerate(messages) if message.offset == error.message.offset)
                made += [*self._decoder(messages[:at]), (OUTPUT, self._record(error))]
                messages = messages[at + 1 :]
        return made

    def _record(self, error: UndecodableError) -> Records:
        message, fields = error.message, self._fields
        encoding, key, value = _shown(message)
        told = [
            "I", fields.instant(message.timestamp), message.position(), fields.null, fields.text(message.topic),
            str(message.partition), str(message.offset), fields.instant(message.timestamp),
            fields.headers(message.headers), encoding, fields.text(key), fields.text(value), fields.text(error.reason),
        ]  # fmt: skip
        return Records(data=(",".join(told) + "\n").encode(), count=1, counted={COUNTED: 1})


def _shown(message: Message) -> tuple[str, str | None, str | None]:
    parts = (message.key, message.value)
    try:
        key, value = (None if part is None else part.decode() for part in parts)
    except UnicodeDecodeError:
        key, value = (None if part is None else part.hex() for part in parts)
        return "hex", key, value
    return "text", key, value
