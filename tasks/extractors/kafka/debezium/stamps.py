"""Many times at once: NumPy writes their digits as one block of characters, from tables of two and three digits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.extractors.kafka.debezium.times import DAYS, LAST_SECOND

Block = NDArray[np.uint8]
FEW = 24
"""Values for which NumPy's calls cost more than they save."""
WIDTH = 26
"""Of ``2024-02-29 23:59:59.123456``."""
_LAST = LAST_SECOND * 1_000_000


def _table(digits: int) -> Block:
    numbers = "".join([f"{number:0{digits}d}" for number in range(10**digits)])
    return np.frombuffer(numbers.encode(), np.uint8).reshape(-1, digits)


_TWO, _THREE = _table(2), _table(3)


def fit(micros: Sequence[int]) -> bool:
    """Whether there are enough of them, all between 1970 and the year 9999."""
    return len(micros) >= FEW and min(micros) > 0 and max(micros) < _LAST


def texts(micros: Sequence[int]) -> list[str]:
    """Of microseconds since 1970 that `fit`, with six digits of a fraction."""
    block = np.empty((len(micros), WIDTH), np.uint8)
    write(block, micros)
    return lines(block)


def lines(block: Block) -> list[str]:
    """The rows of a block of ASCII."""
    text, width = block.tobytes().decode("ascii"), block.shape[1]
    return [text[at : at + width] for at in range(0, len(text), width)]


def write(block: Block, values: Sequence[int]) -> None:
    """Fill a block of `WIDTH` columns."""
    micros = np.array(values, np.int64)
    seconds = micros // 1_000_000
    days = seconds // 86400
    _write_days(block, days)
    of_day = (seconds - days * 86400).astype(np.int32)
    fraction = (micros - seconds * 1_000_000).astype(np.int32)
    minutes, thousands = of_day // 60, fraction // 1000
    hours = minutes // 60
    block[:, 10:20] = np.frombuffer(b" 00:00:00.", np.uint8)
    block[:, 11:13], block[:, 14:16] = _TWO[hours], _TWO[minutes - hours * 60]
    block[:, 17:19] = _TWO[of_day - minutes * 60]
    block[:, 20:23], block[:, 23:26] = _THREE[thousands], _THREE[fraction - thousands * 1000]


def _write_days(block: Block, days: NDArray[Any]) -> None:
    first = int(days[0])
    if (days == first).all():
        block[:, :10] = np.frombuffer(DAYS[first].encode(), np.uint8)
        return
    known, which = np.unique(days, return_inverse=True)
    text = "".join([DAYS[day] for day in known.tolist()])
    block[:, :10] = np.frombuffer(text.encode(), np.uint8).reshape(-1, 10)[which]


def write_number(block: Block, values: Sequence[int]) -> None:
    """Write numbers to the end of a block that is filled with zeros."""
    numbers, end = np.array(values, np.int64), block.shape[1]
    for _ in range((len(str(max(values))) + 2) // 3):
        rest = numbers // 1000
        width = min(3, end)
        block[:, end - width : end] = _THREE[numbers - rest * 1000][:, 3 - width :]
        numbers, end = rest, end - width
