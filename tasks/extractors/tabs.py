"""Unions of models as the forms of the Prefect UI show them best."""

from __future__ import annotations

from pydantic import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


class AsTabs:
    """Shows a union as plain ``anyOf``: the forms of the Prefect UI make tabs of that, and a JSON editor of oneOf."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        shown = handler(schema)
        shown.pop("discriminator", None)
        if "oneOf" in shown:
            shown["anyOf"] = shown.pop("oneOf")
        return shown
