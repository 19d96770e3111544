"""What a person fills in for `headrace cdc`: which connector brings a database's changes into the topics."""

from __future__ import annotations

from pydantic import BaseModel, Field

from blocks.connect import BlockOrName
from blocks.kafka_connect import KafkaConnect
from blocks.mongodb import MongoDB
from blocks.mysql import MySQL
from blocks.postgres import Postgres


class Capture(BaseModel, frozen=True, extra="forbid", title="Capture"):
    """The connector that writes the topics; `headrace cdc enable STREAM` makes it. Reading topics needs none of this.

    With it, topics that are not there yet are awaited: the connector makes each with its first message.
    """

    connect: BlockOrName[KafkaConnect] = Field(
        title="Kafka Connect", description="A Kafka Connect block, such as kafka-connect/main"
    )
    database: BlockOrName[Postgres | MySQL | MongoDB] = Field(
        title="Database",
        description="The block of the database whose changes are captured, such as postgres/shop, mysql/shop or mongodb/shop",
    )
    password: str = Field(
        default="",
        title="Password",
        description="How the workers find the database's password by a config provider, such as "
        "${file:/etc/connect/secrets.properties:shop}. Empty: the block's password is stored with the connector, readable to "
        "who may read that.",
    )
    settings: dict[str, str] = Field(
        default={}, title="Settings", description="Further settings of the connector; they win over headrace's own."
    )

    @property
    def looks_up(self) -> bool:
        """Whether the connector looks up the documents of updates, as it does unless its settings say otherwise."""
        mode = self.settings.get("capture.mode", LOOKS_UP)
        return mode.startswith(LOOKS_UP) and self.settings.get("capture.mode.full.update.type", "lookup") == "lookup"


LOOKS_UP = "change_streams_update_full"
"""``capture.mode`` of MongoDB's connector, which another may follow: ``…_with_pre_image``."""
