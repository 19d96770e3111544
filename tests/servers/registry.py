"""A real schema registry (Apicurio, which speaks Confluent's API), from Maven Central; it keeps schemas in memory."""

import contextlib
import json
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.servers.maven import SPARING, java, unpacked
from tests.servers.support import Daemon, data_folder, free_port

VERSION = "3.0.9"
_ARTIFACT = f"io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all"
_INSTEAD = "run the tests where Maven Central can be reached"


class Registry:
    """One registry; `url` is that of its Confluent API."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/apis/ccompat/v7"
        self._folder = folder
        self._root = unpacked("apicurio", _ARTIFACT, _INSTEAD)
        self._daemon: Daemon | None = None

    def start(self) -> None:
        program = next(self._root.glob("*-runner.jar"))
        address = ("-Dquarkus.http.host=127.0.0.1", f"-Dquarkus.http.port={self.port}")
        self._daemon = Daemon(
            [java(), *SPARING, "-Xmx384m", *address, "-jar", program],
            log=self._folder / "log",
            env={"PATH": os.environ.get("PATH", ""), "HOME": str(self._folder), "LC_ALL": "C.UTF-8"},
            folder=self._folder,
            cwd=self._folder,
        )
        self._daemon.wait_until(self._answers, 120)

    def stop(self) -> None:
        if self._daemon:
            self._daemon.kill()

    def register(self, subject: str, schema: Any, kind: str = "AVRO") -> int:
        """Keep a schema; its number."""
        body = json.dumps({"schema": json.dumps(schema), "schemaType": kind}).encode()
        headers = {"Content-Type": "application/vnd.schemaregistry.v1+json"}
        request = urllib.request.Request(f"{self.url}/subjects/{subject}/versions", body, headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(json.loads(answer.read())["id"])

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/subjects", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@contextlib.contextmanager
def started() -> Iterator[Registry]:
    """A registry that is stopped at the end."""
    with data_folder("registry") as folder:
        registry = Registry(folder)
        try:
            registry.start()
            yield registry
        finally:
            registry.stop()
