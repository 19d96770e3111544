"""Where a stream stands: its watermark block, brought into line with the commits in the bucket.

The only module that moves a watermark. The bucket decides; the block is a copy that people and the next run look at.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

from prefect.logging import get_logger
from pydantic import JsonValue

from blocks.errors import ConfigurationError, PositionLost
from blocks.watermark import Watermark
from tasks.commits import Commit, CommitLog
from tasks.extractors.contract import Plan

_logger = get_logger("headrace.state")


async def settle(log: CommitLog) -> Watermark:
    """`settled`, saved if that changed it."""
    before = await Watermark.of(log.stream)
    sequence = before.sequence if before else 0
    mark = await _settled(log, before)
    if sequence != mark.sequence:
        _logger.info("stream %s: the watermark block is brought to commit %d", log.stream, mark.sequence)
        await mark.put()
    return mark


async def settled(log: CommitLog) -> Watermark:
    """The watermark as the bucket has it; nothing is saved.

    A block behind the bucket is moved forward, a missing one rebuilt; `PositionLost` where neither explains it.
    """
    return await _settled(log, await Watermark.of(log.stream))


async def _settled(log: CommitLog, mark: Watermark | None) -> Watermark:
    if mark is None:
        return await _from_bucket(log)
    if mark.sequence:
        await _check_last(log, mark)
    return await _catch_up(log, mark)


async def rebuild(log: CommitLog) -> Watermark:
    """A watermark made from the bucket alone, and saved."""
    mark = await _from_bucket(log)
    await mark.put()
    return mark


async def _from_bucket(log: CommitLog) -> Watermark:
    mark = Watermark(stream=log.stream, destination=log.folder)
    if (last := await log.last()) is not None:
        mark.sequence, mark.position = last.sequence, last.until
    return mark


async def _check_last(log: CommitLog, mark: Watermark) -> None:
    standing = await log.read(mark.sequence)
    if standing is None:
        elsewhere = f", and was written for {mark.destination}" if mark.destination not in ("", log.folder) else ""
        raise PositionLost(
            f"stream {log.stream}: its watermark block says commit {mark.sequence}, which is not in {log.folder}{elsewhere}. "
            f"Choose: point the stream to its former destination; take the bucket's word (`headrace state rebuild "
            f"{log.stream}`); keep the position and go on here (`headrace state set {log.stream} '{_text(mark.position)}'`); "
            "or use another stream name"
        )
    if standing.until != mark.position:
        raise PositionLost(
            f"stream {log.stream}: its watermark block says {_text(mark.position)}, its commit {mark.sequence} says "
            f"{_text(standing.until)}. Was the block edited by hand? Choose: take the bucket's word (`headrace state "
            f"rebuild {log.stream}`), or set the position for good (`headrace state set {log.stream} POSITION`)"
        )


async def _catch_up(log: CommitLog, mark: Watermark) -> Watermark:
    numbers = await log.after(mark.sequence)
    if not numbers:
        return mark
    if numbers != list(range(mark.sequence + 1, mark.sequence + 1 + len(numbers))):
        raise log.gap([mark.sequence, *numbers] if mark.sequence else numbers)
    newest = await log.read(numbers[-1])
    if newest is None:
        raise log.gap(numbers)
    _move(mark, newest, log)
    return mark


def _move(mark: Watermark, commit: Commit, log: CommitLog) -> None:
    mark.sequence, mark.position, mark.pending, mark.destination = commit.sequence, commit.until, None, log.folder


async def adopt(mark: Watermark, commit: Commit, log: CommitLog) -> None:
    """Move the block to ``commit``, which stands in the bucket."""
    _move(mark, commit, log)
    await mark.put()


async def put_pending(mark: Watermark, plan: Plan, log: CommitLog) -> None:
    """Note the plan under way, before its first row is read."""
    mark.pending, mark.destination = plan.kept(), log.folder
    await mark.put()


async def drop_pending(mark: Watermark) -> None:
    """Forget the plan under way: the next one begins afresh."""
    mark.pending = None
    await mark.put()


def check_is_new(log: CommitLog, numbers: list[int]) -> None:
    """`ConfigurationError` where a stream has commits."""
    if numbers:
        raise ConfigurationError(
            f"stream {log.stream}: it has come to commit {numbers[-1]} in {log.folder}, and goes on from there; "
            f"`headrace state set {log.stream} POSITION` moves it"
        )


async def set_position(log: CommitLog, position: JsonValue, *, note: str, is_first: bool = False) -> Commit:
    """Move the watermark by hand: an empty commit, so that bucket and block agree and a run under way loses its race.

    ``is_first``: only where there is no commit yet.
    """
    # The block first: what it has seen is in the log by now, and what comes later takes the number that is wanted here.
    mark = await Watermark.of(log.stream) or Watermark(stream=log.stream)
    numbers = await log.after(0)
    if is_first:
        check_is_new(log, numbers)
    latest = max([mark.sequence, *numbers])
    before = await log.read(latest) if latest in numbers else None
    wanted = Commit(
        kind="set",
        stream=log.stream,
        sequence=latest + 1,
        since=before.until if before else mark.position,
        until=position,
        notes=(note,),
        file_time=before.file_time if before else "",
        committed_at=datetime.now(UTC),
    )
    standing = await log.put(wanted)
    if standing.id != wanted.id:
        raise ConfigurationError(
            f"stream {log.stream}: a run committed {standing.sequence} just now; look, and try again"
        )
    await adopt(mark, standing, log)
    return standing


async def rewind(log: CommitLog, sequence: int) -> Commit:
    """Go back to where commit ``sequence`` had brought the stream (0: the beginning); later files stay."""
    if sequence == 0:
        return await set_position(log, None, note="rewound to the beginning")
    target = await log.read(sequence)
    if target is None:
        known = await log.after(0)
        span = f"there are {known[0]} to {known[-1]}" if known else "there is none"
        raise ConfigurationError(f"stream {log.stream}: there is no commit {sequence} in {log.folder}; {span}")
    return await set_position(log, target.until, note=f"rewound to commit {sequence}")


def _text(position: JsonValue) -> str:
    return json.dumps(position, ensure_ascii=False)
