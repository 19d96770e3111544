"""The records of an event of updates: one for each pair of images, or two where the key changed."""

from __future__ import annotations

from typing import NamedTuple

from tasks.extractors.mysql.binlog.images import FAILURES, Image, Mode, Writing


class RowEvent(NamedTuple):
    """A row event taken apart."""

    operation: str
    version: int
    data: bytes
    start: int
    """Where the first row begins in ``data``."""
    before: Image
    after: Image
    """The same but for updates."""


class Updates:
    """The records of an event of updates. After a failure ``image`` and ``row`` say what was being decoded."""

    unchanged = unchanged_before = ""

    def __init__(
        self, writing: Writing, event: RowEvent, absent: list[int], update: str, delete: str, insert: str
    ) -> None:
        self._writing = writing
        self._before, self._after = event.before, event.after
        self._data, self._view = event.data, event.data.decode("latin-1")
        self._update, self._delete, self._insert = update, delete, insert
        self._absent = absent
        self.at = self.row = event.start
        self.image = event.before
        self.absent = set(absent)
        self.lines: list[str] = []

    def run(self) -> None:
        """The image after is all there is to write, and the one before to compare keys with."""
        data, view, before, after = self._data, self._view, self._before, self._after
        end, width, width_after = len(data), before.bitmap, after.bitmap
        known_before, known_after = before.functions(Mode.KEY).get, after.functions(Mode.KEYED).get
        lines, add = self.lines, self.lines.append
        while self.at < end:
            self.row = at = self.at
            self.image = before
            nulls = data[at : at + width]
            at, old = (known_before(nulls) or before.function(Mode.KEY, nulls))(data, view, at + width)
            nulls = data[at : at + width_after]
            try:
                function = known_after(nulls) or after.function(Mode.KEYED, nulls)
                self.at, line, new = function(data, view, at + width_after)
            except FAILURES:
                self.image, self.row = after, at
                raise
            if old == new:
                add(f"{self._update}{len(lines):08d}{self.unchanged}{line}")
            else:
                self.at = self.row
                self._next()

    def run_completing(self) -> None:
        """Both images are needed for each record."""
        while self.at < len(self._data):
            self._next()

    def _next(self) -> None:
        """The records of one update, a deletion and an insertion where it changed the key."""
        old, old_key = self._texts(self._before)
        new, new_key = self._texts(self._after)
        line = self._writing.line(before if after is None else after for before, after in zip(old, new, strict=True))
        if old_key == new_key:
            self._add(self._update, self.unchanged, line)
            return
        self.absent.update(self._before.absent)
        self._add(self._delete, self.unchanged_before, self._writing.line(old))
        self._add(self._insert, self.unchanged, line)

    def _texts(self, image: Image) -> tuple[list[str | None], str]:
        self.image, self.row = image, self.at
        start = self.at + image.bitmap
        nulls = self._data[self.at : start]
        function = image.functions(Mode.TEXTS).get(nulls) or image.function(Mode.TEXTS, nulls)
        self.at, texts, key = function(self._data, self._view, start)
        return texts, key

    def _add(self, begin: str, unchanged: str, line: str) -> None:
        self.lines.append(f"{begin}{len(self.lines):08d}{unchanged}{line}")
