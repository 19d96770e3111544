"""Debian packages unpacked into a folder, as root or not: apt with lists and status of its own, and `dpkg -x`.

The machine's own sources, lists and installed packages stay as they are. Unpacked programs run through the
folder's own dynamic loader, so the C library of the machine need not be as new as the packages'.
"""

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.servers.support import ServerUnavailableError, cache_folder, locked, run, say, shared_cache_folder

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_SUITES = ("sid", "trixie")  # what sid lacks for a moment, the stable release has


def unpacked(
    name: str, packages: Sequence[str], *, without: Sequence[str] = (), instead: str, shared: bool = False
) -> Path:
    """The folder that `packages` and all they depend on are unpacked in, downloaded at the first call.

    `without` names the beginnings of package files that are not needed, to save disk; `instead` is what a person can
    do on a machine where this does not work. `shared`: for a server that does not run as root.
    """
    folder = shared_cache_folder(name) if shared else cache_folder(name)
    root = folder / "root"
    with locked(folder / ".lock"):
        if not (folder / "complete").exists():
            _download(folder, packages, instead)
            shutil.rmtree(root, ignore_errors=True)
            for package in sorted((folder / "debs").glob("*.deb")):
                if not package.name.startswith(tuple(without)):
                    run(["dpkg", "-x", package, root])
            shutil.rmtree(folder / "debs")
            (folder / "complete").touch()
    return root


def _download(folder: Path, packages: Sequence[str], instead: str) -> None:
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        wanted = " ".join(packages)
        raise ServerUnavailableError(f"{wanted} is unpacked from Debian's, and this machine has no apt-get: {instead}")
    say(f"\ndownloading {' '.join(packages)} from Debian, once, into {folder}")
    debs = folder / "debs"
    (debs / "partial").mkdir(parents=True, exist_ok=True)
    try:
        with locked(cache_folder("apt") / ".lock"):
            options = _apt_options(cache_folder("apt"))
            run(["apt-get", *options, "update", "-q"])
            install = ["install", "-y", "-q", "--no-install-recommends", "--download-only"]
            run(["apt-get", *options, "-o", f"Dir::Cache::archives={debs}", *install, *packages])
    except RuntimeError as error:
        reason = f"Debian's {' '.join(packages)} can't be downloaded"
        raise ServerUnavailableError(f"{reason}; {instead}: {error}") from error


def _apt_options(folder: Path) -> list[str]:
    """Point apt at sources, lists, cache and status that are ours alone."""
    for name in ("empty", "lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "status").touch()
    lines = [f"deb [signed-by={_keyring(folder)}] {_mirror()} {suite} main\n" for suite in _SUITES]
    (folder / "sources.list").write_text("".join(lines))
    settings = {
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": folder / "empty",
        "Dir::State::Lists": folder / "lists",
        "Dir::Cache": folder / "cache",
        "Dir::State::status": folder / "status",
        "APT::Sandbox::User": "root" if os.geteuid() == 0 else "",
        "DPkg::Lock::Timeout": 600,
    }
    return [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]


def _mirror() -> str:
    """The Debian mirror of TEST_DEBIAN_MIRROR, else the one this machine is set up with."""
    if given := os.environ.get("TEST_DEBIAN_MIRROR"):
        return given
    files = [*Path("/etc/apt").glob("*.list"), *Path("/etc/apt").glob("sources.list.d/*")]
    for file in files:
        found = re.search(r"^(?:deb|URIs:).*?(https?://\S+/debian)/?(?:\s|$)", file.read_text(), re.MULTILINE)
        if found:
            return found[1]
    raise ServerUnavailableError("no Debian mirror in /etc/apt: set TEST_DEBIAN_MIRROR to the URL of one")


def _keyring(folder: Path) -> Path:
    """Debian's signing keys; other distributions (Ubuntu, say) carry them in a package, which need not be installed."""
    if _KEYRING.exists():
        return _KEYRING
    unpacked_keyring = folder / "keyring" / _KEYRING.relative_to("/")
    if not unpacked_keyring.exists():
        run(["sh", "-c", 'cd "$1" && apt-get download debian-archive-keyring', "sh", folder])
        run(["dpkg", "-x", next(folder.glob("debian-archive-keyring_*.deb")), folder / "keyring"])
    return unpacked_keyring
