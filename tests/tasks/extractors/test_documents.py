"""JSON documents become records: exact digits, NULL apart from missing and empty, and nothing of a document is lost."""

from __future__ import annotations

import csv
import io
import json
import os
import random
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

import pytest

from blocks.errors import ConfigurationError
from blocks.s3 import CsvDialect
from tasks.extractors.documents import MISSING, DocumentError, Documents, getter, json_text, parse
from tasks.extractors.fields import Declared, DeclaredColumn

SOAK = bool(os.environ.get("HEADRACE_SOAK"))
DOCUMENTS = 100_000 if SOAK else 3_000


def column(name: str, type: Any = "text", path: str = "", **more: Any) -> DeclaredColumn:  # noqa: A002 - its field
    return DeclaredColumn(name=name, type=type, path=path, **more)


def record(document: str, *columns: DeclaredColumn, null: str = "", **options: Any) -> str:
    """The record of one document, without its line end."""
    made = Documents(Declared(fields=columns, **options), CsvDialect(null=null))
    line = made.line(parse(document))
    assert line.endswith("\n")
    return line[:-1]


@pytest.mark.parametrize(
    ("declared", "value", "written"),
    [
        ("text", '"plain"', "plain"),
        ("text", '""', '""'),
        ("text", '"a \\"b\\", c"', '"a ""b"", c"'),
        ("text", '"two\\nlines"', '"two\nlines"'),
        ("text", '"back\\\\slash"', "back\\slash"),
        ("text", "null", ""),
        ("integer", "9223372036854775808", "9223372036854775808"),
        ("integer", "-" + "9" * 400, "-" + "9" * 400),
        ("integer", "9" * 5000, "9" * 5000),
        ("integer", "1.0", "1"),
        ("integer", "1e3", "1000"),
        ("decimal", "1.10", "1.10"),
        ("decimal", "0.1000000000000000055511151231257827", "0.1000000000000000055511151231257827"),
        ("decimal", '"12.50"', "12.50"),
        ("decimal", "1.5e3", "1500"),
        ("decimal", "1e999999999", "1e999999999"),
        ("decimal", '"NaN"', "NaN"),
        ("float", "0.1", "0.1"),
        ("float", "1.10", "1.1"),
        ("float", "5.0", "5"),
        ("float", "9007199254740993", "9007199254740993"),
        ("boolean", "true", "true"),
        ("boolean", "false", "false"),
        ("date", '"2026-02-28"', "2026-02-28"),
        ("timestamp", '"2026-02-28T23:59:59.120"', "2026-02-28 23:59:59.120"),
        ("timestamptz", '"2026-02-28T23:59:59.120Z"', "2026-02-28 23:59:59.120+00"),
        ("timestamptz", '"2026-02-28T23:59:59Z"', "2026-02-28 23:59:59+00"),
        ("timestamptz", '"2026-03-01T00:30:00.5+01:00"', "2026-02-28 23:30:00.5+00"),
        ("timestamptz", '"2026-03-01 00:30-0130"', "2026-03-01 02:00:00+00"),
        ("uuid", '"6F9619FF8B86D011B42D00C04FC964FF"', "6f9619ff-8b86-d011-b42d-00c04fc964ff"),
        ("objectid", '{"$oid": "507F1F77BCF86CD799439011"}', "507f1f77bcf86cd799439011"),
        ("bytes", '"AP8="', "00ff"),
        ("json", '{"a": [1.10, 18446744073709551616, null], "b": "é"}',
         '"{""a"":[1.10,18446744073709551616,null],""b"":""é""}"'),
        ("json", '"text"', '"""text"""'),
    ],
)  # fmt: skip
def test_values(declared: str, value: str, written: str) -> None:
    """A value of its column's type has the text of the dialect, and nothing is counted."""
    made = Documents(Declared(fields=(column("v", declared),)), CsvDialect())
    assert made.line(parse(f'{{"v": {value}}}')) == f"{written},\n"
    assert not made.counted


@pytest.mark.parametrize(
    ("declared", "value", "text"),
    [
        ("integer", '"12"', "12"),
        ("integer", "1.5", "1.5"),
        ("integer", "true", "true"),
        ("text", "1.10", "1.10"),
        ("text", '{"a": 1}', '"{""a"":1}"'),
        ("boolean", "1", "1"),
        ("date", '"2026-02-30"', "2026-02-30"),
        ("timestamp", '"2026-02-28T00:00:00Z"', "2026-02-28T00:00:00Z"),
        ("timestamptz", '"2026-02-28T00:00:00"', "2026-02-28T00:00:00"),
        ("timestamptz", '"2026-W09-1T00:00:00Z"', "2026-W09-1T00:00:00Z"),
        ("timestamptz", "1764229761", "1764229761"),
        ("float", "[1]", "[1]"),
        ("bytes", '"no base64"', "no base64"),
        ("uuid", '"x"', "x"),
    ],
)
def test_values_of_another_type(declared: str, value: str, text: str) -> None:
    """The policy decides: text and null are counted, fail stops; what is not shown stays in the rest."""
    document, fields = f'{{"v": {value}, "w": 1}}', (column("v", declared),)
    told: dict[str, Documents] = {
        policy: Documents(Declared(fields=fields, mistyped=policy), CsvDialect()) for policy in ("text", "null", "fail")
    }
    assert told["text"].line(parse(document)) == text + ',"{""w"":1}"\n'
    hidden = next(iter(csv.reader([told["null"].line(parse(document))])))
    assert hidden[0] == ""
    assert parse(hidden[1])["v"] == parse(value)
    assert [made.counted.total() for made in told.values()] == [1, 1, 0]
    with pytest.raises(ConfigurationError, match=rf"field fields: v: .* is not of type {declared}"):
        told["fail"].line(parse(document))


def test_missing_null_and_empty_are_three_things() -> None:
    """A default stands for what is missing alone."""
    field = column("v", default="none")
    assert record("{}", field) == "none,"
    assert record('{"v": null}', field) == ","
    assert record('{"v": ""}', field) == '"",'
    assert record("{}", column("n", "decimal", default="1.10"), column("j", "json", default={"a": []})) == (
        '1.10,"{""a"":[]}",'
    )
    with pytest.raises(ConfigurationError, match="default 'x' is not of type integer"):
        record("{}", column("n", "integer", default="x"))


@pytest.mark.parametrize("null", [r"\N", "NULL", "0", "(null)"])
def test_a_value_equal_to_the_marker_is_quoted(null: str) -> None:
    """Of any type it is told apart from NULL."""
    fields = (column("a"), column("b"), column("c", "integer"))
    assert record(json_text({"a": null, "b": None, "c": 0}), *fields, null=null) == (
        f'"{null}",{null},{chr(34) * (null == "0")}0{chr(34) * (null == "0")},{null}'
    )


def test_paths() -> None:
    """Names, indexes, quoted names and expressions; what is taken out leaves the rest as it was."""
    document = """{"a": {"b": {"c": 1, "d": 2}, "e": 3}, "items": [{"price": 1.10}, {"price": 2.5}], "x.y": 4,
                   "empty": {}, "gone": {"only": 5}, "text": "t"}"""
    row = record(
        document,
        column("c", "integer", "a.b.c"),
        column("price", "decimal", "items[0].price"),
        column("far", "decimal", "items[7].price", default=0),
        column("odd", "integer", '"x.y"'),
        column("only", "integer", "gone.only"),
        column("no", path="text.inner", default="no"),
        column("none", path="empty.inner"),
        column("sum", "decimal", "sum(items[].price)"),
        column("dear", "decimal", "items[?price > `2`].price | [0]"),
    )
    *shown, rest = next(iter(csv.reader([row])))
    assert shown == ["1", "1.10", "0", "4", "5", "no", "", "3.6", "2.5"]
    assert rest == '{"a":{"b":{"d":2},"e":3},"items":[{"price":1.10},{"price":2.5}],"empty":{},"text":"t"}'


def test_a_value_and_its_parts() -> None:
    """One column can hold an object whole and others parts of it; the same path can be written twice."""
    fields = (column("geo", "json"), column("city", path="geo.city"), column("again", path="geo.city"))
    assert record('{"geo": {"city": "Köln"}}', *fields) == '"{""city"":""Köln""}",Köln,Köln,'
    assert record('{"geo": 1}', *fields) == "1,,,"
    assert record("{}", *fields) == ",,,"
    assert record("[1, 2]", *fields) == ',,,"[1,2]"'
    assert record("null", *fields) == ",,,null"
    assert record("[[5, 6]]", column("v", "integer", "[0][1]")) == '6,"[[5,6]]"'


def test_bad_paths_are_named() -> None:
    """What is neither a path nor JMESPath names the column."""
    with pytest.raises(ConfigurationError, match=r"field fields: v: 'a\[' is neither a path nor JMESPath"):
        record("{}", column("v", path="a["))


def test_what_no_column_names_is_kept_refused_or_counted() -> None:
    """json keeps it, refuse stops and names it, drop counts it."""
    document, field = '{"a": 1, "b": {"c": 1.10}}', column("a", "integer")
    assert record(document, field) == '1,"{""b"":{""c"":1.10}}"'
    with pytest.raises(ConfigurationError, match=r"field extra: a document has 'b'"):
        record(document, field, extra="refuse")
    assert record('{"a": 1}', field, extra="refuse") == "1"
    made = Documents(Declared(fields=(field,), extra="drop"), CsvDialect())
    assert made.line(parse(document)) == "1\n"
    assert made.counted == {"b: left out": 1}
    for number in range(100):
        made.line({f"k{number}": 1})
    assert made.counted["further fields: left out"] == 51
    assert record(document) == '"{""a"":1,""b"":{""c"":1.10}}"'
    with pytest.raises(ConfigurationError, match="no column is declared"):
        record(document, extra="drop")


def test_chosen_columns() -> None:
    """Those a run asks for, in its order; what is left out is not in the rest either."""
    declared = Declared(fields=(column("a", key=True), column("b"), column("c")))
    made = Documents(declared, CsvDialect(), ("_extra", "a"))
    assert [(each.name, each.key) for each in made.columns] == [("_extra", False), ("a", True)]
    assert made.line({"a": "1", "b": "2", "d": "4"}) == '"{""d"":""4""}",1\n'
    assert Documents(declared, CsvDialect(), ("-_extra",)).line({"a": "1", "b": "2", "d": "4"}) == "1,2,\n"


def test_what_is_not_quite_json() -> None:
    """Lone surrogates, bytes that are no UTF-8, NaN and a byte order mark are read; all else is an error."""
    assert parse(r'{"a": "\ud800x", "b": "\ud83d\ude00", "c": "\\ud800"}') == {"a": "�x", "b": "😀", "c": "\\ud800"}
    assert parse(b'"\xff"') == "�"
    assert parse("[NaN, -Infinity, 1.10]")[:2] == ["NaN", "-Infinity"]
    assert parse(b"\xef\xbb\xbf{}") == {}
    for text in ("{", "", "<html>", "[1,]", "[" * 100_000):
        with pytest.raises(DocumentError):
            parse(text)


def test_getters() -> None:
    """A getter tells missing and null apart."""
    get = getter("a.b[1]", "cursor")
    assert get(parse('{"a": {"b": [1, null]}}')) is None
    assert get(parse('{"a": {"b": [1]}}')) is MISSING
    assert json_text(getter("max(a)", "cursor")(parse('{"a": [1.10, 1.1]}'))) == "1.10"


# -- nothing is lost -------------------------------------------------------------------------------------------------

_KEYS = ["id", "name", "a", "b", "c.d", 'q"uote', "geo", "city", "tags", "ünï"]


def drifting(chance: random.Random, number: int, depth: int = 0) -> Any:
    """A value of a schema that changes from one document to the next."""
    kind = chance.randrange(9 if depth < 4 else 6) if depth else 8
    if kind == 8:
        keys = [*chance.sample(_KEYS, chance.randrange(len(_KEYS))), f"k{number // 500 + chance.randrange(3)}"]
        return {key: drifting(chance, number, depth + 1) for key in keys}
    if kind in (6, 7):
        return [drifting(chance, number, depth + 1) for _ in range(chance.randrange(4))]
    return [
        None,
        chance.random() < 0.5,
        chance.choice([0, -1, 2**63, 10**30, chance.randrange(10**6)]),
        Decimal(chance.choice(["1.10", "0.30000000000000004", "1E+2", "-0.5", "123456789012345678901234567890.5"])),
        chance.choice(["", "a, b", 'q"q', "l\nl", "ünï ✓ 🎁", "2026-01-31T12:00:00Z", r"\N", "12.50", "\u0000\u2028"]),
        chance.choice([{}, []]),
    ][kind]


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Every value that holds no other, as JSON, and its place."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not members:
        yield path, json_text(value)
    for key, member in members:
        yield from leaves(member, (*path, key))


def dumped(value: Any) -> str:
    """JSON in which decimals are numbers."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{dumped(member)}" for key, member in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(dumped, value)) + "]"
    return str(value) if isinstance(value, Decimal) else json.dumps(value)


DRIFTING = (
    column("id", "integer"),
    column("name"),
    column("city", "text", "geo.city"),
    column("deep", "json", "geo.geo.geo"),
    column("first", "decimal", "tags[0]"),
    column("odd", "timestamptz", '"c.d"'),
    column("quote", "float", '"q\\"uote".a'),
)
"""Columns for some of what `drifting` makes."""
_DEEP = ("geo",) * 3
_PLACES = {("id",): 0, ("name",): 1, ("geo", "city"): 2, _DEEP: 3, ("c.d",): 5, ('q"uote', "a"): 6}


def assert_nothing_lost(text: str, row: Sequence[str]) -> None:
    """Every value of a document is in a column of `DRIFTING` that names it, or in the rest; and nothing else is."""
    assert len(row) == len(DRIFTING) + 1
    rest = dict(leaves({} if row[-1] == r"\N" else parse(row[-1])))
    for path, value in leaves(parse(text)):
        if rest.get(path) == value or path == ():
            continue
        whole = next((path[:n] for n in range(1, len(path) + 1) if path[:n] in _PLACES), None)
        assert whole is not None, (path, text, row)
        assert held_is(row[_PLACES[whole]], whole, parse(text)), (path, text, row)
    assert not {path for path in rest if path} - dict(leaves(parse(text))).keys(), (text, row)


@pytest.mark.parametrize("mistyped", ["text", "null"])
def test_no_field_of_any_document_is_lost(mistyped: Any) -> None:
    """Of documents whose schema drifts."""
    made = Documents(Declared(fields=DRIFTING, mistyped=mistyped), CsvDialect(null=r"\N"))
    chance = random.Random(20261127)
    for number in range(DOCUMENTS):
        text = dumped(drifting(chance, number))
        assert_nothing_lost(text, next(iter(csv.reader(io.StringIO(made.line(parse(text)), newline="")))))


def held_is(held: str, path: tuple[Any, ...], document: Any) -> bool:
    """Whether a field holds the value at ``path``, in the form of some type."""
    value = document
    for step in path:
        value = value[step]
    if value is None:
        return held == r"\N"
    if path == _DEEP:
        return held == json_text(value)
    shown = value if isinstance(value, str) else json_text(value)
    if held == shown or held.replace(" ", "T").removesuffix("+00") + "Z" == shown:
        return True
    # Of a number in a column of floats the nearest one; a string may be a number there.
    return shown != "" and Decimal(held) in (Decimal(shown), Decimal(repr(float(shown))))
