"""The body of a request reads as the file it stands for, however it is cut into pieces."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st

from tasks.body import Body, Piece

PIECES = st.lists(st.binary(min_size=1, max_size=20), max_size=12)


@given(PIECES, st.lists(st.tuples(st.integers(-5, 60), st.integers(0, 2), st.integers(-1, 40)), max_size=8))
def test_it_reads_as_a_file_does(pieces: list[Piece], moves: list[tuple[int, int, int]]) -> None:
    """Any seek and read gives what the same on a file of the joined bytes gives."""
    body, file = Body(pieces), io.BytesIO(b"".join(pieces))
    assert len(body) == len(file.getvalue())
    for offset, whence, size in moves:
        offset = abs(offset) if whence == 0 else offset
        assert body.seek(offset, whence) == file.seek(max(offset, 0) if whence == 0 else offset, whence)
        assert body.read(size) == file.read(size)
        assert body.tell() == file.tell()


async def test_what_is_sent_is_the_whole_whatever_was_read() -> None:
    """Sending begins at the beginning, small pieces are put together, memoryviews become bytes."""
    data = bytes(range(256)) * 4096
    pieces: list[Piece] = [data[:10], memoryview(data)[10:600_000], data[600_000:600_001], memoryview(data)[600_001:]]
    body = Body(pieces)
    body.read(1000)
    sent = [piece async for piece in body]
    assert b"".join(sent) == data
    assert len(sent) < len(pieces) + 1
    assert b"".join([piece async for piece in body]) == data
    many = [piece async for piece in Body([b"x" * 8192] * 100)]
    assert len(many) == 4
