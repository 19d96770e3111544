"""The body of one request: the buffers as they came, never joined and never copied as a whole.

botocore wants a file it can measure, read for a signature and rewind for a retry; aiohttp sends whatever is an
asynchronous iterable. Bytes would be copied twice on the way (into a BytesIO, and once more for its buffer).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import accumulate
from typing import TypeAlias

Piece: TypeAlias = bytes | memoryview

# Small pieces are put together up to this size: each costs a system call. What is larger goes out as it is.
_SEND_BYTES = 256 << 10


class Body:
    """A read-only file over ``pieces``, which are not to be changed while it lives."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._pieces = pieces
        self._ends = list(accumulate(map(len, pieces)))
        self._at = 0

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        """Set the position: counted from the start (0), from where it is (1), or from the end (2)."""
        self._at = max(0, offset + (0, self._at, len(self))[whence])
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """Up to ``size`` bytes from the position on; all that is left when it is negative or None."""
        end = len(self) if size is None or size < 0 else min(self._at + size, len(self))
        found = b"".join(self._between(self._at, end))
        self._at = max(self._at, end)
        return found

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The whole of it, from the beginning, whatever the position is."""
        group: list[Piece] = []
        size = 0
        for piece in self._pieces:
            if group and size + len(piece) > _SEND_BYTES:
                yield _joined(group)
                group, size = [], 0
            group.append(piece)
            size += len(piece)
        if group:
            yield _joined(group)

    def _between(self, start: int, end: int) -> Iterator[Piece]:
        for piece, last in zip(self._pieces, self._ends, strict=True):
            first = last - len(piece)
            if last > start and first < end:
                yield memoryview(piece)[max(0, start - first) : end - first]


def _joined(group: list[Piece]) -> bytes:
    only = group[0]
    return only if len(group) == 1 and isinstance(only, bytes) else b"".join(group)
