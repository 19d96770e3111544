"""Real MySQL and MariaDB servers, from Debian's packages, as root or not: row binlog, GTIDs, TLS, and no fsync.

Each is taken from its variable (`TEST_MYSQL_URL`, `TEST_MARIADB_URL`: a server that runs already, as
`mysql://user:password@host:port/database?ssl-ca=ca.pem`), or unpacked into the cache folder and run from there.
"""

import contextlib
import dataclasses
import os
import re
import secrets
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import aiomysql

from tests.servers.certificates import Authority
from tests.servers.debian import unpacked
from tests.servers.support import Daemon, ServerUnavailableError, data_folder, free_port, is_root, run

Flavour = Literal["MySQL", "MariaDB"]

VARIABLES: dict[Flavour, str] = {"MySQL": "TEST_MYSQL_URL", "MariaDB": "TEST_MARIADB_URL"}

_NOT_NEEDED = ("perl", "libperl", "libdb5", "libgdbm", "libc-gconv", "openssl-provider", "systemd", "adduser", "passwd")

_COMMON = (
    "--bind-address=127.0.0.1",
    "--server-id=1",
    "--log-bin=binlog",
    "--binlog-row-image=FULL",
    "--binlog-row-metadata=FULL",
    "--innodb-buffer-pool-size=128M",
    "--innodb-flush-log-at-trx-commit=2",  # a server that is killed loses nothing, a machine would
    "--sync-binlog=0",
)
_OF_FLAVOUR: dict[Flavour, tuple[str, ...]] = {
    "MySQL": ("--gtid-mode=ON", "--enforce-gtid-consistency=ON", "--mysqlx=OFF"),
    "MariaDB": ("--binlog-format=ROW", "--gtid-strict-mode=1"),
}
_PACKAGES: dict[Flavour, str] = {"MySQL": "mysql-server-core", "MariaDB": "mariadb-server-core"}
_PROGRAMS: dict[Flavour, str] = {"MySQL": "mysqld", "MariaDB": "mariadbd"}
_SYSTEM_TABLES = (  # what mariadb-install-db feeds to the server, in this order
    "mariadb_system_tables.sql",
    "mariadb_performance_tables.sql",
    "mariadb_system_tables_data.sql",
    "fill_help_tables.sql",
    "maria_add_gis_sp_bootstrap.sql",
    "mariadb_sys_schema.sql",
)


class Instance:
    """One data folder and the server on it; `port` stays the same over restarts.

    `options` are further ones of the server's, which come after those of all servers here; `zone` is its operating system's.
    """

    def __init__(self, flavour: Flavour, folder: Path, *options: str, zone: str = "") -> None:
        instead = f"set {VARIABLES[flavour]} to the mysql:// URL of a server of your own"
        root = unpacked(flavour.lower(), [_PACKAGES[flavour]], without=_NOT_NEEDED, instead=instead)
        self.flavour = flavour
        self.port = free_port()
        self.socket = folder / "socket"
        self._folder = folder
        self._data = folder / "data"
        self._share = root / "usr/share" / flavour.lower()
        self._root = root
        self._options = options
        self._environment = {"TZ": zone} if zone else {}
        self._daemon: Daemon | None = None

    @property
    def version(self) -> str:
        found = re.search(r"Ver ([\d.]+)", run(self._command("--version")))
        return found[1] if found else "of an unknown version"

    def create(self, user: str, password: str) -> Authority:
        """Fill the data folder, with one all-powerful account; the authority that signed the server's certificate."""
        self._data.mkdir()
        script = self._folder / "create.sql"
        script.write_text("".join(f"{statement};\n" for statement in self._statements(f"'{user}'@'%'", password)))
        if self.flavour == "MySQL":
            run(self._command(*self._places(), "--initialize-insecure", f"--init-file={script}"))
        else:
            run(self._command(*self._places(), "--bootstrap", "--skip-networking"), stdin=script)
        authority = Authority(self._folder)
        authority.issue("server")
        authority.issue("client")
        return authority

    def _statements(self, account: str, password: str) -> list[str]:
        create = f"CREATE USER {account} IDENTIFIED BY '{password}'"
        grant = f"GRANT ALL PRIVILEGES ON *.* TO {account} WITH GRANT OPTION"
        if self.flavour == "MySQL":
            return [create, grant]
        # mariadb-install-db, a shell script with paths of its own, does no more than this.
        tables = "\n".join((self._share / name).read_text() for name in _SYSTEM_TABLES)
        begin = ["CREATE DATABASE mysql", "USE mysql", "SET @auth_root_socket=NULL"]
        return [*begin, f"{tables}\nFLUSH PRIVILEGES", create, grant]

    def start(self) -> None:
        # After a SIGKILL the lock names a process that is gone, or by now another one.
        for stale in (self.socket, self.socket.with_name("socket.lock")):
            stale.unlink(missing_ok=True)
        tls = [f"--ssl-{kind}={self._folder / file}" for kind, file in _TLS_FILES.items()]
        options = [*_COMMON, *_OF_FLAVOUR[self.flavour], *tls, *self._options]
        self._daemon = Daemon(
            self._command(*self._places(), f"--port={self.port}", f"--socket={self.socket}", *options),
            log=self._folder / "log",
            env={
                "PATH": os.environ.get("PATH", ""),
                "HOME": str(self._folder),
                "LC_ALL": "C.UTF-8",
                **self._environment,
            },
            folder=self._folder,
        )
        self._daemon.wait_until(self._greets, 60)

    @property
    def running(self) -> bool:
        return self._daemon is not None and self._daemon.running

    @property
    def pid(self) -> int:
        """The process of the server that was started last."""
        assert self._daemon is not None, "never started"
        return self._daemon.pid

    def program(self, path: str) -> list[str] | None:
        """The command of a packaged program, run with the C library it was packaged with; None where there is none."""
        program = self._root / path
        if not program.exists():
            return None
        libraries = next(self._root.glob("usr/lib/*-linux-gnu"))
        loader = next(libraries.glob("ld-linux*.so*"))
        return [str(loader), "--library-path", str(libraries), str(program)]

    def stop(self) -> None:
        """Orderly: sessions are ended, the data folder is left clean."""
        if self._daemon:
            self._daemon.stop(signal.SIGTERM, 30)

    def kill(self) -> None:
        """SIGKILL, at this very moment: the next start recovers from the redo log."""
        if self._daemon:
            self._daemon.kill()

    def _command(self, *arguments: str) -> list[str]:
        program = self.program(f"usr/sbin/{_PROGRAMS[self.flavour]}")
        assert program, f"the package {_PACKAGES[self.flavour]} has no {_PROGRAMS[self.flavour]}"
        as_root = ["--user=root"] if is_root() else []
        return [*program, "--no-defaults", *as_root, *arguments]

    def _places(self) -> list[str]:
        return [
            f"--basedir={self._root / 'usr'}",
            f"--datadir={self._data}",
            f"--tmpdir={self._folder}",
            f"--secure-file-priv={self._folder}",
            f"--pid-file={self._folder / 'pid'}",
            f"--lc-messages-dir={self._share}",
            f"--character-sets-dir={self._share / 'charsets'}",
            f"--plugin-dir={self._root / 'usr/lib/mysql/plugin'}",
        ]

    def _greets(self) -> bool:
        """Whether a client that connects is sent the first packet of the protocol."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                return len(connection.recv(5)) == 5
        except OSError:
            return False


class _Cursor(aiomysql.Cursor):  # type: ignore[misc]
    """aiomysql makes Python warnings of the server's notes (`IF EXISTS`, deprecations), and pytest makes those errors."""

    async def _show_warnings(self, conn: object) -> None:
        pass


_TLS_FILES = {"ca": "ca.crt", "cert": "server.crt", "key": "server.key"}


@dataclasses.dataclass(frozen=True)
class MySQLServer:
    """How to reach one database of a server; `instance` is there if the server is ours to stop."""

    flavour: Flavour
    host: str
    port: int
    user: str
    password: str
    database: str
    version: str
    ca_file: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None
    instance: Instance | None = dataclasses.field(default=None, repr=False)

    @property
    def is_mariadb(self) -> bool:
        return self.flavour == "MariaDB"

    @property
    def deep_recursion(self) -> str:
        """The statement after which a recursive query may count to a million."""
        return f"SET @@{'max_recursive_iterations' if self.is_mariadb else 'cte_max_recursion_depth'} = 1000000"

    def arguments(self, *, tls: bool = False) -> dict[str, Any]:
        """For `aiomysql.connect`, in autocommit; with `tls` the certificate and the host name are verified."""
        context = ssl.create_default_context(cafile=self.authority) if tls else None
        place = {"host": self.host, "port": self.port, "db": self.database}
        account = {"user": self.user, "password": self.password}
        how = {"charset": "utf8mb4", "autocommit": True, "connect_timeout": 10, "cursorclass": _Cursor}
        return {**place, **account, "ssl": context, **how}

    @property
    def authority(self) -> str:
        """The file of who signed the server's certificate."""
        if self.ca_file is None:
            raise ServerUnavailableError(f"add ssl-ca=<file> to {VARIABLES[self.flavour]} for the tests of TLS")
        return str(self.ca_file)

    @property
    def certificate(self) -> tuple[str, str]:
        """The files of a certificate, and of its key, that the server takes for a client's."""
        if self.client_certificate is None or self.client_key is None:
            raise ServerUnavailableError(f"add ssl-cert=<file>&ssl-key=<file> to {VARIABLES[self.flavour]}")
        return str(self.client_certificate), str(self.client_key)

    @property
    def socket(self) -> str:
        """The path of its Unix socket."""
        return str(self._own().socket)

    def through(self, port: int) -> "MySQLServer":
        """The same database behind a proxy on this machine."""
        return dataclasses.replace(self, host="127.0.0.1", port=port)

    @property
    def running(self) -> bool:
        return self.instance is None or self.instance.running

    def stop(self) -> None:
        self._own().stop()

    def kill(self) -> None:
        """SIGKILL the server; `restart` brings it back with everything that was committed."""
        self._own().kill()

    def restart(self) -> None:
        self._own().stop()
        self._own().start()

    async def execute(self, *statements: str) -> None:
        """Run statements, each committed by itself, over one connection."""
        async with connected(self) as connection, connection.cursor() as cursor:
            for statement in statements:
                await cursor.execute(statement)

    async def fetch(self, query: str) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        async with connected(self) as connection, connection.cursor() as cursor:
            await cursor.execute(query)
            return list(await cursor.fetchall())

    async def fetch_value(self, query: str) -> Any:
        """The first column of the first row."""
        return (await self.fetch(query))[0][0]

    async def create_database(self) -> "MySQLServer":
        """A new, empty database on this server."""
        name = f"test_{secrets.token_hex(6)}"
        await self.execute(f"CREATE DATABASE {name}")
        return dataclasses.replace(self, database=name)

    async def create_user(self, *grants: str, password: str = "", require: str = "NONE") -> "MySQLServer":
        """This database as a new account sees it, which is dropped with the database and may do nothing else.

        A grant is `SELECT ON *.*`, `{database}` in it is this one; `require` is such as `SSL` or `X509`.
        """
        name, password = f"{self.database}_{secrets.token_hex(3)}", password or secrets.token_hex(8)
        await self.execute(
            f"CREATE USER '{name}'@'%' IDENTIFIED BY '{password}' REQUIRE {require}",
            *(f"GRANT {grant.format(database=self.database)} TO '{name}'@'%'" for grant in grants),
        )
        return dataclasses.replace(self, user=name, password=password)

    async def drop(self) -> None:
        """Drop this database and its accounts, and end the sessions that would hold it."""
        for session, user, _, database, *_ in await self.fetch("SHOW PROCESSLIST"):
            if user.startswith(self.database) or database == self.database:
                with contextlib.suppress(aiomysql.MySQLError):  # it has ended by itself, or is the one that asked
                    await self.execute(f"KILL {session}")
        accounts = await self.fetch(f"SELECT user FROM mysql.user WHERE user LIKE '{self.database}%'")
        await self.execute(*(f"DROP USER '{name}'@'%'" for (name,) in accounts), f"DROP DATABASE {self.database}")

    def _own(self) -> Instance:
        if self.instance is None:
            variable = VARIABLES[self.flavour]
            raise ServerUnavailableError(f"the server of {variable} is not ours: unset it for this test")
        return self.instance


@contextlib.asynccontextmanager
async def connected(server: MySQLServer) -> AsyncIterator[Any]:
    """A connection (aiomysql's) to the server's database, closed at the end."""
    async with aiomysql.connect(**server.arguments()) as connection:
        yield connection


@contextlib.contextmanager
def started(flavour: Flavour) -> Iterator[MySQLServer]:
    """A server that is stopped and removed at the end, or the one of the variable, which is left as it is."""
    if url := os.environ.get(VARIABLES[flavour]):
        yield _given(flavour, url)
        return
    with _started(flavour) as server:
        yield server


@contextlib.contextmanager
def _started(flavour: Flavour, *options: str, zone: str = "") -> Iterator[MySQLServer]:
    with data_folder(flavour.lower()) as folder:
        instance = Instance(flavour, folder, *options, zone=zone)
        authority = instance.create("tester", "secret")
        try:
            instance.start()
            yield MySQLServer(
                flavour=flavour,
                host="127.0.0.1",
                port=instance.port,
                user="tester",
                password="secret",
                database="mysql",
                version=instance.version,
                ca_file=authority.ca_file,
                client_certificate=folder / "client.crt",
                client_key=folder / "client.key",
                instance=instance,
            )
        finally:
            instance.kill()  # its data goes with it, so nothing is asked


@contextlib.contextmanager
def elsewhere(server: MySQLServer, zone: str) -> Iterator[MySQLServer]:
    """A server of the same kind on a machine whose time zone is `zone` (as in `TZ`); removed at the end."""
    with _started(server.flavour, zone=zone) as other:
        yield other


@contextlib.asynccontextmanager
async def replica_of(server: MySQLServer) -> AsyncIterator[MySQLServer]:
    """A server of the same kind that applies what is written to this one from now on; removed at the end."""
    word = "MASTER" if server.is_mariadb else "SOURCE"
    ((file, position, *_),) = await server.fetch(f"SHOW {'MASTER' if server.is_mariadb else 'BINARY LOG'} STATUS")
    place = {"HOST": f"'{server.host}'", "PORT": server.port, "LOG_FILE": f"'{file}'", "LOG_POS": position}
    account = {"USER": f"'{server.user}'", "PASSWORD": f"'{server.password}'"}
    how = {"SSL": 1, "SSL_CA": f"'{server.authority}'", "CONNECT_RETRY": 1}
    asked = ", ".join(f"{word}_{name} = {value}" for name, value in {**place, **account, **how}.items())
    with _started(server.flavour, "--server-id=2") as replica:
        if server.is_mariadb:
            await replica.execute(f"CHANGE MASTER TO {asked}, MASTER_USE_GTID = no", "START REPLICA")
        else:
            await replica.execute(f"CHANGE REPLICATION SOURCE TO {asked}", "START REPLICA")
        yield replica


def _given(flavour: Flavour, url: str) -> MySQLServer:
    parts = urlsplit(url)
    files = {name: Path(values[0]) for name, values in parse_qs(parts.query).items()}
    return MySQLServer(
        flavour=flavour,
        host=parts.hostname or "localhost",
        port=parts.port or 3306,
        user=unquote(parts.username or "root"),
        password=unquote(parts.password or ""),
        database=unquote(parts.path[1:]) or "mysql",
        version=f"of {VARIABLES[flavour]}",
        ca_file=files.get("ssl-ca"),
        client_certificate=files.get("ssl-cert"),
        client_key=files.get("ssl-key"),
    )
