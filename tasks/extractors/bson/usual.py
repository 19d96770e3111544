"""Which fields the documents of a batch usually have, in which order, and where they are in all documents together."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tasks.extractors.bson.document import Node
from tasks.extractors.bson.layout import PREFIXED, SIZES, Kind, end_of
from tasks.extractors.bson.vectors import Block, Flags, Numbers

_MAX_FIELDS = 100
_UNKNOWN = -1
_FIXED = np.full(256, _UNKNOWN, np.int64)
_FIXED[list(SIZES)] = list(SIZES.values())
_EXTRA = np.full(256, _UNKNOWN, np.int64)
_EXTRA[list(PREFIXED)] = list(PREFIXED.values())


@dataclass
class Slot:
    """A field that documents usually have at this place, and, of one whose own fields are columns, theirs."""

    name: bytes
    node: Node | None
    words: list[tuple[int, np.uint64, np.uint64]] = field(init=False)
    """Its name and the NUL behind it, eight bytes at a time: where, which bits, and what they are."""
    inner: list[Slot] = field(default_factory=list)

    def __post_init__(self) -> None:
        raw = self.name + b"\0"
        self.words = [
            (at, np.uint64((1 << 8 * min(8, len(raw) - at)) - 1), np.uint64(int.from_bytes(raw[at : at + 8], "little")))
            for at in range(0, len(raw), 8)
        ]

    @property
    def descends(self) -> bool:
        """Whether its own fields are columns, and it is none."""
        return self.node is not None and bool(self.node.children) and not self.node.columns


@dataclass
class Found:
    """Where a field is, in the documents that have it."""

    slot: Slot
    rows: Numbers
    kinds: Numbers
    begins: Numbers
    ends: Numbers
    parents: tuple[bytes, ...]

    def only(self, sound: Flags) -> Found:
        kept = sound[self.rows]
        if kept.all():
            return self
        return Found(self.slot, self.rows[kept], self.kinds[kept], self.begins[kept], self.ends[kept], self.parents)


def learn(data: bytes, begin: int, end: int, node: Node, usual: list[Slot]) -> None:
    """Put the fields of a document among the usual ones, in its order, as far as that fits theirs."""
    at, place = begin + 4, 0
    while at < end - 1:
        kind = data[at]
        value = data.index(0, at + 1) + 1
        name = data[at + 1 : value - 1]
        at = end_of(data, kind, value)
        known = next((n for n, slot in enumerate(usual) if slot.name == name), None)
        if known is None and len(usual) < _MAX_FIELDS:
            usual.insert(place, Slot(name, node.children.get(name)))
            known = place
        if known is None or known < place:
            continue
        place = known + 1
        slot = usual[known]
        if slot.descends and kind == Kind.DOCUMENT and slot.node is not None:
            learn(data, value, at, slot.node, slot.inner)


def locate(
    block: Block,
    usual: list[Slot],
    rows: Numbers,
    at: Numbers,
    ends: Numbers,
    sound: Flags,
    found: list[Found],
    parents: tuple[bytes, ...],
) -> None:
    """Find the usual fields in documents; ``sound`` is taken from those that have others."""
    for slot in usual:
        here = _is_at(block, slot, at + 1)
        everywhere = bool(here.all())
        places, those = (at, rows) if everywhere else (at[here], rows[here])
        if not len(places):
            continue
        kinds = block.bytes[places].astype(np.int64)
        begins = places + len(slot.name) + 2
        stops = _ends(block, kinds, begins)
        unknown = stops < 0
        if unknown.any():
            sound[those[unknown]] = False
            # At the document's end, where nothing more is found: what follows the value is not known.
            stops[unknown] = (ends if everywhere else ends[here])[unknown] - 1
        if everywhere:
            at = stops
        else:
            at = at.copy()  # it may be where the values before end, which is kept
            at[here] = stops
        if slot.descends:
            _descend(block, slot, those, kinds, begins, stops, sound, found, parents)
        found.append(Found(slot, those, kinds, begins, stops, parents))
        if slot.node is not None and slot.node.columns and slot.node.children:
            sound[those] = False
    sound[rows[(at != ends - 1)]] = False


def _descend(
    block: Block,
    slot: Slot,
    rows: Numbers,
    kinds: Numbers,
    begins: Numbers,
    ends: Numbers,
    sound: Flags,
    found: list[Found],
    parents: tuple[bytes, ...],
) -> None:
    """Fields of fields; what is no document there, or an empty one, is not usual."""
    nested = (kinds == Kind.DOCUMENT) & (ends - begins > 5)
    sound[rows[~nested]] = False
    locate(block, slot.inner, rows[nested], begins[nested] + 4, ends[nested], sound, found, (*parents, slot.name))


def _is_at(block: Block, slot: Slot, at: Numbers) -> Flags:
    """Where the field's name is."""
    (_, mask, wanted), *others = slot.words
    here: Flags = (block.words[at] & mask) == wanted
    for offset, mask, wanted in others:
        here &= (block.words[np.minimum(at + offset, len(block.data))] & mask) == wanted
    return here


def _ends(block: Block, kinds: Numbers, begins: Numbers) -> Numbers:
    """Where the values end; negative where that is not told by a length."""
    first = int(kinds[0])
    if (kinds == first).all():
        if (size := int(_FIXED[first])) != _UNKNOWN:
            return begins + size
        if (extra := int(_EXTRA[first])) != _UNKNOWN:
            ends: Numbers = begins + block.int32[begins] + extra
            return ends
        return np.full(len(begins), _UNKNOWN)
    sizes, extras = _FIXED[kinds], _EXTRA[kinds]
    lengths = block.int32[np.minimum(begins, len(block.data) - 1)].astype(np.int64)
    ends = np.where(sizes != _UNKNOWN, begins + sizes, begins + lengths + extras)
    return np.where((sizes == _UNKNOWN) & (extras == _UNKNOWN), _UNKNOWN, ends)
