"""What stands before the fields of a row: ``_op``, ``_committed_at``, ``_position`` and ``_unchanged``, of many at once.

All but the last has the same width in every record of a partition, so NumPy writes them as one block of characters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tasks.extractors.kafka.debezium import times

_FEW = 48
"""Records for which NumPy's calls cost more than they save."""
_LAST_MICRO = times.LAST_SECOND * 1_000_000
_ZERO = ord("0")


def heads(
    letters: str, committed: Sequence[int], topic: str, partition: int, offsets: Sequence[int], null: str
) -> list[str]:
    """One for each offset. ``letters``: the operations; ``committed``: microseconds since 1970, 0 for those not known."""
    prefix = f"{topic}-{partition:05d}-"
    if len(offsets) < _FEW or not 0 < min(committed) <= max(committed) < _LAST_MICRO:
        instants = times.INSTANTS
        return [
            f"{letter},{f'{instants[micros // 1000000]}.{micros % 1000000:06d}+00' if micros else null},"
            f"{prefix}{offset:020d}-0000,{null}"
            for letter, micros, offset in zip(letters, committed, offsets, strict=True)
        ]
    return _block(letters, committed, prefix, offsets, null)


def _block(letters: str, committed: Sequence[int], prefix: str, offsets: Sequence[int], null: str) -> list[str]:
    micros = np.array(committed, np.int64)
    seconds = micros // 1_000_000
    one = f",{times.INSTANTS[0]}.000000+00,{prefix}{0:020d}-0000,{null}"
    encoded = one.encode("utf-32-le")
    width = 1 + len(one)
    made = np.empty((len(offsets), width), np.uint32)
    made[:, 0] = np.frombuffer(letters.encode("utf-32-le"), np.uint32)
    made[:, 1:] = np.frombuffer(encoded, np.uint32)
    known, which = np.unique(seconds, return_inverse=True)
    texts = "".join([times.INSTANTS[second] for second in known.tolist()])
    made[:, 2:21] = np.frombuffer(texts.encode("utf-32-le"), np.uint32).reshape(-1, 19)[which]
    _digits(made[:, 22:28], micros - seconds * 1_000_000)
    behind = 32 + len(prefix) + 20
    digits = len(str(max(offsets)))
    _digits(made[:, behind - digits : behind], np.array(offsets, np.int64))
    text = made.tobytes().decode("utf-32-le")
    return [text[at : at + width] for at in range(0, len(text), width)]


def _digits(block: np.ndarray[tuple[int, int], np.dtype[np.uint32]], numbers: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
    """Write the last digits of numbers, one to a row."""
    for column in range(block.shape[1] - 1, -1, -1):
        rest = numbers // 10
        block[:, column] = numbers - rest * 10 + _ZERO
        numbers = rest
