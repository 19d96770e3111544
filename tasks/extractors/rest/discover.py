"""What an endpoint's first page looks like: where its records are, their fields, and what speaks of further pages."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from blocks.errors import ConfigurationError
from blocks.rest import RestApi
from tasks.extractors import seen
from tasks.extractors.catalog import Cursor, Found, FoundField, Nested, promises_changes, ranked, stream_name
from tasks.extractors.documents import getter, json_text
from tasks.extractors.documents.texts import date, timestamp, timestamptz, uuid
from tasks.extractors.fields import FieldType
from tasks.extractors.rest.records import Page, Reader
from tasks.extractors.rest.session import Session
from tasks.extractors.rest.signs import sign_of_more
from tasks.extractors.rest.spec import Spec
from tasks.extractors.rest.template import request
from tasks.extractors.rest.times import Window

_SAMPLE = 1_000
_TEXTS = {"timestamptz": timestamptz, "timestamp": timestamp, "date": date, "uuid": uuid}
_TYPES: dict[str, FieldType] = {
    "string": "text", "integer": "integer", "number": "decimal", "boolean": "boolean", "timestamptz": "timestamptz",
    "timestamp": "timestamp", "date": "date", "uuid": "uuid",
}  # fmt: skip
_NESTED = {"object", "array"}
_NAME = re.compile(r"[\w$-]+")


async def endpoint(block: RestApi, _schema: str, like: str, nested: Nested = "columns") -> list[Found]:
    """The endpoint whose path ``like`` is: an API does not tell which it has."""
    if not like.startswith("/"):
        raise ConfigurationError(
            "an API does not list its endpoints: name one, such as `headrace discover rest-api/shop --like /orders`"
        )
    spec = Spec(path=like, records="@")
    async with Session(block) as session:
        asked = request(block.base_url, spec, Window(), {})
        async with aclosing(await session.fetch(asked, spec, Reader(spec).page)) as page:
            return [await _found(page, like, nested)]


async def _found(page: Page, path: str, nested: Nested) -> Found:
    records = await _first(page)
    also = []
    if isinstance(page.envelope, dict):
        members = records_of(page.envelope)
        also.append(f"records: {json.dumps(_written(members) if members else '@', ensure_ascii=False)}")
        records = getter(_written(members), "records")(page.envelope) if members else records
    sample = seen.Sample()
    for record in records[:_SAMPLE]:
        sample.count += 1
        _look(sample, record, sample.root, seen.DEPTH)
    fields = sample.fields(_type, _written)
    ids = [json_text(record.get("id")) for record in records[:_SAMPLE] if isinstance(record, dict)]
    is_key = any(field.path == "id" and field.filled for field in fields) and len({*ids}) == sample.count
    more = _more(page)
    return Found(
        written=path,
        stream=stream_name(path.partition("?")[0].strip("/").rpartition("/")[2]),
        rows=None,
        bytes=0,
        readable=True,
        key=("id",) if is_key else (),
        cursors=ranked(_cursor(field) for field in fields if field.type == "timestamptz"),
        kind="path",
        fields=sample.fields(_type, _written, nested),
        sampled=sample.count,
        drawn="of the first page",
        also=(*also, f"# {more}"),
        told=more,
    )


async def _first(page: Page) -> list[Any]:
    """Records of the page, all of it where it is one JSON text."""
    found: list[Any] = []
    async with aclosing(page.batches()) as batches:
        async for batch in batches:
            found += batch
            if len(found) >= _SAMPLE:
                break
    return found


def records_of(envelope: Any) -> list[str] | None:
    """The members that lead to the largest array of objects in a response; None where it holds none."""
    found = sorted(_arrays(envelope, [], seen.DEPTH), key=lambda one: -one[0])
    return found[0][1] if found else None


def _arrays(value: Any, path: list[str], depth: int) -> list[tuple[int, list[str]]]:
    if isinstance(value, list):
        return [(len(value), path)] if value and isinstance(value[0], dict) else []
    if not isinstance(value, dict) or not depth:
        return []
    return [one for name, member in value.items() for one in _arrays(member, [*path, name], depth - 1)]


def _look(sample: seen.Sample, record: Any, parent: seen.Seen, depth: int) -> None:
    for name, value in record.items() if isinstance(record, dict) else ():
        there = sample.at(parent, name)
        if there is None:
            continue
        there.kinds[_kind(value)] += 1
        if isinstance(value, dict) and depth > 1:
            _look(sample, value, there, depth - 1)


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return next((name for name, write in _TEXTS.items() if write(value) is not None), "string")
    kinds = {dict: "object", list: "array", bool: "boolean", int: "integer"}
    return "null" if value is None else kinds.get(type(value), "number")


def _type(types: set[str]) -> FieldType:
    if not types or types & _NESTED:
        return "json"
    if types <= {"integer", "number"}:
        return "integer" if types == {"integer"} else "decimal"
    return _TYPES[next(iter(types))] if len(types) == 1 else "text"


def _written(path: Sequence[str]) -> str:
    return ".".join(step if _NAME.fullmatch(step) else json.dumps(step, ensure_ascii=False) for step in path)


def _cursor(field: FoundField) -> Cursor:
    return Cursor(
        name=field.path, indexed=True, filled=field.filled, generated=False, sees_changes=promises_changes(field.path)
    )


def _more(page: Page) -> str:
    """How the response speaks of further pages, which the field pagination has to follow."""
    if page.response is None:
        return "nothing was answered"
    if 'rel="next"' in page.response.headers.get("Link", ""):
        return "further pages: by the header Link"
    sign = sign_of_more(page.envelope)
    return f"further pages: see {sign}, and set pagination" if sign else "no sign of further pages"
