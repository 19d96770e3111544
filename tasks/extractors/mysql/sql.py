"""MySQL's SQL as this project speaks it."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import aiomysql

from blocks.errors import ConfigurationError
from blocks.mysql import MySQL

_PART = re.compile(r"`((?:[^`]|``)+)`|([^`.]+)")


def identifier(name: str) -> str:
    """``name`` quoted, whatever is in it."""
    return "`" + name.replace("`", "``") + "`"


def name_parts(text: str) -> list[str]:
    parts = [(quoted or "").replace("``", "`") or plain for quoted, plain in _PART.findall(text)]
    bare = re.sub(_PART, lambda found: (found[1] or "").replace("``", "`") or found[2], text)
    if not parts or len(parts) > 2 or ".".join(parts) != bare:
        raise ConfigurationError(f"field table: {text!r} is not a table name; write table or database.table")
    return parts


async def connect(block: MySQL, *, again: bool = False) -> Any:
    arguments = block.connect_arguments()
    try:
        async with asyncio.timeout(block.connect_timeout + 2):
            return await aiomysql.connect(**arguments)
    except (OSError, TimeoutError, aiomysql.MySQLError) as error:
        if again:
            raise
        raise ConfigurationError(f"{block.describe()}: cannot connect ({error})") from error


def explained(error: aiomysql.MySQLError, what: str, statement: str = "") -> Exception:
    """``error`` as a `ConfigurationError` when the user has to mend it, itself with a note otherwise."""
    return ConfigurationError(f"{what}: {error.args[-1]}")
