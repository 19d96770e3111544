"""Names by pattern: ``*`` and ``?`` are wildcards, a leading ``-`` leaves out."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Sequence


def is_meant(name: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern names it, and none leaves it out; where all leave out, the rest is meant.

    >>> [is_meant(name, ("public.*", "-*_old")) for name in ("public.a", "public.a_old", "b")]
    [True, False, False]
    """
    wanted = [pattern for pattern in patterns if not pattern.startswith("-")] or ["*"]
    left_out = [pattern[1:] for pattern in patterns if pattern.startswith("-")]
    return _like(name, wanted) and not _like(name, left_out)


def names_none(patterns: Sequence[str], names: Collection[str]) -> list[str]:
    """The patterns that are the name of one thing, which is not there.

    >>> names_none(("public.a", "public.b", "c.*", "-d"), ("public.a",))
    ['public.b']
    """
    return [pattern for pattern in patterns if not pattern.startswith("-") and not re.search(r"[*?\[]", pattern)
            and pattern not in names]  # fmt: skip


def _like(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
