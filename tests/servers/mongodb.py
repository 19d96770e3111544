"""A real server of MongoDB's protocol: DocumentDB's engine (an extension of PostgreSQL) behind FerretDB, its gateway.

No registry carries `mongod`: where there is one, `TEST_MONGODB_URL` (`mongodb://user:password@host:port/?…`) names it and
the same tests run on it. The engine is Debian's package, unpacked into the cache folder and run through that folder's own
C library; the gateway is built there with Go. What they lack beside `mongod`: change streams, transactions, snapshots.
"""

import asyncio
import contextlib
import dataclasses
import json
import os
import platform
import secrets
import shutil
import signal
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from motor.motor_asyncio import AsyncIOMotorClient

from tests.servers.certificates import Authority
from tests.servers.debian import unpacked
from tests.servers.support import (
    NOBODY,
    Daemon,
    ServerUnavailableError,
    accepts_connections,
    data_folder,
    free_port,
    is_root,
    locked,
    run,
    say,
    shared_cache_folder,
)

VARIABLE = "TEST_MONGODB_URL"
_INSTEAD = f"set {VARIABLE} to the URL of a MongoDB server of your own"
_PACKAGE = "postgresql-18-documentdb"
_GATEWAY = "github.com/FerretDB/FerretDB/v2/cmd/ferretdb@v2.7.0"
_NOT_NEEDED = (
    "adduser", "dirmngr", "fonts", "gdal", "gnupg", "gpg", "libaom", "libarmadillo", "libavif", "libc-gconv", "libdav1d",
    "libgdal", "libhdf", "libheif", "libjxl", "libllvm", "libmariadb", "libnetcdf", "libperl", "libpoppler", "librav1e",
    "libsfcgal", "libspatialite", "libsvtav1", "libxerces", "locales", "openssl-provider", "passwd", "perl", "proj-data",
    "python3", "systemd",
)  # fmt: skip

_CONFIGURATION = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
shared_preload_libraries = 'pg_cron,pg_documentdb_core,pg_documentdb'
cron.database_name = 'postgres'
dynamic_shared_memory_type = mmap
documentdb.useFileBasedPersistedCursors = on
shared_buffers = 128MB
max_connections = 100
fsync = off
full_page_writes = off
jit = off
"""


class Engine:
    """The programs of the unpacked packages, run through their own loader."""

    def __init__(self) -> None:
        root = unpacked("documentdb", [_PACKAGE, "dash"], without=_NOT_NEEDED, instead=_INSTEAD, shared=True)
        self.programs = next(root.glob("usr/lib/postgresql/*/bin"))
        libraries = next(root.glob(f"usr/lib/{platform.machine()}-linux-gnu"))
        loader = next(libraries.glob("ld-linux*.so*"))
        path = f"{libraries}:{self.programs.parent / 'lib'}"
        self._loader = [str(loader), "--library-path", path, "--argv0"]
        with locked(root.parent / ".lock"):
            self._prepare(root)

    def command(self, name: str) -> list[str]:
        """How a program is started; it finds its files by the path that it is told to be at."""
        program = self.programs / name
        packaged = program.with_suffix(".packaged")
        return [*self._loader, str(program), str(packaged if packaged.exists() else program)]

    def _prepare(self, root: Path) -> None:
        # initdb starts `postgres` by itself, knowing nothing of the loader.
        server = self.programs / "postgres"
        packaged = server.with_suffix(".packaged")
        if not packaged.exists():
            server.rename(packaged)
            server.write_text(f'#!/bin/sh\nexec {" ".join(self.command("postgres"))} "$@"\n')
            server.chmod(0o755)
        # A maintainer script of the package makes this link.
        control = next(root.glob("usr/share/postgresql/*/extension/postgis-3.control")).with_name("postgis.control")
        if not control.exists():
            control.symlink_to("postgis-3.control")


class Instance:
    """One data folder, the engine on it and the gateway before it; the ports stay the same over restarts."""

    def __init__(self, folder: Path, owner: int | None, user: str, password: str) -> None:
        self.port, self.tls_port, self._engine_port = free_port(), free_port(), free_port()
        self._gateway = _gateway()
        self._engine = Engine()
        self._folder, self._owner = folder, owner
        self._user, self._password = user, password
        self._data = folder / "data"
        self._daemons: list[Daemon] = []

    @property
    def version(self) -> str:
        return (
            f"7.0 (DocumentDB on {self._run('postgres', '--version').split()[2]}, FerretDB {_GATEWAY.split('@v')[1]})"
        )

    def create(self) -> Authority:
        """Fill the data folder; the authority that signed the gateway's certificate."""
        secret = self._folder / "password"
        secret.write_text(self._password)
        secret.chmod(0o644)
        options = ["--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--auth=scram-sha-256", f"--pwfile={secret}"]
        self._run("initdb", "-D", self._data, "-U", self._user, *options)
        with (self._data / "postgresql.conf").open("a") as file:
            file.write(f"{_CONFIGURATION}port = {self._engine_port}\n")
        # The engine connects to itself, without a password; it is the gateway that asks clients for theirs.
        (self._data / "pg_hba.conf").write_text("host all all 127.0.0.1/32 trust\n")
        authority = Authority(self._folder)
        authority.issue("server", owner=self._owner)
        authority.issue("client")
        self._start_engine()
        self._run(
            "psql", "-qAt", self._url, "-c", "SET client_min_messages = error; CREATE EXTENSION documentdb CASCADE"
        )
        return authority

    def start(self) -> None:
        if not self._daemons:
            self._start_engine()
        listen = [f"--listen-addr=127.0.0.1:{self.port}", f"--listen-tls=127.0.0.1:{self.tls_port}"]
        tls = [f"--listen-tls-cert-file={self._folder}/server.crt", f"--listen-tls-key-file={self._folder}/server.key"]
        quiet = ["--debug-addr=-", "--telemetry=disable", "--log-level=WARN", f"--state-dir={self._folder}"]
        gateway = self._daemon([str(self._gateway), f"--postgresql-url={self._url}", *listen, *tls, *quiet], "gateway")
        gateway.wait_until(lambda: accepts_connections(self.port) and accepts_connections(self.tls_port), 60)

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes of engine and gateway."""
        return tuple(daemon.pid for daemon in self._daemons)

    @property
    def running(self) -> bool:
        return bool(self._daemons) and all(daemon.running for daemon in self._daemons)

    def stop(self) -> None:
        for daemon in reversed(self._daemons):
            daemon.stop(signal.SIGINT)
        self._daemons = []

    def create_view(self, database: str, name: str, of: str, pipeline: str) -> None:
        """The gateway makes a collection of a view that it is asked for; the engine knows better."""
        told = f'{{"create": "{name}", "viewOn": "{of}", "pipeline": {pipeline}}}'
        self._run(
            "psql", "-qAt", self._url, "-c", f"SELECT documentdb_api.create_collection_view('{database}', '{told}')"
        )

    @property
    def _url(self) -> str:
        return f"postgres://{self._user}:{self._password}@127.0.0.1:{self._engine_port}/postgres"

    def _start_engine(self) -> None:
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        engine = self._daemon([*self._engine.command("postgres"), "-D", str(self._data)], "engine")
        engine.wait_until(self._ready, 60)

    def _ready(self) -> bool:
        """The postmaster writes its state into the eighth line of its lock file; pg_ctl waits for the same."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[7].strip() == "ready"

    def _daemon(self, command: Sequence[str], name: str) -> Daemon:
        log = self._folder / f"{name}.log"
        daemon = Daemon(
            command, log=log, env=self._environment, user=self._owner, folder=self._folder, cwd=self._folder
        )
        self._daemons.append(daemon)
        return daemon

    def _run(self, name: str, *arguments: str | Path) -> str:
        return run([*self._engine.command(name), *arguments], env=self._environment, user=self._owner)

    @property
    def _environment(self) -> Mapping[str, str]:
        return {"PATH": os.environ.get("PATH", ""), "HOME": str(self._folder), "LC_ALL": "C.UTF-8", "TZ": "UTC"}


@dataclasses.dataclass(frozen=True)
class MongoServer:
    """How to reach one database of a server; `instance` is there if the server is ours to stop."""

    host: str
    port: int
    user: str
    password: str
    database: str
    version: str
    options: str = ""
    """Of the URL, such as ``replicaSet=rs0``."""
    ca_file: Path | None = None
    instance: Instance | None = dataclasses.field(default=None, repr=False)

    @property
    def url(self) -> str:
        account = f"{self.user}:{self.password}@" if self.user else ""
        return f"mongodb://{account}{self.host}:{self.port}/" + (f"?{self.options}" if self.options else "")

    @property
    def is_mongod(self) -> bool:
        return self.instance is None

    def through(self, port: int) -> "MongoServer":
        """The same database behind a proxy on this machine."""
        return dataclasses.replace(self, host="127.0.0.1", port=port)

    @property
    def tls_port(self) -> int:
        return self._own().tls_port

    @property
    def authority(self) -> str:
        """The file of who signed the server's certificate."""
        self._own()
        return str(self.ca_file)

    @property
    def running(self) -> bool:
        return self.instance is None or self.instance.running

    def restart(self) -> None:
        self._own().stop()
        self._own().start()

    async def create_database(self) -> "MongoServer":
        """A new database on this server; it is there with its first collection."""
        return dataclasses.replace(self, database=f"test_{secrets.token_hex(6)}")

    async def create_view(self, name: str, of: str, pipeline: str) -> None:
        """A view of a collection, its stages in JSON."""
        if self.instance is not None:
            await asyncio.to_thread(self.instance.create_view, self.database, name, of, pipeline)
            return
        async with database_of(self) as database:
            await database.command("create", name, viewOn=of, pipeline=json.loads(pipeline))

    async def create_user(self, role: str) -> "MongoServer":
        """This database as a new account with one role sees it."""
        name, password = f"u_{secrets.token_hex(6)}", secrets.token_hex(8)
        async with connected(self) as client:
            roles = [{"role": role, "db": "admin"}]
            await client.admin.command({"createUser": name, "pwd": password, "roles": roles})
        return dataclasses.replace(self, user=name, password=password)

    async def drop(self) -> None:
        """Drop this database."""
        async with connected(self) as client:
            await client.drop_database(self.database)

    def _own(self) -> Instance:
        if self.instance is None:
            raise ServerUnavailableError(f"the server of {VARIABLE} is not ours: unset it for this test")
        return self.instance


@contextlib.asynccontextmanager
async def connected(server: MongoServer) -> AsyncIterator[Any]:
    """A client, closed at the end."""
    client: Any = AsyncIOMotorClient(server.url, serverSelectionTimeoutMS=10_000, tz_aware=True)
    try:
        yield client
    finally:
        client.close()


@contextlib.asynccontextmanager
async def database_of(server: MongoServer) -> AsyncIterator[Any]:
    """The server's database, over a client of its own."""
    async with connected(server) as client:
        yield client[server.database]


@contextlib.contextmanager
def started() -> Iterator[MongoServer]:
    """A server that is stopped and removed at the end, or the one of `TEST_MONGODB_URL`, which is left as it is."""
    if url := os.environ.get(VARIABLE):
        yield _given(url)
        return
    owner = NOBODY if is_root() else None
    with data_folder("mongodb", owner=owner) as folder:
        instance = Instance(folder, owner, "tester", "secret")
        try:
            authority = instance.create()
            instance.start()
            yield MongoServer(
                host="127.0.0.1",
                port=instance.port,
                user="tester",
                password="secret",
                database="test",
                version=instance.version,
                ca_file=authority.ca_file,
                instance=instance,
            )
        finally:
            instance.stop()


def _given(url: str) -> MongoServer:
    parts = urlsplit(url)
    return MongoServer(
        host=parts.hostname or "localhost",
        port=parts.port or 27017,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        database="test",
        version=f"of {VARIABLE}",
        options=parts.query,
    )


def _gateway() -> Path:
    """The gateway's program, built at the first call."""
    folder = shared_cache_folder("ferretdb")
    program = folder / _GATEWAY.rpartition("@")[2] / "ferretdb"
    with locked(folder / ".lock"):
        if not program.exists():
            _build(program)
    return program


def _build(program: Path) -> None:
    go = shutil.which("go")
    if go is None:
        raise ServerUnavailableError(f"FerretDB is built with Go: install Go 1.25 or newer, or {_INSTEAD}")
    say(f"\nbuilding FerretDB, once, into {program.parent}: go install {_GATEWAY} (some minutes)")
    try:
        run([go, "install", _GATEWAY], env={**os.environ, "GOBIN": str(program.parent)})
    except RuntimeError as error:
        raise ServerUnavailableError(f"FerretDB cannot be built; {_INSTEAD}: {error}") from error
