"""Contenders, rounds, medians and targets: what every benchmark shares, whatever the database.

All contenders of one table run in turns within one call, over the same rows, on the same machine: ratios within a table
mean something, seconds of two tables do not.
"""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import process
from benchmarks.peers.environments import UnavailableError
from benchmarks.process import Usage

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Outcome:
    """What a contender did, by its own words or by what it left behind; `None` where nothing tells."""

    rows: int | None = None
    bytes: int | None = None
    seconds: float | None = None
    """Of the work alone (interpreter and imports left out), where the program says it; else the wall time counts."""
    cpu: float | None = None
    """CPU of the work alone, in the process that does it."""
    wrong: str = ""
    """What does not agree with the source, if anything."""


@dataclass(frozen=True)
class Contender:
    """One way to do the job. `command` may raise `UnavailableError`; it gets a fresh folder that is also the HOME."""

    name: str
    note: str
    command: Callable[[Path], list[str]]
    outcome: Callable[[Path, Usage], Outcome]
    environment: dict[str, str] = field(default_factory=dict)
    most_rounds: int = 99
    counts: bool = True
    """False for what moves no rows: a baseline that others are compared with."""


@dataclass(frozen=True)
class Sample:
    usage: Usage
    outcome: Outcome
    server_cpu: float

    @property
    def seconds(self) -> float:
        return self.usage.wall if self.outcome.seconds is None else self.outcome.seconds


@dataclass
class Result:
    """The samples of one contender, or why there are none."""

    contender: Contender
    samples: list[Sample] = field(default_factory=list)
    reason: str = ""

    @property
    def measured(self) -> bool:
        return bool(self.samples) and not self.reason

    def median(self, value: Callable[[Sample], float]) -> float:
        return statistics.median(value(sample) for sample in self.samples)

    @property
    def seconds(self) -> float:
        return self.median(lambda sample: sample.seconds)

    @property
    def cpu(self) -> float:
        return self.median(lambda sample: sample.usage.cpu)

    @property
    def peak(self) -> float:
        return self.median(lambda sample: sample.usage.peak)


@dataclass(frozen=True)
class Target:
    """A number to reach; `value` is `None` when it could not be measured in this run."""

    text: str
    wanted: float
    value: float | None
    at_least: bool = True
    unit: str = " x"

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "not measured"
        reached = self.value >= self.wanted if self.at_least else self.value <= self.wanted
        return "met" if reached else "missed"


def environment(folder: Path, extra: dict[str, str]) -> dict[str, str]:
    """What a contender sees: nothing of the caller's settings and credentials."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "SSL_CERT_FILE") if name in os.environ}
    plain = {"HOME": str(folder), "TMPDIR": str(folder), "LANG": "C.UTF-8", "TZ": "UTC", "DO_NOT_TRACK": "1"}
    return kept | plain | extra


def run_once(contender: Contender, base: Path, server: tuple[int, ...]) -> Sample:
    """One measured run in a fresh folder, which is gone afterwards. Raises `UnavailableError` when the program fails."""
    folder = base / "run"
    folder.mkdir()
    try:
        command = contender.command(folder)
        before = process.tree_cpu(*server)
        usage = process.run(command, environment(folder, contender.environment), folder)
        time.sleep(0.2)  # the server reaps the backend that served it
        server_cpu = process.tree_cpu(*server) - before
        if usage.code or usage.killed:
            raise UnavailableError(failure(usage, base))
        return Sample(usage, contender.outcome(folder, usage), server_cpu)
    finally:
        shutil.rmtree(folder)


def failure(usage: Usage, base: Path) -> str:
    """Why a program failed, in one line that shows no path of this machine."""
    said = [line.strip() for line in (usage.stderr or usage.stdout).splitlines() if line.strip()]
    text = usage.killed or f"exit {usage.code}: {said[-1] if said else 'it said nothing'}"
    for path in (base, REPOSITORY, Path.home()):
        text = text.replace(str(path), "…")
    return text[:160].replace("|", "/")


def run_rounds(contenders: Sequence[Contender], rounds: int, base: Path, server: tuple[int, ...]) -> list[Result]:
    """Run all contenders `rounds` times in turns; each round begins with another one. `server`: its root processes."""
    results = [Result(contender) for contender in contenders]
    for number in range(rounds):
        shift = number * max(1, len(results) // rounds)
        for result in results[shift:] + results[:shift]:
            if result.reason or len(result.samples) >= result.contender.most_rounds:
                continue
            try:
                result.samples.append(run_once(result.contender, base, server))
            except UnavailableError as error:
                result.reason = str(error)
            _tell(number, result)
    return results


def _tell(number: int, result: Result) -> None:
    if result.reason:
        print(f"round {number + 1}  {result.contender.name:<28} not measured: {result.reason}", flush=True)
        return
    sample = result.samples[-1]
    print(
        f"round {number + 1}  {result.contender.name:<28} {sample.seconds:6.2f} s  client {sample.usage.cpu:6.2f} s"
        f"  server {sample.server_cpu:5.2f} s  {sample.usage.peak >> 20:5d} MB  {sample.outcome.wrong}",
        flush=True,
    )


def count_records(paths: Iterable[Path]) -> int:
    """Records of CSV files, headers included: line ends outside quotes. A doubled quote leaves and enters again."""
    total = 0
    for path in paths:
        quoted, last = False, b"\n"
        with path.open("rb") as file:
            while block := file.read(4 << 20):
                pieces = block.split(b'"')
                total += sum(piece.count(b"\n") for piece in pieces[quoted::2])
                quoted ^= len(pieces) % 2 == 0
                last = block[-1:]
        total += last != b"\n"
    return total


@dataclass(frozen=True)
class Report:
    """One table of results with what was judged by it, as Markdown."""

    title: str
    introduction: str
    rows: int
    csv_bytes: int
    results: list[Result]
    ours: str
    """Name of the contender that the others are compared with."""
    targets: list[Target]
    machine: list[tuple[str, str]]

    def of(self, name: str) -> Result | None:
        return find(self.results, name)

    def markdown(self) -> str:
        parts = [f"# {self.title}", self.introduction, self._table(), self._notes(), self._verdicts(), self._machine()]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _table(self) -> str:
        names = [
            "",
            "s",
            "rows/s",
            "MB/s",
            "x",
            "process s",
            "client CPU s",
            "server CPU s",
            "peak MB",
            "all MB",
            "rounds",
        ]
        lines = ["| " + " | ".join(names) + " |", "|---" + "|--:" * (len(names) - 1) + "|"]
        return "\n".join(lines + [self._line(result) for result in self.results])

    def _line(self, result: Result) -> str:
        name = f"**{result.contender.name}**" if result.contender.name == self.ours else result.contender.name
        if not result.measured:
            return f"| {name} | not measured: {result.reason or 'left out'} |" + " |" * 9
        ours = self.of(self.ours)
        rate = self.rows / result.seconds
        speed = ["-"] * 4
        if result.contender.counts:
            ratio = f"{ours.seconds / result.seconds:.2f}" if ours and ours.measured else "-"
            speed = [f"{result.seconds:.2f}", f"{rate:,.0f}", f"{self.csv_bytes / 1e6 / result.seconds:,.0f}", ratio]
        rest = [
            f"{result.median(lambda sample: sample.usage.wall):.1f}",
            f"{result.cpu:.1f}",
            f"{result.median(lambda sample: sample.server_cpu):.1f}",
            f"{result.peak / 2**20:,.0f}",
            f"{result.median(lambda sample: sample.usage.peak_together) / 2**20:,.0f}",
            str(len(result.samples)),
        ]
        return "| " + " | ".join([name, *speed, *rest]) + " |"

    def _notes(self) -> str:
        legend = (
            "*s*: the work, without the start of the interpreter where the program tells it; *x*: its rows/s as a part "
            f"of those of {self.ours}; *process s*: from start to exit; *client CPU*: user and system time of all "
            "processes of the tool; *peak MB*: its largest process; *all MB*: all its processes together, shared pages "
            "counted each time. Medians over the rounds."
        )
        notes = [f"- {result.contender.name}: {result.contender.note}" for result in self.results]
        wrong = [
            f"- **{result.contender.name}: {said}**"
            for result in self.results
            for said in sorted({sample.outcome.wrong for sample in result.samples if sample.outcome.wrong})
        ]
        return "\n".join([legend, "", *notes, *(["", "Not as in the source:", "", *wrong] if wrong else [])])

    def _verdicts(self) -> str:
        if not self.targets:
            return ""
        lines = ["## Targets", "", "| target | wanted | measured | |", "|---|--:|--:|---|"]
        for target in self.targets:
            value = "-" if target.value is None else f"{target.value:.2f}{target.unit}"
            sign = "≥" if target.at_least else "≤"
            lines.append(f"| {target.text} | {sign} {target.wanted:g}{target.unit} | {value} | {target.verdict} |")
        return "\n".join(lines)

    def _machine(self) -> str:
        return "\n".join(["## Machine", "", *(f"- {name}: {value}" for name, value in self.machine)])


def find(results: Iterable[Result], name: str) -> Result | None:
    """The result of that name if it was measured."""
    return next((result for result in results if result.contender.name == name and result.measured), None)


def ratio(over: Result | None, under: Result | None) -> float | None:
    """How many times faster `under` was than `over`; `None` unless both were measured."""
    return over.seconds / under.seconds if over and under else None


def machine() -> list[tuple[str, str]]:
    """Cores, processor and memory of this machine, without its name."""
    model = "unknown"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    release = os.uname()
    return [
        ("cores", str(cores)),
        ("processor", model),
        ("memory", f"{memory:.0f} GiB"),
        ("system", f"{release.sysname} {release.machine}"),
    ]
