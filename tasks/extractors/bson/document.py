"""One document at a time, whatever is in it: values to their columns, everything else to ``_extra``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from blocks.errors import ConfigurationError
from blocks.s3 import CsvDialect
from tasks.extractors.bson.columns import Convert, Field, Writer
from tasks.extractors.bson.layout import Kind, documents, end_of
from tasks.extractors.bson.texts import Texts
from tasks.extractors.fields import Declared

_MAX_NAMES = 100
"""So many names of fields that were dropped are counted apart."""


@dataclass(frozen=True)
class Extra:
    """What becomes of the fields that no column names."""

    at: int | None
    """The place of their column."""
    refused: bool
    counted: bool

    @property
    def kept(self) -> bool:
        return self.at is not None

    @property
    def told(self) -> bool:
        return self.refused or self.counted


@dataclass
class Node:
    """What is wanted at one place of a document."""

    columns: list[tuple[int, Convert]] = field(default_factory=list)
    children: dict[bytes, Node] = field(default_factory=dict)


class Documents:
    """Makes CSV of BSON; every document is looked at, value by value."""

    def __init__(
        self, fields: Sequence[Field], declared: Declared, dialect: CsvDialect, *, canonical: bool, told: bool = True
    ) -> None:
        """``told``: what no column takes is told of. Not where the user has chosen columns."""
        self.writer = Writer(Texts(canonical=canonical, binary=dialect.binary), dialect, declared)
        self.extra = Extra(
            at=next((n for n, one in enumerate(fields) if not one.path), None),
            refused=declared.extra == "refuse" and told,
            counted=declared.extra == "drop" and told,
        )
        self._blank: list[str | None] = [None] * len(fields)
        self.missing = [self.writer.default(one) for one in fields]
        self.root = Node()
        for place, one in enumerate(fields):
            if one.path:
                self._wanted(one.path).columns.append((place, self.writer.converter(one)))

    def csv(self, data: bytes) -> tuple[bytes, int]:
        """The records of a batch, and how many they are."""
        places = documents(data)
        return "".join([self.row(data, at, end) for at, end in places]).encode(), len(places)

    def row(self, data: bytes, at: int, end: int) -> str:
        """The record of one document."""
        return ",".join(self.texts(data, at, end)) + "\n"

    def texts(self, data: bytes, at: int, end: int) -> list[str]:
        """The fields of one document, in the order of the columns."""
        texts, others = self._blank.copy(), _Others(self.extra.kept)
        self._walk(data, at, end, self.root, texts, others)
        if others.names:
            self._tell(others.names)
        if others.members and self.extra.at is not None:
            texts[self.extra.at] = self.writer.quoted(f"{{{','.join(others.members)}}}")
        return [self.missing[n] if text is None else text for n, text in enumerate(texts)]

    def _wanted(self, path: Sequence[bytes]) -> Node:
        node = self.root
        for step in path:
            node = node.children.setdefault(step, Node())
        return node

    def _walk(
        self, data: bytes, at: int, end: int, node: Node, texts: list[str | None], others: _Others | None
    ) -> None:
        at += 4
        while at < end - 1:
            kind = data[at]
            begin = data.index(0, at + 1) + 1
            stop = end_of(data, kind, begin)
            name = data[at + 1 : begin - 1]
            at = stop
            child = node.children.get(name)
            taken = child is not None and self._take(data, kind, begin, stop, child, texts)
            if others is None:
                if child is not None and not child.columns:
                    self._inner(data, kind, begin, stop, child, texts, None)
                continue
            if child is None or not taken:
                self._keep(others, data, name, kind, begin, stop, child, texts)

    def _take(self, data: bytes, kind: int, at: int, end: int, child: Node, texts: list[str | None]) -> bool:
        """Whether the whole value is in its columns. The second of two fields of one name is not, nor what they do not show."""
        if not child.columns:
            return False
        if texts[child.columns[0][0]] is not None:
            return False
        before = self.writer.nulled
        for place, convert in child.columns:
            texts[place] = convert(data, kind, at, end)
        shown = self.writer.nulled == before or not self.extra.kept
        if child.children:
            self._inner(data, kind, at, end, child, texts, None)
        return shown

    def _keep(
        self,
        others: _Others,
        data: bytes,
        name: bytes,
        kind: int,
        at: int,
        end: int,
        child: Node | None,
        texts: list[str | None],
    ) -> None:
        """Keep what no column takes; of a document, some of whose fields are columns, the rest."""
        if child is not None and not child.columns and kind == Kind.DOCUMENT and end - at > 5:
            inner = _Others(others.kept)
            self._inner(data, kind, at, end, child, texts, inner)
            others.names += [name + b"." + one for one in inner.names]
            if inner.members:
                others.members.append(f"{self.writer.texts.key(name)}:{{{','.join(inner.members)}}}")
            return
        if child is not None and not child.columns:
            self._inner(data, kind, at, end, child, texts, None)
        others.names.append(name)
        if others.kept:
            others.members.append(self.told(data, name, kind, at, end))

    def told(self, data: bytes, name: bytes, kind: int, at: int, end: int) -> str:
        """A value that no column takes, as a member of ``_extra``."""
        texts = self.writer.texts
        before = texts.invalid
        member = texts.named(data, name, kind, at, end)
        if texts.invalid != before:
            self.writer.counted["_extra: not UTF-8, bad bytes written as U+FFFD"] += 1
        return member

    def _inner(
        self, data: bytes, kind: int, at: int, end: int, node: Node, texts: list[str | None], others: _Others | None
    ) -> None:
        if kind == Kind.DOCUMENT:
            self._walk(data, at, end, node, texts, others)
        elif kind == Kind.ARRAY:
            self._items(data, at, end, node, texts)

    def _items(self, data: bytes, at: int, end: int, node: Node, texts: list[str | None]) -> None:
        """Elements of an array by their place, whatever they are called; the array itself stays whole in ``_extra``."""
        at, place = at + 4, 0
        while at < end - 1:
            kind = data[at]
            begin = data.index(0, at + 1) + 1
            at = end_of(data, kind, begin)
            child = node.children.get(b"%d" % place)
            if child is not None and not self._take(data, kind, begin, at, child, texts):
                self._inner(data, kind, begin, at, child, texts, None)
            place += 1

    def _tell(self, names: list[bytes]) -> None:
        told = [name.decode("utf-8", "replace") for name in names]
        if self.extra.refused:
            raise ConfigurationError(
                f"field extra: a document has the field {told[0]}, which no column names; declare it in fields, or choose "
                "json or drop"
            )
        if self.extra.counted:
            for name in told:
                known = f"{name}: in no column, left out"
                counted = self.writer.counted
                counted[known if known in counted or len(counted) < _MAX_NAMES else "other fields: left out"] += 1


class _Others:
    """What no column takes, as members of a JSON object, and its names."""

    __slots__ = ("kept", "members", "names")

    def __init__(self, kept: bool) -> None:
        self.kept = kept
        self.members: list[str] = []
        self.names: list[bytes] = []
