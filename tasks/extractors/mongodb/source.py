"""What a person fills in for a MongoDB stream: a collection (or view), its columns, and what of it is read."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator

from blocks.connect import BlockOrName
from blocks.mongodb import MongoDB
from tasks.extractors.contract import Extractor, ReadOptions
from tasks.extractors.fields import Declared
from tasks.extractors.mongodb.extractor import MongoDBExtractor
from tasks.extractors.mongodb.select import subject_of
from tasks.extractors.source import Source, Window


class MongoDBCollection(Source, Window, Declared):
    """A MongoDB collection or view."""

    model_config = ConfigDict(title="MongoDB collection")

    connection: BlockOrName[MongoDB] = Field(title="Connection", description="A MongoDB block, such as mongodb/shop")
    collection: str = Field(
        title="Collection", description="Of the connection's database; a view will do.", min_length=1
    )
    filter: str = Field(
        default="",
        title="Filter",
        description='Which documents are read, as Extended JSON, such as {"status": "paid"} or '
        '{"at": {"$gte": {"$date": "2026-01-01T00:00:00Z"}}}',
    )
    pipeline: str = Field(
        default="",
        title="Pipeline",
        description='Stages that the documents go through before they are read, as Extended JSON, such as [{"$unwind": '
        '"$items"}]. The cursor and _id are those of what comes out.',
    )
    json_form: Literal["relaxed", "canonical"] = Field(
        default="relaxed",
        title="Extended JSON",
        description="How documents and arrays are written. relaxed: numbers and dates as people write them; canonical: "
        "every value with its type.",
    )

    @model_validator(mode="before")
    @classmethod
    def _has_no_zone(cls, given: Any) -> Any:
        if isinstance(given, dict) and "cursor_timezone" in given:
            raise ValueError("field cursor_timezone: dates of MongoDB are in UTC; leave cursor_timezone out")
        return given

    def open(self, options: ReadOptions) -> Extractor:
        return MongoDBExtractor(subject_of(self), options)
