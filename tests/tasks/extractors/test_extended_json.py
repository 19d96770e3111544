"""Extended JSON → BSON: what drivers write is read back to the same bytes, in every form."""

from __future__ import annotations

import math
import uuid
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
from hypothesis import given
from hypothesis import strategies as st

from tasks.extractors.bson.extended import document, parsed
from tasks.extractors.bson.texts import Texts

OID = ObjectId("65a1b2c3d4e5f60718293a4b")
_INT64 = st.integers(-(2**63), 2**63 - 1)
_NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8).filter(
    lambda name: not name.startswith("$")
)
_SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**31), 2**31 - 1),
    _INT64.map(Int64),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    _INT64.map(DatetimeMS),
    st.binary(min_size=12, max_size=12).map(ObjectId),
    st.builds(Binary, st.binary(max_size=20), st.sampled_from([0, 1, 2, 3, 5, 128])),
    st.uuids().map(lambda value: Binary(value.bytes, 4)),
    st.decimals(allow_nan=False, places=4, min_value=-(10**20), max_value=10**20).map(Decimal128),
    st.builds(Regex, _NAMES, st.sampled_from([0, 2, 8, 10])),
    st.builds(Timestamp, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    st.sampled_from(
        [MinKey(), MaxKey(), Code("f()"), Code("f()", {"x": 1}), Decimal128("NaN"), Decimal128("-Infinity")]
    ),
)
_DOCUMENTS = st.dictionaries(
    _NAMES,
    st.recursive(_SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES, inner, max_size=4)),
    max_size=8,
)


@given(_DOCUMENTS)
def test_the_canonical_form_loses_nothing(given_document: dict[str, Any]) -> None:
    """What pymongo writes in it is the same BSON again."""
    text = json_util.dumps(given_document, json_options=JSONOptions(json_mode=JSONMode.CANONICAL))
    assert document(parsed(text)) == bson.encode(given_document)


@given(_DOCUMENTS)
def test_our_own_text_is_read_back_to_itself(given_document: dict[str, Any]) -> None:
    """What an extract writes into `_extra` or a column of json, relaxed and canonical, is the same text again."""
    raw = bson.encode(given_document)
    for canonical in (False, True):
        texts = Texts(canonical=canonical, binary="hex")
        text = texts.json(raw, 3, 0, len(raw))
        again = document(parsed(text))
        assert texts.json(again, 3, 0, len(again)) == text


STRICT: list[tuple[str, Any]] = [
    ("1", 1), ("2147483648", Int64(2**31)), ('{"$numberLong": "5"}', Int64(5)), ("1.0E300", 1e300), ("2.0", 2.0),
    ("-Infinity", -math.inf), ('{"$date": -315532800000}', DatetimeMS(-315_532_800_000)),
    ('{"$date": "2026-01-02T03:04:05.678Z"}', DatetimeMS(1_767_323_045_678)),
    ('{"$date": "1970-01-01T00:00:00Z"}', DatetimeMS(0)),
    ('{"$binary": "AP8=", "$type": "00"}', Binary(b"\0\xff")), ('{"$binary": "YWJj", "$type": "02"}', Binary(b"abc", 2)),
    ('{"$binary": "AAAAAAAAAAAAAAAAAAAABQ==", "$type": "4"}', Binary(uuid.UUID(int=5).bytes, 4)),
    ('{"$regex": "a.b", "$options": "i"}', Regex("a.b", "i")), ('{"$timestamp": {"t": 5, "i": 6}}', Timestamp(5, 6)),
    ('{"$oid": "65a1b2c3d4e5f60718293a4b"}', OID), ('{"$minKey": 1}', MinKey()), ('{"$maxKey": 1}', MaxKey()),
    ('{"$code": "f()", "$scope": {"x": 1}}', Code("f()", {"x": 1})),
]  # fmt: skip
"""As Debezium's connector and other drivers write them."""


@pytest.mark.parametrize(("text", "value"), STRICT)
def test_the_old_strict_form(text: str, value: Any) -> None:
    """Each type is told apart as far as the form tells it."""
    assert document(parsed(f'{{"a": {text}}}')) == bson.encode({"a": value})


@pytest.mark.parametrize(
    "text",
    ["0", "-0", "0.00", "1.50", "-12.345", "9" * 34, "-0." + "0" * 32 + "1", "123456789012345678901234567890.1234", "1E+3",
     "9.999E-6100", "NaN", "-NaN", "Infinity", "-Infinity", "12345678901234567890123456789012345E+1"],
)  # fmt: skip
def test_decimals(text: str) -> None:
    """The bits that pymongo makes of the text."""
    try:
        expected = bson.encode({"a": Decimal128(text)})
    except ArithmeticError:  # of more digits than there are
        expected = bson.encode({"a": {"$numberDecimal": text}})
    assert document(parsed(f'{{"a": {{"$numberDecimal": "{text}"}}}}')) == expected


def test_bare_nan() -> None:
    """The strict form writes what JSON does not have."""
    made = bson.decode(document(parsed('{"a": NaN, "b": [Infinity]}')))
    assert math.isnan(made["a"])
    assert made["b"] == [math.inf]


@pytest.mark.parametrize(
    "value",
    [
        {"$date": "tomorrow"}, {"$oid": "65"}, {"$oid": 5}, {"$numberLong": "many"}, {"$numberDecimal": "x"},
        {"$numberLong": str(2**63)}, {"$binary": "?", "$type": "00"}, {"$binary": {"base64": "AA=="}}, {"$timestamp": 5},
        {"$regex": "a"}, {"$numberInt": 5.7}, {"$numberLong": "1_000"}, {"$numberLong": " 5"}, {"$numberDouble": "1_0"},
        {"$numberDouble": 5}, {"$numberInt": "5.0"}, {"$numberDecimal": " 5"}, {"$numberDecimal": 5}, {"$date": True},
        {"$date": 1.5}, {"$date": "20260102T030405+05"}, {"$date": {"$numberLong": "5", "note": 1}}, {"$undefined": False},
        {"$minKey": "mine"}, {"$minKey": True}, {"$maxKey": 2}, {"$oid": "65a1b2c3 d4e5f60718293a4"}, {"$symbol": 5},
        {"$code": 1},
        {"$timestamp": {"t": 1, "i": 2, "note": "lost"}}, {"$timestamp": {"t": 1, "i": 2.0}}, {"$timestamp": {"t": -1, "i": 2}},
        {"$binary": {"base64": "AA==", "subType": "00", "note": 1}}, {"$binary": "AA==", "$type": 0},
        {"$binary": "AA==", "$type": "-1"}, {"$regularExpression": {"pattern": "a", "options": "", "note": 1}},
        {"$regex": "a", "$options": None}, {"$dbPointer": {"$ref": "c", "$id": OID, "note": 1}},
        {"$code": "f()", "$scope": 5}, {"$date": 1, "other": 2}, {"$ref": "orders", "$id": OID},
        {"$set": {"a": 1}}, {"$uuid": "1"},
    ],
)  # fmt: skip
def test_a_field_that_only_looks_like_a_type(value: Any) -> None:
    """What is somebody's own document stays one, with all that is in it."""
    text = json_util.dumps({"a": value}, json_options=JSONOptions(json_mode=JSONMode.RELAXED))
    assert document(parsed(text)) == bson.encode({"a": value})


@pytest.mark.parametrize("text", ["", "[]", "5", "null", '{"a": ', '{"a": 9223372036854775808}', '{"a\\u0000b": 1}'])
def test_what_is_no_document(text: str) -> None:
    """Bad text is a ValueError, whatever is wrong with it."""
    with pytest.raises(ValueError, match=r"."):
        document(parsed(text))
