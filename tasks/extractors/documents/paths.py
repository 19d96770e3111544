"""Where a value is in a document: ``properties.geo.city``, ``items[0].price``, ``"a.b"."c d"``; or any JMESPath expression.

Simple paths mean the same in JMESPath. They are told apart because they compile to straight-line code, and because what they
name can be taken out of the rest of the document.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

import jmespath
import msgspec

from blocks.errors import ConfigurationError

Step = str | int
Getter = Callable[[Any], Any]
"""Gives a value of a document, or `MISSING`."""


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False


MISSING = _Missing()
"""What is not there at all, unlike what is null."""

_STEP = re.compile(r'(?:^|\.)([\w$-]+|"(?:[^"\\]|\\.)*")|\[(\d+)\]')


def steps(path: str) -> tuple[Step, ...] | None:
    """Names and indexes of a simple path; None for what is none."""
    found: list[Step] = []
    at = 0
    while at < len(path):
        match = _STEP.match(path, at)
        if match is None or (match[1] and found and path[at] != "."):
            return None
        found.append(int(match[2]) if match[2] else _name(match[1]))
        at = match.end()
    return tuple(found) or None


def _name(text: str) -> str:
    return str(json.loads(text)) if text.startswith('"') else text


def getter(path: str, field: str) -> Getter:
    """What gives the value at ``path``; `ConfigurationError` names the ``field`` that holds it where it is no path."""
    simple = steps(path)
    return expression(path, field) if simple is None else _by_steps(simple)


def _by_steps(simple: tuple[Step, ...]) -> Getter:
    def get(value: Any) -> Any:
        for step in simple:
            if isinstance(step, str):
                value = value.get(step, MISSING) if type(value) is dict else MISSING
            else:
                value = value[step] if type(value) is list and step < len(value) else MISSING
            if value is MISSING:
                break
        return value

    return get


# -- expressions -----------------------------------------------------------------------------------------------------


class _Exact(float):
    """A number that an expression can compare and add up, and that keeps its digits where it is passed on."""

    __slots__ = ("text",)
    text: str

    def __str__(self) -> str:
        return self.text


# JMESPath knows types by the names of their classes.
_Exact.__name__ = "float"


def expression(text: str, field: str) -> Getter:
    """A JMESPath expression as a getter: a result of null is `MISSING`, which JMESPath does not tell apart."""
    try:
        compiled = jmespath.compile(text)
    except jmespath.exceptions.JMESPathError as error:
        raise ConfigurationError(f"field {field}: {text!r} is neither a path nor JMESPath: {error}") from None

    def get(value: Any) -> Any:
        try:
            found = compiled.search(_countable(value))
        except jmespath.exceptions.JMESPathError as error:
            raise ConfigurationError(f"field {field}: {text!r} does not fit a document: {error}") from None
        return MISSING if found is None else _plain(found)

    return get


def _countable(value: Any) -> Any:
    kind = type(value)
    if kind is dict:
        return {key: _countable(member) for key, member in value.items()}
    if kind is list:
        return [_countable(member) for member in value]
    if kind is msgspec.Raw:
        text = bytes(value).decode()
        number = _Exact(text)
        number.text = text
        return number
    return value


def _plain(value: Any) -> Any:
    """The numbers of a result as `parse` gives them."""
    if isinstance(value, dict):
        return {key: _plain(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_plain(member) for member in value]
    if isinstance(value, float):
        return msgspec.Raw(str(value).encode()) if math.isfinite(value) or type(value) is _Exact else str(value)
    return value
