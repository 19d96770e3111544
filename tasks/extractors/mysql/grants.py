"""What the connected account may do beyond reading, and the GRANT that would let it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from tasks.extractors.mysql.sql import Connection, fetch, server_of

_GRANT = re.compile(r"GRANT (?P<privileges>.+?) ON (?P<database>\*|`(?:[^`]|``)*`)\.(?:\*) TO ")
_ALL = "ALL PRIVILEGES"


@dataclass(frozen=True)
class Grants:
    """Privileges on everything and on whole databases, those of active roles included."""

    account: str
    """As a GRANT names it."""
    held: tuple[tuple[str, frozenset[str]], ...]
    """Pattern of databases (``*``: all and the server), privileges."""

    @classmethod
    async def of(cls, connection: Connection) -> Self:
        """Those of this session, in the server's own words."""
        ((account,),) = await fetch(connection, "SELECT CURRENT_USER()")
        user, _, host = account.rpartition("@")
        lines = [str(line) for (line,) in await fetch(connection, await _question(connection))]
        return cls(
            f"{_quoted(user)}@{_quoted(host)}", tuple(_held(found) for line in lines if (found := _GRANT.match(line)))
        )

    def include(self, privilege: str, database: str = "") -> bool:
        """Whether the account has it on the database; without one, on the server."""
        return any(
            {privilege, _ALL} & privileges and (pattern == "*" or (database and _is_like(pattern, database)))
            for pattern, privileges in self.held
        )

    def wanted(self, privilege: str, on: str = "*.*") -> str:
        """The statement that grants it."""
        return f"GRANT {privilege} ON {on} TO {self.account}"


async def _question(connection: Connection) -> str:
    server = server_of(connection)
    if server.flavour == "MariaDB" or server.version < (8, 0, 0):
        return "SHOW GRANTS"
    # MySQL tells what comes with a role only when it is asked for that role.
    ((roles,),) = await fetch(connection, "SELECT CURRENT_ROLE()")
    return "SHOW GRANTS" if roles == "NONE" else f"SHOW GRANTS FOR CURRENT_USER() USING {roles}"


def _held(found: re.Match[str]) -> tuple[str, frozenset[str]]:
    database = found["database"]
    pattern = database if database == "*" else database[1:-1].replace("``", "`")
    return pattern, frozenset(privilege.strip() for privilege in found["privileges"].split(","))


def _is_like(pattern: str, database: str) -> bool:
    """Whether a database is meant by a grant: ``%`` and ``_`` are wildcards in it, unless behind a backslash."""
    signs = {"%": ".*", "_": "."}
    parts = re.findall(r"\\.|.", pattern, re.DOTALL)
    return re.fullmatch("".join(signs.get(part) or re.escape(part[-1]) for part in parts), database) is not None


def _quoted(name: str) -> str:
    return "'" + name.replace("'", "''") + "'"
