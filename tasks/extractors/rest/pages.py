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
        self._stop = getter(self._paging.stop, "pagination.stop") if self._paging.stop else None

    async def each(self, request: Request, take: Take, first: asyncio.Future[Page] | None = None) -> None:
        """Push the pages that begin with ``request``; ``first``: its page, which somebody has asked for already."""
        walk = _Walk(self._paging.max_pages, self._paging.repeats)
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
            request = self._at(request, self._paging, _start(self._paging))
        return asyncio.create_task(self.page(request))

    # -- one after the other -------------------------------------------------------------------------------------

    async def _linked(self, request: Request, take: Take, walk: _Walk, first: asyncio.Future[Page] | None) -> None:
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
                    if early := page.is_known:
                        following = self._after(page, request, walk)
                        asked = self.begin(following) if following else None
                    if (await take(page)).is_enough:
                        break
                    if not early and (following := self._after(page, request, walk)):
                        asked = self.begin(following)
                    request = following or request
        finally:
            await _dropped([asked] if asked else [])

    def _after(self, page: Page, request: Request, walk: _Walk) -> Request | None:
        """The request for the page behind this one; None when it is the last."""
        if page.response is None or self._is_last(page):
            return None
        match self._paging:
            case PageCursor() as paging:
                value = self._told(page, paging)
                following = request.with_param(paging.param, value, paging.place) if value else None
                walk.goes_to(json_text(value))
                return following
            case NextUrl() as paging:
                target = self._told(page, paging)
            case Link() as paging:
                target = _link(page.response.headers, paging.rel)
                if target is None and walk.pages == 1:
                    self._check_overlooked(page)
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

    def _told(self, page: Page, paging: PageCursor | NextUrl) -> Any:
        """The cursor or URL that a response holds; nothing on the last page."""
        if page.response is None:
            return None
        if paging.header:
            return page.response.headers.get(paging.header)
        value = getter(paging.value, "pagination.value")(page.envelope)
        return value if value is not MISSING and not isinstance(value, dict | list) else None

    def _is_last(self, page: Page) -> bool:
        return self._stop is not None and self._stop(page.envelope) is True

    def _check_overlooked(self, page: Page) -> None:
        """A response that speaks of more pages in another way would be taken for the only one."""
        if page.response is not None and (sign := sign_of_more(page.envelope)):
            raise ConfigurationError(
                f"field pagination: {page.response} has no Link header but says {sign}: there are more pages. Choose page, "
                "offset, cursor or next; or none, if this is all"
            )

    # -- several at once -----------------------------------------------------------------------------------------

    async def _numbered(
        self, request: Request, paging: PageNumber | Offset, take: Take, walk: _Walk, first: asyncio.Future[Page] | None
    ) -> None:
        numbers = _Numbers(paging, self._session.concurrency)
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
        request = request.with_param(paging.param, number, paging.place)
        size = ("limit_param", "limit") if isinstance(paging, Offset) else ("size_param", "size")
        name, count = (getattr(paging, field) for field in size)
        return request.with_param(name, count, paging.place) if name else request

    async def _check_end(self, ahead: deque[tuple[int, asyncio.Future[Page]]]) -> None:
        """An empty page is the end where those behind it, if they are asked for already, are empty too."""
        while ahead:
            number, task = ahead[0]
            page = await task
            ahead.popleft()
            async with aclosing(page), aclosing(page.batches()) as batches:
                async for _ in batches:
                    raise PagesMoved(f"field pagination: a page is empty, and the one at {number} behind it is not")


class _Numbers:
    """Which pages to ask for, ahead of those that are read."""

    def __init__(self, paging: PageNumber | Offset, concurrency: int) -> None:
        self._paging = paging
        self._concurrency = concurrency
        self.expected = self._next = _start(paging)
        """Where the page to be read next begins."""
        self._stride = paging.limit if isinstance(paging, Offset) else 1
        self._window = 1
        self._last: int | None = None
        """The last page, where the API says how many there are."""
        self._total: int | None = None
        self._records = 0
        self.is_over = False
        self._pages = (
            getter(paging.pages, "pagination.pages") if isinstance(paging, PageNumber) and paging.pages else None
        )
        self._counts = getter(paging.total, "pagination.total") if paging.total else None

    def may_ask(self, under_way: int) -> bool:
        """Whether one more page may be asked for; nothing is ahead of what is expected to be the last."""
        if not under_way:
            return True
        end = self._last
        if end is None and self._total is not None and isinstance(self._paging, Offset):
            end = self._total - 1
        return under_way < self._window and (end is None or self._next <= end)

    def ask(self) -> int:
        """The page to ask for."""
        number = self._next
        self._next += self._stride
        return number

    def begin_again(self) -> None:
        """Ask next for the page that is expected."""
        self._next = self.expected

    def took(self, count: int, envelope: Any) -> None:
        """Go on behind a page of so many records."""
        if self._pages is not None and (pages := _number(self._pages(envelope))) is not None:
            self._last = _start(self._paging) + pages - 1
        if self._counts is not None and (total := _number(self._counts(envelope))) is not None:
            self._check_total(total)
            self._total = total
        self._records += count
        paging = self._paging
        if isinstance(paging, Offset):
            is_full = count >= self._stride
            # Some servers give fewer at a time than they are asked for.
            self._stride = count or self._stride
            self.expected += count
        else:
            is_full = count >= (paging.size if paging.size_param else 1)
            self.expected += 1
        # Few are asked for ahead at first, and none behind a page that is not full: it may be the last.
        self._window = min(self._concurrency, 2 * self._window) if is_full else 1
        self.is_over = self._last is not None and self.expected > self._last
        # A total that is a bound only (some count to 10,000 and no further) is found out by asking behind a full page.
        self.is_over = self.is_over or (self._total == self._records and not is_full)

    def _check_total(self, total: int) -> None:
        """Records that go move those behind them to a page that was read before; some that come are read at the end."""
        if self._total is not None and total < self._total:
            raise PagesMoved(
                f"field pagination.total: there were {self._total} records, and are {total} on a later page: those behind "
                "the ones that went may have been passed over"
            )

    def check(self) -> None:
        """Whether as many records came as the API says there are."""
        if self._total is not None and self._records != self._total:
            raise PagesMoved(
                f"field pagination.total: the API says that there are {self._total} records, and gave {self._records}; some "
                "came or went between two pages"
            )


class _Walk:
    """Keeps a walk through pages from going on for ever."""

    def __init__(self, most: int, repeats: str) -> None:
        self._most = most
        self._repeats = repeats
        self._marks: set[int] = set()
        self._targets: set[str] = set()
        self.pages = 0

    def was_at(self, page: Page) -> bool:
        """Count one page; whether its records have come before, and are not to come again."""
        self.pages += 1
        if self.pages > self._most:
            raise ConfigurationError(
                f"field pagination.max_pages: there are more than {self._most} pages; raise it if that is right"
            )
        mark = page.mark
        if not mark or mark not in self._marks:
            self._marks.add(mark)
            return False
        if self._repeats == "fail":
            raise ConfigurationError(
                f"field pagination: page {self.pages} has the same records as one before it: does the API heed the "
                "parameter, under this name? (repeats: stop, where it repeats its last page)"
            )
        return True

    def goes_to(self, target: str) -> None:
        """Note where the next page is; an error when the walk was there before."""
        if target in self._targets:
            raise ConfigurationError("field pagination: the pages lead in a circle: the next one was read before")
        self._targets.add(target)


def _start(paging: PageNumber | Offset) -> int:
    return paging.first if isinstance(paging, PageNumber) else 0


def _number(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


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
