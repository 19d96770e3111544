"""Writes the function that makes a record of a document: straight-line code for the columns of one stream.

A generic loop over getters and converters takes more than twice as long for a document of a dozen columns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.extractors.documents.paths import MISSING, Getter, Step
from tasks.extractors.documents.texts import is_usual

_PLAIN = re.compile(r'[^",\r\n\\]+').fullmatch
"""Text that needs no quotes, whatever the NULL marker: those with a backslash, as in ``\\N``, take the slow call."""


@dataclass(frozen=True)
class Line:
    """How one field of the record is made."""

    path: tuple[Step, ...] | None
    """None for an expression, and for the rest."""
    getter: Getter | None
    """The expression. Neither path nor expression: the rest."""
    inline: str
    """The type whose values are written without a call; empty: none is."""
    slow: Any
    """Writes any value, and `MISSING`."""


@dataclass
class _Node:
    """A member of the document, or of one in it, that a column names or that holds such."""

    variable: str = ""
    members: dict[Step, _Node] = field(default_factory=dict)

    def at(self, path: Sequence[Step]) -> _Node:
        node = self
        for step in path:
            node = node.members.setdefault(step, _Node())
        return node


# What an inline value looks like in the function: a test of `{v}`, and its text.
_INLINE = {
    "text": ("type({v}) is str and plain({v})", "{v}"),
    "integer": ("type({v}) is int", "str({v})"),
    "decimal": ("type({v}) is int", "str({v})"),
    "float": ("type({v}) is int", "str({v})"),
    "boolean": ("type({v}) is bool", "('true' if {v} else 'false')"),
    "timestamptz": ("type({v}) is str and usual({v})", "f'{{{v}[:10]}} {{{v}[11:-1]}}+00'"),
}


def function(
    lines: Sequence[Line], order: Sequence[int], rest: Callable[[Any], str] | None, null: str
) -> Callable[[Any], str]:
    """The function from a document to its record. ``order``: which lines make it up; the others' values are left out.

    ``null`` is the field of what is null. ``rest`` is given what is left of the document; its text is that of the line whose
    ``slow`` is `MISSING`.
    """
    names: dict[str, Any] = {"M": MISSING, "plain": _PLAIN, "usual": is_usual, "null": null, "rest": rest}
    code = ["def line(d):"]
    root = _Node()
    for number, line in enumerate(lines):
        if line.path:
            node = root.at(line.path)
            node.variable = node.variable or f"v{number}"
        elif line.getter:
            names[f"get{number}"] = line.getter
            code.append(f" v{number} = get{number}(d)")
    code += _taken(root)
    shown = [f"{{t{number}}}" for number in order]
    for number in order:
        if lines[number].slow is not MISSING:
            names[f"slow{number}"] = lines[number].slow
            variable = root.at(lines[number].path or ()).variable if lines[number].path else f"v{number}"
            code.append(f" t{number} = {_text(lines[number], number, variable)}")
    if rest is not None:
        # Last: by then it is known which values their columns do not show.
        shown_in = next((number for number in order if lines[number].slow is MISSING), len(lines))
        code.append(f" t{shown_in} = rest(d)")
    code.append(f" return f'{','.join(shown)}\\n'")
    exec(compile("\n".join(code), "<columns>", "exec"), names)  # noqa: S102 - of numbers and repr() alone
    made: Callable[[Any], str] = names["line"]
    return made


def _text(line: Line, number: int, variable: str) -> str:
    slow = f"null if {variable} is None else slow{number}({variable})"
    if line.inline not in _INLINE:
        return slow
    test, text = (part.format(v=variable) for part in _INLINE[line.inline])
    return f"{text} if {test} else {slow}"


def _taken(root: _Node) -> Iterator[str]:
    """The lines that take the values out of ``d``."""
    return _parts(root, "d", 1, take=True)


def _all(node: _Node) -> Iterator[_Node]:
    yield node
    for member in node.members.values():
        yield from _all(member)


def _parts(node: _Node, place: str, depth: int, *, take: bool) -> Iterator[str]:
    """Lines for what is named in ``place``, which may be an object, an array, or neither.

    ``take``: out of it. What is in arrays stays there, for the places of the others would change.
    """
    indent = " " * depth
    for kind, step_type in (("dict", str), ("list", int)):
        some = {step: member for step, member in node.members.items() if isinstance(step, step_type)}
        if not some:
            continue
        named = [inner.variable for member in some.values() for inner in _all(member) if inner.variable]
        yield f"{indent}if type({place}) is {kind}:"
        for number, (step, member) in enumerate(some.items()):
            yield from _part(step, member, place, f"{place}_{number}", depth + 1, take=take and kind == "dict")
        yield f"{indent}else: {' = '.join(named)} = M"


def _part(step: Step, node: _Node, place: str, inner: str, depth: int, *, take: bool) -> Iterator[str]:
    indent = " " * depth
    value = node.variable or inner
    if isinstance(step, int):
        yield f"{indent}{value} = {place}[{step}] if len({place}) > {step} else M"
    else:
        yield f"{indent}{value} = {place}.{'pop' if take and node.variable else 'get'}({step!r}, M)"
    if not node.members:
        return
    # What is written whole is not taken apart.
    below = take and not node.variable
    if below:
        yield f"{indent}{inner}_full = bool({value})"
    yield from _parts(node, value, depth, take=below)
    if below:
        yield f"{indent}if {inner}_full and not {value}: del {place}[{step!r}]"
