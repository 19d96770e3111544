"""Runs one program and measures it with everything it starts: wall clock, CPU and memory, from wait4 and /proc.

A program is started in a session of its own, so what it starts is found again after its parent is gone.
Two sources are joined because each misses something: `wait4` has exact CPU, but only of children that were waited for,
and its memory figure begins at the size of the process that forked; `/proc` sees every process, 25 times a second.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
MIB = 1 << 20


@dataclass(frozen=True)
class Usage:
    """What one run of a program took. Memory in bytes, times in seconds."""

    code: int
    wall: float
    cpu: float
    """User and system time of the program and of all it started."""
    peak: int
    """High-water mark of the resident memory of the largest process."""
    peak_together: int
    """Highest sum over all its processes at one moment; pages they share count more than once."""
    stdout: str
    stderr: str
    killed: str = ""
    """Why the watch ended the program, if it did."""


@dataclass(frozen=True)
class Stat:
    """The fields of /proc/<pid>/stat that matter here."""

    parent: int
    session: int
    cpu: float
    reaped_cpu: float
    """CPU of children that ended and were waited for."""


def stat_of(pid: int) -> Stat | None:
    """Read /proc/<pid>/stat (proc_pid_stat(5)); `None` once the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()  # the name before it may hold blanks and brackets
    parent, session = int(fields[1]), int(fields[3])
    user, system, reaped_user, reaped_system = (int(value) / TICKS for value in fields[11:15])
    return Stat(parent, session, user + system, reaped_user + reaped_system)


def processes() -> dict[int, Stat]:
    """All processes of the machine by id."""
    found = ((int(path.name), stat_of(int(path.name))) for path in Path("/proc").iterdir() if path.name.isdigit())
    return {pid: stat for pid, stat in found if stat is not None}


def tree_cpu(*roots: int) -> float:
    """CPU seconds used so far by a server: its root processes, their live descendants, and the children they have reaped."""
    table = processes()
    there = [root for root in roots if root in table]
    members, grown = set(there), True
    while grown:
        more = {pid for pid, stat in table.items() if stat.parent in members} - members
        grown = bool(more)
        members |= more
    return sum(table[pid].cpu for pid in members) + sum(table[root].reaped_cpu for root in there)


def memory_of(pid: int) -> tuple[int, int]:
    """Resident bytes now and at their highest, from /proc/<pid>/status; zeros once the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0, 0
    sizes = {
        name: int(rest.split()[0]) << 10
        for name, _, rest in (line.partition(":") for line in lines)
        if name in ("VmRSS", "VmHWM")
    }
    return sizes.get("VmRSS", 0), sizes.get("VmHWM", 0)


@dataclass
class Watch:
    """Samples the processes of one session from a thread until it is told to stop."""

    session: int
    limit: int | None = None
    interval: float = 0.04
    cpu: dict[int, float] = field(default_factory=dict)
    peak: dict[int, int] = field(default_factory=dict)
    peak_together: int = 0
    killed: str = ""

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self.interval):
            self._sample()

    def _sample(self) -> None:
        together = 0
        for pid, stat in processes().items():
            if stat.session != self.session:
                continue
            now, high = memory_of(pid)
            together += now
            self.cpu[pid] = stat.cpu
            self.peak[pid] = max(self.peak.get(pid, 0), high)
        self.peak_together = max(self.peak_together, together)
        if self.limit is not None and together > self.limit and not self.killed:
            self.killed = f"over {self.limit // MIB} MB"
            end_session(self.session)


def end_session(session: int) -> None:
    """Kill every process of the session."""
    for pid in [pid for pid, stat in processes().items() if stat.session == session]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def run(
    command: list[str], env: dict[str, str], folder: Path, timeout: float = 1800, limit: int | None = None
) -> Usage:
    """Run `command` to its end and measure it; nothing it started is left behind.

    `limit` bytes over all its processes, or `timeout` seconds, end it early; `Usage.killed` then says why.
    """
    out, err = folder / "stdout", folder / "stderr"
    own_memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    with out.open("wb") as stdout, err.open("wb") as stderr:
        started = time.perf_counter()
        child = subprocess.Popen(
            command, env=env, cwd=folder, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, start_new_session=True
        )
        timer = threading.Timer(timeout, end_session, [child.pid])
        timer.start()
        try:
            with Watch(child.pid, limit) as watch:
                _, status, used = os.wait4(child.pid, 0)
                wall = time.perf_counter() - started
                child.returncode = os.waitstatus_to_exitcode(status)
        finally:
            expired = not timer.is_alive()
            timer.cancel()
            end_session(child.pid)
    exact = used.ru_maxrss << 10
    return Usage(
        code=child.returncode,
        wall=wall,
        cpu=max(used.ru_utime + used.ru_stime, sum(watch.cpu.values())),
        peak=max([*watch.peak.values(), exact if exact > own_memory else 0], default=0),
        peak_together=watch.peak_together,
        stdout=out.read_text(errors="replace"),
        stderr=err.read_text(errors="replace"),
        killed=watch.killed or (f"over {timeout:.0f} s" if expired else ""),
    )
