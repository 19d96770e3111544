"""How an API divides what it has into pages: what a person fills in, one model for each way."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, model_validator

from tasks.extractors.tabs import AsTabs

Place = Literal["params", "body"]


def _title(title: str) -> ConfigDict:
    return ConfigDict(frozen=True, extra="forbid", title=title)


class _Pages(BaseModel):
    """What all ways have."""

    stop: str = Field(
        default="",
        title="Last page when",
        description="A JMESPath expression over the response that is true on the last page, such as !has_more.",
    )
    max_pages: int = Field(
        default=1_000_000, ge=1, title="Most pages", description="A run that would read more ends with an error."
    )
    repeats: Literal["fail", "stop"] = Field(
        default="fail",
        title="A page that comes again",
        description="fail: an error, for the parameter is not heeded; stop: it was the last (some APIs repeat that one).",
    )


class PageNumber(_Pages):
    """The page's number is a parameter. Pages are read at once, as many as the connection allows."""

    model_config = _title("Page number")

    kind: Literal["page"]
    param: str = Field(default="page", title="Parameter", description="The parameter for the page's number.")
    first: int = Field(default=1, title="First page", description="The number of the first page.")
    size_param: str = Field(
        default="", title="Size parameter", description="The parameter for the page's size, if any."
    )
    size: int = Field(default=100, ge=1, title="Size", description="Records a page, sent as the size parameter.")
    pages: str = Field(
        default="",
        title="Number of pages",
        description="Where a response tells it (JMESPath); spares requests past the end.",
    )
    total: str = Field(
        default="",
        title="Number of records",
        description="Where a response tells it (JMESPath). A run that gets more or fewer reads again.",
    )
    place: Place = Field(default="params", title="Place", description="The URL's parameters, or members of the body.")

    @model_validator(mode="after")
    def _params_differ(self) -> PageNumber:
        if self.param == self.size_param:
            raise ValueError("param and size_param are the same")
        return self


class Offset(_Pages):
    """The number of records to pass over is a parameter. Pages are read at once, as many as the connection allows."""

    model_config = _title("Offset and limit")

    kind: Literal["offset"]
    param: str = Field(default="offset", title="Parameter", description="The parameter for the records to pass over.")
    limit_param: str = Field(default="limit", title="Limit parameter", description="The parameter for the page's size.")
    limit: int = Field(default=100, ge=1, title="Limit", description="Records a page, sent as the limit parameter.")
    total: str = Field(
        default="",
        title="Number of records",
        description="Where a response tells it (JMESPath). A run that gets more or fewer reads again.",
    )
    place: Place = Field(default="params", title="Place", description="The URL's parameters, or members of the body.")


class PageCursor(_Pages):
    """Each response holds the cursor of the next page."""

    model_config = _title("Cursor")

    kind: Literal["cursor"]
    value: str = Field(
        default="", title="Cursor", description="Where a response has it (JMESPath), such as meta.next_cursor."
    )
    header: str = Field(default="", title="Header", description="The header that has it, instead.")
    param: str = Field(default="cursor", title="Parameter", description="The parameter it is sent back as.")
    place: Place = Field(default="params", title="Place", description="The URL's parameters, or members of the body.")

    @model_validator(mode="after")
    def _one_place(self) -> PageCursor:
        return _one_of(self)


class NextUrl(_Pages):
    """Each response holds the URL of the next page."""

    model_config = _title("Next URL")

    kind: Literal["next"]
    value: str = Field(default="", title="URL", description="Where a response has it (JMESPath), such as links.next.")
    header: str = Field(default="", title="Header", description="The header that has it, instead.")

    @model_validator(mode="after")
    def _one_place(self) -> NextUrl:
        return _one_of(self)


class Link(_Pages):
    """The header Link names the next page (RFC 8288); without one the response is the last."""

    model_config = _title("Link header")

    kind: Literal["link"] = "link"
    rel: str = Field(default="next", title="Relation", description="The rel of the link to the next page.")


class OnePage(_Pages):
    """There is one page."""

    model_config = _title("One page")

    kind: Literal["none"]


P = TypeVar("P", "PageCursor", "NextUrl")


def _one_of(model: P) -> P:
    if bool(model.value) == bool(model.header):
        raise ValueError("give one of value and header")
    return model


Pagination = Annotated[PageNumber | Offset | PageCursor | NextUrl | Link | OnePage, Discriminator("kind"), AsTabs()]
