"""What stands before the fields of a row: ``_op``, ``_committed_at``, ``_position`` and ``_unchanged``, of many at once.

Each has the same width in every record of a partition, as long as its time is known.
"""

from __future__ import annotations

from collections.abc import Sequence

from tasks.extractors.kafka.debezium import stamps
from tasks.extractors.kafka.debezium.times import INSTANTS

_ZEROS = "0" * 20
_FAR = 10**18
"""Offsets of which three digits at a time would not fit into `_ZEROS`."""


def heads(
    letters: str, committed: Sequence[int], topic: str, partition: int, offsets: Sequence[int], null: str
) -> list[str]:
    """One for each offset. ``letters``: the operations; ``committed``: microseconds since 1970, 0 for those not known."""
    prefix = f"{topic}-{partition:05d}-"
    if not (stamps.fit(committed) and offsets[-1] < _FAR and null.isascii()):
        return [
            f"{letter},{f'{INSTANTS[micros // 1000000]}.{micros % 1000000:06d}+00' if micros else null},"
            f"{prefix}{offset:020d}-0000,{null}"
            for letter, micros, offset in zip(letters, committed, offsets, strict=True)
        ]
    before = f"_,{stamps.EMPTY}+00,{prefix}"
    one = f"{before}{_ZEROS}-0000,{null}"
    width = len(one)
    block = bytearray(one.encode() * len(offsets))
    block[::width] = letters.encode()
    stamps.write(block, width, 2, committed)
    stamps.write_numbers(block, width, len(before) + len(_ZEROS), offsets)
    return stamps.lines(block, width)
