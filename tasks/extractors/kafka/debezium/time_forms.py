"""How dates, times and intervals are written: https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-temporal-types"""

from __future__ import annotations

from collections.abc import Sequence

from tasks.extractors.kafka.debezium import stamps, times
from tasks.extractors.kafka.debezium.form import Form, Writing
from tasks.extractors.kafka.debezium.schemas import Schema
from tasks.extractors.kafka.debezium.types import SourceType

_DATES = frozenset({"io.debezium.time.Date", "org.apache.kafka.connect.data.Date"})
_CLOCKS = {
    "io.debezium.time.Time": 3, "org.apache.kafka.connect.data.Time": 3,
    "io.debezium.time.MicroTime": 6, "io.debezium.time.NanoTime": 9,
}  # fmt: skip
STAMPS = {
    "io.debezium.time.Timestamp": 3, "org.apache.kafka.connect.data.Timestamp": 3,
    "io.debezium.time.MicroTimestamp": 6, "io.debezium.time.NanoTimestamp": 9,
}  # fmt: skip
_DURATIONS = {"io.debezium.time.MicroDuration": 6, "io.debezium.time.NanoDuration": 9}


def temporal(schema: Schema, source: SourceType | None, writing: Writing) -> Form | None:
    name, digits = schema.name, writing.digits(source)
    if name in _DATES:
        return Form(int, times.day, plain=True, inline="DAYS[@]", needs={"DAYS": times.DAYS})
    if name in _CLOCKS:
        return Form(int, times.clock(_CLOCKS[name], digits), plain=True)
    if name in STAMPS:
        return _stamp(STAMPS[name], digits)
    if name in _DURATIONS:
        return Form(int, times.duration(_DURATIONS[name]), plain=True)
    if name == "io.debezium.time.Year":
        # MySQL's years begin with 1901, but for 0000, which the log has as the one before.
        return Form(int, lambda value: "0000" if value == 1900 else f"{value:04d}", plain=True)
    if name == "io.debezium.time.Interval":
        return Form(str, times.interval, plain=True, zero=("P0Y0M0DT0H0M0S", "P0Y0M0DT0H0M0.0S"))
    texts = {
        "io.debezium.time.ZonedTimestamp": times.iso_stamp(digits, zoned=True),
        "io.debezium.time.IsoTimestamp": times.iso_stamp(digits, zoned=False),
        "io.debezium.time.ZonedTime": times.iso_clock(digits, zoned=True),
        "io.debezium.time.IsoTime": times.iso_clock(digits, zoned=False),
        "io.debezium.time.IsoDate": times.iso_day,
    }
    if name not in texts:
        return None
    zero = ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000000Z", "1970-01-01Z", "00:00:00Z")
    inline, needs = (
        ("", {}) if name != "io.debezium.time.ZonedTimestamp" or digits is not None else (_ZONED, {"ISO": texts[name]})
    )
    return Form(str, texts[name], plain=True, zero=zero, inline=inline, needs=needs)


_ZONED = (
    "(@[:10]+' '+@[11:26].rstrip('0').rstrip('.')+'+00'"
    " if len(@)==27 and @[26]=='Z' and @[19]=='.' and @[10]=='T' else ISO(@))"
)
"""Six digits of a fraction, as PostgreSQL's connector writes them; `times.iso_stamp` knows the rest."""


def _stamp(width: int, digits: int | None) -> Form:
    text, unit, name = times.stamp(width, digits), 10**width, f"STAMP{width}_{digits}"
    if digits not in (None, width):
        return Form(int, text, plain=True)
    fraction = f"f'.{{@%{unit}:0{width}d}}'"
    if digits is None:
        fraction = f"({fraction}.rstrip('0') if @%{unit} else '')"
    first, last = times.FIRST_SECOND * unit, times.LAST_SECOND * unit
    inline = f"(INSTANTS[@//{unit}]+{fraction} if {first}<=@<{last} else {name}(@))"
    column = _micros if width == 6 else None
    if digits is None and column is not None:
        column = _shortened
    return Form(int, text, plain=True, inline=inline, needs={"INSTANTS": times.INSTANTS, name: text}, column=column)


def _micros(values: Sequence[int]) -> list[str] | None:
    return stamps.texts(values) if stamps.fit(values) else None


def _shortened(values: Sequence[int]) -> list[str] | None:
    """Without zeros at the end of the fraction, as PostgreSQL has them."""
    found = _micros(values)
    return found and [text if text[-1] != "0" else text.rstrip("0").removesuffix(".") for text in found]
