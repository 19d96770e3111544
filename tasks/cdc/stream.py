"""What is to be captured for which stream."""

from __future__ import annotations

from dataclasses import dataclass, replace

from blocks.errors import ConfigurationError
from blocks.mongodb import MongoDB
from blocks.references import reveal
from tasks.cdc import settings
from tasks.extractors.kafka.capture import Capture
from tasks.extractors.kafka.source import KafkaTopics


@dataclass(frozen=True)
class Stream:
    """A stream of Debezium's events, and the connector that brings them."""

    name: str
    source: KafkaTopics
    capture: Capture

    @classmethod
    def of(cls, name: str, source: object) -> Stream:
        """`ConfigurationError` for one that is not captured."""
        if not isinstance(source, KafkaTopics) or source.capture is None or source.format != "debezium":
            raise ConfigurationError(
                f"stream {name}: capture is for a source of Kafka topics of format debezium that has the field capture "
                "(connect: kafka-connect/…, database: postgres/…, mysql/… or mongodb/…)"
            )
        return cls(name, source, source.capture)

    async def revealed(self) -> Stream:
        """With the user and the password that the database's block has now: the connector is given both."""
        database = await reveal(self.capture.database)
        return replace(self, capture=self.capture.model_copy(update={"database": database}))

    @property
    def slot(self) -> str:
        return self.capture.settings.get("slot.name", self.publication)

    @property
    def publication(self) -> str:
        return settings.slot_name(self.name)

    @property
    def password(self) -> str:
        database = self.capture.database
        secret = database.account[1] if isinstance(database, MongoDB) else database.password
        return self.capture.password or secret.get_secret_value()

    @property
    def tables(self) -> tuple[str, ...]:
        """The patterns of the tables; all, where none are named."""
        return self.source.debezium.tables or ("*",)

    def asked(self, tables: list[str]) -> settings.Capture:
        return settings.Capture(self.name, self.prefix, tuple(tables), self.password)

    @property
    def prefix(self) -> str:
        """What the names of all topics begin with, before their first point."""
        prefixes = {topic.partition(".")[0] for topic in self.source.topics if not topic.startswith("-")}
        if len(prefixes) != 1 or set(prefix := prefixes.pop()) & set("*?["):
            raise ConfigurationError(
                "field topics: a connector's topics all begin with one prefix and a point, such as shop.public.*"
            )
        return prefix
