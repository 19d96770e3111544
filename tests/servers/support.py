"""What all servers share: where things are kept, a free port, and processes that end even if the tests are killed."""

import contextlib
import fcntl
import functools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

NOBODY = 65534  # the user and group that servers which refuse to run as root are given

# Waits for the end of its stdin, which the kernel closes when the test process ends, however it ends. No `--` for
# kill: dash, which is Debian's sh, takes it for a process. PostgreSQL's backends are in groups of their own and
# write until they notice that the postmaster is gone, so the folder may have to be removed more than once.
_GUARD = """
cat >/dev/null
kill -KILL "-$1" 2>/dev/null
[ -n "$2" ] || exit
for try in 1 2 3 4 5 6 7 8; do rm -rf -- "$2" 2>/dev/null; sleep 0.5; [ -e "$2" ] || exit; done
"""


class ServerUnavailableError(Exception):
    """A server can't be had on this machine; the message says why, and the command that would get it."""


def unavailable(error: ServerUnavailableError) -> NoReturn:
    """Skip the test, or fail it where everything must be there: in CI."""
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(str(error), pytrace=False)
    pytest.skip(str(error))


def is_root() -> bool:
    return os.geteuid() == 0


def cache_folder(name: str) -> Path:
    """A folder that outlives the run, for what was downloaded: `~/.cache/headrace-tests/<name>`."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "headrace-tests" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def shared_cache_folder(name: str) -> Path:
    """A folder that outlives the run and that `NOBODY` may enter, as `/root` is not: for servers that refuse to be root."""
    if not is_root():
        return cache_folder(name)
    folder = Path("/var/cache/headrace-tests") / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an advisory lock between processes, so that two test runs do not download into one folder at once."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def data_folder(name: str, *, owner: int | None = None) -> Iterator[Path]:
    """A private folder under the temporary one, gone at the end; `owner` may enter and write it."""
    folder = Path(tempfile.mkdtemp(prefix=f"headrace-{name}-"))
    try:
        if owner is not None:
            os.chown(folder, owner, owner)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """A port nobody listens on, outside the range the kernel hands to clients: it stays free over a restart, and no other
    process of the tests is given it while this one lives: a server takes seconds until it listens."""
    for port in random.sample(range(15000, 32000), 200):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if _reserved(port):
            return port
    raise RuntimeError("no free TCP port between 15000 and 32000")


_ports: set[int] = set()
"""Those that this process was given."""


@functools.cache
def _ports_file() -> int:
    """One for all processes of this user, open until this one ends: closing it would give up its locks."""
    return os.open(Path(tempfile.gettempdir(), f"headrace-ports-{os.geteuid()}"), os.O_RDWR | os.O_CREAT, 0o600)


def _reserved(port: int) -> bool:
    """Take the port, by a lock on the byte of its number; False if somebody has it."""
    try:
        fcntl.lockf(_ports_file(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    is_new = port not in _ports  # what this process has locked it may lock again
    _ports.add(port)
    return is_new


def accepts_connections(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Return when the condition holds; TimeoutError if it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(0.05)


class Daemon:
    """One server process in a session of its own: Ctrl-C does not reach it, `stop` does, and so does our death.

    A small shell guards it: when the test process is gone, even by SIGKILL, the guard kills the server's process
    group and removes `folder`.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        user: int | None = None,
        folder: Path | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.log = log
        self._gone = False
        self.name = Path(command[0]).name
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
                start_new_session=True,
                user=user,
                group=user,
                extra_groups=[] if user is not None else None,
            )
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "guard", str(self.process.pid), str(folder or "")],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Return when `ready` says so; raise with the end of the log if the process ends or time runs out."""
        deadline = time.monotonic() + seconds
        while not ready():
            if not self.running or time.monotonic() > deadline:
                state = "runs but is not ready" if self.running else f"ended with {self.process.returncode}"
                raise RuntimeError(f"{self.name} {state}; its log ends with:\n{self.tail()}")
            time.sleep(0.05)

    def tail(self, lines: int = 30) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self, ask: signal.Signals = signal.SIGTERM, seconds: float = 10) -> None:
        """Ask with a signal, insist with SIGKILL, and end what is left of the process group."""
        if self.running:
            self.process.send_signal(ask)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)
        self.kill()

    def kill(self) -> None:
        """SIGKILL the whole process group and wait until the process is gone."""
        if self._gone:  # and its number may be another's by now
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()
        self._guard.kill()
        self._guard.communicate()
        self._gone = True


def run(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    user: int | None = None,
    stdin: str | Path = os.devnull,
) -> str:
    """Run a program to its end, and return what it printed; a failure carries its output."""
    with Path(stdin).open("rb") as given:
        done = subprocess.run(
            [str(word) for word in command],
            env=env,
            stdin=given,
            capture_output=True,
            text=True,
            check=False,
            user=user,
            group=user,
            extra_groups=[] if user is not None else None,
        )
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout


def say(line: str) -> None:
    """Tell a person who waits (a download takes a while), past pytest's capturing."""
    print(line, file=sys.__stderr__, flush=True)
