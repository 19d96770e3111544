"""Row images → texts: one straight-line function for each set of columns and pattern of NULLs, generated when first met.

A row image (https://dev.mysql.com/doc/dev/mysql-server/latest/classmysql_1_1binlog_1_1event_1_1Rows__event.html) is a
bitmap of which columns are NULL, and the values of the others one after the other. A function unpacks runs of columns
of fixed size at once and takes texts out of the event's view. `Image.read` does the same value by value: for more
patterns than are worth a function, and to say which column a failure is about.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any

from tasks.extractors.mysql.binlog.layouts import Layout

FAILURES = (ValueError, LookupError, ArithmeticError, RecursionError, struct.error, zlib.error)
"""What decoding bytes that are no row image may raise."""

Function = Callable[[bytes, str, int], Any]
"""Of an event, its view, and where the values of an image begin."""

_CODES = {1: "B", 2: "H", 4: "I"}


class Mode(Enum):
    """What a function returns, behind where the image ends."""

    LINE = "line"
    """The columns that are written as CSV, each behind a comma, and a line end; NULL for those the image does not hold."""
    KEY = "key"
    """The bytes of the key, to be compared with another image's."""
    KEYED = "keyed"
    """The line and the key."""
    TEXTS = "texts"
    """The texts of the columns that are written, None for those the image does not hold; and the key."""


@dataclass(frozen=True)
class Writing:
    """What is written of a table, and how."""

    names: tuple[str, ...]
    layouts: tuple[Layout, ...]
    nullable: tuple[bool, ...]
    places: tuple[int, ...]
    """Of the columns that are written, in their order."""
    null: str
    """The marker for NULL, as a view."""
    always_quotes: bool
    """Whether numbers have to be compared with the marker as well."""

    def quoted(self, text: str) -> str:
        """A text as it stands in a record: in quotes where COPY would put it in quotes."""
        if "," in text or '"' in text or "\n" in text or "\r" in text or text == self.null:
            return '"' + text.replace('"', '""') + '"'
        return text

    def line(self, texts: Iterable[str | None]) -> str:
        return "," + ",".join([self.null if text is None else text for text in texts]) + "\n"


class Image:
    """Images of one table that hold the same columns."""

    def __init__(self, writing: Writing, held: Sequence[int], keys: Iterable[int], room: Callable[[], bool]) -> None:
        self._writing = writing
        self.held = tuple(held)
        self._keys = frozenset(keys)
        self._room = room
        self.bitmap = (len(self.held) + 7) // 8
        """Bytes of the bitmap of NULLs."""
        self.absent = [place for place in writing.places if place not in set(self.held)]
        self._functions: dict[Mode, dict[bytes, Function]] = {mode: {} for mode in Mode}

    def functions(self, mode: Mode) -> dict[bytes, Function]:
        """Those that are there already, by the bitmap of NULLs; see `function` for another."""
        return self._functions[mode]

    def function(self, mode: Mode, nulls: bytes) -> Function:
        """The function for these NULLs; `FAILURES` where a column that cannot be NULL is."""
        if self._writing.always_quotes or not self._room():
            return partial(self.read, mode, nulls)
        function = self._functions[mode][nulls] = _Source(self._writing, self._keys, mode).compiled(self._marked(nulls))
        return function

    def _marked(self, nulls: bytes) -> list[tuple[int, bool]]:
        """The columns that are held, and whether they are NULL."""
        bits = int.from_bytes(nulls, "little")
        marked = [(place, bool(bits >> bit & 1)) for bit, place in enumerate(self.held)]
        for place, is_null in marked:
            if is_null and not self._writing.nullable[place]:
                raise ValueError(f"{self._writing.names[place]} is NULL, and cannot be")
        return marked

    def read(self, mode: Mode, nulls: bytes, data: bytes, view: str, at: int) -> Any:
        """What a generated function does, value by value."""
        writing, texts, key = self._writing, dict.fromkeys(self.held, ""), []
        for place, is_null in self._marked(nulls):
            if is_null:
                texts[place] = writing.null
                continue
            start, (text, at) = at, self._value(place, data, at)
            texts[place] = text
            if place in self._keys:
                key.append(view[start:at])
        found = [texts.get(place) for place in writing.places]
        if mode is Mode.LINE:
            return at, writing.line(found)
        if mode is Mode.KEY:
            return at, "".join(key)
        return at, writing.line(found) if mode is Mode.KEYED else found, "".join(key)

    def _value(self, place: int, data: bytes, at: int) -> tuple[str, int]:
        layout = self._writing.layouts[place]
        size = layout.size
        if layout.prefix:
            size = int.from_bytes(data[at : at + layout.prefix], "little")
            at += layout.prefix
        if at + size > len(data):
            raise ValueError("the event ends within its value")
        text = layout.text(data[at : at + size])
        if text is None:
            return self._writing.null, at + size
        if layout.plain and not self._writing.always_quotes:
            return text, at + size
        return self._writing.quoted(text), at + size

    def failure(self, data: bytes, at: int) -> str:
        """Which column of the image at ``at`` cannot be decoded, and why."""
        nulls, at = data[at : at + self.bitmap], at + self.bitmap
        column = ""
        try:
            for place, is_null in self._marked(nulls):
                column = self._writing.names[place]
                if not is_null:
                    _, at = self._value(place, data, at)
        except FAILURES as error:
            return f"column {column}: {error}" if column else str(error)
        return "it is longer or shorter than its columns"


class _Source:
    """Writes the function for one pattern of NULLs."""

    def __init__(self, writing: Writing, keys: frozenset[int], mode: Mode) -> None:
        self._writing = writing
        self._keys = keys if mode is not Mode.LINE else frozenset()
        self._mode = mode
        self._wanted = frozenset(writing.places) if mode is not Mode.KEY else frozenset()
        self._names: dict[str, Any] = {"NULL": writing.null, "INT": int.from_bytes}
        self._lines: list[str] = []
        self._last: list[str] = []
        """What is done when all is unpacked."""
        self._run: list[tuple[str, tuple[str, ...]]] = []
        self._offset = 0
        """From ``p`` to where the run begins."""
        self._shown: dict[int, str] = {}
        self._key: list[str] = []

    def compiled(self, marked: Iterable[tuple[int, bool]]) -> Function:
        for place, is_null in marked:
            if is_null:
                self._shown[place] = "{NULL}"
            elif self._writing.layouts[place].prefix:
                self._counted(place, self._writing.layouts[place])
            else:
                self._fixed(place, self._writing.layouts[place])
        self._flush()
        body = [*self._lines, *self._last, f"return {self._result()}"]
        source = "def function(d, s, p):\n" + "".join(f"    {line}\n" for line in body)
        exec(source, self._names)  # noqa: S102 - made of numbers and of our own words, never of a name or a value
        function: Function = self._names["function"]
        return function

    def _fixed(self, place: int, layout: Layout) -> None:
        variable = f"v{place}_"  # so that v1_ and 2 are not v12
        if place in self._keys:
            start = self._offset + struct.calcsize("<" + "".join(form for form, _ in self._run))
            self._lines.append(f"k{place}=s[p+{start}:p+{start + layout.size}]")
            self._key.append(f"{{k{place}}}")
        if place not in self._wanted:
            self._run.append((f"{layout.size}x", ()))
        elif layout.inline is None:
            self._run.append((f"{layout.size}s", (variable,)))
            self._last += self._by_function(place, layout, variable)
        else:
            inline = layout.inline
            self._run.append((inline.form, tuple(name.replace("@", variable) for name in inline.names)))
            self._names.update(inline.needs)
            self._last += [step.replace("@", variable) for step in inline.steps]
            self._shown[place] = inline.shown.replace("@", variable)

    def _counted(self, place: int, layout: Layout) -> None:
        variable = f"v{place}_"
        if layout.prefix in _CODES:
            self._run.append((_CODES[layout.prefix], ("n",)))
            self._flush()
        else:
            self._flush()
            self._lines.append(f"n=INT(d[p+{self._offset}:p+{self._offset + layout.prefix}],'little')")
            self._offset += layout.prefix
        if place in self._keys:
            self._lines.append(f"k{place}=s[p+{self._offset - layout.prefix}:p+{self._offset}+n]")
            self._key.append(f"{{k{place}}}")
        if place not in self._wanted:
            self._lines.append(f"p+={self._offset}+n")
        else:
            self._lines += [f"{variable}a=p+{self._offset}", f"p={variable}a+n"]
            if layout.inline is None:
                self._lines += [f"{variable}=d[{variable}a:p]", *self._by_function(place, layout, variable)]
            else:
                self._names.update(layout.inline.needs)
                self._lines += [step.replace("@", variable) for step in layout.inline.steps]
                self._lines += self._quoting(variable, doubled=layout.inline.doubled)
                self._shown[place] = layout.inline.shown.replace("@", variable)
        self._offset = 0

    def _flush(self) -> None:
        """Unpack the run."""
        form = "<" + "".join(code for code, _ in self._run)
        names = [name for _, names in self._run for name in names]
        size = struct.calcsize(form)
        start = f"p+{self._offset}" if self._offset else "p"
        if names == ["n"] and form == "<B":
            self._lines.append(f"n=d[{start}]")
        elif names == ["n"] and form == "<H":
            self._lines.append(f"n=d[{start}]|d[p+{self._offset + 1}]<<8")
        elif names:
            unpack = f"U{len(self._names)}"
            self._names[unpack] = struct.Struct(form).unpack_from
            self._lines.append(f"{','.join(names)},={unpack}(d,{start})")
        self._offset += size
        self._run.clear()

    def _by_function(self, place: int, layout: Layout, variable: str) -> list[str]:
        self._names[f"T{place}"] = layout.text
        self._shown[place] = f"{{{variable}}}"
        made = f"{variable}=T{place}({variable})"
        if layout.plain:
            return [made, f"if {variable} is None: {variable}=NULL"]
        return [made, *self._quoting(variable)]

    def _quoting(self, variable: str, *, doubled: bool = False) -> list[str]:
        special = " or ".join(f"{character!r} in {variable}" for character in ('",' if doubled else ',"\n\r'))
        inner = variable if doubled else f"{variable}.replace('\"','\"\"')"
        return [
            f"if {special}: {variable}='\"'+{inner}+'\"'",
            f"elif {variable}==NULL: {variable}='\"'+NULL+'\"'"
            if self._writing.null
            else f"elif not {variable}: {variable}='\"\"'",
        ]

    def _result(self) -> str:
        shown = [self._shown.get(place) for place in self._writing.places]
        line = 'f"' + "".join(f",{text or '{NULL}'}" for text in shown) + '\\n"'
        key = 'f"' + "".join(self._key) + '"'
        texts = "[" + ", ".join("None" if text is None else f'f"{text}"' for text in shown) + "]"
        end = f"p+{self._offset}" if self._offset else "p"
        results = {
            Mode.LINE: f"{end}, {line}",
            Mode.KEY: f"{end}, {key}",
            Mode.KEYED: f"{end}, {line}, {key}",
            Mode.TEXTS: f"{end}, {texts}, {key}",
        }
        return results[self._mode]
