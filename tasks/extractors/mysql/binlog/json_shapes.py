"""A function for each shape of JSON container that is met often, with its keys and the types of its values written out.

Most documents of a column have few shapes. A function costs about 0.4 ms to make, so one is made for a shape that has come
again and again; the others are taken value by value (`tasks.extractors.mysql.binlog.json_text`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from json.encoder import encode_basestring
from typing import Any

Function = Callable[[bytes, str, int], str]
"""Of the document, its view, and where the container begins; `FAILURES` of images for what is none."""

SMALL_OBJECT, LARGE_OBJECT, SMALL_ARRAY, LARGE_ARRAY, LITERAL = range(5)
INT16, UINT16, INT32, UINT32, INT64, UINT64, DOUBLE, STRING = range(5, 13)
OPAQUE = 15

LITERALS = ("null", "true", "false")

MOST_MEMBERS = 64
"""Containers of as many or more have no function."""

_MEETINGS = 100
_MOST_FUNCTIONS = 1024
_MOST_MET = 1 << 12

_FORMS = {INT16: "h", UINT16: "H", LITERAL: "Bx"}


def escaped(text: str) -> str:
    """A string as it stands between its quotes, with any of its own doubled as well as escaped."""
    return encode_basestring(text)[1:-1].replace('"', '""')


class Shapes:
    """Functions of containers of one kind, by the number of members and the bytes that tell the rest of the shape."""

    def __init__(self, names: Mapping[str, object]) -> None:
        """``names``: what the functions call for values of other types."""
        self._names = {"ENCODED": encode_basestring, "ESCAPED": escaped, "LITERALS": LITERALS, **names}
        self.by_members: list[dict[bytes, Function]] = [{} for _ in range(MOST_MEMBERS)]
        self._met: dict[bytes, int] = {}
        self._made = 0

    def met(self, identity: bytes) -> bool:
        """Count a shape without a function; whether it has come often enough to be worth one."""
        if len(self._met) >= _MOST_MET:
            self._met.clear()
        count = self._met[identity] = self._met.get(identity, 0) + 1
        return count >= _MEETINGS

    def make(self, identity: bytes, kinds: bytes, keys: Sequence[str] | None) -> None:
        """Make the function of an object with these keys, as they stand before the values, or else of an array."""
        if self._made >= _MOST_FUNCTIONS:
            self._made = 0
            for functions in self.by_members:
                functions.clear()
        self._made += 1
        del self._met[identity]
        self.by_members[len(kinds)][identity] = _compiled(self._names, kinds, keys)


def _compiled(names: Mapping[str, object], kinds: bytes, keys: Sequence[str] | None) -> Function:
    unpack = struct.Struct("<" + "".join("x" + _FORMS.get(kind, "H") for kind in kinds)).unpack_from
    values = [f"v{place}" for place in range(len(kinds))]
    strings = [value for value, kind in zip(values, kinds, strict=True) if kind == STRING]
    entries = 4 if keys is None else 4 + 4 * len(kinds)
    lines = [f"{','.join(values)},=UNPACK(d,p+{entries})"]
    for value in strings:
        lines += [f"a=p+{value}", "n=d[a]", "e=a+1+n"]
        lines += [f"{value}=s[a+1:e] if n<128 and e<=len(d) else COUNTED(d,s,a)"]
    if strings:
        # All at once: what has nothing to escape comes out longer by its quotes alone.
        lines += ["t=" + (strings[0] if len(strings) == 1 else 'f"' + "".join(f"{{{each}}}" for each in strings) + '"')]
        lines += ["if len(ENCODED(t))!=len(t)+2: " + ";".join(f"{each}=ESCAPED({each})" for each in strings)]
    shown = [_shown(value, kind) for value, kind in zip(values, kinds, strict=True)]
    if keys is None:
        text = "[" + ", ".join(shown) + "]"
    else:
        # Keys may hold anything: they are values of the function's, not a part of its source.
        text = "{{" + ", ".join(f"{{K[{place}]}}{each}" for place, each in enumerate(shown)) + "}}"
    source = "def function(d, s, p):\n" + "".join(f"    {line}\n" for line in [*lines, f"return f'{text}'"])
    space: dict[str, Any] = {**names, "UNPACK": unpack, "K": keys}
    exec(source, space)  # noqa: S102 - made of numbers and of our own words, never of a key or a value
    function: Function = space["function"]
    return function


def _shown(value: str, kind: int) -> str:
    """What stands in an f-string for a value, which has been unpacked to itself or to its place."""
    if kind == STRING:
        return f'""{{{value}}}""'
    if kind in (INT16, UINT16):
        return f"{{{value}}}"
    if kind == LITERAL:
        return f"{{LITERALS[{value}]}}"
    called = {SMALL_OBJECT: "OBJECT(d,s,", SMALL_ARRAY: "ARRAY(d,s,"}.get(kind, f"VALUE(d,s,{kind},")
    return f"{{{called}p+{value})}}"
