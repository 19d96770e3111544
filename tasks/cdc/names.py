"""Which of a database's tables a stream means."""

from __future__ import annotations

from collections.abc import Sequence

from blocks.errors import ConfigurationError
from tasks.extractors.kafka.patterns import is_meant, names_none


def meant(patterns: Sequence[str], found: Sequence[str], what: str = "table") -> list[str]:
    """The names (``public.orders``) that the patterns mean; `ConfigurationError` where there are none, or one that is named is
    not there. ``found``: those that the account sees."""
    names = [name for name in found if is_meant(name, patterns)]
    missing = names_none(patterns, found)
    if not names or missing:
        some = ", ".join(found[:20]) or "none that the account may read"
        like = ", ".join(missing or patterns)
        raise ConfigurationError(f"field debezium.tables: no {what} is like {like}; there are: {some}")
    return names
