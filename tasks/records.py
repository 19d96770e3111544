"""What a run has finished, kept in the bucket: a later run that takes up its plan does only the rest.

Not by Prefect's result persistence, which keeps the pickled exceptions of failed tasks too, each under a name that no
one finds again, and makes a client of its own for every record.
"""

from __future__ import annotations

import asyncio
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from prefect.logging import get_logger
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from tasks.commits import Entry
from tasks.extractors.contract import Partition, Plan
from tasks.run import Run

_AT_ONCE = 32
"""A plan may have thousands of records."""


class Record(BaseModel):
    """A partition that is finished."""

    model_config = ConfigDict(frozen=True)

    entries: tuple[Entry, ...]
    """None of them: it held no row, and no object was needed."""
    reached: JsonValue = None
    """The position that it came to, where that was not planned."""


async def find(run: Run, plan: Plan, partition: Partition) -> Record | None:
    """The record of a partition; None when there is none that can be read, or be committed: it is extracted again then."""
    try:
        answer = await run.client.get_object(**_where(run, plan, partition))
    except run.client.exceptions.NoSuchKey:
        return None
    try:
        record = Record.model_validate_json(await answer["Body"].read())
    except ValidationError:
        return None
    # A commit names one compression, that of its destination, which may have been another then.
    fits = all(entry.key.endswith(f".{run.destination.extension}") for entry in record.entries)
    return record if fits else None


async def keep(run: Run, plan: Plan, partition: Partition, record: Record) -> None:
    """Note that a partition is finished."""
    await run.client.put_object(
        **_where(run, plan, partition),
        Body=record.model_dump_json().encode(),
        ContentType="application/json",
        **run.destination.object_arguments(),
    )


async def forget(run: Run, plan: Plan) -> None:
    """Remove the records of a plan that is committed."""
    slots = asyncio.Semaphore(_AT_ONCE)

    async def remove(partition: Partition) -> None:
        async with slots:
            await run.client.delete_object(**_where(run, plan, partition))

    try:
        async with asyncio.TaskGroup() as group:
            for partition in plan.partitions:
                group.create_task(remove(partition))
    except* (ClientError, BotoCoreError, OSError) as error:
        # The commit stands; sweep removes what is left.
        get_logger("headrace.records").info("records of the plan are left for sweep: %s", error.exceptions[0])


def _where(run: Run, plan: Plan, partition: Partition) -> dict[str, Any]:
    key = run.destination.key(run.stream, "_results", plan.id, f"{partition.name}.json")
    return {"Bucket": run.destination.bucket, "Key": key, **run.destination.owner_arguments()}
