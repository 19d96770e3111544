"""MySQL's SQL as this project speaks it: connecting, quoting, session settings, and errors a person can act on."""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ssl import SSLError
from typing import Any, Literal

import aiomysql
from pymysql.constants import CLIENT, CR, ER

from blocks.errors import ConfigurationError
from blocks.mysql import MySQL
from blocks.references import reveal
from tasks.extractors.keep_alive import keep_alive

_A_YEAR = "31536000"  # the longest the servers allow; a slow upload stops reading for as long as it takes

SETTINGS: Mapping[str, str] = {
    "character_set_client": "'utf8mb4'",  # the log-in's is ignored under skip-character-set-client-handshake
    "character_set_connection": "'utf8mb4'",
    "character_set_results": "'utf8mb4'",
    "time_zone": "'+00:00'",
    "sql_auto_is_null": "0",
    "sql_big_selects": "1",
    "sql_safe_updates": "0",
    "transaction_isolation": "'REPEATABLE-READ'",
    "transaction_read_only": "1",
    "tx_isolation": "'REPEATABLE-READ'",  # before MySQL 8 and MariaDB 11.1
    "tx_read_only": "1",
    "lock_wait_timeout": "30",
    "net_read_timeout": _A_YEAR,
    "net_write_timeout": _A_YEAR,
    "wait_timeout": _A_YEAR,
    "information_schema_stats_expiry": "0",  # else a table's size may be a day old
    "max_execution_time": "0",
    "max_statement_time": "0",
    "idle_transaction_timeout": "0",
    "idle_readonly_transaction_timeout": "0",
}
"""Of every session; those the server does not know (they differ by flavour and version) are left out."""

# Those that pad values, or refuse to compare zero dates. The others say how the user's own SQL is to be understood.
_UNWANTED_MODES = frozenset(
    {
        "PAD_CHAR_TO_FULL_LENGTH",
        "STRICT_TRANS_TABLES",
        "STRICT_ALL_TABLES",
        "NO_ZERO_DATE",
        "NO_ZERO_IN_DATE",
        "ERROR_FOR_DIVISION_BY_ZERO",
        "TRADITIONAL",
    }
)

_CONFIGURATION_STATES = (
    "0A",  # feature not supported
    "21",  # a subquery or a UNION of the wrong shape
    "22",  # a value that does not fit its type, such as a bad date in a where clause
    "25006",  # a query that writes
    "28",  # wrong password
    "3D",  # no such database
    "42",  # syntax, unknown names, missing privileges
)
# Those the servers give no state of their own (HY000).
_CONFIGURATION_ERRORS = {
    ER.CANT_AGGREGATE_2COLLATIONS,
    ER.CANT_AGGREGATE_3COLLATIONS,
    ER.CANT_AGGREGATE_NCOLLATIONS,
    ER.UNKNOWN_TIME_ZONE,
    ER.VIEW_INVALID,
    ER.WRONG_VALUE_FOR_TYPE,
    1525,  # Incorrect DATETIME value
}

_TLS_ERRORS = (CR.CR_SSL_CONNECTION_ERROR, 3159)  # 3159: require_secure_transport is on

_WAYS_IN: Mapping[int, str] = {
    ER.ACCESS_DENIED_ERROR: "check the fields user and password of the mysql block",
    1698: "check the fields user and password of the mysql block",  # the same, for an account without a password
    ER.BAD_DB_ERROR: "check the field database of the mysql block",
    ER.DBACCESS_DENIED_ERROR: "check the field database of the mysql block, and what the user is granted on it",
    ER.HOST_NOT_PRIVILEGED: "check the fields host and user of the mysql block, and from where the account may log in",
    ER.MUST_CHANGE_PASSWORD_LOGIN: "give the account a password that has not expired; the mysql block's fields are "
    "user and password",
    ER.CON_COUNT_ERROR: "lower the option parallel, or raise the server's max_connections",
    2059: "let the account of the field user log in by caching_sha2_password or mysql_native_password",
}

# From struct.error on: what aiomysql makes of bytes that are not MySQL's.
_FAILURES = (aiomysql.MySQLError, OSError, ValueError, struct.error, IndexError, RuntimeError)

_GOODBYE_SECONDS = 1.0

_PART = re.compile(r"`((?:[^`]|``)+)`|([^`.]+)")
_NEAR = re.compile(r"near '(.*)' at line \d+$", re.DOTALL)
_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")

Flavour = Literal["MySQL", "MariaDB"]


class Cursor(aiomysql.Cursor):  # type: ignore[misc]
    """aiomysql's, without its SHOW WARNINGS after a statement, which it would hand to Python's `warnings`."""

    async def _show_warnings(self, conn: object) -> None:
        pass


class Connection(aiomysql.Connection):  # type: ignore[misc]
    """aiomysql's, which logs in to a server that offers no TLS where the block allows it, and nowhere else.

    aiomysql, given a context, sends the account to such a server in clear, and says that TLS is to follow.
    """

    def __init__(self, *, must_encrypt: bool, **arguments: Any) -> None:
        super().__init__(cursorclass=Cursor, **arguments)
        self._must_encrypt = must_encrypt

    async def _request_authentication(self) -> None:
        if not self.server_capabilities & CLIENT.SSL:
            if self._must_encrypt:
                raise aiomysql.OperationalError(CR.CR_SSL_CONNECTION_ERROR, "the server offers no TLS")
            self.client_flag &= ~CLIENT.SSL
        await super()._request_authentication()


@dataclass(frozen=True)
class Server:
    """What answers at the other end, by its own words."""

    flavour: Flavour
    version: tuple[int, int, int]

    @classmethod
    def saying(cls, told: str) -> Server:
        """The server that greets with this version. Percona, Aurora and other kin are MySQL here, as they say."""
        # MariaDB 10 puts 5.5.5- before its version, for old replicas.
        found = _VERSION.search(told.removeprefix("5.5.5-"))
        major, minor, patch = found.groups(default="0") if found else ("0", "0", "0")
        return cls("MariaDB" if "mariadb" in told.lower() else "MySQL", (int(major), int(minor), int(patch)))

    def __str__(self) -> str:
        return f"{self.flavour} {'.'.join(map(str, self.version))}"


def server_of(connection: Connection) -> Server:
    """Who answers on this connection."""
    return Server.saying(connection.get_server_info())


def identifier(name: str) -> str:
    """``name`` quoted, whatever is in it."""
    return "`" + name.replace("`", "``") + "`"


def qualified(schema: str, name: str) -> str:
    return f"{identifier(schema)}.{identifier(name)}"


def name_parts(text: str) -> list[str]:
    """``shop.`odd.name` `` → ``["shop", "odd.name"]``. Names are taken as they are written, capitals included."""
    parts = [(quoted or "").replace("``", "`") or plain for quoted, plain in _PART.findall(text)]
    written = ".".join(parts)
    bare = re.sub(_PART, lambda found: (found[1] or "").replace("``", "`") or found[2], text)
    if not parts or len(parts) > 2 or written != bare:
        raise ConfigurationError(
            f"field table: {text!r} is not a table name; write table or database.table, "
            "and put a name that holds a dot or a backtick in backticks: `my.database`.`my table`"
        )
    return parts


async def fetch(
    connection: Connection, query: str, parameters: Sequence[object] | None = None
) -> list[tuple[Any, ...]]:
    """All rows of a small result, as Python values; ``%s`` in the query stand for the parameters."""
    async with connection.cursor() as cursor:
        await cursor.execute(query, parameters)
        return list(await cursor.fetchall())


async def connect(block: MySQL, *, again: bool = False) -> Connection:
    """A connection that can be read from, in autocommit; `ConfigurationError` when there is none or it is refused.

    ``again``: it has been reached before in this run, so a failure may pass and is raised as it is.
    """
    block = await reveal(block)
    connection = Connection(must_encrypt=block.must_encrypt, **block.connect_arguments())
    try:
        # aiomysql's own time limit ends when TCP is connected.
        async with asyncio.timeout(block.connect_timeout + 2):
            # What aiomysql.connect() awaits; it makes no other class than its own.
            await connection._connect()
            await _settle(connection)
    except BaseException as error:
        connection.close()
        if again or not isinstance(error, _FAILURES):
            error.add_note(block.describe())
            raise
        raise ConfigurationError(_unreachable(block, error)) from error
    # aiomysql exposes no socket.
    keep_alive(connection._writer.transport)
    return connection


async def _settle(connection: Connection) -> None:
    # First, as it counts for SHOW too.
    await fetch(connection, "SET SESSION sql_select_limit = 18446744073709551615")
    listed = ", ".join(f"'{name}'" for name in (*SETTINGS, "sql_mode"))
    found = dict(await fetch(connection, f"SHOW VARIABLES WHERE Variable_name IN ({listed})"))
    modes = [mode for mode in found.pop("sql_mode").split(",") if mode not in _UNWANTED_MODES]
    values = {name: SETTINGS[name] for name in found} | {"sql_mode": f"'{','.join(modes)}'"}
    await fetch(connection, "SET " + ", ".join(f"SESSION {name} = {value}" for name, value in values.items()))


async def close(connection: Connection) -> None:
    """Say goodbye and hang up; on return the socket is closed, which aiomysql's own close leaves to the event loop."""
    if connection.closed:
        return
    writer = connection._writer
    try:
        async with asyncio.timeout(_GOODBYE_SECONDS):
            await connection.ensure_closed()
            await writer.wait_closed()
    except OSError:  # the server was quicker, or has better to do
        writer.transport.abort()
        connection.close()


def _unreachable(block: MySQL, error: BaseException) -> str:
    where = block.describe()
    # aiomysql says "can't connect" and keeps the reason to itself.
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    if isinstance(cause, SSLError) or number_of(error) in _TLS_ERRORS:
        return f"{where}: TLS failed ({_told(cause)}); check the fields tls and tls_ca_file of the mysql block"
    if isinstance(cause, TimeoutError):
        return f"{where}: no answer within {block.connect_timeout:g} s; check host, port, firewall and VPN"
    way_in = _WAYS_IN.get(number_of(error), "check host and port of the mysql block")
    return f"{where}: cannot connect ({_told(cause)}); {way_in}"


def number_of(error: BaseException) -> int:
    """The server's or the driver's number for an error, 0 where it has none."""
    number = error.args[0] if isinstance(error, aiomysql.MySQLError) and error.args else 0
    return number if isinstance(number, int) else 0


def _told(error: BaseException) -> str:
    """The error in the server's words, without the number before them."""
    text = error.args[1] if number_of(error) and len(error.args) > 1 else str(error)
    return str(text) or type(error).__name__


def explained(error: aiomysql.MySQLError, what: str, statement: str = "") -> Exception:
    """``error`` as a `ConfigurationError` when the user has to mend it, itself with a note otherwise."""
    state = getattr(error, "sqlstate", None) or ""
    if not state.startswith(_CONFIGURATION_STATES) and number_of(error) not in _CONFIGURATION_ERRORS:
        error.add_note(what)
        return error  # type: ignore[no-any-return]
    message = _told(error)
    near = _NEAR.search(message)
    pointed = _pointed(statement, near[1]) if near else ""
    return ConfigurationError(f"{what}: {message}{pointed}")


def _pointed(statement: str, near: str) -> str:
    """The line of the statement the server means, with a caret under the place; ``near`` is what follows from there."""
    place = len(statement) - len(near) if statement.endswith(near) else statement.find(near)
    if not near or place < 0:
        return ""
    start = statement.rfind("\n", 0, place) + 1
    line = statement[start:].split("\n", 1)[0]
    return f"\n  {line}\n  {' ' * (place - start)}^"
