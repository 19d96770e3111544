"""Where a value of a column ends in a row image, and what makes its text: by a function, or by source code as well.

Texts are handled as str whose characters are the bytes of UTF-8 (a "view": latin-1), as bytes of an event can be looked
at so without being decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Text = Callable[[bytes], str | None]


@dataclass(frozen=True)
class Inline:
    """A value's text as source code, for a type that is worth it. ``@`` stands for the column's own variable.

    Of a value of fixed size, ``form`` says how `struct` takes it, without byte order, and ``names`` what it is unpacked
    to; of one behind its length ``@`` is the text's view and ``@a``, ``p`` where it begins and ends in ``d``.
    """

    form: str = ""
    names: tuple[str, ...] = ("@",)
    steps: tuple[str, ...] = ()
    shown: str = "{@}"
    """What stands for the value in an f-string."""
    needs: Mapping[str, object] = field(default_factory=dict)
    """What the code refers to by name."""
    doubled: bool = False
    """Quotes in the text are doubled already, and it has no line ends."""


@dataclass(frozen=True)
class Layout:
    """Where a column's value ends, and what its text is."""

    text: Text
    """From its bytes; None: it is written as NULL."""
    size: int = 0
    """Bytes of every value; 0: its length stands before it …"""
    prefix: int = 0
    """… in so many bytes."""
    plain: bool = True
    """Numbers, dates and times: nothing in them ever needs quotes."""
    inline: Inline | None = None
