"""Where a cursor has come to, as a stream's watermark holds it: ``{"cursor": column, "value": text}``."""

from __future__ import annotations

import json

from pydantic import JsonValue

from blocks.errors import ConfigurationError, PositionLost

_CHOICES = (
    "choose: put the former source back; start again (`headrace state set STREAM null`); say where to go on "
    '(`headrace state set STREAM \'{"cursor": …, "value": …}\'`); or use another stream name'
)

NEEDS_CURSOR = (
    "field cursor: mode incremental needs a column that grows with every change, such as updated_at or id "
    "(`headrace discover` proposes some); or choose mode full"
)


def position(cursor: str, value: str) -> JsonValue:
    """The position of a stream whose cursor has come to ``value``."""
    return {"cursor": cursor, "value": value}


def value_after(since: JsonValue, cursor: str, source: str) -> str | None:
    """The cursor value in a position; `PositionLost` when the position is another column's, or no cursor's at all."""
    if since is None:
        return None
    if not isinstance(since, dict) or not {"cursor", "value"} <= since.keys():
        raise PositionLost(f"the position {json.dumps(since)} was not left by a {source} read; {_CHOICES}")
    if since["cursor"] != cursor:
        raise PositionLost(
            f"field cursor: the stream has come to {since['cursor']} = {since['value']}, but its cursor is now "
            f"{cursor}; {_CHOICES}"
        )
    return None if since["value"] is None else str(since["value"])


def null_cursor_error(cursor: str, what: str = "NULL") -> ConfigurationError:
    """What a run that meets rows without a cursor value ends with."""
    return ConfigurationError(
        f"field null_cursor: there are rows whose cursor {cursor} is {what}; an incremental read would never bring them. "
        "Choose exclude to leave them out, or include to send them with every run"
    )


def zone_without_effect(cursor: str, kind: str) -> ConfigurationError:
    """What a ``cursor_timezone`` ends with where the cursor's type has no use for it."""
    return ConfigurationError(
        f"field cursor_timezone: the cursor {cursor} is of type {kind}, which is not a time without time zone; leave "
        "cursor_timezone out"
    )


def number(field: str, text: str) -> str:
    """A ``lag`` or ``lookback`` for a cursor that is no time; `ConfigurationError` when it is no number."""
    try:
        return f"{float(text):.12g}"
    except ValueError:
        raise ConfigurationError(f"field {field}: {text!r} is not a number, and the cursor is not a time") from None
