"""Spans of time as people write them: ``5 minutes``, ``1 hour 30 min``, ``2.5 days``, ``01:30:00``."""

from __future__ import annotations

import re
from datetime import timedelta

from blocks.errors import ConfigurationError

_SECONDS = {"second": 1, "sec": 1, "s": 1, "minute": 60, "min": 60, "m": 60, "hour": 3600, "hr": 3600, "h": 3600,
            "day": 86400, "d": 86400, "week": 604800, "w": 604800}  # fmt: skip
_PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*,?")
_CLOCK = re.compile(r"(\d+):(\d\d)(?::(\d\d))?")


def duration(field: str, text: str) -> timedelta:
    """The span that ``text`` names; `ConfigurationError` names the field. Months and years have no fixed length."""
    lowered = text.strip().lower()
    if clock := _CLOCK.fullmatch(lowered):
        hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        return timedelta(hours=hours, minutes=minutes, seconds=seconds)
    parts = _PART.findall(lowered)
    units = [_unit(unit) for _, unit in parts]
    if not parts or _PART.sub("", lowered).strip() or None in units:
        raise ConfigurationError(
            f"field {field}: {text!r} is not a span of time; write such as '5 minutes', '1 hour 30 minutes', '2 days'"
        )
    return timedelta(seconds=sum(float(value) * (unit or 0) for (value, _), unit in zip(parts, units, strict=True)))


def _unit(name: str) -> int | None:
    return _SECONDS.get(name) or _SECONDS.get(name.removesuffix("s"))
