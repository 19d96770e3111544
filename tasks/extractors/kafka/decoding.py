"""What turns messages into records; a decoder reads no topic, and knows nothing of where the records go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pydantic import JsonValue

from blocks.errors import ConfigurationError
from tasks.extractors.contract import Output, Records
from tasks.extractors.kafka.message import Message


class UndecodableError(ConfigurationError):
    """A message that is not what the stream's format says it is: stops the run, or goes to the dead letters."""

    def __init__(self, message: Message, reason: str) -> None:
        super().__init__(f"{message}: {reason}")
        self.message = message
        self.reason = reason


class Decoder(Protocol):
    """Makes records of the messages of one partition, which come in their order, some thousand at a time.

    A call that raises has changed nothing: the messages before the one that is named may be given again, and then those
    after it. Called in a thread, one call at a time.
    """

    @property
    def state(self) -> JsonValue:
        """What a decoder is given that goes on behind the last message; bounded, and None where there is nothing to know."""
        ...

    def rest(self) -> list[tuple[Output, Records]]:
        """What was counted and no record has told, at the end of a run: records without a line."""
        ...

    def __call__(self, messages: Sequence[Message]) -> list[tuple[Output, Records]]:
        """The records in the order of the messages. Raises `UndecodableError` for the first that cannot be decoded."""
        ...
