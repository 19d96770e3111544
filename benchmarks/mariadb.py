"""A private MariaDB server for one benchmark: in a folder of its own, reached over TCP without TLS, gone afterwards.

Its programs are those the tests unpack from Debian's packages; as root or not.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql

from benchmarks.peers.environments import UnavailableError
from tests.servers.mysql import Instance

SETTINGS = (
    "--skip-log-bin",
    "--skip-ssl",  # no contender pays for TLS that another does without
    "--innodb-buffer-pool-size=2G",  # holds the whole table
    "--innodb-log-file-size=1G",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-doublewrite=0",
    "--innodb-stats-auto-recalc=0",  # its work would be counted as a contender's
    "--innodb-buffer-pool-dump-at-shutdown=0",
)
"""Made for loading quickly and reading undisturbed; whatever concerns reading is left as MariaDB ships it."""


@dataclass(frozen=True)
class Server:
    """A running server, and the account that may do everything on it."""

    instance: Instance
    password: str
    user: str = "bench"
    database: str = "bench"
    host: str = "127.0.0.1"

    @property
    def port(self) -> int:
        return self.instance.port

    @property
    def url(self) -> str:
        return f"mysql://{self.user}:{self.password}@{self.host}:{self.port}/{self.database}"

    @property
    def environment(self) -> dict[str, str]:
        """What `headrace_run` and the client program are told about it."""
        return {
            "MYSQL_HOST": self.host,
            "MYSQL_TCP_PORT": str(self.port),
            "MYSQL_USER": self.user,
            "MYSQL_PWD": self.password,
            "MYSQL_DATABASE": self.database,
        }

    def client(self) -> list[str]:
        """The command of MariaDB's own client, logged in; `UnavailableError` where it is not installed."""
        found = shutil.which("mariadb") or self.instance.program("usr/bin/mariadb")
        if not found:
            raise UnavailableError("apt-get install mariadb-client")
        program = [found] if isinstance(found, str) else found
        place = [f"--host={self.host}", f"--port={self.port}", f"--user={self.user}", self.database]
        return [*program, "--no-defaults", "--protocol=tcp", "--skip-ssl", "--default-character-set=utf8mb4", *place]

    def ask(self, *statements: str) -> Any:
        """The first value that the last of `statements` answers, all of one connection; None without a row."""
        row = self.row(*statements)
        return row[0] if row else None

    def row(self, *statements: str) -> tuple[Any, ...] | None:
        """The first row that the last of `statements` answers, all of one connection."""
        return next(iter(self.rows(*statements)), None)

    def rows(self, *statements: str) -> tuple[tuple[Any, ...], ...]:
        """The rows that the last of `statements` answers, all of one connection."""
        place = {"host": self.host, "port": self.port, "database": self.database}
        account = {"user": self.user, "password": self.password, "charset": "utf8mb4", "autocommit": True}
        with closing(pymysql.connect(**place, **account)) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return tuple(cursor.fetchall())


@contextmanager
def running(folder: Path) -> Iterator[Server]:
    """A server with its data in `folder`, ended at the end; the folder is the caller's to delete."""
    home = folder / "mariadb"
    home.mkdir(mode=0o700)
    server = Server(Instance("MariaDB", home, *SETTINGS), secrets.token_hex(8))
    server.instance.create(server.user, server.password)
    try:
        server.instance.start()
        Server(server.instance, server.password, database="mysql").ask(f"CREATE DATABASE {server.database}")
        yield server
    finally:
        server.instance.kill()
