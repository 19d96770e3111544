"""JSON text → Python values and back, without a float between: a number keeps the digits it came with.

Integers of any length are `int`. A number with a point or an exponent is `msgspec.Raw`: its text, which goes back into JSON
as it is.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

_decode = msgspec.json.Decoder(float_hook=msgspec.Raw).decode

# An escape sequence: a pair of surrogates, one alone, or any other (which a backslash before it would belong to).
_ESCAPE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.", re.DOTALL
)
_LONGEST_INT = 4_000
"""Digits: Python itself refuses to read integers of more than 4,300."""


class DocumentError(ValueError):
    """A text that is no JSON."""


def parse(document: bytes | bytearray | memoryview | str | msgspec.Raw) -> Any:
    """The value of a JSON text; of a name that comes twice in an object the last, as all parsers do.

    What is not quite JSON and yet sent is read too: bytes that are no UTF-8 and lone surrogates become U+FFFD, ``NaN`` and
    ``Infinity`` become strings. `DocumentError` for anything else.
    """
    try:
        return _decode(document)
    except (ValueError, RecursionError):
        return _mended(document)


def _mended(document: bytes | bytearray | memoryview | str | msgspec.Raw) -> Any:
    text = document if isinstance(document, str) else bytes(document).decode(errors="replace")
    text = _ESCAPE.sub(lambda found: r"\ufffd" if found[1] else found[0], text.lstrip("\ufeff"))
    try:
        return json.loads(text, parse_float=msgspec.Raw, parse_int=_integer, parse_constant=str)
    except RecursionError:
        raise DocumentError("it is nested too deeply") from None
    except ValueError as error:
        raise DocumentError(str(error)) from None


def _integer(digits: str) -> int | msgspec.Raw:
    return int(digits) if len(digits) < _LONGEST_INT else msgspec.Raw(digits.encode())


def json_text(value: Any) -> str:
    """Compact JSON of what `parse` gave."""
    return _encode(value).decode()


_encode = msgspec.json.Encoder().encode
