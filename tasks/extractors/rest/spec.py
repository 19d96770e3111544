"""An endpoint as it is asked, whoever filled it in: its own model, so that a parent's is asked in the same way."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, JsonValue

from tasks.extractors.rest.pagination import Link, Pagination
from tasks.extractors.rest.times import Times

Method = Literal["GET", "POST"]
Format = Literal["auto", "json", "ndjson", "csv"]
Action = Literal["ignore", "fail", "retry"]


class Spec(BaseModel, frozen=True, extra="forbid"):
    """See the fields of the same name in `tasks.extractors.rest.source`."""

    path: str
    method: Method = "GET"
    params: dict[str, str] = {}
    headers: dict[str, str] = {}
    body: JsonValue = None
    records: str = ""
    each: str = ""
    pagination: Pagination = Link()
    times: Times = Times()
    format: Format = "auto"
    responses: dict[str, Action] = {}
    repeatable: bool = False
    empty_when_missing: bool = False
    if_changed: bool = False
    parent: Spec | None = None
    values: dict[str, str] = {}
    """Of a parent: names for placeholders, and where its records have their values."""

    @property
    def may_repeat(self) -> bool:
        """Whether a request that failed on the way may be sent again."""
        return self.method == "GET" or self.repeatable
