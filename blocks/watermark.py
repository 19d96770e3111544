"""How far a stream has come. The block is the place to look at; the bucket's conditional write is what decides."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Self

from prefect.blocks.core import Block
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from pydantic import ConfigDict, Field, JsonValue

from blocks.schema import SchemaOnce

_MEETINGS = 4
"""Type, schema and block can each be made by another in the moment between the look and the making."""


class Watermark(SchemaOnce, Block):
    """The state of one stream, saved under the stream's name.

    Saving a block has no compare-and-set: of two runs that save, the later one wins unseen. So the block may lag
    behind, and never decides: which run commits a sequence number is decided by the bucket, where the commit object
    is put with ``If-None-Match: *``. A run that finds a commit past ``sequence`` takes that commit's ``until`` and
    goes on.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    _block_type_name = "Watermark"
    _block_type_slug = "watermark"
    # A plain string serves; the base class declares a URL type.
    _logo_url = "https://cdn.jsdelivr.net/npm/@tabler/icons-png@3.31.0/icons/outline/ripple.png"  # type: ignore[assignment]  # a plain string serves
    _description = "How far a stream has come: written by its runs, here to be looked at."
    _code_example = """```python
from blocks.watermark import Watermark

watermark = Watermark.load("orders")
print(watermark.sequence, watermark.position)
```"""

    stream: str = Field(
        title="Stream",
        description="The stream's name, which is this block's name and its folder in the bucket.",
        pattern=r"^[0-9a-z][0-9a-z-]*$",
    )
    sequence: int = Field(
        default=0,
        ge=0,
        title="Sequence",
        description="Number of the last commit; 0: nothing is committed yet.",
    )
    position: JsonValue = Field(
        default=None,
        title="Position",
        description="What the last commit reached; its meaning is known to the stream's source alone.",
    )
    pending: dict[str, Any] | None = Field(
        default=None,
        title="Pending plan",
        description="The plan of a run under way, or of one that died; empty after a commit.",
    )
    destination: str = Field(
        default="",
        title="Destination",
        description="The s3:// URL of the stream's folder, by which a stream pointed elsewhere is noticed.",
    )
    updated: datetime | None = Field(
        default=None,
        title="Updated",
        description="When a run last saved this block.",
    )

    @classmethod
    async def of(cls, stream: str) -> Self | None:
        """The watermark of ``stream``, or None when there is no such block. Any other error goes through."""
        try:
            return await cls.aload(stream)
        except ValueError as error:
            # Prefect turns "not found" into a bare ValueError, as it does much else; the cause tells them apart.
            if isinstance(error.__cause__, ObjectNotFound):
                return None
            raise

    async def put(self) -> None:
        """Save under the stream's name, over whatever is there, and set ``updated``."""
        self.updated = datetime.now(UTC)
        # The first ones on a server make the block's type and its schema there, and meet when streams begin at once.
        for meetings_left in reversed(range(_MEETINGS)):
            try:
                await self.asave(self.stream, overwrite=True)
            except ObjectAlreadyExists:
                if not meetings_left:
                    raise
            else:
                return
