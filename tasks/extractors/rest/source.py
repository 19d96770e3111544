"""What a person fills in for an endpoint of an API. The simplest is a connection and a path."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

from blocks.connect import BlockOrName
from blocks.rest import RestApi
from tasks.extractors.contract import Extractor, ReadOptions
from tasks.extractors.fields import Declared
from tasks.extractors.rest.extractor import RestExtractor
from tasks.extractors.rest.pagination import Link, Pagination
from tasks.extractors.rest.spec import Action, Format, Method, Spec
from tasks.extractors.rest.times import Order, TimeFormat, Times
from tasks.extractors.source import Source, Window

_PATH = "Behind the base URL, such as /orders. {since} and {until} stand for the bounds of a window"


class Bounds(BaseModel):
    """How the bounds of a window are written into requests, and how a window is cut."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Window")

    format: TimeFormat = Field(
        default="iso",
        title="Written as",
        description="How {since} and {until} are written: iso (2026-01-31T23:59:59Z), epoch (seconds), epoch-ms, or date: then "
        "a window is whole days, {since} is its first and {until} its last.",
    )
    start: str = Field(
        default="",
        title="Start",
        description="Where the first window begins, such as 2026-01-01; empty: parameters with {since} are left out then.",
    )
    split: str = Field(
        default="",
        title="Split",
        description="Cuts a window into partitions of this span, such as '1 day'; needs {since} and {until} in the request.",
    )
    order: Order = Field(
        default="",
        title="Order",
        description="By which the API sorts by the cursor: newest-first ends a read at the first page that is all before the "
        "window, oldest-first at the first one that is all after it. Empty: in no order.",
    )


class Parent(BaseModel):
    """An endpoint whose records name the requests to make: /customers for /customers/{customer}/orders."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Parent endpoint")

    path: str = Field(title="Path", description=f"{_PATH}.", min_length=1)
    values: dict[str, str] = Field(
        title="Values",
        description="Names for {placeholders}, and where a parent's record has their values: {customer: id}. Each child has "
        "them as _parent.customer.",
        min_length=1,
    )
    params: dict[str, str] = Field(default={}, title="Parameters", description="Of the URL.")
    records: str = Field(default="", title="Records", description="As for the endpoint.")
    pagination: Pagination = Field(default=Link(), title="Pagination", description="As for the endpoint.")


class RestEndpoint(Source, Declared, Window):
    """One endpoint of an HTTP API that gives JSON, NDJSON or CSV."""

    model_config = ConfigDict(title="REST endpoint")

    connection: BlockOrName[RestApi] = Field(title="Connection", description="A REST API block, such as rest-api/shop")
    path: str = Field(title="Path", description=f"{_PATH}; {{names}} for a parent's values.", min_length=1)
    method: Method = Field(default="GET", title="Method", description="POST for searches.")
    params: dict[str, str] = Field(
        default={},
        title="Parameters",
        description="Of the URL; {since} and {until} stand for the bounds of a window: {updated_after: '{since}'}.",
    )
    headers: dict[str, str] = Field(
        default={}, title="Headers", description="Of the request; secret ones belong to the connection."
    )
    body: JsonValue = Field(default=None, title="Body", description="JSON to send; placeholders stand in its strings.")
    records: str = Field(
        default="",
        title="Records",
        description="Where a response has them: a path such as data.items, any JMESPath, or @ for a response that is itself "
        "one record. Empty: the response, or the one array in it.",
    )
    each: str = Field(
        default="",
        title="One row for each",
        description="A path to an array in a record, such as items: each of its elements becomes a row with the fields of its "
        "record. Columns find the element where the array was: items.sku.",
    )
    pagination: Pagination = Field(
        default=Link(),
        title="Pagination",
        description="How the next page is asked for. By default the header Link says it.",
    )
    cursor: str = Field(
        default="",
        title="Cursor",
        description="Where a record has the time of its last change, such as updated_at. Rows outside a window are left out by "
        "it. Empty in mode incremental: the API is relied upon, and {until} has to be in the request.",
    )
    lag: str = Field(
        default="1 minute",
        title="Lag",
        description="Hold back rows fresher than this by the server's clock: what is being written may not be shown yet.",
    )
    cursor_timezone: str = Field(
        default="",
        title="Time zone of the cursor",
        description="Of records' times without one, and of days where the window is written as date. Empty: UTC.",
    )
    window: Bounds = Field(default=Bounds(), title="Window", description="How bounds are written, and windows cut.")
    parent: Parent | None = Field(
        default=None, title="Parent", description="An endpoint whose records fill the placeholders of this one's path."
    )
    format: Format = Field(
        default="auto", title="Format", description="Of responses. auto: what they say themselves (Content-Type)."
    )
    responses: dict[str, Action] = Field(
        default={},
        title="Actions by status",
        description="What to do with a status instead of the usual: {'404': ignore} takes it for an empty page, {'409': retry} "
        "sends the request again, {'503': fail} gives up at once.",
    )
    repeatable: bool = Field(
        default=False,
        title="POST may be repeated",
        description="Whether a POST that failed on the way may be sent again, as a GET is. A search may.",
    )
    empty_when_missing: bool = Field(
        default=False,
        title="No records when their place is missing",
        description="For APIs that leave an empty array out. Otherwise such a response is an error.",
    )
    if_changed: bool = Field(
        default=False,
        title="Only if changed",
        description="Mode full without a cursor: nothing is read while the server says (ETag, Last-Modified) that the first "
        "page is as it was.",
    )

    @field_validator("responses")
    @classmethod
    def _are_statuses(cls, responses: dict[str, Action]) -> dict[str, Action]:
        if wrong := [status for status in responses if not (status.isdecimal() and 400 <= int(status) <= 599)]:
            raise ValueError(f"these are no statuses from 400 to 599: {', '.join(wrong)}")
        return responses

    def open(self, options: ReadOptions) -> Extractor:
        return RestExtractor(self.connection, self.spec(), self, options)

    def spec(self) -> Spec:
        """All of it but the columns, as the extractor takes it."""
        names = set(Spec.model_fields) & set(type(self).model_fields)
        times = Times(
            cursor=self.cursor, lag=self.lag, lookback=self.lookback, null_cursor=self.null_cursor,
            zone=self.cursor_timezone, **self.window.model_dump(),
        )  # fmt: skip
        parent = None
        if self.parent:
            given = {name: getattr(self.parent, name) for name in type(self.parent).model_fields}
            parent = Spec(values=given.pop("values"), headers=self.headers, **given)
        return Spec(times=times, parent=parent, **{name: getattr(self, name) for name in names - {"parent"}})
