"""How fast an API may be asked: so many requests at once, so many a second, and not before it says so itself."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

_EPOCH_FROM = 10**9
"""A reset of so many seconds is no span but a time: since 2001."""


class Pace:
    """Lets requests pass one after the other, none before its time."""

    def __init__(self, per_second: float, longest_wait: float) -> None:
        self._gap = 1 / per_second if per_second else 0.0
        self._longest = longest_wait
        self._next = self._held_until = 0.0

    async def turn(self) -> None:
        """Wait until one more request may be sent."""
        mine = self._place()
        while (rest := mine - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(rest)
            if mine < self._held_until:
                # All that waited have lost their places: they go out one after the other again.
                mine = self._place()

    def _place(self) -> float:
        """The next time that nobody has."""
        mine = max(asyncio.get_running_loop().time(), self._next)
        self._next = mine + self._gap
        return mine

    def hold(self, seconds: float) -> None:
        """Let no request pass for so long; those that wait already included."""
        until = asyncio.get_running_loop().time() + min(seconds, self._longest)
        self._held_until = max(self._held_until, until)
        self._next = max(self._next, until)

    def heed(self, response: httpx.Response) -> None:
        """Wait for the next quota where the server says that this one is used up."""
        if (seconds := exhausted(response)) is not None:
            self.hold(seconds)


def retry_after(response: httpx.Response) -> float | None:
    """Seconds after which a refused request may be sent again, as the server says; None where it does not."""
    told = response.headers.get("Retry-After", "").strip()
    if told.replace(".", "", 1).isdecimal():
        return float(told)
    if told and (when := _date(told)) is not None:
        # By the server's own clock, where it tells the time.
        now = _date(response.headers.get("Date", "")) or datetime.now(UTC)
        return max(0.0, (when - now).total_seconds())
    return exhausted(response)


def exhausted(response: httpx.Response) -> float | None:
    """Seconds until the quota is renewed, where a response says that nothing is left of it.

    RateLimit as a list (https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/), as single headers (its
    versions up to 07), and the older ones that begin with X-.
    """
    found: list[float] = []
    told = response.headers.get("RateLimit", "")
    for member in told.split(",") if ";" in told else [told]:
        parts = dict(re.findall(r"(?:^|[;,])\s*([a-z]+)\s*=\s*(\d+)", member))
        if parts.get("r", parts.get("remaining")) == "0" and (reset := parts.get("t", parts.get("reset"))):
            found.append(float(reset))
    for prefix in ("RateLimit-", "X-RateLimit-", "X-Rate-Limit-"):
        remaining, reset = response.headers.get(f"{prefix}Remaining"), response.headers.get(f"{prefix}Reset")
        if remaining is not None and remaining.strip() == "0" and reset:
            found += _seconds(reset, response)
    return max(found, default=None)


def _seconds(reset: str, response: httpx.Response) -> list[float]:
    try:
        value = float(reset)
    except ValueError:
        return []
    if value < _EPOCH_FROM:
        return [value]
    now = _date(response.headers.get("Date", "")) or datetime.now(UTC)
    return [max(0.0, value - now.timestamp())]


def server_time(headers: httpx.Headers) -> datetime | None:
    """What the server's clock showed when it answered; None where it does not tell."""
    return _date(headers.get("Date", ""))


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
