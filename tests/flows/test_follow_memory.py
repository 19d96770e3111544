"""`follow` under constant writing, for 30 minutes in a soak: its memory stays flat, it keeps up, and no change is missing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tasks.commits import Commit
from tests.flows.changes import KEYS, ChangesShop, Replay, assert_same
from tests.flows.test_changes_races import Counters, beside_writers
from tests.servers.support import say

SOAK = bool(os.environ.get("HEADRACE_SOAK"))
SECONDS = int(os.environ.get("HEADRACE_SOAK_SECONDS", "1800")) if SOAK else 60
WARM_UP = SECONDS / 3
ROTATED_EVERY = 60 if SOAK else 10
EVERY = 2
BEHIND_SECONDS = 60
"""More than a machine that is busy with other things needs; a stream that does not keep up is further behind soon."""
MIB = 1 << 20

GROWTH = (6 if SOAK else 16) * MIB
"""How much more may be resident at the end than after the warm-up: less than a change of some KB for each commit would
make of it."""

pytestmark = pytest.mark.timeout(SECONDS + 900)


@dataclass(frozen=True)
class Sample:
    """What a process holds."""

    at: float
    """Seconds since its first commit."""
    resident: int
    peak: int


def sampled(pid: int, since: float) -> Sample:
    told = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    resident, peak = (int(told[name].split()[0]) << 10 for name in ("VmRSS", "VmHWM"))
    return Sample(time.time() - since, resident, peak)


async def test_following_stays_flat(changes_shop: ChangesShop) -> None:
    """Four writers, every kind of transaction, a new file of the log now and then; memory, lag, and an exact replay."""
    if not Path("/proc/self/status").exists():
        pytest.skip("what a process holds is told by /proc, which Linux has")
    shop = changes_shop
    parameters = await shop.save()
    parameters |= {"every": EVERY, "flow": "follow"}
    parameters["source"]["tables"] = ["orders", "items"]
    (begun, samples), writers = await beside_writers(shop, _followed(shop, parameters), pause=0.5)
    for _ in range(2):
        await shop.capture(tables=["orders", "items"])

    commits = await shop.commits()
    written = sum(writer.written for writer in writers)
    told = _table(begun, samples, commits)
    say(f"\n{shop.mysql.flavour}: {written:,} transactions, {len(commits)} commits\n{told}")
    assert written > SECONDS
    await _assert_exact(shop)
    _assert_flat(samples)
    _assert_near(begun, commits)


async def _followed(shop: ChangesShop, parameters: dict[str, Any]) -> tuple[float, list[Sample]]:
    """A process that follows until it is told to stop; when its first commit was there, and what it held from then on.

    Now and then the server begins a new file of its log.
    """
    rotating = asyncio.create_task(_rotate(shop))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.flows.one_run", json.dumps(parameters),
        env=os.environ, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    samples = []
    try:
        async with asyncio.timeout(300):
            while not await shop.commits():
                await asyncio.sleep(0.5)
        begun = time.time()
        while time.time() - begun < SECONDS:
            await asyncio.sleep(1)
            assert process.returncode is None, "it has ended"
            samples.append(await asyncio.to_thread(sampled, process.pid, begun))
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            await process.wait()
    finally:
        rotating.cancel()
        if process.returncode is None:
            process.kill()
            await process.wait()
    return begun, samples


async def _rotate(shop: ChangesShop) -> None:
    while True:
        await asyncio.sleep(ROTATED_EVERY)
        await shop.execute("FLUSH BINARY LOGS")


def _assert_flat(samples: list[Sample]) -> None:
    """The last third holds no more than the one before."""
    warm = [sample.resident for sample in samples if sample.at > WARM_UP]
    before, after = (statistics.median(each) for each in (warm[: len(warm) // 2], warm[len(warm) // 2 :]))
    assert after - before < GROWTH, f"from {before / MIB:.1f} to {after / MIB:.1f} MiB"


def _assert_near(begun: float, commits: list[Commit]) -> None:
    """Every commit but those of the beginning knows how far it is behind, and that is not far."""
    told = [commit.behind for commit in commits if commit.committed_at.timestamp() > begun + 20]
    seconds = [each.seconds for each in told if each is not None and each.seconds is not None]
    assert len(seconds) == len(told) >= SECONDS // 60
    assert max(seconds) < BEHIND_SECONDS


async def _assert_exact(shop: ChangesShop) -> None:
    replay, counters = Replay(KEYS["orders"]), Counters()
    async for row in shop.records("orders"):
        replay.apply(row)
        counters.look(row)
    assert_same(replay.table, (await shop.tables())["orders"])
    say(f"{replay.count:,} records make the table of {len(replay.table):,} rows")


def _table(begun: float, samples: list[Sample], commits: list[Commit]) -> str:
    """A line for each minute (of a short run: ten seconds)."""
    step = 60 if SECONDS > 300 else 10
    lines = [
        f"{'s':>6} {'resident MiB':>13} {'peak MiB':>9} {'commits':>8} {'rows':>9} {'behind s':>9} {'behind KB':>10}"
    ]
    for start in range(0, SECONDS, step):
        held = [sample for sample in samples if start <= sample.at < start + step]
        made = [each for each in commits if start <= each.committed_at.timestamp() - begun < start + step]
        behind = [each.behind for each in made if each.behind]
        if not held:
            continue
        lines.append(
            f"{start + step:>6} {statistics.median(each.resident for each in held) / MIB:>13.1f} "
            f"{held[-1].peak / MIB:>9.1f} {len(made):>8} {sum(each.rows for each in made):>9,} "
            f"{max((each.seconds or 0 for each in behind), default=0):>9.1f} "
            f"{max((each.bytes or 0 for each in behind), default=0) / 1000:>10.1f}"
        )
    return "\n".join(lines)
