"""The demo as a person runs it: it proves what it says, and nothing of it stays, however it ends."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest


@asynccontextmanager
async def demo(folder: Path, **variables: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A small one, with its temporary files in a folder of the test's."""
    folder.chmod(0o755)  # PostgreSQL's user has to enter it
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "flows.cli", "demo",
        env=os.environ | {"HEADRACE_DEMO_SCALE": "0.02", "TMPDIR": str(folder), "COLUMNS": "160"} | variables,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def left_in(folder: Path) -> list[str]:
    """Command lines of processes that have the folder in theirs, or work in it; and the demo's files."""
    found = [str(path) for path in folder.glob("headrace-demo-*")]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words, where = (process / "cmdline").read_bytes().decode(), (process / "cwd").readlink()
        except OSError:  # gone meanwhile, or another user's
            continue
        if str(folder) in words or where.is_relative_to(folder):
            found.append(words.replace("\0", " "))
    return found


async def gone(folder: Path, seconds: float) -> list[str]:
    """What is still there after at most so many seconds."""
    for _ in range(int(seconds / 0.2)):
        if not left_in(folder):
            break
        await asyncio.sleep(0.2)
    return left_in(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    # All the way down to it: pytest makes its own folders for one user alone.
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == os.geteuid() and path.is_relative_to(tempfile.gettempdir()):
            path.chmod(path.stat().st_mode | 0o055)
    return tmp_path


def installed() -> str:
    """MariaDB or MySQL, whichever this machine has; empty without one."""
    places = f"{os.environ['PATH']}:/usr/sbin:/usr/libexec"
    program = shutil.which("mariadbd", path=places) or shutil.which("mysqld", path=places)
    if program is None:
        return ""
    said = subprocess.run([program, "--no-defaults", "--version"], capture_output=True, text=True, check=True).stdout
    return "MariaDB" if "MariaDB" in said else "MySQL"


async def test_it_proves_what_it_says_and_leaves_nothing(folder: Path) -> None:
    """Two runs of four streams, and of a fifth where MySQL or MariaDB is installed, read back and found equal.

    Servers and files are gone when it ends.
    """
    async with demo(folder) as process:
        said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    text = said.decode()
    assert text.count("in the files as in PostgreSQL") == 3
    assert text.count("in the files as in the API") == 1
    if other := installed():
        assert text.count(f"in the files as in {other}") == 1
        assert "The files hold exactly what the databases and the API hold." in text
    else:
        assert text.count("sudo apt-get install mariadb-server") == 1
        assert "The files hold exactly what the database and the API hold." in text
    assert text.count("commit 1,") == text.count("commit 2,") == (5 if other else 4)
    assert "Warning" not in text
    assert left_in(folder) == []


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("exit 3", "mariadbd is installed but does not run here: mariadbd ended with 3"),
        (
            'case "$*" in *--version) echo Ver 8.4.0;; *) echo "[ERROR] no room"; exit 1;; esac',
            "MySQL is installed but does not run here: [ERROR] no room",
        ),
        (
            'case "$*" in *--version) echo Ver 8.4.0;; *--initialize);; *) exit 1;; esac',
            "MySQL is installed but does not run here: mysql ended with 1",
        ),
    ],
    ids=["asked for its version", "making the data folder", "starting"],
)
async def test_it_goes_on_without_a_server_that_does_not_run(folder: Path, script: str, reason: str) -> None:
    """An installed MySQL or MariaDB that refuses is left out, with its reason in one line."""
    program = folder / "mariadbd"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    async with demo(folder, PATH=f"{folder}:{os.environ['PATH']}") as process:
        said, _ = await process.communicate()
    text = said.decode()
    assert process.returncode == 0, text
    assert sum(reason in line for line in text.splitlines()) == 1, text
    assert "The files hold exactly what the database and the API hold." in text
    assert left_in(folder) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_it_leaves_nothing_when_it_is_stopped(folder: Path, number: signal.Signals) -> None:
    """Interrupted in the middle, even by SIGKILL, it takes its servers and files with it."""
    async with demo(folder) as process:
        assert process.stdout is not None
        async with asyncio.timeout(90):
            while b"First run" not in (line := await process.stdout.readline()):
                assert line, "the demo ended before its first run"
        assert left_in(folder)
        process.send_signal(number)
        async with asyncio.timeout(30):
            await process.communicate()
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert await gone(folder, 10) == []
