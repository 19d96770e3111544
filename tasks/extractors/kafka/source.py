"""What a person fills in for a stream of Kafka topics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import ConfigDict, Field, JsonValue, model_validator

from blocks.connect import BlockOrName
from blocks.errors import ConfigurationError
from blocks.kafka import Kafka
from blocks.s3 import CsvDialect
from tasks.extractors.contract import CHANGE_COLUMNS, ChangeExtractor, ReadOptions
from tasks.extractors.fields import Declared
from tasks.extractors.kafka.capture import Capture
from tasks.extractors.kafka.dead_letters import DeadLetters
from tasks.extractors.kafka.debezium import debezium_decoder
from tasks.extractors.kafka.decoding import Decoder
from tasks.extractors.kafka.events import DebeziumEvents
from tasks.extractors.kafka.extractor import TopicsExtractor, TopicsSubject
from tasks.extractors.kafka.fields import COLUMNS, EVENT_PARTS, MessagePart, Part
from tasks.extractors.kafka.plain import Plain, PlainDecoder
from tasks.extractors.source import Source


class KafkaTopics(Declared, Source):
    """Messages of some topics of a Kafka cluster, each once."""

    model_config = ConfigDict(title="Kafka topics")

    connection: BlockOrName[Kafka] = Field(title="Connection", description="A Kafka block, such as kafka/events")
    topics: tuple[str, ...] = Field(
        min_length=1,
        title="Topics",
        description="Those to read: names, with * and ? as wildcards; with a leading - those to leave out.",
    )
    format: Literal["json", "debezium", "text", "bytes"] = Field(
        default="json",
        title="Format",
        description="Of the messages' values. json: documents, made into the columns below; debezium: changes of a database's "
        "tables; text: UTF-8 in the column value; bytes: anything, in the column value as the destination writes bytes.",
    )
    start: str = Field(
        default="earliest",
        title="Start",
        description="Where the first run begins: earliest; latest; a time such as 2026-01-31 12:00:00+00; or offsets, as one "
        "number or by partition (0:1234, 1:5678). Partitions and topics that come later begin with their first message.",
    )
    undecodable: Literal["fail", "dead-letter"] = Field(
        default="fail",
        title="Messages that cannot be decoded",
        description="fail: they stop the run; dead-letter: they go to a CSV of their own (_dead_letters), with the reason, and "
        "are counted in the commit.",
    )
    parts: tuple[Part, ...] | None = Field(
        default=None,
        title="Parts of the message",
        description="What becomes a column beside the value, in this order: key, topic, partition, offset, timestamp, headers; "
        "of Debezium's events source and transaction too. Not given: the key, and with format debezium none.",
    )
    key_format: Literal["text", "bytes"] = Field(
        default="text",
        title="Keys as",
        description="text: keys are UTF-8; bytes: written as the destination writes bytes.",
    )

    debezium: DebeziumEvents = Field(
        default=DebeziumEvents(),
        title="Debezium",
        description="For the format debezium: what its events do not say themselves.",
    )

    capture: Capture | None = Field(
        default=None,
        title="Capture",
        description="For `headrace cdc`: the connector that brings a database's changes into the topics. Empty: somebody "
        "else's.",
    )

    @model_validator(mode="after")
    def _fields_fit(self) -> KafkaTopics:
        if self.fields and self.format not in ("json", "debezium"):
            raise ValueError(
                "fields: columns are taken from documents (format json, or debezium with MongoDB's events), and the format is "
                f"{self.format}"
            )
        if self.fields and self.format == "debezium":
            if self.mistyped == "null":
                raise ValueError(
                    "mistyped: null would make NULL of an _id of another type, and deletions bring nothing else; text or fail"
                )
            others = [field.name for field in self.fields if field.key and field.where != "_id"]
            if others or not any(field.where == "_id" for field in self.fields):
                raise ValueError(
                    "fields: deletions of MongoDB bring the _id alone: declare it, such as {name: _id, type: objectid}, and no "
                    "other key"
                )
        if self.debezium != DebeziumEvents() and self.format != "debezium":
            raise ValueError(f"debezium: has no effect with format {self.format}")
        if self.key_format != "text" and "key" not in self.chosen:
            raise ValueError("key_format: has no effect, for no column takes the key; add key to parts")
        if self.format != "debezium" and (alien := EVENT_PARTS & set(self.chosen)):
            raise ValueError(
                f"parts: {', '.join(sorted(alien))} is told by events of format debezium alone, not {self.format}"
            )
        taken = {COLUMNS[part].name for part in self.chosen} | {column.name for column in CHANGE_COLUMNS}
        if twice := sorted(taken & {field.name for field in self.fields}):
            raise ValueError(
                f"fields: {', '.join(twice)} is the column of a part or of every change stream; call yours otherwise"
            )
        return self

    @property
    def chosen(self) -> tuple[Part, ...]:
        """What of a message becomes a column."""
        usual: tuple[Part, ...] = () if self.format == "debezium" else ("key",)
        return usual if self.parts is None else self.parts

    def open(self, options: ReadOptions) -> ChangeExtractor:
        if options.mode != "changes":
            raise ConfigurationError(f"field mode: topics are read in mode changes, not {options.mode}")
        if options.columns:
            raise ConfigurationError(
                "field columns: topics have no columns to choose from; name them by fields and parts"
            )
        dialect, make = options.dialect, self.maker(options.dialect)

        def decoder(state: JsonValue) -> Decoder:
            made = make(state)
            return DeadLetters(made, dialect) if self.undecodable == "dead-letter" else made

        asked = self.model_dump(mode="json", exclude={"connection", "capture"})
        subject = TopicsSubject(
            self.connection, self.topics, self.start, asked, decoder, awaited=self.capture is not None
        )
        return TopicsExtractor(subject, options)

    def maker(self, dialect: CsvDialect) -> Callable[[JsonValue], Decoder]:
        """Makes decoders of the format; each is given the state of the one before."""
        if self.format == "debezium":
            hex_key, looks_up = self.key_format == "bytes", self.capture is not None and self.capture.looks_up
            events = self.debezium.options(self.connection, self.chosen, self, hex_key=hex_key, looks_up=looks_up)
            return lambda state: debezium_decoder(dialect, events, state)
        parts: tuple[MessagePart, ...] = tuple(
            part for part in self.chosen if part != "source" and part != "transaction"
        )
        plain = Plain(self.format, parts, self.key_format == "bytes", self)
        return lambda _state: PlainDecoder(dialect, plain)
