"""Which tables a stream follows: names with wildcards, and those to leave out."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import translate
from typing import Self

from blocks.errors import ConfigurationError
from tasks.extractors.mysql.session import Session

_SYSTEM = ("mysql", "information_schema", "performance_schema", "sys")

_TABLES = f"""
    SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE LIKE '%BASE TABLE%'
    AND TABLE_SCHEMA NOT IN ({", ".join(f"'{name}'" for name in _SYSTEM)}) ORDER BY TABLE_SCHEMA, TABLE_NAME"""


@dataclass(frozen=True)
class Tables:
    """Decides for a table of any database whether it is followed."""

    wanted: tuple[re.Pattern[str], ...]
    unwanted: tuple[re.Pattern[str], ...]
    patterns: tuple[str, ...]

    @classmethod
    def of(cls, patterns: tuple[str, ...], database: str) -> Self:
        """``orders``, ``shop.*``, ``-shop.audit_*``: those without a database are of ``database``."""
        if not any(not pattern.startswith("-") for pattern in patterns):
            raise ConfigurationError("field tables: name at least one table to follow, such as shop.orders or shop.*")
        made: dict[bool, list[re.Pattern[str]]] = {True: [], False: []}
        for pattern in patterns:
            name = pattern.removeprefix("-").replace("`", "")
            if "." not in name:
                if not database:
                    raise ConfigurationError(
                        f"field tables: {pattern!r} names no database, and neither does the mysql block; "
                        "write database.table"
                    )
                name = f"{database}.{name}"
            made[pattern.startswith("-")].append(re.compile(translate(name)))
        return cls(tuple(made[False]), tuple(made[True]), patterns)

    def __contains__(self, table: tuple[str, str]) -> bool:
        """Of database and name."""
        if table[0] in _SYSTEM:
            return False
        name = ".".join(table)
        return any(p.match(name) for p in self.wanted) and not any(p.match(name) for p in self.unwanted)

    async def found(self, session: Session, known: Collection[tuple[str, str]] = ()) -> list[tuple[str, str]]:
        """Those that are there now; `ConfigurationError` where a pattern fits none, and none of those known before."""
        there = [(str(schema), str(name)) for schema, name in await session.rows(_TABLES)]
        for pattern, text in zip(self.wanted, (p for p in self.patterns if not p.startswith("-")), strict=True):
            if not any(pattern.match(".".join(table)) for table in (*there, *known)):
                raise ConfigurationError(
                    f"field tables: {text!r} fits no table that is there and that the account may read; "
                    "`headrace discover` lists the tables"
                )
        return [table for table in there if table in self]
