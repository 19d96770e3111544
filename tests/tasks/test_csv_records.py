"""CSV of any dialect is taken apart into what was put into it, and what is no CSV is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.csv_records import field, records, rows

TEXT = st.text(st.sampled_from('a,"\n\r\\N ü{}'), max_size=6)
NULLS = st.sampled_from(["", "\\N", "NULL", "a"])


@given(st.lists(st.lists(st.none() | TEXT, min_size=2, max_size=4), max_size=5), NULLS)
def test_what_was_written_is_read(written: list[list[str | None]], null: str) -> None:
    """Quotes, line ends and the NULL marker itself come back, and NULL is none of them."""
    lines = [",".join(field(value, null) for value in row) for row in written]
    data = "".join(f"{line}\n" for line in lines).encode()
    assert list(rows(data, null)) == written
    assert [record.decode() for record in records(data)] == lines


@pytest.mark.parametrize("data", [b'a"b"\n', b'"a"b\n', b'a,"b"c,""\n'])
def test_what_is_no_csv_is_told(data: bytes) -> None:
    """Nothing is passed over."""
    with pytest.raises(ValueError, match="no CSV"):
        list(rows(data, ""))


@pytest.mark.parametrize("data", [b'"a\n', b"a\nb"])
def test_a_record_without_an_end_is_told(data: bytes) -> None:
    """Neither the last quote nor the last line end may be missing."""
    with pytest.raises(ValueError, match="no end"):
        list(records(data))


def test_many_lines_in_one_field_take_no_time() -> None:
    """A field of 200,000 lines is taken apart in one go: joined anew for each of them it would take minutes."""
    data = b'1,"' + b"line\n" * 200_000 + b'"\n2,\n'
    assert [len(record) for record in records(data)] == [1_000_004, 2]
