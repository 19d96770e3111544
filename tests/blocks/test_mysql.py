"""The MySQL connection: its TLS by default, what aiomysql is given, real log-ins on both servers, and what stays secret."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiomysql
import pytest
import uvloop
from pydantic import ValidationError

from blocks.errors import ConfigurationError
from blocks.mysql import MySQL
from tasks.extractors.mysql.sql import Connection, close, connect, fetch, server_of
from tests.servers.middleman import Middleman
from tests.servers.mysql import MySQLServer

PASSWORD = "s3cret%pass"


def mysql(**fields: Any) -> MySQL:
    return MySQL(**({"host": "db.example", "database": "shop", "user": "reader", "password": PASSWORD} | fields))


def block_of(server: MySQLServer, **fields: Any) -> MySQL:
    """The block that reaches a test's own database."""
    place = {"host": server.host, "port": server.port, "database": server.database}
    return MySQL(**(place | {"user": server.user, "password": server.password} | fields))


@contextlib.asynccontextmanager
async def connected(block: MySQL) -> AsyncIterator[Connection]:
    connection = await connect(block)
    try:
        yield connection
    finally:
        await close(connection)


async def tls_version(connection: Connection) -> str:
    """TLS of a connection in the server's words, empty when it is in clear."""
    return str((await fetch(connection, "SHOW STATUS LIKE 'Ssl_version'"))[0][1])


async def complaint(block: MySQL) -> str:
    """What a person is told of a connection that must fail; never the password."""
    with pytest.raises(ConfigurationError) as caught:
        await connect(block)
    shown = f"{caught.value} {caught.value!r} {caught.value.__cause__!r}"
    secret = block.password.get_secret_value()
    assert not secret or secret not in shown
    return str(caught.value)


# -- the block ------------------------------------------------------------------------------------------------------


def test_fields_are_documented() -> None:
    """Every field has a title and a description, which the Prefect UI shows as a form."""
    assert all(field.title and field.description for field in MySQL.model_fields.values())


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_local_hosts(host: str) -> None:
    """On the loopback TLS is used if the server offers it, and nothing is checked."""
    block = mysql(host=host)
    context = block.ssl()
    assert isinstance(context, ssl.SSLContext)
    assert (context.check_hostname, context.verify_mode, block.must_encrypt) == (False, ssl.CERT_NONE, False)


@pytest.mark.parametrize("host", ["db.example", "10.0.0.1", "fd00::1"])
def test_remote_hosts(host: str) -> None:
    """Everywhere else the server has to prove that it is the host that was asked for."""
    block = mysql(host=host)
    context = block.ssl()
    assert isinstance(context, ssl.SSLContext)
    assert (context.check_hostname, context.verify_mode, block.must_encrypt) == (True, ssl.CERT_REQUIRED, True)


@pytest.mark.parametrize(
    ("tls", "verify", "must_encrypt"),
    [("verify-ca", ssl.CERT_REQUIRED, True), ("require", ssl.CERT_NONE, True), ("prefer", ssl.CERT_NONE, False)],
)
def test_weaker_modes_check_what_they_say(tls: Any, verify: ssl.VerifyMode, must_encrypt: bool) -> None:
    """verify-ca leaves out the name, require leaves out the certificate as well, prefer takes a server without TLS."""
    block = mysql(tls=tls)
    context = block.ssl()
    assert isinstance(context, ssl.SSLContext)
    assert (context.check_hostname, context.verify_mode, block.must_encrypt) == (False, verify, must_encrypt)


@pytest.mark.parametrize("fields", [{"tls": "disable"}, {"host": "/run/mysqld/mysqld.sock"}])
def test_in_clear(fields: dict[str, Any]) -> None:
    """disable and a Unix socket do without TLS."""
    block = mysql(**fields)
    assert block.ssl() is None
    assert not block.must_encrypt


@pytest.mark.parametrize("field", ["tls_ca_file", "tls_cert_file"])
def test_bad_tls_files_are_named(field: str, tmp_path: Path) -> None:
    """A TLS file that is missing is an error that names the field, the file and the connection."""
    file = str(tmp_path / "bad.pem")
    with pytest.raises(ConfigurationError, match=f"{field} of mysql://reader@db.example:3306/shop") as caught:
        mysql(**{field: file}).ssl()
    assert file in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"tls": "require", "tls_ca_file": "/ca.pem"},
        {"tls": "prefer", "tls_cert_file": "/cert.pem"},
        {"tls_key_file": "/key.pem"},
        {"host": "/run/mysqld/mysqld.sock", "tls": "require"},
        {"host": "/run/mysqld/mysqld.sock", "tls_ca_file": "/ca.pem"},
        {"port": 0},
        {"host": ""},
        {"connect_timeout": 0},
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any]) -> None:
    """Fields that would have no effect, or could not work, are refused without showing the password."""
    with pytest.raises(ValidationError) as caught:
        mysql(**fields)
    assert PASSWORD not in str(caught.value)


def test_connect_arguments() -> None:
    """aiomysql gets every field, UTF-8 for all text, and no option file to read."""
    arguments = mysql(tls="disable", connect_timeout=3).connect_arguments()
    assert arguments == {
        "host": "db.example",
        "port": 3306,
        "user": "reader",
        "password": PASSWORD,
        "db": "shop",
        "ssl": None,
        "connect_timeout": 3,
        "charset": "utf8mb4",
        "autocommit": True,
        "program_name": "headrace",
    }


def test_socket_takes_the_place_of_host_and_port() -> None:
    """A host that is a path goes to aiomysql as a Unix socket."""
    arguments = mysql(host="/run/mysqld/mysqld.sock").connect_arguments()
    assert arguments["unix_socket"] == "/run/mysqld/mysqld.sock"
    assert not {"host", "port"} & set(arguments)


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ("db.example", "mysql://reader@db.example:3306/shop"),
        ("fd00::1", "mysql://reader@[fd00::1]:3306/shop"),
        ("/run/mysqld/mysqld.sock", "mysql://reader@localhost/shop (/run/mysqld/mysqld.sock)"),
    ],
)
def test_description(host: str, text: str) -> None:
    """A connection describes itself as a URL without its password."""
    assert mysql(host=host).describe() == text


async def test_password_stays_hidden_and_survives_saving(prefect_api: str) -> None:
    """The password is in no text of the block and on no page, and is there again after loading."""
    block = mysql()
    await block.asave("hidden", overwrite=True)
    loaded: MySQL = await MySQL.aload("hidden")
    shown = f"{loaded!r} {loaded} {loaded.model_dump()} {loaded.model_dump_json()}"
    assert PASSWORD not in shown
    assert loaded.password.get_secret_value() == PASSWORD


# -- logging in -----------------------------------------------------------------------------------------------------


async def test_flavour_is_the_server_s_own_word(mysql_database: MySQLServer) -> None:
    """Nothing says in the block which of the two it is; the connection knows, and its version."""
    async with connected(block_of(mysql_database)) as connection:
        server = server_of(connection)
    assert server.flavour == mysql_database.flavour
    assert server.version >= (10, 4, 0) if mysql_database.is_mariadb else (8, 0, 0)


async def test_default_on_this_machine_is_tls_where_the_server_has_it(mysql_database: MySQLServer) -> None:
    """prefer encrypts when it can, disable does not; both log in."""
    async with connected(block_of(mysql_database)) as connection:
        assert await tls_version(connection) == "TLSv1.3"
    async with connected(block_of(mysql_database, tls="disable")) as connection:
        assert await tls_version(connection) == ""


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_verified_tls(mysql_database: MySQLServer, loop_factory: Any) -> None:
    """With the CA given, name and certificate are checked, on either event loop; large answers come through."""
    block = block_of(mysql_database, tls_ca_file=mysql_database.authority)
    assert block.tls_mode == "verify-full"

    async def version_and_size() -> tuple[str, int]:
        async with connected(block) as connection:
            answer = await fetch(connection, "SELECT repeat('x', 3000000)")
            return await tls_version(connection), len(answer[0][0])

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        assert runner.run(version_and_size()) == ("TLSv1.3", 3_000_000)


async def test_unknown_authority_is_refused(mysql_database: MySQLServer) -> None:
    """A certificate nobody vouches for is an error that names the fields, unless only encryption is asked for."""
    told = await complaint(block_of(mysql_database, tls="verify-full"))
    assert "TLS failed" in told
    assert "fields tls and tls_ca_file" in told
    async with connected(block_of(mysql_database, tls="require")) as connection:
        assert await tls_version(connection) == "TLSv1.3"


async def test_another_name_is_refused(mysql_database: MySQLServer) -> None:
    """The certificate has to be of the host that was asked for; verify-ca leaves that out."""
    other = {"host": "127.0.0.2", "tls_ca_file": mysql_database.authority}
    with socket.create_server(("127.0.0.2", 0)) as probe:
        port = probe.getsockname()[1]
    forwarder = await asyncio.start_server(lambda r, w: _forward(mysql_database, r, w), "127.0.0.2", port)
    async with forwarder:
        assert "127.0.0.2" in await complaint(block_of(mysql_database, port=port, **other))
        async with connected(block_of(mysql_database, port=port, tls="verify-ca", **other)) as connection:
            assert await tls_version(connection) == "TLSv1.3"


async def _forward(server: MySQLServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    from_server, to_server = await asyncio.open_connection(server.host, server.port)
    await asyncio.gather(_pump(reader, to_server), _pump(from_server, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest.mark.parametrize("tls", ["require", "verify-ca", "verify-full"])
async def test_tls_that_was_asked_for_is_not_talked_out_of(mysql_database: MySQLServer, tls: str) -> None:
    """Whoever says in the server's name that it has no TLS hears no password, and not even the user's name."""
    with Middleman(mysql_database.host, mysql_database.port) as middleman:
        through = mysql_database.through(middleman.port)
        assert "the server offers no TLS" in await complaint(block_of(through, tls=tls))
        assert middleman.overheard == b""
        async with connected(block_of(through, tls="prefer")) as connection:
            assert await tls_version(connection) == ""


async def test_certificate_is_a_login(mysql_database: MySQLServer) -> None:
    """An account that requires a certificate is reached with the client's files, and not without."""
    user = await mysql_database.create_user("SELECT ON {database}.*", require="X509")
    trusted = {"tls_ca_file": user.authority}
    assert "Access denied" in await complaint(block_of(user, **trusted))
    certificate, key = user.certificate
    async with connected(block_of(user, **trusted, tls_cert_file=certificate, tls_key_file=key)) as connection:
        assert await fetch(connection, "SELECT 1") == [(1,)]


async def test_server_that_insists_on_tls(mysql_database: MySQLServer) -> None:
    """An account that is for TLS alone is refused in clear."""
    user = await mysql_database.create_user("SELECT ON {database}.*", require="SSL")
    assert "Access denied" in await complaint(block_of(user, tls="disable"))
    async with connected(block_of(user, tls="require")):
        pass


@pytest.mark.parametrize("tls", ["disable", "require"])
async def test_any_character_in_a_password(mysql_database: MySQLServer, tls: str) -> None:
    """Passwords are sent as the servers store them, in UTF-8, encrypted and in clear."""
    user = await mysql_database.create_user("SELECT ON {database}.*", password="pä$$ %wörd€✓")
    for _ in range(2):  # MySQL knows it by heart the second time, and asks in another way
        async with connected(block_of(user, tls=tls)) as connection:
            assert await fetch(connection, "SELECT 1") == [(1,)]


async def test_unix_socket(mysql_database: MySQLServer) -> None:
    """The path of the server's socket is a host too."""
    async with connected(block_of(mysql_database, host=mysql_database.socket)) as connection:
        assert await fetch(connection, "SELECT database()") == [(mysql_database.database,)]


# -- what a person is told ------------------------------------------------------------------------------------------


async def test_wrong_password(mysql_database: MySQLServer) -> None:
    """The fields user and password are named, and the password is not shown."""
    assert "check the fields user and password" in await complaint(block_of(mysql_database, password=PASSWORD))


async def test_unknown_database(mysql_database: MySQLServer) -> None:
    """The field database is named."""
    told = await complaint(block_of(mysql_database, database="nowhere"))
    assert "'nowhere'" in told
    assert "check the field database" in told


async def test_database_without_a_grant(mysql_database: MySQLServer) -> None:
    """An account that may not enter the database is told so, with the field."""
    user = await mysql_database.create_user()
    assert "check the field database" in await complaint(block_of(user))


async def test_port_nobody_listens_on(mysql_database: MySQLServer) -> None:
    """A refused connection is told at once, with the fields host and port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = dataclasses.replace(mysql_database, port=probe.getsockname()[1])
        assert "check host and port" in await complaint(block_of(closed))


async def test_server_that_says_nothing() -> None:
    """One that accepts and then is silent is given up after connect_timeout and a little, well within 15 s."""

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as silent:
        port = silent.sockets[0].getsockname()[1]
        began = asyncio.get_running_loop().time()
        told = await complaint(mysql(host="127.0.0.1", port=port, connect_timeout=0.5))
        assert "no answer within 0.5 s" in told
        assert asyncio.get_running_loop().time() - began < 5
    assert MySQL.model_fields["connect_timeout"].default + 2 < 15


async def test_something_else_listens() -> None:
    """What is no MySQL at all is an error that names host and port."""

    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n" * 1000)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(speak, "127.0.0.1", 0) as other:
        port = other.sockets[0].getsockname()[1]
        assert "check host and port" in await complaint(mysql(host="127.0.0.1", port=port))


async def test_a_failure_later_in_a_run_may_pass(mysql_database: MySQLServer) -> None:
    """Where the server has been reached before, the driver's error goes through, with the connection in a note."""
    with pytest.raises(aiomysql.MySQLError) as caught:
        await connect(block_of(mysql_database, password="wrong"), again=True)
    assert block_of(mysql_database).describe() in caught.value.__notes__


# -- the session ----------------------------------------------------------------------------------------------------


async def test_defaults_of_the_server_change_nothing(mysql_database: MySQLServer) -> None:
    """Whatever the server's defaults: UTC, unpadded text, all rows, no writes, and patience with a slow reader."""
    hostile = {
        "sql_mode": "'PAD_CHAR_TO_FULL_LENGTH,PIPES_AS_CONCAT'",
        "time_zone": "'+05:00'",
        "sql_select_limit": "1",
    }
    await mysql_database.execute("CREATE TABLE t (c char(9))", "INSERT INTO t VALUES ('a'), ('b')")
    user = await mysql_database.create_user("SELECT, INSERT ON {database}.*")
    await mysql_database.execute(*(f"SET GLOBAL {name} = {value}" for name, value in hostile.items()))
    try:
        async with connected(block_of(user)) as connection:
            assert await fetch(connection, "SELECT c || '!' FROM t") == [("a!",), ("b!",)]
            told = await fetch(connection, "SELECT @@time_zone, @@net_write_timeout, @@wait_timeout, @@autocommit")
            assert told == [("+00:00", 31536000, 31536000, 1)]
            with pytest.raises(aiomysql.MySQLError, match="READ ONLY"):
                await fetch(connection, "INSERT INTO t VALUES ('c')")
    finally:
        await mysql_database.execute(*(f"SET GLOBAL {name} = DEFAULT" for name in hostile))
