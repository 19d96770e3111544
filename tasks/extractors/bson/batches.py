"""Whole batches at once: documents that have the fields a batch usually has, in the usual order, are read by NumPy.

Each field is looked for in all documents together, and their places move on where it is there. A document whose places do
not come to its end has something else in it, and goes through `document.Documents`, which knows everything.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from blocks.s3 import CsvDialect
from tasks.extractors.bson.columns import Field
from tasks.extractors.bson.document import Documents
from tasks.extractors.bson.layout import Kind, documents
from tasks.extractors.bson.usual import Found, Slot, learn, locate
from tasks.extractors.bson.vectors import JSON, VECTORS, Block, Flags, Numbers

_FEW = 32
"""So few documents are not worth the arrays."""
_SAMPLES = 64


class Batches:
    """Makes CSV of batches, as `Documents` does."""

    def __init__(self, each: Documents, fields: Sequence[Field], dialect: CsvDialect) -> None:
        self._each = each
        self._fields = fields
        self._null = _view(dialect.null)
        self._missing = [_view(text) for text in each.missing]
        self._usual: list[Slot] = []
        self._learned = False

    def csv(self, data: bytes) -> tuple[bytes, int]:
        """The records of a batch, and how many they are."""
        places = documents(data)
        lines = self._viewed(data, places)
        if lines is None:
            return self._each.csv(data)
        lines.append("")
        return "\n".join(lines).encode("latin-1"), len(places)

    def lines(self, data: bytes) -> list[str]:
        """The records of a batch, without their line ends."""
        places = documents(data)
        lines = self._viewed(data, places)
        if lines is None:
            return [",".join(self._each.texts(data, *place)) for place in places]
        return [line if line.isascii() else line.encode("latin-1").decode() for line in lines]

    def _viewed(self, data: bytes, places: list[tuple[int, int]]) -> list[str] | None:
        """The records as strings whose characters are their bytes; None where each document has to be looked at."""
        if len(places) < _FEW:
            return None
        if not self._learned:
            self._learn(data, places[:: max(1, len(places) // _SAMPLES)])
        writer = self._each.writer
        counted = writer.counted
        before, nulled = counted.copy(), writer.nulled
        lines, sound = self._lines(data, places)
        odd = np.flatnonzero(~sound).tolist()
        if odd:
            lines = self._with_odd(data, places, lines, sound)
            self._learned = len(odd) * 10 < len(places)
        # What columns do not show is kept with the rest, document by document.
        if not _is_utf8(lines) or (self._each.extra.kept and writer.nulled != nulled):
            counted.clear()
            counted.update(before)
            return None
        return lines

    def _with_odd(self, data: bytes, places: list[tuple[int, int]], lines: list[str], sound: Flags) -> list[str]:
        usual = iter(lines)
        return [
            next(usual) if is_sound else _view(self._each.row(data, *place)[:-1])
            for is_sound, place in zip(sound.tolist(), places, strict=True)
        ]

    # -- what is usual -----------------------------------------------------------------------------------------------

    def _learn(self, data: bytes, places: Sequence[tuple[int, int]]) -> None:
        for begin, end in places:
            learn(data, begin, end, self._each.root, self._usual)
        self._learned = True

    # -- where it is -------------------------------------------------------------------------------------------------

    def _lines(self, data: bytes, places: list[tuple[int, int]]) -> tuple[list[str], Flags]:
        block = Block(data)
        bounds = np.array(places, np.int64)
        sound = np.ones(len(places), np.bool_)
        found: list[Found] = []
        rows = np.arange(len(places))
        locate(block, self._usual, rows, bounds[:, 0] + 4, bounds[:, 1], sound, found, ())
        if not self._each.extra.kept:
            self._refuse(found, sound)
        count = int(sound.sum())
        if not count:
            return [], sound
        number = np.cumsum(sound) - 1
        return self._records(block, [one.only(sound) for one in found], number, count), sound

    def _refuse(self, found: list[Found], sound: Flags) -> None:
        """What no column takes is told of document by document, where it has to be told."""
        if self._each.extra.told:
            for one in found:
                if one.slot.node is None:
                    sound[one.rows] = False

    # -- what it says ------------------------------------------------------------------------------------------------

    def _records(self, block: Block, found: list[Found], number: Numbers, count: int) -> list[str]:
        columns: list[list[str] | None] = [None] * len(self._fields)
        for one in found:
            if one.slot.node is not None:
                for place, _ in one.slot.node.columns:
                    columns[place] = self._column(block, one, place, number, count)
        if self._each.extra.at is not None:
            columns[self._each.extra.at] = self._extras(block, found, number, count)
        texts = [[self._missing[place]] * count if column is None else column for place, column in enumerate(columns)]
        return list(map(",".join, zip(*texts, strict=True)))

    def _column(self, block: Block, found: Found, place: int, number: Numbers, count: int) -> list[str]:
        made = np.full(count, self._missing[place], object)
        at = number[found.rows]
        for kind in _different(found.kinds):
            those = found.kinds == kind
            if those.all():
                texts = self._texts(block, found, place, kind, found.begins, found.ends)
                if len(texts) == count:
                    return texts
                made[at] = texts
                break
            made[at[those]] = self._texts(block, found, place, kind, found.begins[those], found.ends[those])
        listed: list[str] = made.tolist()
        return listed

    def _texts(self, block: Block, found: Found, place: int, kind: int, begins: Numbers, ends: Numbers) -> list[str]:
        if kind == Kind.NULL:
            return [self._null] * len(begins)
        vector = VECTORS.get(self._fields[place].column.type, {}).get(kind)
        texts = vector(block, begins, ends) if vector is not None else None
        if texts is None:
            wanted = found.slot.node.columns if found.slot.node else []
            convert = next(convert for at, convert in wanted if at == place)
            data = block.data
            return [
                _view(convert(data, kind, begin, end))
                for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)
            ]
        if self._null:
            return [f'"{text}"' if text == self._null else text for text in texts]
        return texts

    def _extras(self, block: Block, found: list[Found], number: Numbers, count: int) -> list[str] | None:
        """What no column takes, as JSON; None where there is nothing of the kind."""
        members: dict[tuple[bytes, ...], list[list[str]]] = {}
        for one in found:
            if one.slot.node is None and len(one.rows):
                members.setdefault(one.parents, []).append(self._members(block, one, number, count))
            elif one.slot.descends:
                inner = members.pop((*one.parents, one.slot.name), None)
                if inner is not None:
                    name = _view(self._each.writer.texts.key(one.slot.name))
                    joined = [f"{name}:{{{each}}}" if each else "" for each in _joined(inner)]
                    members.setdefault(one.parents, []).append(joined)
        if not members:
            return None
        missing = self._missing[self._each.extra.at or 0]
        return ['"{' + each.replace('"', '""') + '}"' if each else missing for each in _joined(members.pop(()))]

    def _members(self, block: Block, found: Found, number: Numbers, count: int) -> list[str]:
        """A field that no column takes, as members of the JSON objects of all documents; empty where it is not."""
        made = np.full(count, "", object)
        at = number[found.rows]
        for kind in _different(found.kinds):
            those = found.kinds == kind
            made[at[those]] = self._told(block, found.slot.name, kind, found.begins[those], found.ends[those])
        listed: list[str] = made.tolist()
        return listed

    def _told(self, block: Block, name: bytes, kind: int, begins: Numbers, ends: Numbers) -> list[str]:
        vector = None if self._each.writer.texts.canonical else JSON.get(kind)
        texts = vector(block, begins, ends) if vector is not None else None
        if texts is not None and name.isascii():
            key = self._each.writer.texts.key(name)
            return [f"{key}:{text}" for text in texts]
        told, data = self._each.told, block.data
        return [
            _view(told(data, name, kind, begin, end)) for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)
        ]


def _joined(members: list[list[str]]) -> list[str]:
    if len(members) == 1:
        return members[0]
    return [",".join(filter(None, each)) for each in zip(*members, strict=True)]


def _different(kinds: Numbers) -> list[int]:
    """The kinds that there are: mostly one, for which nothing has to be sorted."""
    if len(kinds) and (kinds == kinds[0]).all():
        return [int(kinds[0])]
    found: list[int] = np.unique(kinds).tolist()
    return found


def _is_utf8(lines: list[str]) -> bool:
    """Whether the bytes of these lines, of which they are a view, are UTF-8. Most lines are ASCII, and known to be."""
    try:
        "\n".join([line for line in lines if not line.isascii()]).encode("latin-1").decode()
    except UnicodeDecodeError:
        return False
    return True


def _view(text: str) -> str:
    """The str whose characters are the bytes of ``text``."""
    return text if text.isascii() else text.encode().decode("latin-1")
