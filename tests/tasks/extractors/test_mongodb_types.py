"""Every type of BSON as CSV, from the bytes a server may send, and the same by whole batches and one by one."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import random
import struct
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import bson
import pytest
from bson import json_util
from bson.binary import Binary
from bson.code import Code
from bson.datetime_ms import DatetimeMS
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.json_util import JSONMode, JSONOptions
from bson.max_key import MaxKey
from bson.min_key import MinKey
from bson.objectid import ObjectId
from bson.regex import Regex
from bson.timestamp import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.errors import ConfigurationError
from blocks.s3 import CsvDialect
from tasks.extractors.bson.batches import Batches
from tasks.extractors.bson.columns import fields_of, parsed
from tasks.extractors.bson.document import Documents
from tasks.extractors.fields import Declared, DeclaredColumn

OID = ObjectId("65a1b2c3d4e5f60718293a4b")
UUID = uuid.UUID("12345678-1234-5678-1234-567812345678")


def made(
    documents: list[Any],
    declared: Declared,
    dialect: CsvDialect | None = None,
    *,
    canonical: bool = False,
    batches: bool = True,
) -> tuple[list[list[str]], dict[str, int]]:
    """The fields of each document's record, quotes kept; and what was counted."""
    dialect = dialect or CsvDialect()
    raw = b"".join(one if isinstance(one, bytes) else bson.encode(one) for one in documents)
    fields = fields_of(declared)
    each = Documents(fields, declared, dialect, canonical=canonical)
    data, count = (Batches(each, fields, dialect) if batches else each).csv(raw)
    assert count == len(documents)
    rows = list(csv.reader(io.StringIO(data.decode(), newline="")))
    assert len(rows) == count
    return rows, dict(each.writer.counted)


def column(value: Any, kind: str = "text", **options: Any) -> tuple[str, dict[str, int]]:
    """What becomes of one value, alone and among many that are like it."""
    # Of one column alone, NULL is an empty line, which Python's reader has no row for.
    fields = (DeclaredColumn.model_validate({"name": "x", "type": kind}), DeclaredColumn(name="y"))
    declared = Declared(fields=fields, **{"extra": "drop", **options})
    one, counted = made([{"x": value}], declared, batches=False)
    many, _ = made([{"x": value}] * 40, declared)
    assert many == one * 40
    return one[0][0], counted


TYPED: list[tuple[str, Any, str]] = [
    ("text", "ünï ✓ 🎉", "ünï ✓ 🎉"),
    ("text", 'a "b", c\nd\r', 'a "b", c\nd\r'),
    ("text", "\\N", "\\N"),
    ("integer", 2**31 - 1, "2147483647"),
    ("integer", -(2**31), "-2147483648"),
    ("integer", Int64(2**63 - 1), "9223372036854775807"),
    ("integer", Int64(-(2**63)), "-9223372036854775808"),
    ("integer", 5.0, "5"),
    ("integer", -(2.0**60), "-1152921504606846976"),
    ("float", 0.1, "0.1"),
    ("float", 1e23, "1e+23"),
    ("float", 5e-324, "5e-324"),
    ("float", 1.7976931348623157e308, "1.7976931348623157e+308"),
    ("float", -0.0, "-0"),
    ("float", 100.0, "100"),
    ("float", math.nan, "NaN"),
    ("float", math.inf, "Infinity"),
    ("float", -math.inf, "-Infinity"),
    ("float", 7, "7"),
    ("decimal", Decimal128("1.50"), "1.50"),
    ("decimal", Decimal128("-0.000000000000000000000000000000001"), "-0.000000000000000000000000000000001"),
    ("decimal", Decimal128("1E+40"), "1" + "0" * 40),
    ("decimal", Decimal128("9.999999999999999999999999999999999E+6144"), "9" * 34 + "0" * 6111),
    ("decimal", Decimal128("NaN"), "NaN"),
    ("decimal", Decimal128("sNaN"), "NaN"),
    ("decimal", Decimal128("Infinity"), "Infinity"),
    ("decimal", Decimal128("-Infinity"), "-Infinity"),
    ("decimal", 12, "12"),
    ("boolean", True, "true"),
    ("boolean", False, "false"),
    ("timestamptz", datetime(2024, 2, 29, 23, 59, 59, 123000, UTC), "2024-02-29 23:59:59.123+00"),
    ("timestamptz", datetime(1969, 12, 31, 23, 59, 59, 999000, UTC), "1969-12-31 23:59:59.999+00"),
    ("timestamptz", datetime(1, 1, 1, tzinfo=UTC), "0001-01-01 00:00:00.000+00"),
    ("timestamptz", datetime(9999, 12, 31, 23, 59, 59, 999000, UTC), "9999-12-31 23:59:59.999+00"),
    ("timestamptz", DatetimeMS(253_402_300_800_000), "10000-01-01 00:00:00.000+00"),
    ("timestamptz", DatetimeMS(-62_135_596_800_001), "0001-12-31 23:59:59.999+00 BC"),
    ("timestamptz", DatetimeMS(-(2**63)), "292275056-05-16 16:47:04.192+00 BC"),
    ("timestamptz", DatetimeMS(2**63 - 1), "292278994-08-17 07:12:55.807+00"),
    ("timestamp", datetime(2024, 1, 2, 3, 4, 5, 6000, UTC), "2024-01-02 03:04:05.006"),
    ("date", datetime(2024, 2, 29, tzinfo=UTC), "2024-02-29"),
    ("date", datetime(1600, 3, 1, tzinfo=UTC), "1600-03-01"),
    ("objectid", OID, str(OID)),
    ("uuid", Binary(UUID.bytes, 4), str(UUID)),
    ("bytes", Binary(b"\x00\xff", 0), "00ff"),
    ("bytes", Binary(b"\x01\x02", 128), "0102"),
    ("bytes", Binary(b"abc", 2), "616263"),
    ("json", {"a": [1, {"b": None}]}, '{"a":[1,{"b":null}]}'),
    ("json", [], "[]"),
    ("json", "text", '"text"'),
    ("json", 1.0, "1.0"),
]


@pytest.mark.parametrize(("kind", "value", "text"), TYPED)
def test_a_value_of_its_type(kind: str, value: Any, text: str) -> None:
    """Each declared type has one documented text, and nothing is counted."""
    assert column(value, kind, mistyped="fail") == (text, {})


OTHER: list[tuple[str, Any, str, str]] = [
    ("text", 5, "5", "not a text"),
    ("text", 0.5, "0.5", "not a text"),
    ("text", Int64(5), "5", "not a text"),
    ("text", Decimal128("2.50"), "2.50", "not a text"),
    ("text", True, "true", "not a text"),
    ("text", datetime(2024, 1, 2, tzinfo=UTC), "2024-01-02 00:00:00.000+00", "not a text"),
    ("text", Timestamp(1_700_000_000, 7), "1700000000:7", "not a text"),
    ("text", Binary(UUID.bytes, 4), str(UUID), "not a text"),
    ("text", Binary(UUID.bytes, 3), UUID.hex, "not a text"),
    ("text", Regex("a/b", "im"), "/a/b/im", "not a text"),
    ("text", Code("f()"), "f()", "not a text"),
    ("text", Code("f()", {"a": 1}), '{"$code":"f()","$scope":{"a":1}}', "not a text"),
    ("text", MinKey(), "MinKey", "not a text"),
    ("text", MaxKey(), "MaxKey", "not a text"),
    ("text", OID, str(OID), "not a text"),
    ("text", {"a": 1}, '{"a":1}', "not a text"),
    ("text", [1, "x"], '[1,"x"]', "not a text"),
    ("integer", 0.5, "0.5", "not an integer"),
    ("integer", math.nan, "NaN", "not an integer"),
    ("integer", "5", "5", "not an integer"),
    ("integer", True, "true", "not an integer"),
    ("decimal", "1.5", "1.5", "not a decimal"),
    ("date", datetime(2024, 1, 2, 3, tzinfo=UTC), "2024-01-02 03:00:00.000+00", "not a date"),
    ("timestamptz", Timestamp(1, 2), "1:2", "not a timestamptz"),
    ("timestamptz", "2024-01-02", "2024-01-02", "not a timestamptz"),
    ("uuid", str(UUID), str(UUID), "not a uuid"),
    ("uuid", Binary(b"123", 4), "313233", "not a uuid"),
    ("objectid", str(OID), str(OID), "not an objectid"),
    ("bytes", "ab", "ab", "not a bytes"),
]


@pytest.mark.parametrize(("kind", "value", "text", "told"), OTHER)
def test_a_value_of_another_type(kind: str, value: Any, text: str, told: str) -> None:
    """It is written as text and counted, or as NULL and counted, or stops the run."""
    assert column(value, kind) == (text, {f"x: {told}, written as text": 1})
    assert column(value, kind, mistyped="null") == ("", {f"x: {told}, written as NULL": 1})
    with pytest.raises(ConfigurationError, match=rf"field mistyped: x: {told}"):
        column(value, kind, mistyped="fail")


def document(*elements: bytes) -> bytes:
    """A document of elements as they are on the wire."""
    body = b"".join(elements)
    return struct.pack("<i", len(body) + 5) + body + b"\0"


def string(kind: int, name: bytes, value: bytes) -> bytes:
    return bytes([kind]) + name + b"\0" + struct.pack("<i", len(value) + 1) + value + b"\0"


ODD = document(
    b"\x06u\0",
    string(0x0E, b"s", b"sym"),
    b"\x0cp\0" + struct.pack("<i", 3) + b"db\0" + OID.binary,
    string(0x02, b"bad", b"a\xffb"),
    string(0x02, b"sur", b"\xed\xa0\x80"),
    string(0x02, b"nul", b"a\0b"),
)


def test_types_that_drivers_no_longer_write() -> None:
    """Symbols, DBPointers and undefined values are still read, each as what it is."""
    declared = Declared(fields=tuple(DeclaredColumn(name=name) for name in "usp"), extra="drop")
    for many in (1, 50):
        rows, counted = made([ODD] * many, declared)
        pointer = f'{{"$dbPointer":{{"$ref":"db","$id":{{"$oid":"{OID}"}}}}}}'
        assert rows == [["undefined", "sym", pointer]] * many
        assert counted["p: not a text, written as text"] == many
    whole, _ = made([ODD], Declared())
    assert json.loads(whole[0][1])["u"] == {"$undefined": True}
    assert json.loads(whole[0][1])["s"] == {"$symbol": "sym"}


@pytest.mark.parametrize("many", [1, 50])
def test_bytes_that_are_no_utf8(many: int) -> None:
    """Bad bytes become U+FFFD, and the commit tells how often; a NUL stays."""
    declared = Declared(fields=tuple(DeclaredColumn(name=name) for name in ("bad", "sur", "nul")), extra="drop")
    rows, counted = made([ODD] * many, declared)
    assert rows == [["a\ufffdb", "\ufffd\ufffd\ufffd", "a\0b"]] * many
    assert counted["bad: not UTF-8, bad bytes written as U+FFFD"] == many
    assert counted["sur: not UTF-8, bad bytes written as U+FFFD"] == many
    fields = (DeclaredColumn(name="u"), DeclaredColumn(name="bad"))
    _, counted = made([ODD] * many, Declared(fields=fields))
    assert counted["u: not a text, written as text"] == many
    extra, told = made([ODD] * many, Declared())
    assert json.loads(extra[0][1])["bad"] == "a\ufffdb"
    assert told == {"_extra: not UTF-8, bad bytes written as U+FFFD": 2 * many}


@pytest.mark.parametrize("many", [1, 50])
def test_a_value_that_its_column_does_not_show_is_kept(many: int) -> None:
    """Written as NULL, it stays in `_extra`, where there is one; the columns below it find what is theirs."""
    fields = tuple(
        DeclaredColumn(name=path, path=path, type="integer") for path in ("a", "in.b", "doc", "doc.c", "in.fits")
    )
    value = {"a": "text", "in": {"b": 1.5, "fits": 2}, "doc": {"c": 3}}
    told = {f"{name}: not an integer, written as NULL": many for name in ("a", "in.b", "doc")}
    rows, counted = made([value] * many, Declared(fields=fields, mistyped="null"))
    assert rows == [["", "", "", "3", "2", '{"a":"text","in":{"b":1.5},"doc":{"c":3}}']] * many
    assert counted == told
    rows, counted = made([value] * many, Declared(fields=fields, mistyped="null", extra="refuse"))
    assert (rows, counted) == ([["", "", "", "3", "2"]] * many, told)


def test_a_name_that_comes_twice_loses_no_value() -> None:
    """The first value is in the column, the second in `_extra`; of two that no column takes both are there."""
    twice = document(b"\x10a\0" + struct.pack("<i", 1), b"\x10a\0" + struct.pack("<i", 2))
    declared = Declared(fields=(DeclaredColumn(name="a", type="integer"),))
    assert made([twice] * 40, declared)[0] == [["1", '{"a":2}']] * 40
    assert made([twice] * 40, Declared())[0] == [["", '{"a":1,"a":2}']] * 40


def test_missing_is_not_null() -> None:
    """A default stands for a field that is not there; one that is null stays NULL; the empty string is neither."""
    fields = (
        DeclaredColumn(name="a", default="none"),
        DeclaredColumn(name="b", type="integer", default=0),
        DeclaredColumn(name="c", type="json", default={"x": "y"}),
        DeclaredColumn(name="d", type="boolean", default=False),
    )
    documents = [{}, dict.fromkeys("abcd"), {"a": "", "b": 1, "c": 2, "d": True}] * 20
    dialect = CsvDialect(null=r"\N")
    rows, _ = made(documents, Declared(fields=fields), dialect)
    assert rows[:3] == [
        ["none", "0", '{"x":"y"}', "false", r"\N"],
        [r"\N"] * 5,
        ["", "1", "2", "true", r"\N"],
    ]


def test_the_marker_is_quoted_where_it_is_a_value() -> None:
    """A string that is the NULL marker is no NULL."""
    fields = fields_of(declared := Declared(fields=(DeclaredColumn(name="a"),), extra="drop"))
    dialect = CsvDialect(null="NULL")
    each = Documents(fields, declared, dialect, canonical=False)
    for many in (1, 40):
        raw = bson.encode({"a": "NULL"}) + bson.encode({"a": None})
        assert Batches(each, fields, dialect).csv(raw * many)[0] == b'"NULL"\nNULL\n' * many


@pytest.mark.parametrize("canonical", [False, True])
def test_extended_json_is_that_of_drivers(canonical: bool) -> None:
    """What is in `_extra` is the Extended JSON that MongoDB's own driver writes, relaxed or canonical."""
    value = {
        "double": 1.5, "whole": 2.0, "nan": math.nan, "inf": -math.inf, "string": 'a"\\\n\u2028é', "doc": {"a": {}},
        "array": [1, [2]], "binary": Binary(b"\x00\x01", 5), "uuid": Binary(UUID.bytes, 4), "oid": OID, "bool": True,
        "date": DatetimeMS(1_700_000_000_123), "old": DatetimeMS(-1), "far": DatetimeMS(253_402_300_800_000), "null": None,
        "regex": Regex("^a\"b", "ix"), "code": Code("f"), "scoped": Code("f", {"x": 1}), "int": 7, "long": Int64(2**40),
        "timestamp": Timestamp(5, 6), "decimal": Decimal128("1.10"), "min": MinKey(), "max": MaxKey(),
    }  # fmt: skip
    rows, _ = made([value], Declared(), canonical=canonical)
    options = JSONOptions(json_mode=JSONMode.CANONICAL if canonical else JSONMode.RELAXED)
    assert json.loads(rows[0][1]) == json.loads(json_util.dumps(value, json_options=options))


def test_a_document_of_16_mb() -> None:
    """The largest document a server takes goes through like any other."""
    large = {"_id": 1, "text": "x" * (16 << 20 >> 1), "more": ["é" * 1000] * 4000}
    rows, _ = made([large], Declared(fields=(DeclaredColumn(name="text"),)))
    assert rows[0][0] == large["text"]
    assert json.loads(rows[0][1])["more"] == large["more"]


def test_paths() -> None:
    """Names, names of inner fields, places in arrays; a dot of a name has a backslash before it."""
    assert parsed("x", "a.b[0].c") == (b"a", b"b", b"0", b"c")
    assert parsed("x", r"a\.b.c") == (b"a.b", b"c")
    for wrong in ("a..b", "a[x]", ".a", "a."):
        with pytest.raises(ConfigurationError, match="field fields: the path"):
            parsed("x", wrong)


@pytest.mark.parametrize("many", [1, 50])
def test_fields_deep_in_what_is_kept_whole(many: int) -> None:
    """Below an element of an array, and below a document that is a column itself, paths of any length lead to their values."""
    paths = {"b": "items[0].a.b", "z": "items[1].rows[0].z", "nested": "items[1].rows[1][0]", "lat": "geo.at.lat"}
    fields = (*(DeclaredColumn(name=name, path=path, type="integer") for name, path in paths.items()),)
    declared = Declared(fields=(*fields, DeclaredColumn(name="geo", type="json")))
    value = {"items": [{"a": {"b": 1}}, {"rows": [{"z": 2}, [3]]}], "geo": {"at": {"lat": 4}}}
    rows, _ = made([value] * many, declared)
    items = '{"items":[{"a":{"b":1}},{"rows":[{"z":2},[3]]}]}'
    assert rows == [["1", "2", "3", "4", '{"at":{"lat":4}}', items]] * many


def test_inner_fields_and_what_is_left_of_theirs() -> None:
    """Of a document whose field is a column the rest is in `_extra`; an array stays whole."""
    fields = (
        DeclaredColumn(name="city", path="geo.city"),
        DeclaredColumn(name="price", path="items[1].price", type="integer"),
        DeclaredColumn(name="geo", type="json"),
    )
    documents = [
        {"geo": {"city": "Rome", "zip": 1}, "items": [{"price": 1}, {"price": 2}]},
        {"geo": {"city": "Oslo"}, "items": []},
        {"geo": None},
        {"geo": {}},
        {"geo": "text", "items": {"1": {"price": 5}}},
    ]
    rows, _ = made(documents * 10, Declared(fields=fields[:2]))
    assert rows[:5] == [
        ["Rome", "2", '{"geo":{"zip":1},"items":[{"price":1},{"price":2}]}'],
        ["Oslo", "", '{"items":[]}'],
        ["", "", '{"geo":null}'],
        ["", "", '{"geo":{}}'],
        ["", "5", '{"geo":"text"}'],
    ]
    both, _ = made(documents * 10, Declared(fields=fields))
    assert both[0] == ["Rome", "2", '{"city":"Rome","zip":1}', '{"items":[{"price":1},{"price":2}]}']


def test_what_no_column_names_is_refused_or_dropped_and_counted() -> None:
    """The error names the field; what is dropped is counted by name."""
    fields = (DeclaredColumn(name="a", type="integer"), DeclaredColumn(name="c", path="b.c", type="integer"))
    documents = [{"a": 1, "b": {"c": 2, "d": 3}, "e": 4}] * 40
    rows, counted = made(documents, Declared(fields=fields, extra="drop"))
    assert rows == [["1", "2"]] * 40
    assert counted == {"b.d: in no column, left out": 40, "e: in no column, left out": 40}
    with pytest.raises(ConfigurationError, match=r"field extra: a document has the field b\.d"):
        made(documents, Declared(fields=fields, extra="refuse"))


# -- by batches as one by one -----------------------------------------------------------------------------------------

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(max_size=12),
    st.binary(max_size=9),
    st.sampled_from([OID, Regex("a"), Code("c"), MinKey(), Timestamp(1, 2), Decimal128("1.5"), Binary(UUID.bytes, 4)]),
    st.integers(-(2**63), 2**63 - 1).map(DatetimeMS),
    st.integers(-(10**13), 10**13).map(DatetimeMS),
)
values = st.one_of(
    scalars,
    st.lists(scalars, max_size=3),
    st.dictionaries(st.sampled_from(["a", "b", "c", "name", "eight888"]), scalars, max_size=4),
)
names = st.sampled_from(["a", "b", "c", "d", "A", "name", "eight888", "a_longer_name_than_eight", ""])
shapes = st.lists(st.dictionaries(names, values, max_size=6), min_size=1, max_size=6)
declarations = st.sampled_from(
    [
        Declared(),
        Declared(mistyped="null", fields=(DeclaredColumn(name="a", type="integer"), DeclaredColumn(name="b"))),
        Declared(
            extra="drop",
            fields=(
                DeclaredColumn(name="x", path="a.b", type="float"),
                DeclaredColumn(name="y", path="a.name", default="?"),
                DeclaredColumn(name="d", type="timestamptz"),
                DeclaredColumn(name="z", path="c[0]", type="json"),
            ),
        ),
        Declared(
            fields=(
                DeclaredColumn(name="a_longer_name_than_eight", type="decimal"),
                DeclaredColumn(name="eight888", type="boolean"),
                DeclaredColumn(name="", path="a.eight888", type="bytes")
                if False
                else DeclaredColumn(name="n", path="name"),
            )
        ),
    ]
)


@settings(max_examples=2_000 if os.environ.get("HEADRACE_SOAK") else 60, deadline=None)
@given(shapes, declarations, st.randoms(use_true_random=False), st.sampled_from(["", "5", r"\N"]))
def test_batches_are_made_as_documents_are(
    shapes: list[dict[str, Any]], declared: Declared, order: random.Random, null: str
) -> None:
    """Whatever is mixed in a batch, the records and what is counted are those of each document alone."""
    documents = [order.choice(shapes) for _ in range(80)]
    dialect = CsvDialect(null=null)
    raw = b"".join(bson.encode(one) for one in documents)
    fields = fields_of(declared)
    alone, together = (Documents(fields, declared, dialect, canonical=False) for _ in range(2))
    batches = Batches(together, fields, dialect)
    assert batches.csv(raw) == alone.csv(raw)
    assert together.writer.counted == alone.writer.counted
    assert batches.csv(raw) == alone.csv(raw)


def test_a_schema_that_drifts_is_learnt() -> None:
    """Fields that come later, in other orders and types, are read all the same, batch after batch."""
    made_at = datetime(2024, 1, 1, tzinfo=UTC)
    batches = [
        [
            {"_id": i, "at": made_at + timedelta(seconds=i), f"v{n}": "x", **({"late": i} if i % 3 else {})}
            for i in range(200)
        ]
        for n in range(5)
    ]
    fields = fields_of(declared := Declared(fields=(DeclaredColumn(name="_id", type="integer"),)))
    dialect = CsvDialect()
    alone, together = (Documents(fields, declared, dialect, canonical=True) for _ in range(2))
    by_batch = Batches(together, fields, dialect)
    for batch in batches:
        raw = b"".join(bson.encode(one) for one in batch)
        assert by_batch.csv(raw) == alone.csv(raw)
