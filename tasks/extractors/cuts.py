"""How many slices a plan is cut into, and which of the candidates for their bounds are taken."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

from pydantic import JsonValue

from tasks.extractors.contract import Partition, ReadOptions

MAX_PARTITIONS = 9_999

T = TypeVar("T")


def count(options: ReadOptions, size: int) -> int:
    """As many slices as were asked for, or as give objects of the size that was asked for."""
    wanted = options.partitions or -(-size // options.object_bytes)
    return min(max(1, wanted), MAX_PARTITIONS)


def spread(values: Sequence[T], slices: int) -> list[T]:
    """At most ``slices - 1`` of the sorted ``values``, evenly spread: the inner bounds of so many slices."""
    inner = min(slices - 1, len(values))
    picked = [values[(i + 1) * len(values) // (inner + 1)] for i in range(inner)] if inner > 0 else []
    return list(dict.fromkeys(picked))


def ranges(lower: JsonValue, inner: Sequence[JsonValue], upper: JsonValue) -> tuple[Partition, ...]:
    """Partitions ``(lower, upper]`` cut at ``inner``; an end that is None is open."""
    bounds = [lower, *inner, upper]
    return tuple(Partition(name=f"{n:05d}", lower=low, upper=high) for n, (low, high) in enumerate(pairwise(bounds), 1))
