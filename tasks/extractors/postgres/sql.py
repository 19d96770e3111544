"""PostgreSQL's SQL as this project speaks it: quoting, session settings, and errors put into words a person can act on.

COPY takes no parameters (https://www.postgresql.org/docs/current/sql-copy.html), so a bound becomes a literal that the
server itself has quoted; a client-side placeholder replacement would also hit ``$1`` inside a user's own SQL.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import asyncpg

from blocks.errors import ConfigurationError, SnapshotLost
from blocks.postgres import Postgres
from blocks.references import reveal
from tasks.extractors.keep_alive import keep_alive

# The class is generic in its stubs only.
if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection

APPLICATION = "headrace read"
"""The application_name of sessions that only read: they hold no window back, as a load of this program's own does."""

# Set in the transaction, not at connect: a pooler such as PgBouncer refuses start-up parameters it does not know.
SETTINGS: Mapping[str, str] = {
    "datestyle": "ISO, YMD",
    "timezone": "UTC",
    "intervalstyle": "iso_8601",
    "extra_float_digits": "3",  # before PostgreSQL 12 fewer digits do not read back to the same bits
    "bytea_output": "hex",
    "xmloption": "content",
    "standard_conforming_strings": "on",
    "synchronize_seqscans": "off",  # else the row order rotates after an aborted scan
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "lock_timeout": "30s",
}

_CONFIGURATION_STATES = (
    "08004",  # server rejected the connection
    "0A000",  # feature not supported
    "28",  # wrong password, no pg_hba entry
    "3D",  # no such database
    "3F",  # no such schema
    "42",  # syntax, unknown names, missing privileges, wrong types
    "22",  # a value that does not fit its type, such as a bad date in a where clause
)

_PART = re.compile(r'"((?:[^"]|"")+)"|([^".]+)')


def identifier(name: str) -> str:
    """``name`` quoted, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def qualified(schema: str, name: str) -> str:
    return f"{identifier(schema)}.{identifier(name)}"


def name_parts(text: str) -> list[str]:
    """``public."odd.name"`` → ``["public", "odd.name"]``. Names are taken as they are written, capitals included."""
    parts = [(quoted or "").replace('""', '"') or plain for quoted, plain in _PART.findall(text)]
    written = ".".join(parts)
    bare = re.sub(_PART, lambda found: (found[1] or "").replace('""', '"') or found[2], text)
    if not parts or len(parts) > 2 or written != bare:
        raise ConfigurationError(
            f"field table: {text!r} is not a table name; write schema.table, "
            'and put a name that holds a dot or a quote in double quotes: "my.schema"."my table"'
        )
    return parts


async def literal(connection: Connection, value: str, type_name: str) -> str:
    """``value`` as an SQL literal of that type, quoted by the server."""
    quoted = await connection.fetchval("SELECT pg_catalog.quote_literal($1::text)", value)
    return f"{quoted}::{type_name}"


async def connect(block: Postgres, *, again: bool = False) -> Connection:
    """A connection that can be read from; `ConfigurationError` when the server cannot be reached or refuses.

    ``again``: it has been reached before in this run, so a failure may pass and is raised as it is.
    """
    arguments = (await reveal(block)).connect_arguments()
    arguments["server_settings"]["application_name"] = APPLICATION
    try:
        async with asyncio.timeout(float(arguments.get("timeout") or 10) + 2):
            connection: Connection = await asyncpg.connect(**arguments)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        if again:
            error.add_note(block.describe())
            raise
        raise ConfigurationError(_unreachable(block, error)) from error
    # asyncpg exposes no socket.
    keep_alive(getattr(connection, "_transport", None))
    return connection


def _unreachable(block: Postgres, error: Exception) -> str:
    where = block.describe()
    if isinstance(error, TimeoutError):
        return f"{where}: no answer within {block.connect_timeout:g} s; check host, port, firewall and VPN"
    if isinstance(error, asyncpg.InvalidPasswordError):
        return f"{where}: {error}; check the fields user and password of the postgres block"
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return f"{where}: {error}; check the field database of the postgres block"
    if "SSL" in str(error).upper() or "certificate" in str(error).lower():
        return f"{where}: TLS failed ({error}); check the fields tls and tls_ca_file of the postgres block"
    return f"{where}: cannot connect ({error or type(error).__name__}); check host and port of the postgres block"


async def begin(connection: Connection, *, isolation: str = "REPEATABLE READ", snapshot: str | None = None) -> None:
    """Open a read-only transaction with the settings the CSV depends on, on ``snapshot`` when one is given."""
    await connection.execute(f"BEGIN ISOLATION LEVEL {isolation} READ ONLY")
    if snapshot:
        try:
            # It takes a literal only, and must come before any query.
            await connection.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
        except (asyncpg.InvalidParameterValueError, asyncpg.UndefinedObjectError) as error:
            raise SnapshotLost(f"the snapshot {snapshot} this plan reads under is gone: {error}") from error
    await connection.execute("; ".join(f"SET LOCAL {name} = '{value}'" for name, value in SETTINGS.items()))


def explained(error: asyncpg.PostgresError, what: str, statement: str = "") -> Exception:
    """``error`` as a `ConfigurationError` when the user has to mend it, itself with a note otherwise."""
    state = getattr(error, "sqlstate", "") or ""
    if not state.startswith(_CONFIGURATION_STATES):
        error.add_note(what)
        return error
    details = [f"{what}: {getattr(error, 'message', None) or error}"]  # the driver's own have no message
    position = getattr(error, "position", None)
    if position and statement:
        details.append(_pointed(statement, int(position)))
    details += [text for text in (getattr(error, "detail", None), getattr(error, "hint", None)) if text]
    return ConfigurationError("\n".join(details))


def _pointed(statement: str, position: int) -> str:
    """The line of the statement the server means, with a caret under the place (``position`` counts from 1)."""
    start = statement.rfind("\n", 0, position - 1) + 1
    line = statement[start:].split("\n", 1)[0]
    return f"  {line}\n  {' ' * (position - 1 - start)}^"
