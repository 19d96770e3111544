"""Values in SQL text: spelt so that no sql_mode reads them otherwise, and so that an index on the column is used.

A string goes as the hex of its bytes behind its character set (`character set introducers
<https://dev.mysql.com/doc/refman/9.7/en/charset-introducer.html>`_): backslashes and quotes have no meaning there. A
literal takes on the collation of the column it is compared with.
"""

from __future__ import annotations

import re

_NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?")


def text(value: str) -> str:
    """A string literal."""
    return f"_utf8mb4 {_hex(value.encode().hex())}"


def of_charset(hexadecimal: str, charset: str) -> str:
    """A string literal of bytes that are in ``charset`` already, as HEX() of a column gives them."""
    return f"_{charset} {_hex(hexadecimal)}"


def number(value: str) -> str:
    """A number as it is; ValueError when it is none."""
    if not _NUMBER.fullmatch(value):
        raise ValueError(f"{value!r} is not a number")
    return value


def _hex(hexadecimal: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]*", hexadecimal):
        raise ValueError(f"{hexadecimal!r} is not hexadecimal")
    return f"x'{hexadecimal}'"
