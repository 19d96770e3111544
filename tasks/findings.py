"""What a check says of one thing it looked at."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal

_SIGNS = {"ok": "✓", "warning": "!", "error": "✗"}


@dataclass(frozen=True)
class Finding:
    """One thing looked at; ``way_out`` says what to do about it."""

    level: Literal["ok", "warning", "error"]
    text: str
    way_out: str = ""

    def __str__(self) -> str:
        return f"{_SIGNS[self.level]} {self.text}" + (f"\n    → {self.way_out}" if self.way_out else "")


Findings = AsyncIterator[Finding]


def greeting(server: str, tls: str | None, *, in_clear_is_meant: bool) -> Finding:
    """Who answers, and under which TLS (None: none)."""
    text = f"source: {server}, {tls or 'in clear'}"
    if tls is None and not in_clear_is_meant:
        return Finding("warning", text, "set tls to verify-full, or to disable where that is meant")
    return Finding("ok", text)


def replica(is_replica: bool, lag: str) -> Finding:
    """Whether transactions that this server does not see may be in flight."""
    if not is_replica:
        return Finding("ok", "source: the server is a primary")
    if lag:
        return Finding("ok", f"source: the server is a replica; rows are held back by lag {lag}")
    return Finding(
        "warning",
        "source: the server is a replica; transactions in flight on the primary are not seen",
        "set lag to more than the longest transaction plus the replication delay, or read from the primary",
    )
