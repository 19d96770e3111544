"""A real HTTP API in a process of its own, with the ways of paging that APIs have, and faults that it is told to have.

``python -m tests.servers.rest PORT``: uvicorn and starlette, which Prefect brings. Tests talk to it over HTTP as well: ``POST
/_items`` adds items, ``POST /_rules`` says what goes wrong with which requests, ``GET /_seen`` tells what was asked for.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import socket
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.servers.support import Daemon, free_port, wait_until


@dataclasses.dataclass(frozen=True)
class RestServer:
    """A running server; each test has a space of its own, ``/s/<name>``."""

    port: int
    daemon: Daemon
    version: str
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def space(self, name: str) -> Space:
        return Space(self, name)


@dataclasses.dataclass(frozen=True)
class Space:
    """Items and rules of one test."""

    server: RestServer
    name: str

    @property
    def url(self) -> str:
        """The base URL of its API."""
        return f"{self.server.url}/s/{self.name}"

    def add(self, items: list[dict[str, Any]], resource: str = "items") -> None:
        """Add items, or replace those with the same id, which then come last."""
        self._post("_items", {"resource": resource, "items": items})

    def remove(self, *ids: Any) -> None:
        self._post("_remove", {"ids": ids})

    def rule(self, **rule: Any) -> None:
        """Have requests go wrong: see `tests.servers.rest_app.Rule`."""
        self._post("_rules", rule)

    def seen(self) -> list[dict[str, Any]]:
        """The requests so far: method, path, query, headers, body."""
        with urllib.request.urlopen(f"{self.url}/_seen") as answer:
            found: list[dict[str, Any]] = json.load(answer)
        return found

    def asked(self, path: str = "items") -> list[dict[str, Any]]:
        """Those for one resource."""
        return [request for request in self.seen() if request["path"].endswith(f"/{path}")]

    def _post(self, what: str, body: Any) -> None:
        data = json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/{what}", data=data, method="POST")) as answer:
            answer.read()


@contextlib.contextmanager
def started(certificate: Path | None = None, key: Path | None = None) -> Iterator[RestServer]:
    """A server that is stopped at the end; with a certificate it speaks TLS."""
    import uvicorn

    port = free_port()
    with tempfile.TemporaryDirectory(prefix="headrace-rest-") as folder:
        words: list[str | Path] = [sys.executable, "-m", "tests.servers.rest_app", str(port)]
        if certificate and key:
            words += [certificate, key]
        daemon = Daemon(words, log=Path(folder) / "log", cwd=Path(__file__).parent.parent.parent)
        try:
            daemon.wait_until(lambda: _answers(port), 30)
            yield RestServer(port, daemon, uvicorn.__version__, "https" if certificate else "http")
        finally:
            daemon.kill()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def basic(user: str, password: str) -> str:
    """The header Authorization of HTTP Basic."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


__all__ = ["RestServer", "Space", "basic", "started", "wait_until"]
