"""Where a walk through pages is: which to ask for ahead, where it ends, and whether it goes round in a circle."""

from __future__ import annotations

from typing import Any

from blocks.errors import ConfigurationError
from tasks.extractors.documents import getter
from tasks.extractors.rest.errors import PagesMoved
from tasks.extractors.rest.pagination import Offset, PageNumber
from tasks.extractors.rest.records import Page


class Numbers:
    """Which pages to ask for, ahead of those that are read."""

    def __init__(self, paging: PageNumber | Offset, concurrency: int, *, may_end: bool) -> None:
        """``may_end``: any page may turn out to be the last that is wanted."""
        self._paging = paging
        # As many again as may be asked at once: the next requests go out while the pages that have come are written. Not
        # where that asks for a page for nothing.
        self._most_ahead = concurrency if may_end else 2 * concurrency
        self.expected = self._next = start(paging)
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
            self._last = start(self._paging) + pages - 1
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
        # Few are asked for ahead at first, and none behind a page that is not full: it may be the last; where it is known
        # which is the last, as many as may be.
        ahead = self._most_ahead if self._last is not None else 2 * self._window
        self._window = min(self._most_ahead, ahead) if is_full or self._last is not None else 1
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


class Walk:
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


def start(paging: PageNumber | Offset) -> int:
    """Where the first page begins."""
    return paging.first if isinstance(paging, PageNumber) else 0


def _number(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None
