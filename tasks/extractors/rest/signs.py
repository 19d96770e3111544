"""Signs of further pages in a response, for an endpoint whose pagination was not told."""

from __future__ import annotations

import re
from typing import Any

_MORE = re.compile(r"next|next_?(page|url|uri|link|href|cursor|token|page_?token|offset)|has_?(more|next|next_?page)|"
                   r"end_?cursor|continuation_?token", re.IGNORECASE)  # fmt: skip
_ENVELOPES = re.compile(r"meta|metadata|paging|pagination|_?links|page_?info|cursors?", re.IGNORECASE)


def sign_of_more(envelope: Any) -> str:
    """The member that speaks of a next page, such as ``has_more``; empty where none does."""
    if not isinstance(envelope, dict):
        return ""
    for name, value in envelope.items():
        if _MORE.fullmatch(name) and value and not isinstance(value, list):
            return str(name)
        if _ENVELOPES.fullmatch(name) and (inner := sign_of_more(value)):
            return f"{name}.{inner}"
    return ""
