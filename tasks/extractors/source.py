"""What a person fills in to name a stream's source: one frozen model for each kind, with help for every field."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tasks.extractors.contract import AnyExtractor, ReadOptions

NullCursor = Literal["fail", "exclude", "include"]


def _own_fields_first(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Forms show fields in this order: what is read, which a kind says itself, before what all kinds have."""
    fields: dict[str, Any] = schema["properties"]
    own = {name: place for place, name in enumerate(model.__annotations__)}
    schema["properties"] = dict(sorted(fields.items(), key=lambda field: own.get(field[0], len(own))))


class Source(BaseModel, ABC):
    """A source that can be opened for reading."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra=_own_fields_first)

    @abstractmethod
    def open(self, options: ReadOptions) -> AnyExtractor:
        """The extractor that reads this source; nothing is connected yet."""


class Window(BaseModel):
    """The fields by which an incremental read finds what is new."""

    cursor: str = Field(
        default="",
        title="Cursor column",
        description="The column that grows with every change, such as updated_at or id. Needed for mode incremental.",
    )
    lag: str = Field(
        default="",
        title="Lag",
        description="Hold back rows fresher than this, such as '5 minutes' (a number for a numeric cursor). "
        "For clocks of applications that run behind, and for replicas.",
    )
    lookback: str = Field(
        default="",
        title="Lookback",
        description="Read this much again before the last position, such as '1 hour' (a number for a numeric cursor). "
        "The loader must merge by key then.",
    )
    null_cursor: NullCursor = Field(
        default="fail",
        title="Rows without a cursor value",
        description="fail: stop with an error; exclude: leave them out; include: send them again with every run.",
    )


class ZonedWindow(Window):
    """The same where a cursor may be a time without time zone."""

    cursor_timezone: str = Field(
        default="",
        title="Time zone of the cursor",
        description="For a cursor without time zone: the zone its values are written in. Default: the server's own.",
    )
