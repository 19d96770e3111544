"""Arrays, maps and documents → JSON text, as PostgreSQL's to_json() and MySQL's JSON columns have it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from json.encoder import encode_basestring
from typing import Any

from tasks.extractors.kafka.debezium.numbers import mysql_double

Text = Callable[[Any], str]


def array(element: Text) -> Text:
    """Of elements whose JSON text that is."""

    def text(values: Sequence[Any]) -> str:
        return "[" + ",".join(["null" if value is None else element(value) for value in values]) + "]"

    return text


def quoted(text: Text) -> Text:
    """A value's text as a JSON string."""
    return lambda value: encode_basestring(text(value))


def number(text: Text) -> Text:
    """A number; NaN and the infinities are strings in JSON."""

    def found(value: Any) -> str:
        written = text(value)
        return written if written[-1].isdigit() else f'"{written}"'

    return found


def iso(text: Text) -> Text:
    """A timestamp, which has a ``T`` within JSON, and its offset in full."""

    def found(value: Any) -> str:
        written = text(value)
        era = " BC" if written.endswith(" BC") else ""
        written = written.removesuffix(" BC").replace(" ", "T", 1)
        return f'"{written}{":00" if written.endswith("+00") else ""}{era}"'

    return found


def hstore(pairs: Mapping[str, str | None]) -> str:
    """As hstore's cast to json: keys by their length and then their bytes, which is how an hstore keeps them."""
    keys = sorted(pairs, key=lambda key: (len(key.encode()), key.encode()))
    return "{" + ", ".join(f"{encode_basestring(key)}: {_string_or_null(pairs[key])}" for key in keys) + "}"


def hstore_of_json(text: str) -> str:
    return hstore(json.loads(text))


def _string_or_null(value: str | None) -> str:
    return "null" if value is None else encode_basestring(value)


class _Object(list[tuple[str, Any]]):
    """An object's members in their order."""


class _Number(str):
    """A number as it was written."""

    __slots__ = ()


_decode = json.JSONDecoder(
    object_pairs_hook=_Object, parse_float=_Number, parse_int=_Number, parse_constant=_Number
).decode


def mysql_document(text: str) -> str:
    """A document as MySQL's SELECT has it: Debezium makes its own text of what stands in the log."""
    return _member(_decode(text))


def _member(value: Any) -> str:
    if isinstance(value, _Number):
        return _mysql_number(value)
    if isinstance(value, str):
        return encode_basestring(value)
    if isinstance(value, _Object):
        return "{" + ", ".join(f"{encode_basestring(key)}: {_member(member)}" for key, member in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_member, value)) + "]"
    return "null" if value is None else "true" if value else "false"


def _mysql_number(text: str) -> str:
    if not set(text) & set(".eE"):
        return text
    value = float(text)
    # What Java writes of a double reads back to its digits; other digits are a decimal's, which MySQL keeps as they are.
    if text.endswith("0") and not text.endswith(".0") and "E" not in text:
        return text
    written = mysql_double(value) if value else repr(value)
    return written if "." in written or "e" in written else f"{written}.0"
