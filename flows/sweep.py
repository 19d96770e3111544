"""The flow `sweep`: remove what runs that died have left in the bucket. Looks only, unless told to delete."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import Field

from blocks.connect import BlockOrName
from blocks.errors import ConfigurationError
from blocks.s3 import S3Destination
from tasks import leftovers
from tasks.failures import explained_by

_AGE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(second|minute|hour|day|week)s?\s*")


@flow(name="sweep", flow_run_name="sweep {to.bucket}", persist_result=False)
async def sweep(
    to: BlockOrName[S3Destination],
    streams: list[Annotated[str, Field(pattern=r"^[0-9a-z][0-9a-z-]*$")]] = [],  # noqa: B006 - shown in the form
    older_than: str = "24 hours",
    dry_run: bool = True,
) -> State[dict[str, Any]]:
    """Remove unfinished uploads and uncommitted objects of runs that died.

    Args:
        to: An S3 Destination block, such as s3-destination/lake.
        streams: The streams to look at; empty means all that have a folder in the destination.
        older_than: Younger leftovers stay, they may belong to a run under way. Such as 24 hours or 7 days.
        dry_run: Only tell what would go.
    """
    age = _age(older_than)
    uploads: list[str] = []
    objects: dict[str, int] = {}
    async with to.client() as client:
        with explained_by(to, "(all)"):
            # The store stamps what lies in it; this machine's clock may differ.
            before = await leftovers.store_time(client, to) - age
            names = streams or await leftovers.streams_of(client, to)
        for stream in names:
            with explained_by(to, stream):
                found = await leftovers.find(client, to, stream, before)
                uploads += [key for key, _ in found.uploads]
                objects |= found.objects
                if not dry_run:
                    await leftovers.remove(client, to, found)
    done = "would remove" if dry_run else "removed"
    said = f"{done} {len(uploads)} unfinished upload(s) and {len(objects)} object(s), {sum(objects.values()):,} bytes"
    get_run_logger().info("%s", said)
    return Completed(
        message=said, data={"uploads": uploads, "objects": sorted(objects), "bytes": sum(objects.values())}
    )


def _age(text: str) -> timedelta:
    found = _AGE.fullmatch(text)
    if found is None:
        raise ConfigurationError(f"field older_than: {text!r} is not an age; write it such as 90 minutes or 7 days")
    return timedelta(**{f"{found[2]}s": float(found[1])})
