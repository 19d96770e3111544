"""The window of a run and its partitions, from the first pages: what the server's clock shows, and whether there is news."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from pydantic import JsonValue

from blocks.errors import ConfigurationError, PositionLost
from tasks.extractors import cuts
from tasks.extractors.contract import Partition, Plan, ReadOptions
from tasks.extractors.position import position, value_after
from tasks.extractors.rest.pace import server_time
from tasks.extractors.rest.pages import Taken
from tasks.extractors.rest.reading import Reading
from tasks.extractors.rest.records import Page
from tasks.extractors.rest.sieve import Sieve
from tasks.extractors.rest.template import BOUNDS, placeholders
from tasks.extractors.rest.times import Window, text_of

_LOOKS = 3
"""Pages that are looked through for a record of the window before it is taken for granted that there is one."""
_SKEW_SECONDS = 5
_CLOCK = "time"
"""What a position calls its cursor where the API alone knows it."""


class Planner:
    """Plans one run."""

    def __init__(self, reading: Reading, options: ReadOptions) -> None:
        self._reading = reading
        self._spec = spec = reading.spec
        self._times = spec.times
        self._options = options
        self._bounds = placeholders(spec) | (placeholders(spec.parent) if spec.parent else set())
        self._notes: list[str] = []

    async def plan(self, blank: Plan) -> Plan:
        """Fill in ``blank``, whose ``until`` is its ``since``."""
        self._check_mode()
        windowed = bool(self._times.cursor) or not self._bounds.isdisjoint(BOUNDS)
        made = await (self._windowed(blank) if windowed else self._everything(blank))
        return made.model_copy(update={"notes": (*blank.notes, *self._notes)})

    def _check_mode(self) -> None:
        self._times.timezone()
        if self._options.mode == "changes":
            raise ConfigurationError("field mode: an API has no log of changes; choose incremental or full")
        if self._times.cursor or self._options.mode == "full":
            return
        if "until" not in self._bounds:
            raise ConfigurationError(
                "field cursor: mode incremental needs to know where a record has the time of its last change, such as "
                "updated_at; or a request with both bounds, {since} and {until}; or choose mode full"
            )

    # -- everything ----------------------------------------------------------------------------------------------

    async def _everything(self, plan: Plan) -> Plan:
        """There is no time to cut by."""
        pages, first = self._reading.first(Window())
        looks_for_change = self._spec.if_changed and not self._spec.parent
        if looks_for_change:
            first = replace(first, headers={**first.headers, **_conditions(plan.since)})
        async with aclosing(await pages.begin(first)) as page:
            if page.response is not None and page.response.status == HTTPStatus.NOT_MODIFIED:
                self._notes.append("the server says that nothing has changed since the last run")
                return plan
            now, reached = self._clock(page), _unchanged(page) if looks_for_change else plan.since
        return plan.model_copy(
            update={
                "partitions": (Partition(name="00001"),),
                "until": reached,
                "snapshot": {"server_time": text_of(now)},
            }
        )

    # -- a window ------------------------------------------------------------------------------------------------

    async def _windowed(self, plan: Plan) -> Plan:
        times, is_full = self._times, self._options.mode == "full"
        if not times.cursor:
            self._notes.append("no cursor: that rows come once depends on how the API takes {since} and {until}")
        since = None if is_full else self._since(plan.since)
        lower = times.first() if since is None else times.looked_back(since)
        # The end of the window is known when the server has answered; until then our own clock has to do.
        asked = Window(since=lower, until=times.until(datetime.now(UTC)))
        pages, first = self._reading.first(asked)
        async with aclosing(await pages.begin(first)) as page:
            now = self._clock(page)
            window = Window(since=lower, until=times.until(now))
            if self._is_empty(window, since):
                return plan
            if not is_full and not self._spec.parent:
                is_same = window == asked or "until" not in self._bounds
                if not await self._has_news(window, page if is_same else None):
                    return plan
        return plan.model_copy(
            update={
                "until": position(times.cursor or _CLOCK, times.stored(window.until or now)),
                "partitions": self._cut(window),
                "resumable": not is_full,
                "snapshot": {"server_time": text_of(now)},
            }
        )

    def _since(self, since: JsonValue) -> datetime | None:
        if isinstance(since, dict) and "unchanged" in since:
            raise PositionLost(
                "the position was left by a read in mode full with if_changed, and holds no time; choose: start again "
                "(`headrace state set STREAM null`), or use another stream name"
            )
        value = value_after(since, self._times.cursor or _CLOCK, "REST")
        return None if value is None else self._times.moment(value)

    def _is_empty(self, window: Window, since: datetime | None) -> bool:
        """Whether a window has no time in it."""
        until = window.until
        if until is None or not ((window.since and until <= window.since) or (since and until <= since)):
            return False
        if since and until < since:
            self._notes.append(
                f"nothing is read now: the window would end at {text_of(until)}, before the watermark {text_of(since)}. Was the "
                "server's clock set back, or lag raised? Set lookback, or go back with `headrace state set`"
            )
        return True

    async def _has_news(self, window: Window, page: Page | None) -> bool:
        """Whether any record is in the window; taken for granted where the first pages do not tell.

        ``page``: its first one, if it is there.
        """
        sieve = Sieve(self._times, window)
        looked, found = 0, False
        pages, first = self._reading.first(window)

        async def look(page: Page) -> Taken:
            nonlocal looked, found
            looked += 1
            count = 0
            async with aclosing(page.batches()) as batches:
                async for batch in batches:
                    count += len(batch)
                    found = found or any(sieve.is_news(record) for record in batch)
                    if found:
                        break
            found = found or (looked == _LOOKS and count > 0)
            return Taken(count, is_enough=found or sieve.is_past())

        begun = None
        if page is not None:
            begun = asyncio.get_running_loop().create_future()
            begun.set_result(page)
        await pages.each(first, look, first=begun)
        return found

    def _cut(self, window: Window) -> tuple[Partition, ...]:
        times, wanted = self._times, self._options.partitions
        lower = times.stored(window.since) if window.since else None
        upper = times.stored(window.until) if window.until else None
        if not times.split and wanted <= 1:
            return cuts.ranges(lower, [], upper)
        if not self._bounds.issuperset(BOUNDS) or lower is None:
            self._notes.append(
                "read in one partition: a window is cut where the request has both bounds, {since} and {until}, and the first "
                "one where window.start is set"
            )
            return cuts.ranges(lower, [], upper)
        inner = times.inner(window, min(max(1, wanted), cuts.MAX_PARTITIONS))
        return cuts.ranges(lower, [times.stored(bound) for bound in inner], upper)

    def _clock(self, page: Page) -> datetime:
        """The server's time; our own, with a note, where it does not tell its."""
        ours = datetime.now(UTC)
        theirs = server_time(page.response.headers) if page.response is not None else None
        if theirs is None:
            self._notes.append(
                "the server does not tell its time (header Date): the window ends by this machine's clock"
            )
            return ours
        if abs(skew := (theirs - ours).total_seconds()) > _SKEW_SECONDS:
            direction = "ahead of" if skew > 0 else "behind"
            self._notes.append(
                f"the server's clock is {abs(skew):,.0f} s {direction} this machine's; windows end by the server's"
            )
        return theirs


# -- whether anything has changed ------------------------------------------------------------------------------------


def _unchanged(page: Page) -> JsonValue:
    """The position that tells the next run what the first page was like; None where the server does not say."""
    headers: Any = page.response.headers if page.response is not None else {}
    found = {name: headers[name] for name in ("ETag", "Last-Modified") if name in headers}
    return {"unchanged": found} if found else None


def _conditions(since: JsonValue) -> dict[str, str]:
    """The headers that ask for a page only if it is not as it was."""
    known = since.get("unchanged") if isinstance(since, dict) else None
    names = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}
    return (
        {names[name]: str(value) for name, value in known.items() if name in names} if isinstance(known, dict) else {}
    )
