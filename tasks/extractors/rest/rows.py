"""Records → CSV: left out by their time, multiplied by their arrays, joined with their parents; and written in order."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

from blocks.errors import ConfigurationError
from tasks.extractors.contract import Read, Write
from tasks.extractors.documents import Documents, json_text, parse
from tasks.extractors.documents.paths import steps
from tasks.extractors.rest.pages import Taken
from tasks.extractors.rest.records import Batch, Page
from tasks.extractors.rest.sieve import Sieve
from tasks.extractors.rest.spec import Spec
from tasks.extractors.rest.times import Window

PARENT = "_parent"
"""The member of a child that has its parent's values."""

_CHUNK_BYTES = 256 << 10
_IN_THREAD = 200
"""Records: so many take some milliseconds, for which other requests should not have to wait."""


class Rows:
    """Takes pages, and writes their records."""

    def __init__(self, spec: Spec, documents: Documents, window: Window, write: Write) -> None:
        self._sieve = Sieve(spec.times, window)
        self._documents = documents
        self._write = write
        self._each = _array(spec.each) if spec.each else ()
        self._has_key = any(column.key for column in documents.columns)
        self._seen: set[str] = set()
        """Records of the page before, where a repeated one can be told from two that are alike; of one that is there whole."""
        self._seeing: set[str] = set()
        self._compares = False
        self._parent: Mapping[str, Any] = {}
        self._waiting: list[bytes] = []
        self._size = 0
        self.rows = 0

    async def take(self, page: Page, parent: Mapping[str, Any]) -> Taken:
        """Write a page's records."""
        count = 0
        self._compares = self._has_key and page.is_known
        if parent != self._parent:  # what two parents share is each one's own
            self._seen, self._parent = set(), parent
        async with aclosing(page.batches()) as batches:
            async for batch in batches:
                count += len(batch)
                if len(batch) < _IN_THREAD:
                    data, rows = self._records(batch, parent)
                else:
                    data, rows = await asyncio.to_thread(self._records, batch, parent)
                self.rows += rows
                await self._put(data)
        self._seen, self._seeing = self._seeing, set()
        return Taken(count, is_enough=self._sieve.is_past())

    async def finish(self) -> Read:
        """Write what is left; what was written in all."""
        await self._put(b"", at_least=1)
        return Read(rows=self.rows, counted=dict(self._documents.counted))

    async def _put(self, data: bytes, at_least: int = _CHUNK_BYTES) -> None:
        if data:
            self._waiting.append(data)
            self._size += len(data)
        if self._size >= at_least:
            chunk = b"".join(self._waiting)
            self._waiting.clear()
            self._size = 0
            await self._write(chunk)

    def _records(self, batch: Batch, parent: Mapping[str, Any]) -> tuple[bytes, int]:
        lines: list[str] = []
        for record in batch:
            if not self._sieve.is_in(record) or (self._compares and self._is_repeated(record)):
                continue
            if parent and type(record) is dict:
                record[PARENT] = dict(parent)
            if self._each:
                lines += [self._documents.line(each) for each in _multiplied(record, self._each)]
            else:
                lines.append(self._documents.line(record))
        return "".join(lines).encode(), len(lines)

    def _is_repeated(self, record: Any) -> bool:
        """Whether the page before had the very record: rows that are added or removed meanwhile move the others."""
        text = json_text(record)
        self._seeing.add(text)
        if text not in self._seen:
            return False
        self._documents.counted["records that came again on the next page: left out"] += 1
        return True


def _array(path: str) -> tuple[str, ...]:
    names = steps(path)
    if names is None or not all(isinstance(name, str) for name in names):
        raise ConfigurationError(f"field each: {path!r} is no path of names such as order.items")
    return tuple(map(str, names))


def _multiplied(record: Any, path: tuple[str, ...]) -> list[Any]:
    """The record once for each element of its array, which stands in the array's place; once as it is without one."""
    place = _holder(record, path)
    elements = place.get(path[-1]) if place is not None else None
    if place is None or not isinstance(elements, list) or not elements:
        return [record]
    place[path[-1]] = None
    # Parsing is the fastest way to copy.
    text = json_text(record)
    copies = [parse(text) for _ in elements]
    for copy, element in zip(copies, elements, strict=True):
        if (holder := _holder(copy, path)) is not None:
            holder[path[-1]] = element
    return copies


def _holder(record: Any, path: tuple[str, ...]) -> dict[str, Any] | None:
    for name in path[:-1]:
        record = record.get(name) if isinstance(record, dict) else None
    return record if isinstance(record, dict) else None
