"""What is in a response becomes rows: where its records are, what form it has, what is nested in it; large or small."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from typing import Any

import pytest

from blocks.errors import ConfigurationError
from blocks.s3 import CsvDialect
from tasks.extractors.contract import ReadOptions
from tasks.extractors.fields import DeclaredColumn
from tasks.extractors.rest.errors import BadResponse
from tasks.extractors.rest.splitter import Splitter
from tests.servers.rest import Space
from tests.tasks.extractors.rest import FIELDS, block, endpoint, ids, in_thread, item, items, read
from tests.tasks.extractors.test_documents import DRIFTING, assert_nothing_lost, drifting, dumped

SOAK = bool(os.environ.get("HEADRACE_SOAK"))
DOCUMENTS = 100_000 if SOAK else 5_000
MIB = 1 << 20
NONE: dict[str, Any] = {"pagination": {"kind": "none"}}


@pytest.mark.parametrize(
    ("body", "records", "found"),
    [
        ('[{"id": 1}, {"id": 2}]', "", [1, 2]),
        ('{"things": [{"id": 1}], "n": 1}', "", [1]),
        ('{"a": {"b": [{"id": 1}]}}', "a.b", [1]),
        ('{"a": [{"b": [{"id": 1}]}, {"b": [{"id": 2}]}]}', "a[].b[]", [1, 2]),
        ('{"a": {"x": {"id": 1}, "y": {"id": 2}}}', "values(a)", [1, 2]),
        ('{"id": 7}', "@", [7]),
        ('{"a": {"id": 7}}', "a", [7]),
        ('{"a": null}', "a", []),
        ("", "", []),
    ],
)
async def test_where_the_records_are(rest_space: Space, body: str, records: str, found: list[int]) -> None:
    """By a path, by JMESPath, the response itself, or the one array in it."""
    await in_thread(rest_space.add, items(1))
    await in_thread(rest_space.rule, path="items", times=-1, body=body, type="application/json")
    assert await ids(endpoint(rest_space, records=records, **NONE)) == found


async def test_where_the_records_are_has_to_be_clear(rest_space: Space) -> None:
    """Two arrays, or none, and the field is named; a place that is missing is an error, unless it may be."""
    await in_thread(rest_space.add, items(1))
    await in_thread(rest_space.rule, path="items", times=-1, body='{"data": {}, "a": [1], "b": [2]}')
    with pytest.raises(ConfigurationError, match=r"field records: .*it has data \(an object\), a \(an array\), b"):
        await ids(endpoint(rest_space, records="", **NONE))
    with pytest.raises(BadResponse, match=r"field records: .* has no 'data.items'"):
        await ids(endpoint(rest_space, connection=block(rest_space, retries=0), **NONE))
    assert await ids(endpoint(rest_space, empty_when_missing=True, **NONE)) == []
    with pytest.raises(ConfigurationError, match=r"field records: 'a\[' is neither a path nor JMESPath"):
        await ids(endpoint(rest_space, records="a[", **NONE))


@pytest.mark.parametrize("form", ["ndjson", "csv"])
@pytest.mark.parametrize("size", ["small", "large"])
async def test_forms(rest_space: Space, form: str, size: str) -> None:
    """NDJSON and CSV, known by their type, bring what JSON does; large ones come in pieces."""
    made = items(40, pad="x" * (200_000 if size == "large" else 1))
    await in_thread(rest_space.add, made)
    fields: dict[str, Any] = {"fields": FIELDS, "columns": ("id", "note", "amount")}
    columns = fields.pop("columns")
    expected, _ = await read(endpoint(rest_space, **fields, **NONE), columns=columns)
    source = endpoint(rest_space, params={"as": form}, records="", pagination={"kind": "link"}, **fields)
    found, _ = await read(source, columns=columns)
    # CSV has no empty text: NULL is what it reads back as, which is the same to a reader of CSV.
    assert found == expected
    explicit = endpoint(rest_space, params={"as": form}, records="", format=form, **fields, **NONE)
    await in_thread(rest_space.rule, path="items", times=-1, type="application/octet-stream")
    assert (await read(explicit, columns=columns))[0] == expected


async def test_forms_that_are_broken(rest_space: Space) -> None:
    """A line that is cut off, or has too few fields, is no record."""
    await in_thread(rest_space.add, items(1))
    for body, form in (('{"id": 1}\n{"id": ', "ndjson"), ("id,note\n1,x\n2\n", "csv"), ('id,note\n1,"x\n', "csv")):
        await in_thread(rest_space.rule, path="items", times=-1, body=body, type="text/plain")
        with pytest.raises(BadResponse):
            await ids(endpoint(rest_space, format=form, records="", **NONE))


async def test_one_row_for_each_element(rest_space: Space) -> None:
    """The fields of the record stay; a record without elements is one row all the same; nothing is lost."""
    await in_thread(
        rest_space.add,
        [
            {
                "id": 1,
                "who": {"name": "A", "age": 3},
                "order": {"lines": [{"sku": "x", "n": 1.5}, {"sku": "y", "more": 1}]},
            },
            {"id": 2, "order": {"lines": []}},
            {"id": 3},
            {"id": 4, "order": {"lines": [5, None]}},
        ],
    )
    fields = (
        DeclaredColumn(name="id", type="integer"),
        DeclaredColumn(name="name", path="who.name"),
        DeclaredColumn(name="sku", path="order.lines.sku"),
        DeclaredColumn(name="n", path="order.lines.n", type="decimal"),
    )
    rows, _ = await read(endpoint(rest_space, fields=fields, extra="json", each="order.lines", **NONE))
    assert [row[:4] for row in rows] == [
        ("1", "A", "x", "1.5"), ("1", "A", "y", ""), ("2", "", "", ""), ("3", "", "", ""), ("4", "", "", ""), ("4", "", "", ""),
    ]  # fmt: skip
    assert [row[4] for row in rows] == [
        '{"who":{"age":3}}', '{"who":{"age":3},"order":{"lines":{"more":1}}}', '{"order":{"lines":[]}}', "",
        '{"order":{"lines":5}}', '{"order":{"lines":null}}',
    ]  # fmt: skip
    with pytest.raises(ConfigurationError, match="field each"):
        await ids(endpoint(rest_space, each="a[0]", **NONE))


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_children_of_parents(rest_space: Space, concurrency: int) -> None:
    """Ids of one endpoint fill the path of another; in order, some at once, the parent's values with each child."""
    await in_thread(rest_space.add, [{"id": n, "name": f"c/{n}", "ref": {"n": n}} for n in range(1, 26)], "customers")
    await in_thread(rest_space.add, [item(n, parent=(n - 1) // 4 + 1) for n in range(1, 89)], "orders")
    await in_thread(rest_space.rule, path="/customers/25/", times=-1, status=404)
    await in_thread(rest_space.rule, path="/orders", times=-1, delay=0.02)
    source = endpoint(
        rest_space,
        "/customers/{customer}/orders",
        connection=block(rest_space, concurrency=concurrency),
        params={"for": "{name}", "limit": "3"},
        parent={
            "path": "/customers", "values": {"customer": "ref.n", "name": "name"}, "records": "data.items",
            "pagination": {"kind": "page", "size_param": "per_page", "size": 10},
        },
        fields=(*FIELDS[:1], DeclaredColumn(name="name", path="_parent.name")),
        extra="drop",
        responses={"404": "ignore"},
    )  # fmt: skip
    rows, _ = await read(source)
    assert rows == [(str(n), f"c/{(n - 1) // 4 + 1}") for n in range(1, 89)]
    asked = await in_thread(rest_space.asked, "orders")
    assert asked[0]["query"]["for"] == "c/1"
    assert max(one["under_way"] for one in asked) == concurrency


async def test_what_two_parents_share_comes_for_each(rest_space: Space) -> None:
    """A record that one parent's page has is not taken for a repeated one on the page of the next parent."""
    await in_thread(rest_space.add, items(3), "customers")
    await in_thread(rest_space.add, items(1), "tags")
    await in_thread(rest_space.rule, path="/tags", times=-1, body=json.dumps([{"id": 1}, {"id": 2}]))
    parent = {"path": "/customers", "values": {"c": "id"}, "records": "data.items", "pagination": {"kind": "none"}}
    fields = (*FIELDS[:1], DeclaredColumn(name="customer", path="_parent.c", key=True))
    source = endpoint(rest_space, "/customers/{c}/tags", parent=parent, records="", fields=fields, **NONE)
    rows, _ = await read(source)
    assert rows == [(tag, customer) for customer in "123" for tag in "12"]


async def test_a_parent_without_its_value(rest_space: Space) -> None:
    """It is told, as is a placeholder that nobody fills."""
    await in_thread(rest_space.add, [{"id": 1}], "customers")
    parent: dict[str, Any] = {"path": "/customers", "values": {"c": "ref"}, "records": "data.items"}
    parent["pagination"] = {"kind": "none"}
    with pytest.raises(ConfigurationError, match=r"field parent\.values\.c: a parent's record has no single value"):
        await ids(endpoint(rest_space, "/customers/{c}/orders", parent=parent))
    with pytest.raises(ConfigurationError, match=r"field path: nothing is known of \{d\}"):
        await ids(endpoint(rest_space, "/customers/{d}/orders"))
    with pytest.raises(ConfigurationError, match="field path: it is added to the connection's base URL"):
        await ids(endpoint(rest_space, "https://elsewhere.example/items"))


async def test_without_columns_nothing_is_lost(rest_space: Space) -> None:
    """The simplest endpoint: a connection and a path. Each record is JSON in one column, and the plan says so."""
    await in_thread(rest_space.add, items(3))
    source = endpoint(
        rest_space, fields=(), extra="json", records="", params={"as": "bare"}, pagination={"kind": "link"}
    )
    rows, plan = await read(source)
    assert [json.loads(row[0]) for row in rows] == items(3)
    assert [column.name for column in plan.columns] == ["_extra"]
    assert "no column is declared" in plan.notes[0]


async def test_what_is_counted_is_told(rest_space: Space) -> None:
    """Values of another type and fields that are left out are in what the read tells."""
    await in_thread(rest_space.add, [{"id": 1, "note": 5, "x": 1}, {"id": "a", "note": "b"}])
    async with endpoint(rest_space, fields=FIELDS[:2], extra="drop", **NONE).open(ReadOptions()) as extractor:
        plan = await extractor.plan(None)

        async def write(_data: bytes) -> None:
            pass

        told = await extractor.read(plan, plan.partitions[0], write)
    assert told.counted == {
        "note: not of type text, written as text": 1,
        "id: not of type integer, written as text": 1,
        "x: left out": 1,
    }


@pytest.mark.parametrize("form", ["json", "ndjson"])
async def test_no_field_of_any_record_is_lost(rest_space: Space, form: str) -> None:
    """From the wire to the row: every record of a schema that drifts, in a response that comes in pieces."""
    chance = random.Random()
    seed = chance.randrange(2**32)
    chance.seed(seed)
    texts = [dumped(drifting(chance, number)) for number in range(DOCUMENTS)]
    body = "\n".join(texts) if form == "ndjson" else '{"records":[' + ",\n".join(texts) + "]}"
    await in_thread(rest_space.add, items(1))
    await in_thread(rest_space.rule, path="/items", times=-1, body=body, type=f"application/{form}")
    source = endpoint(
        rest_space, fields=DRIFTING, extra="json", format=form, records="records", pagination={"kind": "none"}
    )
    rows, _ = await read(source, dialect=CsvDialect(null=r"\N"))
    assert len(rows) == DOCUMENTS, seed
    try:
        for text, row in zip(texts, rows, strict=True):
            assert_nothing_lost(text, row)
    except AssertionError as error:
        error.add_note(f"seed {seed}")
        raise


# -- large ones ------------------------------------------------------------------------------------------------------


def test_any_json_in_any_pieces() -> None:
    """The splitter finds the elements and the envelope of random documents, however they are cut."""
    chance = random.Random(7)

    def value(depth: int = 0) -> Any:
        kind = chance.random()
        if kind < 0.3 or depth > 3:
            return chance.choice(["a", 'q"x', "back\\", '\\\\"', "[{,]}", 1, None, True, 1.5, "é✓\\\\"])
        if kind < 0.6:
            return [value(depth + 1) for _ in range(chance.randrange(4))]
        return {
            chance.choice(["a", "b", "data", "items", 'q"\\']): value(depth + 1) for _ in range(chance.randrange(4))
        }

    for _ in range(20_000 if SOAK else 1_000):
        records = [value() for _ in range(chance.randrange(6))]
        path = chance.choice([[], ["data"], ["data", "items"], ['q"\\']])
        document: Any = records
        for name in reversed(path):
            document = {chance.choice(["x", "y"]): value(), name: document, chance.choice(["v", "w"]): value()}
        text = json.dumps(document, ensure_ascii=chance.random() < 0.5, indent=chance.choice([None, 2])).encode()
        splitter, found, at = Splitter(path), [], 0
        while at < len(text):
            size = chance.randrange(1, 40)
            found += splitter.feed(text[at : at + size])
            at += size
        assert [json.loads(element) for element in found] == records
        records.clear()
        assert json.loads(splitter.envelope()) == document


async def test_a_large_response_comes_in_pieces(rest_space: Space) -> None:
    """Its records are all there, and what stands behind them says where the next page is."""
    await in_thread(rest_space.add, [item(n, note="x" * 9_000) for n in range(1, 2_001)])
    source = endpoint(rest_space, params={"limit": "900"})  # pages of 8 MB
    assert await ids(source) == list(range(1, 2_001))


LARGE = (2048 if SOAK else 200) * MIB
READ_LARGE = """
import asyncio, json, sys
from tasks.extractors.contract import ReadOptions
from tasks.extractors.rest.source import RestEndpoint
from tasks.telling import peak_memory
from blocks.rest import RestApi

async def main(url, size):
    source = RestEndpoint(connection=RestApi(base_url=url), path="/large", params={"bytes": size}, records="data.items",
                          pagination={"kind": "next", "value": "after.next"}, extra="json",
                          fields=[{"name": "id", "type": "integer", "key": True}, {"name": "note"}])
    async def write(data): pass
    before = peak_memory()
    async with source.open(ReadOptions()) as extractor:
        plan = await extractor.plan(None)
        told = await extractor.read(plan, plan.partitions[0], write)
    print(json.dumps({"rows": told.rows, "more": peak_memory() - before}))

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


async def test_a_response_larger_than_the_memory(rest_space: Space) -> None:
    """Hundreds of megabytes in one response cost some megabytes of memory."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", READ_LARGE, rest_space.url, str(LARGE),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    told = json.loads(said.splitlines()[-1])
    assert told["rows"] * 440 > LARGE * 0.9
    assert told["more"] < 64 * MIB, told
