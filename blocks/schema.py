"""A block's JSON schema, made once.

Prefect 3.8 asks for it anew for every field of a block that is saved (`Block._field_has_secrets`), which takes two
seconds of CPU for a destination and a twentieth for a watermark.
"""

from __future__ import annotations

from typing import Any

_made: dict[tuple[Any, ...], dict[str, Any]] = {}


class SchemaOnce:
    """Goes before `prefect.blocks.core.Block` among the bases of a block."""

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """See `pydantic.BaseModel.model_json_schema`; a copy of the top level, whose inner parts nobody may change."""
        asked = (cls, args, tuple(sorted(kwargs.items())))
        if asked not in _made:
            _made[asked] = super().model_json_schema(*args, **kwargs)  # type: ignore[misc]  # of Block, the next base
        return dict(_made[asked])
