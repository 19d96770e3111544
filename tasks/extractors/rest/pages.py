"""Reads all pages of one request, in order: one after the other, or several at once where their numbers are known before.

A page is pushed to `take`, which says how many records it had and whether more are wanted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import httpx

from blocks.errors import ConfigurationError
from blocks.rest_auth import origin_of
from tasks.extractors.documents import MISSING, getter, json_text
from tasks.extractors.rest.errors import PagesMoved, shown
from tasks.extractors.rest.pagination import Link, NextUrl, Offset, PageCursor, PageNumber
from tasks.extractors.rest.records import Page, Reader
from tasks.extractors.rest.session import Session
from tasks.extractors.rest.signs import sign_of_more
from tasks.extractors.rest.spec import Spec
from tasks.extractors.rest.template import Request
from tasks.extractors.rest.walk import Numbers, Walk, start


@dataclass(frozen=True)
class Taken:
    """What a page came to."""

    count: int
    """Records of the page, those left out by their time included."""
    is_enough: bool = False
    """Whether no later page can have what is wanted."""


Take = Callable[[Page], Awaitable[Taken]]


class Pages:
    """All pages of one endpoint's requests."""

    def __init__(self, session: Session, spec: Spec, reader: Reader) -> None:
        self._session = session
        self._spec = spec
        self._reader = reader
        self._paging = spec.pagination
        self._may_end = bool(spec.times.order)
        """A read by time ends at the first page beyond the window: whether that is this one is known when it is read."""
        self._stop = getter(self._paging.stop, "pagination.stop") if self._paging.stop else None

    async def each(self, request: Request, take: Take, first: asyncio.Future[Page] | None = None) -> None:
        """Push the pages that begin with ``request``; ``first``: its page, which somebody has asked for already."""
        walk = Walk(self._paging.max_pages, self._paging.repeats)
        if isinstance(self._paging, PageNumber | Offset):
            await self._numbered(request, self._paging, take, walk, first)
        else:
            await self._linked(request, take, walk, first)

    async def page(self, request: Request) -> Page:
        """One page."""
        return await self._session.fetch(request, self._spec, self._reader.page)

    def begin(self, request: Request) -> asyncio.Task[Page]:
        """Ask for the first page, which goes to `each` later."""
        if isinstance(self._paging, PageNumber | Offset):
            request = self._at(request, self._paging, start(self._paging))
        return asyncio.create_task(self.page(request))

    # -- one after the other -------------------------------------------------------------------------------------

    async def _linked(self, request: Request, take: Take, walk: Walk, first: asyncio.Future[Page] | None) -> None:
        asked: asyncio.Future[Page] | None = first or self.begin(request)
        walk.goes_to(str(request.url))
        try:
            while asked is not None:
                page, asked = await asked, None
                async with aclosing(page):
                    if walk.was_at(page):
                        break
                    following = None
                    # Where it is known before the records are written, the next page comes meanwhile.
                    if early := page.is_known and not self._may_end:
                        following = self._after(page, request, walk)
                        asked = self.begin(following) if following else None
                    if (await take(page)).is_enough:
                        break
                    if not early and (following := self._after(page, request, walk)):
                        asked = self.begin(following)
                    request = following or request
        finally:
            await _dropped([asked] if asked else [])

    def _after(self, page: Page, request: Request, walk: Walk) -> Request | None:
        """The request for the page behind this one; None when it is the last."""
        if page.response is None or self._is_last(page):
            return None
        match self._paging:
            case PageCursor() as paging:
                value = self._told(page, paging, walk)
                if not value:
                    return None
                walk.goes_to(json_text(value))
                in_body = paging.place == "body"
                if isinstance(value, dict | list) and not in_body:
                    raise _of_no_use(page, paging, "parameter of a URL; name a member of it, or set place to body")
                sent = value if in_body or isinstance(value, str) else json_text(value)
                return request.with_params({paging.param: sent}, paging.place)
            case NextUrl() as paging:
                target = self._told(page, paging, walk)
                if target and isinstance(target, dict | list):
                    raise _of_no_use(page, paging, f"URL; name a member of it, such as {paging.value}.href")
            case Link() as paging:
                target = _link(page.response.headers, paging.rel)
                if target is None:
                    self._check_overlooked(page, walk, "no Link header")
            case _:
                target = None
        if not target:
            return None
        url = self._session.without_key(page.response.url.join(str(target)))
        if origin_of(url) != origin_of(request.url):
            raise ConfigurationError(
                f"field pagination: the next page would be at another place, {shown(url)}, which is not the connection's"
            )
        walk.goes_to(str(url))
        return request.at(url)

    def _told(self, page: Page, paging: PageCursor | NextUrl, walk: Walk) -> Any:
        """The cursor or URL that a response holds; nothing on the last page."""
        if page.response is None:
            return None
        if paging.header:
            value = page.response.headers.get(paging.header, MISSING)
        else:
            value = getter(paging.value, "pagination.value")(page.envelope)
        if value is MISSING:
            self._check_overlooked(page, walk, f"nothing at {paging.header or paging.value}")
            return None
        return value

    def _is_last(self, page: Page) -> bool:
        return self._stop is not None and self._stop(page.envelope) is True

    def _check_overlooked(self, page: Page, walk: Walk, has: str) -> None:
        """A first response that speaks of more pages in another way would be taken for the only one."""
        if walk.pages == 1 and (sign := sign_of_more(page.envelope)):
            raise ConfigurationError(
                f"field pagination: {page.response} has {has} but says {sign}: there are more pages. Choose page, "
                "offset, cursor or next, and where it is; or none, if this is all"
            )

    # -- several at once -----------------------------------------------------------------------------------------

    async def _numbered(
        self, request: Request, paging: PageNumber | Offset, take: Take, walk: Walk, first: asyncio.Future[Page] | None
    ) -> None:
        numbers = Numbers(paging, self._session.concurrency, may_end=self._may_end)
        ahead: deque[tuple[int, asyncio.Future[Page]]] = deque()
        if first:
            ahead.append((numbers.expected, first))
            numbers.ask()
        try:
            while not numbers.is_over:
                while numbers.may_ask(len(ahead)):
                    number = numbers.ask()
                    ahead.append((number, asyncio.create_task(self.page(self._at(request, paging, number)))))
                number, asked = ahead[0]
                if number != numbers.expected:
                    # A page had more or fewer records than was thought: those behind begin elsewhere.
                    await _dropped([task for _, task in ahead])
                    ahead.clear()
                    numbers.begin_again()
                    continue
                page = await asked
                ahead.popleft()
                async with aclosing(page):
                    if walk.was_at(page):
                        return
                    taken = await take(page)
                    numbers.took(taken.count, page.envelope)
                    if taken.is_enough or self._is_last(page):
                        return
                if not taken.count:
                    await self._check_end(ahead)
                    break
            numbers.check()
        finally:
            await _dropped([task for _, task in ahead])

    def _at(self, request: Request, paging: PageNumber | Offset, number: int) -> Request:
        name, size = (
            (paging.limit_param, paging.limit) if isinstance(paging, Offset) else (paging.size_param, paging.size)
        )
        sizes = {name: size} if name else {}
        return request.with_params({paging.param: number, **sizes}, paging.place)

    async def _check_end(self, ahead: deque[tuple[int, asyncio.Future[Page]]]) -> None:
        """An empty page is the end where those behind it, if they are asked for already, are empty too."""
        while ahead:
            number, task = ahead[0]
            page = await task
            ahead.popleft()
            async with aclosing(page), aclosing(page.batches()) as batches:
                async for _ in batches:
                    raise PagesMoved(f"field pagination: a page is empty, and the one at {number} behind it is not")


def _of_no_use(page: Page, paging: PageCursor | NextUrl, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"field pagination.value: {page.response} has an object at {paging.value}, which is no {what}"
    )


def _link(headers: httpx.Headers, rel: str) -> str | None:
    """The target of the first link of that relation, in any of the headers Link."""
    for value in headers.get_list("link"):
        for link in httpx.Response(200, headers={"link": value}).links.values():
            if rel in str(link.get("rel", "")).lower().split() and link.get("url"):
                return str(link["url"])
    return None


async def _dropped(tasks: Sequence[asyncio.Future[Page]]) -> None:
    """Take back requests that nobody needs any more."""
    for task in tasks:
        task.cancel()
    for page in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(page, Page):
            await page.aclose()
