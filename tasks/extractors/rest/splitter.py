"""A JSON text that comes in pieces → the elements of one array in it, without ever holding more than one of them whole.

Only the structure is looked at, by NumPy over whole pieces: where strings begin and end, how deep a place is. The elements
themselves are parsed by who takes them, and so is the envelope: the text with an empty array in the place of this one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tasks.extractors.documents import DocumentError

Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.intp]
Flags = npt.NDArray[np.bool_]

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s"{}\[\]:,]+', re.DOTALL)

_QUOTE, _BACKSLASH, _COMMA = b'"\\,'
# What each byte adds to the depth; structural ones are those that add something, and the comma.
_DEPTH = np.zeros(256, np.int8)
_DEPTH[list(b"{[")] = 1
_DEPTH[list(b"}]")] = -1
_STRUCTURAL = _DEPTH != 0
_STRUCTURAL[_COMMA] = True

_LONGEST_PREFIX = 64 << 20
"""How much may stand before the array; it is kept."""


class Splitter:
    """Fed with pieces, gives the elements that they complete. ``path``: names of the members that lead to the array."""

    def __init__(self, path: Sequence[str]) -> None:
        self._path = list(path)
        self._before = bytearray()
        self._after = bytearray()
        self._element: list[bytes] = []
        """Pieces of the element that is not complete yet."""
        self._place = _Place(self._path)
        self._inside = False
        self._depth = 1
        self._in_string = False
        self._backslashes = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The elements that end in ``data``."""
        if self._after:
            self._after += data
            return []
        if self._inside:
            return self._elements(data)
        self._before += data
        at = self._place.find(self._before)
        if at is None:
            if len(self._before) > _LONGEST_PREFIX:
                raise DocumentError("the array of records does not begin within the first 64 MB")
            return []
        rest = bytes(self._before[at:])
        del self._before[at:]
        self._inside = True
        return self._elements(rest)

    def envelope(self) -> bytes:
        """The whole text but the elements; `DocumentError` when it has not ended, or has no such array."""
        if not self._inside:
            return bytes(self._before)
        if not self._after:
            raise DocumentError("it ends within the array of records")
        return bytes(self._before + self._after)

    @property
    def found(self) -> bool:
        """Whether the array was there."""
        return self._inside

    def _elements(self, data: bytes) -> list[bytes]:
        block = np.frombuffer(data, np.uint8)
        places = self._structure(block)
        depths = self._depth + np.cumsum(_DEPTH[block[places]], dtype=np.int64)
        end = places[depths == 0][:1]
        cuts = places[(depths == 1) & (block[places] == _COMMA)]
        if len(depths):
            self._depth = int(depths[-1])
        if len(end):
            cuts = np.append(cuts[cuts < end[0]], end)
        found = self._cut(data, cuts.tolist())
        if len(end):
            last = int(end[0])
            self._after += data[last:]
            self._element.clear()
        return found

    def _structure(self, block: Bytes) -> Places:
        """Where brackets and commas are that stand in no string."""
        quotes = np.flatnonzero(block == _QUOTE)
        if self._backslashes or (block == _BACKSLASH).any():
            quotes = quotes[self._unescaped(block, quotes)]
        places = np.flatnonzero(_STRUCTURAL[block])
        before = np.searchsorted(quotes, places) + self._in_string
        self._in_string = bool((len(quotes) + self._in_string) & 1)
        found: Places = places[before & 1 == 0]
        return found

    def _unescaped(self, block: Bytes, quotes: Places) -> Flags:
        """Which of the quotes have an even number of backslashes before them."""
        # Where the last byte was that is none; before this block, in front of those that ended the block before.
        earlier = -1 - self._backslashes
        last = np.maximum.accumulate(np.where(block == _BACKSLASH, earlier, np.arange(len(block))))
        self._backslashes = len(block) - 1 - int(last[-1])
        previous = np.where(quotes > 0, last[quotes - 1], earlier)
        even: Flags = (quotes - 1 - previous) % 2 == 0
        return even

    def _cut(self, data: bytes, cuts: list[int]) -> list[bytes]:
        found = []
        start = 0
        for cut in cuts:
            self._element.append(data[start:cut])
            element = b"".join(self._element).strip()
            self._element.clear()
            if element:
                found.append(element)
            start = cut + 1
        self._element.append(data[start:])
        return found


class _Place:
    """Finds where the array begins: a walk through the tokens before it."""

    def __init__(self, path: list[str]) -> None:
        self._path = path
        self._at = 0
        self._keys: list[str | None] = []
        """For each bracket that is open the key that is being read; None in arrays."""
        self._key_next: list[bool] = []

    def find(self, text: bytearray) -> int | None:
        """The place behind the array's bracket; None when it is not there yet. ``text`` has only grown since."""
        for match in _TOKEN.finditer(text, self._at):
            token = match[0]
            # What ends where the text does may go on; what is cut off is no token, or looks like another one.
            if match.end() == len(text) and token not in (b"{", b"}", b"[", b"]", b":", b","):
                break
            if match.start() != self._skipped(text):
                break
            self._at = match.end()
            if self._takes(token):
                return self._at
        return None

    def _skipped(self, text: bytearray) -> int:
        """Where the next token has to begin: behind the white space."""
        at = self._at
        while at < len(text) and text[at] in b" \t\r\n\xef\xbb\xbf":
            at += 1
        return at

    def _takes(self, token: bytes) -> bool:
        """Note one token; whether it opens the array."""
        kind = token[:1]
        if kind == b"[" and self._keys == self._path and None not in self._keys:
            return True
        if kind in (b"{", b"["):
            self._keys.append("" if kind == b"{" else None)
            self._key_next.append(kind == b"{")
        elif kind in (b"}", b"]"):
            del self._keys[-1:], self._key_next[-1:]
        elif kind == b"," and self._keys:
            self._key_next[-1] = self._keys[-1] is not None
        elif kind == b'"' and self._keys and self._key_next[-1]:
            self._keys[-1] = json.loads(token)
            self._key_next[-1] = False
        return False
