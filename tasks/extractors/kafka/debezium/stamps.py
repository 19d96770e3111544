"""Many times at once: NumPy writes their digits into lines of one length, two or three at a time, from tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.extractors.kafka.debezium.times import DAYS, LAST_SECOND

FEW = 24
"""Values for which NumPy's calls cost more than they save."""
_LAST = LAST_SECOND * 1_000_000
EMPTY = "0000-00-00 00:00:00.000000"
"""What `write` writes upon."""
_TWO = np.array([f"{number:02d}".encode() for number in range(100)], "S2")
_THREE = np.array([f"{number:03d}".encode() for number in range(1000)], "S3")
_PARTS = {"day": ("S10", 0), "hour": ("S2", 11), "minute": ("S2", 14), "second": ("S2", 17), "milli": ("S3", 20),
          "micro": ("S3", 23)}  # fmt: skip


def fit(micros: Sequence[int]) -> bool:
    """Whether there are enough of them, all between 1970 and the year 9999."""
    return len(micros) >= FEW and min(micros) > 0 and max(micros) < _LAST


def texts(micros: Sequence[int]) -> list[str]:
    """Of microseconds since 1970 that `fit`, with six digits of a fraction."""
    block = bytearray(EMPTY.encode() * len(micros))
    write(block, len(EMPTY), 0, micros)
    return lines(block, len(EMPTY))


def lines(block: bytearray, width: int) -> list[str]:
    """Those of a block of ASCII."""
    text, count = block.decode("ascii"), len(block) // width
    return list(_cut(width, count)(text)) if count > 1 else [text] * count


@lru_cache(32)
def _cut(width: int, count: int) -> Callable[[str], tuple[str, ...]]:
    """What cuts a text of so many lines, two or more: made once for all stretches as long, it is twice as fast as a loop."""
    return itemgetter(*[slice(at, at + width) for at in range(0, width * count, width)])


def write(block: bytearray, width: int, at: int, values: Sequence[int]) -> None:
    """Write times into the lines of a block, from the column ``at`` on."""
    parts = np.frombuffer(block, _times(width, at))
    micros = np.array(values, np.int64)
    seconds = micros // 1_000_000
    days, fraction = seconds // 86400, micros - seconds * 1_000_000
    of_day = seconds - days * 86400
    minutes, millis = of_day // 60, fraction // 1000
    hours = minutes // 60
    parts["day"] = _days(days)
    parts["hour"], parts["minute"], parts["second"] = (
        _TWO[hours],
        _TWO[minutes - hours * 60],
        _TWO[of_day - minutes * 60],
    )
    parts["milli"], parts["micro"] = _THREE[millis], _THREE[fraction - millis * 1000]


def _days(days: NDArray[np.int64]) -> Any:
    first = int(days[0])
    if (days == first).all():
        return DAYS[first].encode()
    known, which = np.unique(days, return_inverse=True)
    return np.array([DAYS[day].encode() for day in known.tolist()], "S10")[which]


def write_numbers(block: bytearray, width: int, end: int, values: Sequence[int]) -> None:
    """Write numbers over the zeros that stand in the lines of a block before the column ``end``."""
    numbers = np.array(values, np.int64)
    for at in range(end - 3, end - 3 - len(str(max(values))), -3):
        rest = numbers // 1000
        np.frombuffer(block, _part(width, at))["digits"] = _THREE[numbers - rest * 1000]
        numbers = rest


@lru_cache(64)
def _times(width: int, at: int) -> np.dtype[Any]:
    formats, offsets = [kind for kind, _ in _PARTS.values()], [at + offset for _, offset in _PARTS.values()]
    return np.dtype({"names": list(_PARTS), "formats": formats, "offsets": offsets, "itemsize": width})


@lru_cache(256)
def _part(width: int, at: int) -> np.dtype[Any]:
    return np.dtype({"names": ["digits"], "formats": ["S3"], "offsets": [at], "itemsize": width})
