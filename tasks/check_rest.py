"""Whether an endpoint can be read: one page is asked for, and looked at."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

from blocks.hosts import is_local
from blocks.rest import RestApi
from tasks.extractors.contract import ReadOptions
from tasks.extractors.documents import MISSING, Documents, getter
from tasks.extractors.rest.errors import ApiError
from tasks.extractors.rest.pace import server_time
from tasks.extractors.rest.reading import Reading
from tasks.extractors.rest.records import Page
from tasks.extractors.rest.session import Session
from tasks.extractors.rest.source import RestEndpoint
from tasks.extractors.rest.times import Window
from tasks.findings import Finding, Findings


async def look(source: RestEndpoint, options: ReadOptions) -> Findings:
    """All findings about an endpoint, as they are made."""
    block, spec = source.connection, source.spec()
    documents = Documents(source, options.dialect, options.columns)
    try:
        async with Session(block) as session:
            reading = Reading(session, block.base_url, spec)
            pages, first = reading.first(Window(since=spec.times.first()))
            async with aclosing(await pages.begin(first)) as page:
                yield _greeting(block, page)
                records = await _some(page)
    except ApiError as error:
        yield Finding("error", f"source: {error}", "check base_url, auth, tls and proxy of the rest-api block")
        return
    what = spec.parent.path if spec.parent else spec.path
    yield Finding("ok", f"source: {what} can be read, {len(records)} record(s) on the first page")
    if spec.parent is None:
        for finding in _fit(source, documents, records):
            yield finding


def _greeting(block: RestApi, page: Page) -> Finding:
    text = f"source: {block.describe()} answers, {'TLS' if block.is_encrypted else 'in clear'}"
    if not block.is_encrypted and not is_local(block.host):
        return Finding("warning", text, "credentials and data can be read on the way; write https:// in base_url")
    if page.response is not None and server_time(page.response.headers) is None:
        return Finding(
            "warning", f"{text}, without its time (header Date)", "windows end by this machine's clock; set lag"
        )
    return Finding("ok", text)


async def _some(page: Page) -> list[Any]:
    async with aclosing(page.batches()) as batches:
        async for batch in batches:
            return batch
    return []


def _fit(source: RestEndpoint, documents: Documents, records: list[Any]) -> list[Finding]:
    """Whether the declared columns and the cursor are in the records."""
    found = []
    if source.cursor and records:
        get = getter(source.cursor, "cursor")
        without = sum(not get(record) for record in records)
        if without:
            text = f"source: {without} of {len(records)} records have no {source.cursor}, which is the cursor"
            found.append(Finding("warning", text, "see null_cursor, or check the field cursor"))
    paths = {field.name: getter(field.where, "fields") for field in source.fields}
    missing = [name for name, get in paths.items() if records and not any(get(one) is not MISSING for one in records)]
    for record in records:
        documents.line(record)
    if missing:
        found.append(
            Finding("warning", f"source: no record has {', '.join(missing)}", "check the paths of these columns")
        )
    if wrong := ", ".join(f"{what} ({count})" for what, count in documents.counted.items() if "of type" in what):
        found.append(
            Finding("warning", f"source: of the first page: {wrong}", "declare other types, where that is not meant")
        )
    return found
