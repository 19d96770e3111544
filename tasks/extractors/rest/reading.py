"""Reads an endpoint: its own pages, or those of one request for each record of a parent."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any

from blocks.errors import ConfigurationError
from tasks.extractors.documents import MISSING, getter, json_text
from tasks.extractors.rest.pages import Pages, Taken
from tasks.extractors.rest.records import Page, Reader
from tasks.extractors.rest.session import Session
from tasks.extractors.rest.spec import Spec
from tasks.extractors.rest.template import Request, request
from tasks.extractors.rest.times import Window

TakeChild = Callable[[Page, Mapping[str, Any]], Awaitable[Taken]]


class Reading:
    """The pages of an endpoint, in order."""

    def __init__(self, session: Session, base_url: str, spec: Spec) -> None:
        self._session = session
        self._base_url = base_url
        self._spec = spec
        self._pages = Pages(session, spec, Reader(spec))

    def first(self, window: Window) -> tuple[Pages, Request]:
        """The endpoint whose pages are read first, a parent's where there is one, and its request for a window."""
        if self._spec.parent is None:
            return self._pages, request(self._base_url, self._spec, window, {})
        parent = self._spec.parent.model_copy(update={"times": self._spec.times})
        return Pages(self._session, parent, Reader(parent)), request(self._base_url, parent, window, {})

    async def run(self, window: Window, take: TakeChild) -> None:
        """Push the pages of a window, each with the values of its parent."""
        pages, first = self.first(window)
        if self._spec.parent is None:

            async def take_page(page: Page) -> Taken:
                return await take(page, {})

            await pages.each(first, take_page)
        else:
            await _Children(self, window, take).of(pages, first)

    def child(self, window: Window, values: Mapping[str, Any]) -> Request:
        """The request for one parent."""
        return request(self._base_url, self._spec, window, {name: _text(value) for name, value in values.items()})

    @property
    def spec(self) -> Spec:
        return self._spec

    @property
    def pages(self) -> Pages:
        return self._pages

    @property
    def concurrency(self) -> int:
        return self._session.concurrency


class _Children:
    """Asks for the first pages of some children ahead, and reads one child after the other."""

    def __init__(self, reading: Reading, window: Window, take: TakeChild) -> None:
        self._reading = reading
        self._window = window
        self._take = take
        self._ahead: deque[tuple[Mapping[str, Any], Request, asyncio.Task[Page]]] = deque()
        parent = reading.spec.parent
        values = parent.values if parent else {}
        self._values = {name: getter(path, f"parent.values.{name}") for name, path in values.items()}

    async def of(self, parents: Pages, first: Request) -> None:
        """Read the children of all parents."""
        try:
            await parents.each(first, self._take_parents)
            while self._ahead:
                await self._read_one()
        finally:
            for _, _, task in self._ahead:
                task.cancel()
            for page in await asyncio.gather(*(task for _, _, task in self._ahead), return_exceptions=True):
                if isinstance(page, Page):
                    await page.aclose()

    async def _take_parents(self, page: Page) -> Taken:
        count = 0
        async with aclosing(page.batches()) as batches:
            async for batch in batches:
                for record in batch:
                    count += 1
                    values = {name: self._value(name, record) for name in self._values}
                    asked = self._reading.child(self._window, values)
                    self._ahead.append((values, asked, self._reading.pages.begin(asked)))
                    if len(self._ahead) >= self._reading.concurrency:
                        await self._read_one()
        return Taken(count)

    def _value(self, name: str, record: Any) -> Any:
        value = self._values[name](record)
        if value is None or value is MISSING or isinstance(value, dict | list):
            raise ConfigurationError(f"field parent.values.{name}: a parent's record has no single value there")
        return value

    async def _read_one(self) -> None:
        values, asked, task = self._ahead[0]

        async def take(page: Page) -> Taken:
            return await self._take(page, values)

        await task
        self._ahead.popleft()
        await self._reading.pages.each(asked, take, first=task)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json_text(value)
