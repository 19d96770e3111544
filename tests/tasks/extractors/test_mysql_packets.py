"""The packet reader on streams made by hand: cut anywhere, truncated, garbled; and block by block as value by value."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pymysql.err import MySQLError, OperationalError

from blocks.s3 import CsvDialect
from tasks.extractors.mysql import packets
from tasks.extractors.mysql.forms import Form
from tasks.extractors.mysql.packets import FULL, Packets
from tasks.extractors.mysql.rows import GarbledError, Records

Row = Sequence[bytes | None]

FORMS = (Form.PLAIN, Form.TEXT, Form.BYTES, Form.TEXT)
ROWS: list[Row] = [
    (b"1", b"plain", b"\x00\xff", None),
    (b"2", b"", b"", b'a "quote", and\na line'),
    (None, None, None, None),
    (b"-3.5", b"\\N", b"x" * 300, "ünï🙂".encode() * 40),
    (b"4", b"\xff\xfe\xf8 no UTF-8", b"\n", b"\\."),
    (b"5", b"y" * 70_000, None, b","),
]


def lenenc(value: bytes | None) -> bytes:
    """A field as the protocol sends it."""
    if value is None:
        return b"\xfb"
    for limit, code, width in ((251, b"", 1), (1 << 16, b"\xfc", 2), (1 << 24, b"\xfd", 3)):
        if len(value) < limit:
            return code + len(value).to_bytes(width, "little") + value
    return b"\xfe" + len(value).to_bytes(8, "little") + value


def packet(payload: bytes, sequence: int) -> tuple[bytes, int]:
    """Payload as one packet or, from 16 MiB on, several; and the next sequence number."""
    out = b""
    while True:
        piece, payload = payload[:FULL], payload[FULL:]
        out += len(piece).to_bytes(3, "little") + bytes([sequence & 0xFF]) + piece
        sequence += 1
        if len(piece) < FULL:
            return out, sequence


def stream(rows: Sequence[Row], sequence: int = 3, end: bytes = b"\xfe\x00\x00\x02\x00") -> bytes:
    """A result from its first row on."""
    out = b""
    for row in rows:
        data, sequence = packet(b"".join(map(lenenc, row)), sequence)
        out += data
    return out + packet(end, sequence)[0]


def fed(reader: Packets, pieces: Sequence[bytes]) -> bytes:
    """What comes out, with a buffer that is refilled as the real one is; OperationalError when the end is missing."""
    buffer, out = bytearray(), b""
    for piece in pieces:
        buffer += piece
        records, used = reader.feed(bytearray(buffer), len(buffer))
        out += records
        del buffer[:used]
    if not reader.done:
        raise OperationalError(2013, "the stream ended")
    return out


def expected(rows: Sequence[Row], forms: Sequence[Form] = FORMS, dialect: CsvDialect | None = None) -> bytes:
    records = Records(forms, dialect or CsvDialect())
    return b"".join(records.record(row) for row in rows)


def test_a_record_is_quoted_as_copy_quotes() -> None:
    """Quotes stand exactly where PostgreSQL's COPY puts them."""
    assert expected(ROWS[:3]).decode() == '1,plain,00ff,\n2,"","","a ""quote"", and\na line"\n,,,\n'
    assert expected([(b"\\.",), (None,), (b"",)], [Form.TEXT]) == b'"\\."\n\n""\n'
    marked = CsvDialect(null="0")
    assert expected([(b"0", b"0", None, b"")], dialect=marked) == b'"0","0",0,\n'


def test_every_split_gives_the_same_bytes() -> None:
    """Wherever the stream is cut in two, and when it comes byte by byte, the CSV is the same."""
    rows = ROWS[:5]
    data, wanted = stream(rows), expected(rows)
    for cut in range(len(data) + 1):
        assert fed(Packets(FORMS, CsvDialect(), 3), [data[:cut], data[cut:]]) == wanted
    assert fed(Packets(FORMS, CsvDialect(), 3), [bytes([byte]) for byte in data]) == wanted


def test_every_truncation_is_an_error() -> None:
    """A stream that ends early gives an error, wherever it ends."""
    data = stream(ROWS[:4])
    for length in range(len(data)):
        with pytest.raises(OperationalError):
            fed(Packets(FORMS, CsvDialect(), 3), [data[:length]])


def test_damaged_structure_is_an_error() -> None:
    """A length or a sequence number that was changed never gives other rows: it is an error."""
    rows = ROWS[:4]
    data, wanted = stream(rows), expected(rows)
    structure: list[int] = []
    at = 0
    for row in rows:
        structure += range(at, at + 4)
        at += 4
        for value in row:
            structure.append(at)
            at += len(lenenc(value))
    for place in structure:
        for change in (1, 0x55, 0x80, 0xFF):
            damaged = bytearray(data)
            damaged[place] ^= change
            with pytest.raises((GarbledError, MySQLError)):
                assert fed(Packets(FORMS, CsvDialect(), 3), [bytes(damaged)]) == wanted


_VALUES = st.none() | st.binary(max_size=8) | st.text('ab,"\n\r\\N.é😀', max_size=8).map(str.encode)
_LONG = st.sampled_from([b'"' * 250, b"x" * 251, b",\n" * 126, b"\xff" * 65_535, b"z" * 65_536])


@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(st.tuples(_VALUES | _LONG, _VALUES, _VALUES), max_size=12),
    forms=st.tuples(*[st.sampled_from([Form.TEXT, Form.BYTES, Form.GEOMETRY])] * 3),
    null=st.sampled_from(["", r"\N", "a"]),
    binary=st.sampled_from(["hex", "base64"]),
    step=st.integers(1, 5_000),
)
@example(rows=[(b"", None, b"")], forms=(Form.TEXT,) * 3, null="", binary="hex", step=1)
def test_a_block_is_what_its_values_are(
    rows: list[Row], forms: tuple[Form, ...], null: str, binary: str, step: int
) -> None:
    """Whole blocks give the bytes that value after value gives, whatever the values, marker and cuts."""
    dialect = CsvDialect.model_validate({"null": null, "binary": binary})
    data = stream(rows)
    pieces = [data[at : at + step] for at in range(0, len(data), step)]
    reader = Packets(forms, dialect, 3)
    assert fed(reader, pieces) == expected(rows, forms, dialect)
    assert reader.rows == len(rows)


@pytest.mark.parametrize("size", [FULL - 9, FULL - 5, FULL - 4, FULL, 2 * FULL + 17])
def test_rows_of_more_than_one_packet(size: int) -> None:
    """A row near, at and past the size of a packet is put together; an empty last packet ends it."""
    row: Row = (b"1", b"x" * size)
    data = stream([row, (b"2", b"y")], sequence=250)
    pieces = [data[at : at + (1 << 20)] for at in range(0, len(data), 1 << 20)]
    assert fed(Packets((Form.PLAIN, Form.TEXT), CsvDialect(), 250), pieces) == b"1," + b"x" * size + b"\n2,y\n"


def test_a_large_row_among_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are gathered apart come in their place."""
    monkeypatch.setattr(packets, "LARGE", 50)
    rows = [ROWS[0], ROWS[3], ROWS[1], ROWS[5]]
    data = stream(rows)
    for step in (7, 100, 1_000):
        pieces = [data[at : at + step] for at in range(0, len(data), step)]
        assert fed(Packets(FORMS, CsvDialect(), 3), pieces) == expected(rows)


def test_the_servers_error_comes_out() -> None:
    """An error packet behind rows is raised in the server's words; also with the number 0, as a server that stops sends it."""
    error = b"\xff" + (1317).to_bytes(2, "little") + b"#70100Query execution was interrupted"
    data = stream(ROWS[:2], end=error)
    with pytest.raises(OperationalError, match="interrupted"):
        fed(Packets(FORMS, CsvDialect(), 3), [data])
    stopped = stream(ROWS[:2])[:-9] + packet(error, 0)[0]
    with pytest.raises(OperationalError, match="interrupted"):
        fed(Packets(FORMS, CsvDialect(), 3), [stopped])


def test_what_follows_the_end_is_an_error() -> None:
    """A second result, or bytes behind the end, are not passed over."""
    with pytest.raises(GarbledError, match="second result"):
        fed(Packets(FORMS, CsvDialect(), 3), [stream(ROWS[:1], end=b"\xfe\x00\x00\x08\x00")])
    with pytest.raises(GarbledError, match="after the end"):
        fed(Packets(FORMS, CsvDialect(), 3), [stream(ROWS[:1]) + b"\x00"])
