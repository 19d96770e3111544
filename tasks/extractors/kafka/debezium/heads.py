"""What stands before the fields of a row: ``_op``, ``_committed_at``, ``_position`` and ``_unchanged``, of many at once.

Each has the same width in every record of a partition, as long as its time is known.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tasks.extractors.kafka.debezium import stamps
from tasks.extractors.kafka.debezium.times import INSTANTS

_ZEROS = "0" * 20


def heads(
    letters: str, committed: Sequence[int], topic: str, partition: int, offsets: Sequence[int], null: str
) -> list[str]:
    """One for each offset. ``letters``: the operations; ``committed``: microseconds since 1970, 0 for those not known."""
    prefix = f"{topic}-{partition:05d}-"
    if not stamps.fit(committed) or not null.isascii():
        return [
            f"{letter},{f'{INSTANTS[micros // 1000000]}.{micros % 1000000:06d}+00' if micros else null},"
            f"{prefix}{offset:020d}-0000,{null}"
            for letter, micros, offset in zip(letters, committed, offsets, strict=True)
        ]
    before, after = f"_,{'_' * stamps.WIDTH}+00,{prefix}", f"-0000,{null}"
    one = f"{before}{_ZEROS}{after}".encode()
    block = np.empty((len(offsets), len(one)), np.uint8)
    block[:] = np.frombuffer(one, np.uint8)
    block[:, 0] = np.frombuffer(letters.encode(), np.uint8)
    stamps.write(block[:, 2 : 2 + stamps.WIDTH], committed)
    stamps.write_number(block[:, len(before) : len(before) + len(_ZEROS)], offsets)
    return stamps.lines(block)
