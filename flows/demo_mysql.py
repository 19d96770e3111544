"""The demo's MySQL or MariaDB server: an installed program, with a data folder of the demo's own. None is no failure."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from flows.demo_servers import Database, DemoError, Servers

_PROGRAMS = ("mariadbd", "mysqld")
_FOLDERS = ("/usr/sbin", "/usr/libexec")
"""Where distributions put them, which is not in every user's PATH."""

_NONE = (
    "No MariaDB or MySQL is installed here; with one (sudo apt-get install mariadb-server, or brew install mariadb) "
    "the demo reads it too."
)

_SETTINGS = {
    "bind-address": "127.0.0.1",
    "socket": "",  # none
    "skip-name-resolve": "ON",
    "character-set-server": "utf8mb4",
    "default-time-zone": "+00:00",
    "innodb-flush-log-at-trx-commit": "0",  # the data lives for a minute
    "innodb-doublewrite": "OFF",
}
_OF_MYSQL = {"mysqlx": "OFF", "disable-log-bin": "ON"}


class MySQL(Database):
    """A server the demo can do without: whatever keeps it from running is told, and nothing more comes of it."""

    def __init__(self, servers: Servers) -> None:
        super().__init__(servers, "mysql")
        self._script = self._folder / "accounts.sql"
        self.flavour = ""
        self.left_out = ""
        """Why there is none to read."""

    def begin(self) -> None:
        """Make the data folder and start the server, where one is installed; returns when it takes connections."""
        program = find_server()
        if program is None:
            self.left_out = _NONE
            return
        self.flavour = program.name  # until it says more
        with self._optional():
            self._create(program)
            settings = _SETTINGS | (_OF_MYSQL if self.flavour == "MySQL" else {})
            options = [f"--{name}={value}" for name, value in settings.items()]
            places = [f"--pid-file={self._folder / 'pid'}", f"--tmpdir={self._folder}", f"--init-file={self._script}"]
            command: list[str | Path] = [program, "--no-defaults", self._data, *places, f"--port={self.port}", *options]
            self._servers.start("mysql", command, self._environment(), self._user)
            self._servers.wait_until(self._greets, self.flavour)
            self._script.unlink()

    def described(self) -> dict[str, str]:
        """The variables that tell the story how to reach it, or why it is left out."""
        if self.left_out:
            return {"DEMO_MYSQL_LEFT_OUT": self.left_out}
        return {
            "DEMO_MYSQL_PORT": str(self.port),
            "DEMO_MYSQL_PASSWORD": self.password,
            "DEMO_MYSQL_FLAVOUR": self.flavour,
            "DEMO_MYSQL_VERSION": self.version,
        }

    @property
    def _data(self) -> str:
        return f"--datadir={self._folder / 'data'}"

    def _create(self, program: Path) -> None:
        """Make the data folder, in which nobody can log in, and the script that adds the demo's account to it."""
        said = self._run(program, "--no-defaults", "--version")
        found = re.search(r"Ver ([\d.]+)", said)
        self.version = found[1] if found else "of an unknown version"
        self.flavour = "MariaDB" if "MariaDB" in said else "MySQL"
        self._make_folder()
        if self.flavour == "MySQL":
            self._run(program, "--no-defaults", self._data, "--initialize")  # root gets a password only the log knows
        else:
            # Root may log in by the socket alone, which the server does not have.
            self._run(_install_db(program), "--no-defaults", self._data, "--skip-test-db", "--skip-name-resolve")
        self._script.touch(mode=0o600)
        self._script.write_text(
            "CREATE DATABASE shop CHARACTER SET utf8mb4;\n"
            f"CREATE USER 'demo'@'127.0.0.1' IDENTIFIED BY '{self.password}';\n"
            "GRANT ALL PRIVILEGES ON *.* TO 'demo'@'127.0.0.1';\n"
        )
        if self._user is not None:
            os.chown(self._script, self._user, self._user)

    def _greets(self) -> bool:
        """Whether a client that connects is sent the first packet of the protocol: the script has run then."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                return len(connection.recv(5)) == 5
        except OSError:
            return False

    @contextlib.contextmanager
    def _optional(self) -> Iterator[None]:
        """Leave the server out when it cannot be had, with its own reason in one line."""
        try:
            yield
        except (OSError, DemoError) as error:
            self._servers.give_up("mysql")
            self.left_out = f"{self.flavour} is installed but does not run here: {_reason(str(error))}"


def find_server() -> Path | None:
    """The installed server, MariaDB before MySQL; None without one."""
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), *_FOLDERS])
    found = (shutil.which(name, path=places) for name in _PROGRAMS)
    return next((Path(program) for program in found if program), None)


def _install_db(program: Path) -> Path:
    places = os.pathsep.join([str(program.parent), os.environ.get("PATH", os.defpath), "/usr/bin"])
    found = (shutil.which(name, path=places) for name in ("mariadb-install-db", "mysql_install_db"))
    script = next((script for script in found if script), None)
    if script is None:
        raise DemoError("mariadb-install-db is missing")
    return Path(script)


def _reason(message: str) -> str:
    """The line of an error that says most: the server's first own one, or else the last."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return next((line for line in lines if "[ERROR]" in line), lines[-1]).rstrip(":")
