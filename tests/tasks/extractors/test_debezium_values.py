"""Numbers, dates and documents as the databases write them."""

from __future__ import annotations

import json
import math
import struct
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.extractors.kafka.debezium import arrays, numbers, times
from tasks.extractors.kafka.debezium.types import of_hints, of_text

_EPOCH = datetime(1970, 1, 1)


@given(st.floats(allow_nan=False))
def test_doubles_read_back_to_the_same_bits(value: float) -> None:
    for mysql in (False, True):
        text = numbers.real(single=False, mysql=mysql)(value)
        assert struct.pack("<d", float(text)) == struct.pack("<d", value)


@given(st.floats(width=32, allow_nan=False))
def test_singles_read_back_to_the_same_bits_in_nine_digits(value: float) -> None:
    for mysql in (False, True):
        text = numbers.real(single=True, mysql=mysql)(value)
        assert struct.pack("<f", float(text)) == struct.pack("<f", value)
        assert math.isinf(value) or len(Decimal(text).normalize().as_tuple().digits) <= 9


@given(st.integers(-(10**40), 10**40), st.integers(0, 30))
def test_decimals_are_exact(unscaled: int, scale: int) -> None:
    text = numbers.decimal(unscaled, scale)
    assert int(text.replace(".", "")) == unscaled
    assert len(text.partition(".")[2]) == scale


@pytest.mark.parametrize(
    ("text", "plain"),
    [("1.5E+3", "1500"), ("1E-7", "0.0000001"), ("-12.30", "-12.30"), ("NAN", "NaN"), ("NaN", "NaN"),
     ("POSITIVE_INFINITY", "Infinity"), ("NEGATIVE_INFINITY", "-Infinity"), ("-1.25E1", "-12.5")],
)  # fmt: skip
def test_decimals_as_strings(text: str, plain: str) -> None:
    assert numbers.plain(text) == plain


@given(st.datetimes(min_value=datetime(1, 1, 1)))
def test_timestamps(value: datetime) -> None:
    """In each unit, and as ISO text, the same."""
    micros = (value - _EPOCH) // timedelta(microseconds=1)
    short = value.isoformat(sep=" ").rstrip("0").rstrip(".") if value.microsecond else value.isoformat(sep=" ")
    fixed = value.isoformat(sep=" ", timespec="microseconds")
    assert times.stamp(6, None)(micros) == short
    assert times.stamp(6, 6)(micros) == fixed
    assert times.stamp(9, None)(micros * 1000) == short
    iso = value.isoformat(timespec="microseconds") + "Z"
    assert times.iso_stamp(None, zoned=True)(iso) == short + "+00"
    assert times.iso_stamp(6, zoned=False)(iso) == fixed
    assert times.day(micros // 86_400_000_000) == value.date().isoformat()
    assert times.iso_day(f"{value.date()}Z") == value.date().isoformat()


@pytest.mark.parametrize(
    ("days", "text"),
    [(0, "1970-01-01"), (-719162, "0001-01-01"), (-719163, "0001-12-31 BC"),
     (2932897, "10000-01-01"), (-2147472692, "infinity"), (-2147472691, "-infinity")],
)  # fmt: skip
def test_dates_that_python_has_not(days: int, text: str) -> None:
    assert times.day(days) == text


def test_timestamps_that_python_has_not() -> None:
    assert times.stamp(6, None)(-719163 * 86_400_000_000 + 1) == "0001-12-31 00:00:00.000001 BC"
    assert times.stamp(6, None)(9223372036825200000) == "infinity"
    assert times.stamp(3, None)(-9223372036832400) == "-infinity"
    assert times.iso_stamp(None, zoned=True)("-0043-03-15T00:00:00Z") == "0044-03-15 00:00:00+00 BC"
    assert times.iso_stamp(None, zoned=True)("+10000-01-01T00:00:00.000000Z") == "10000-01-01 00:00:00+00"
    assert times.iso_stamp(None, zoned=True)("2024-02-29T23:59:59.5+02:00") == "2024-02-29 21:59:59.5+00"
    with pytest.raises(ValueError, match="no timestamp"):
        times.iso_stamp(None, zoned=True)("yesterday")


@pytest.mark.parametrize(
    ("iso", "text"),
    [("P1Y2M-3DT4H5M6.7S", "P1Y2M-3DT4H5M6.7S"), ("P0Y0M0DT0H0M0S", "PT0S"), ("P0Y-14M0DT-1H0M-0.5S", "P-1Y-2MT-1H-0.5S"),
     ("P0Y0M0DT0H0M1.0E-6S", "PT0.000001S"), ("P0Y0M0DT25H61M0S", "PT26H1M")],
)  # fmt: skip
def test_intervals(iso: str, text: str) -> None:
    assert times.interval(iso) == text


def test_spans_of_time_may_be_longer_than_a_day() -> None:
    assert times.clock(6, None)(-3_020_399_000_000) == "-838:59:59"
    assert times.clock(6, 6)(90_000_000_001) == "25:00:00.000001"
    assert times.clock(3, 0)(86_400_000) == "24:00:00"
    assert times.duration(6)(-500_000) == "PT-0.5S"


@given(st.dictionaries(st.text(), st.none() | st.text()))
def test_hstore_is_sorted_as_it_is_kept(pairs: dict[str, str | None]) -> None:
    text = arrays.hstore(pairs)
    assert json.loads(text) == pairs
    assert list(json.loads(text)) == sorted(pairs, key=lambda key: (len(key.encode()), key.encode()))


def test_documents_of_mysql() -> None:
    """Blanks behind commas and colons; a double has a point or an exponent, and a decimal keeps its digits."""
    told = '{"a":1,"b":[1.0,1.0E10,1.10,null,true,-2.5E-7,18446744073709551615],"c":{"d":"ü\\"\\n"},"e":[],"f":{}}'
    assert arrays.mysql_document(told) == (
        '{"a": 1, "b": [1.0, 10000000000.0, 1.10, null, true, -0.00000025, 18446744073709551615], '
        '"c": {"d": "ü\\"\\n"}, "e": [], "f": {}}'
    )


@pytest.mark.parametrize(
    ("text", "base", "length", "scale"),
    [("numeric(10,2)", "numeric", 10, 2), ("timestamp(3) without time zone", "timestamp", 3, None),
     ("character varying(9)", "varchar", 9, None), ("double precision", "float8", None, None),
     ("bit varying", "varbit", None, None),
     ("time(0) with time zone", "timetz", 0, None), ("numeric(5,-2)", "numeric", 5, -2)],
)  # fmt: skip
def test_types_as_postgresql_shows_them(text: str, base: str, length: int | None, scale: int | None) -> None:
    for array in ("", "[]"):
        found = of_text(text + array, postgres=True)
        assert (found.base, found.length, found.scale, found.array) == (base, length, scale, bool(array))


def test_types_as_mysql_shows_them() -> None:
    found = of_text("bigint(20) unsigned zerofill", postgres=False)
    assert (found.base, found.unsigned, found.array) == ("bigint", True, False)
    assert of_text("enum('a,b','(')", postgres=False).base == "enum"
    assert of_text("datetime(6)", postgres=False).digits == 6
    assert of_text("float", postgres=False).base == "float"


def test_types_as_connectors_tell_them() -> None:
    """``column.propagate.source.type``: PostgreSQL's digits of a fraction are the scale, MySQL's the length."""
    name = "__debezium.source.column."
    postgres = of_hints({name + "type": "TIMESTAMPTZ", name + "length": "35", name + "scale": "3"}, postgres=True)
    mysql = of_hints({name + "type": "DATETIME", name + "length": "3"}, postgres=False)
    assert postgres is not None
    assert mysql is not None
    assert (postgres.digits, mysql.digits) == (3, 3)
    array = of_hints({name + "type": "_INT4", name + "length": "10"}, postgres=True)
    assert array is not None
    assert (array.array, array.text) == (True, "int4[]")
    assert of_hints({}, postgres=True) is None
