"""A real Prefect server, as a subprocess with a database and settings of its own."""

import contextlib
import dataclasses
import os
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import certifi

from tests.servers import postgres
from tests.servers.support import Daemon, ServerUnavailableError, data_folder, free_port

# Nothing of these tests is told to anybody, and no profile of the person who runs them is read.
QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_CLI_COLORS": "false",
}


@dataclasses.dataclass
class PrefectServer:
    """A server on `port`, which stays the same over restarts, as does what it stored in `home`."""

    port: int
    home: Path
    keeps_home: bool = False  # when the tests are killed
    database: str = dataclasses.field(default="", repr=False)
    """The URL of a database; empty: a file of SQLite's in `home`."""
    daemon: Daemon | None = dataclasses.field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.home.mkdir(mode=0o700, exist_ok=True)
        first, end, _ = certifi.contents().partition("-----END CERTIFICATE-----\n")
        self._authority.write_text(first + end)

    @property
    def _authority(self) -> Path:
        """One certificate in place of 150, which each of the many clients of one run would read: half of its CPU time."""
        return self.home / "authority.pem"

    @property
    def url(self) -> str:
        """What PREFECT_API_URL is set to."""
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def environment(self) -> dict[str, str]:
        """What a client, a flow run or the `prefect` command needs to use this server and nothing else."""
        ours = {"PREFECT_API_SSL_CERT_FILE": str(self._authority), "PREFECT_HOME": str(self.home)}
        return {**QUIET, **ours, "PREFECT_API_URL": self.url}

    def through(self, port: int) -> Mapping[str, str]:
        """The environment of a client that reaches this server by a proxy on this machine."""
        return {**self.environment, "PREFECT_API_URL": f"http://127.0.0.1:{port}/api"}

    def start(self) -> None:
        settings = {
            "PREFECT_SERVER_UI_ENABLED": "false",
            "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": self.database or f"sqlite+aiosqlite:///{self.home}/server.db",
        }
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
        self.daemon = Daemon(
            [sys.executable, "-m", "prefect", "server", "start", "--host=127.0.0.1", f"--port={self.port}"],
            log=self.home / "server.log",
            env={**inherited, **self.environment, **settings},
            folder=None if self.keeps_home else self.home,
            cwd=self.home,
        )
        self.daemon.wait_until(self._healthy, 120)

    @property
    def running(self) -> bool:
        return self.daemon is not None and self.daemon.running

    def stop(self) -> None:
        if self.daemon:
            self.daemon.stop()

    def kill(self) -> None:
        if self.daemon:
            self.daemon.kill()

    def restart(self) -> None:
        self.stop()
        self.start()

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@contextlib.contextmanager
def database() -> Iterator[str]:
    """The URL of a database of PostgreSQL for one server, on a server of its own; empty where there is none.

    On SQLite a write that meets another is refused, and its client waits for a second or two before it asks again
    (docs/operations.md): that was most of the time of the tests.
    """
    with contextlib.ExitStack() as stack:
        url = ""
        if not os.environ.get("TEST_POSTGRES_URL"):
            with contextlib.suppress(ServerUnavailableError):
                server = stack.enter_context(postgres.started())
                url = f"postgresql+asyncpg://{server.user}:{server.password}@{server.host}:{server.port}/{server.database}"
        yield url


@contextlib.contextmanager
def started(port: int | None = None, home: Path | None = None) -> Iterator[PrefectServer]:
    """A server that is stopped at the end; its home too is removed if it was not given."""
    with contextlib.ExitStack() as stack:
        folder = home or stack.enter_context(data_folder("prefect"))
        server = PrefectServer(port or free_port(), folder, keeps_home=home is not None)
        stack.callback(server.stop)
        server.start()
        yield server
