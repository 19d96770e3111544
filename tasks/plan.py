"""The task `plan`: where the stream stands, and the window and partitions of this run."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit
from urllib.request import getproxies

from prefect import get_run_logger, task
from pydantic import ValidationError

from blocks.errors import ConfigurationError
from blocks.s3 import S3Destination
from blocks.watermark import Watermark
from tasks import progress, publish, state
from tasks.extractors.contract import Plan
from tasks.failures import RETRIES, RETRY_SECONDS, explained_by, may_pass
from tasks.layouts import check_fits
from tasks.run import Run, Work
from tasks.telling import name_run

_REACH_SECONDS = 10.0


@task(name="plan", task_run_name="plan {run.stream}", persist_result=False, retries=RETRIES,
      retry_delay_seconds=RETRY_SECONDS, retry_condition_fn=may_pass)  # fmt: skip
async def plan(run: Run) -> Work:
    """Bring block and bucket into line, then plan; the plan is noted in the watermark before a row is read."""
    with explained_by(run.destination, run.stream):
        check_fits(run.extractor, run.destination.layout)
        await _reach(run.destination)
        if not run.destination.allow_unconditional_commits:
            await run.log.probe()
        mark = await state.settle(run.log)
        await publish.make_up_for(run, mark.sequence)
        pending = _pending(mark, run)
        if pending is not None:
            get_run_logger().info("taking up the plan of a run that did not end: %s", _window(pending))
            work = Work(pending, mark, resumed=True)
            await name_run(run, work)
            return work
        fresh = await run.extractor.plan(mark.position)
        if fresh.partitions:
            await state.put_pending(mark, fresh, run.log)
        _tell(run, fresh)
        work = Work(fresh, mark, resumed=False)
        if fresh.partitions:
            await name_run(run, work)
        return work


async def _reach(destination: S3Destination) -> None:
    """Find out within seconds that nothing answers at the endpoint: the client's own retries would take a minute."""
    address = urlsplit(destination.endpoint or "")
    if not address.hostname or getproxies().get(address.scheme):
        return
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        async with asyncio.timeout(_REACH_SECONDS):
            _, writer = await asyncio.open_connection(address.hostname, port)
    except (OSError, TimeoutError) as error:
        raise ConfigurationError(
            f"{destination.endpoint} cannot be reached ({error or f'no answer within {_REACH_SECONDS:g} s'}); "
            "check the field endpoint of the destination"
        ) from error
    writer.close()


def _pending(mark: Watermark, run: Run) -> Plan | None:
    """The plan of a run that died, where reading its missing partitions now gives what it would have given then."""
    if mark.pending is None:
        return None
    try:
        pending = Plan.model_validate(mark.pending)
    except ValidationError:  # another version's; planning anew is always right
        return None
    same = pending.since == mark.position and pending.mode == run.options.mode and pending.asked == run.extractor.asked
    return pending if pending.resumable and same else None


def _tell(run: Run, fresh: Plan) -> None:
    logger = get_run_logger()
    for note in fresh.notes:
        logger.warning("%s", note)
    if fresh.partitions:
        logger.info(
            "%s: %d partition(s), about %s rows, %s",
            run.stream,
            len(fresh.partitions),
            fresh.estimated_rows,
            _window(fresh),
        )
    progress.watcher.get().planned(run.stream, fresh)


def _window(fresh: Plan) -> str:
    return fresh.mode if fresh.mode == "full" else f"{fresh.mode} {fresh.since} → {fresh.until}"
