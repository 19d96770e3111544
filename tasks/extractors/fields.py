"""Columns of sources that have no schema: declared by the user, each with a path, a type and a default.

What no column names goes into one more column, so that nothing of a document is lost unseen.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, JsonValue, field_validator, model_validator

FieldType = Literal[
    "text", "integer", "decimal", "float", "boolean", "date", "timestamp", "timestamptz", "uuid", "objectid", "bytes", "json"
]  # fmt: skip
"""What a value has to be, and how it is written: the dialect of every source. ``json`` takes anything."""

Extra = Literal["json", "refuse", "drop"]
Mistyped = Literal["text", "null", "fail"]

EXTRA_COLUMN = "_extra"


class DeclaredColumn(BaseModel, frozen=True, extra="forbid", title="Column"):
    """One column of the CSV, and where in a document its value is."""

    name: str = Field(title="Name", description="Of the column in the CSV.", min_length=1)
    path: str = Field(
        default="",
        title="Path",
        description="Where the value is, such as properties.geo.city or items[0].price; empty: the name.",
    )
    type: FieldType = Field(
        default="text",
        title="Type",
        description="What the value has to be. json takes any value, and writes it as JSON.",
    )
    default: JsonValue = Field(
        default=None,
        title="Default",
        description="What is written where a document has no such field. A field that is null stays NULL.",
    )
    key: bool = Field(default=False, title="Key", description="Whether a loader merges by it.")

    @property
    def where(self) -> str:
        """The path, given or by the name."""
        return self.path or self.name


class Declared(BaseModel):
    """The fields by which a source without a schema is made into columns."""

    fields: tuple[DeclaredColumn, ...] = Field(
        default=(),
        title="Columns",
        description="The columns of the CSV, in order. `headrace discover --yaml` proposes some from a sample. "
        "None: the source's own (its key, and everything else in _extra).",
    )
    extra: Extra = Field(
        default="json",
        title="What no column names",
        description="json: is kept as JSON in the column _extra; drop: is left out, and counted in the commit; "
        "refuse: stops the run.",
    )
    mistyped: Mistyped = Field(
        default="text",
        title="Values of another type",
        description="What becomes of a value that is not of its column's type. text: it is written as text (JSON, if nested); "
        "null: it is written as NULL; fail: it stops the run. The first two are counted in the commit.",
    )

    @field_validator("fields")
    @classmethod
    def _names_differ(cls, fields: tuple[DeclaredColumn, ...]) -> tuple[DeclaredColumn, ...]:
        names = [field.name for field in fields]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"these names are given twice: {', '.join(twice)}")
        return fields

    @model_validator(mode="after")
    def _extra_is_free(self) -> Declared:
        if self.extra == "json" and EXTRA_COLUMN in [field.name for field in self.fields]:
            raise ValueError(
                f"fields: {EXTRA_COLUMN} is the column of what no other names; call yours otherwise, or drop it"
            )
        return self
