"""Kafka Connect, standalone, with the file sink of Apache Kafka: a topic's messages as lines of a local file. Prints JSON.

It has done when the file holds BYTES of values and the end of each line. Timed from the request for the connector, which is
sent once the worker answers: Java's start is not in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks.peers.environments import UnavailableError
from tests.servers.connect import KAFKA
from tests.servers.maven import jars, java
from tests.servers.support import ServerUnavailableError, free_port

_ARTIFACTS = (
    *(f"org.apache.kafka:{name}:{KAFKA}" for name in ("connect-runtime", "connect-json", "connect-file")),
    "org.slf4j:slf4j-simple:1.7.36",
)
_MEMORY = ("-Xms256M", "-Xmx2G")
"""What Kafka's own connect-standalone.sh gives it."""
_SILENCE_SECONDS = 60
"""After so long without another line it is taken for dead."""

_WORKER = """
bootstrap.servers={bootstrap}
listeners=http://127.0.0.1:{port}
key.converter=org.apache.kafka.connect.storage.StringConverter
value.converter=org.apache.kafka.connect.storage.StringConverter
offset.storage.file.filename={folder}/offsets
plugin.discovery=service_load
"""


def command(_folder: Path) -> list[str]:
    """The program, given Connect's classes, which are downloaded at the first call."""
    try:
        java()
        return [sys.executable, "-m", __name__, str(jars("connect-file", _ARTIFACTS, "leave it out by --only"))]
    except ServerUnavailableError as error:
        raise UnavailableError(str(error)) from error


class Worker:
    """A worker in a Java process of its own, in the folder that is the current one."""

    def __init__(self, classes: str) -> None:
        port, folder = free_port(), Path.cwd()
        self._url = f"http://127.0.0.1:{port}"
        file = folder / "worker.properties"
        file.write_text(_WORKER.format(bootstrap=os.environ["KAFKA_BOOTSTRAP"], port=port, folder=folder))
        logs = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
        main = "org.apache.kafka.connect.cli.ConnectStandalone"
        self.process = subprocess.Popen([java(), *_MEMORY, logs, "-cp", f"{classes}/*", main, str(file)])

    def ask(self, path: str, body: Any = None) -> Any:
        """One request; what the worker answers."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=90) as answer:
            return json.loads(answer.read())

    def wait(self) -> None:
        """Return when it answers."""
        deadline = time.monotonic() + 120
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the worker does not answer; {self.process.poll()=}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            return bool(self.ask("/connectors") == [])
        return False

    def sink(self, topic: str, file: Path, size: int) -> None:
        """Start the connector, and return when the file has come to that size."""
        config = {
            "connector.class": "org.apache.kafka.connect.file.FileStreamSinkConnector", "tasks.max": "1", "topics": topic,
            "file": str(file),
        }  # fmt: skip
        self.ask("/connectors", {"name": "sink", "config": config})
        written, heard = 0, time.monotonic()
        while written < size:
            time.sleep(0.01)
            before, written = written, file.stat().st_size if file.exists() else 0
            if written > before:
                heard = time.monotonic()
            elif time.monotonic() > heard + _SILENCE_SECONDS:
                raise TimeoutError(f"{written:,} of {size:,} bytes: {self.ask('/connectors/sink/status')}")


def main() -> None:
    rows, size = int(os.environ["ROWS"]), int(os.environ["BYTES"])
    file, worker = Path("orders.txt").absolute(), Worker(sys.argv[1])
    try:
        worker.wait()
        started = time.perf_counter()
        worker.sink(os.environ["TOPIC"], file, size + rows)
        seconds = time.perf_counter() - started
    finally:
        worker.process.kill()
    with file.open("rb") as lines:
        print(json.dumps({"seconds": seconds, "rows": sum(1 for _ in lines), "bytes": file.stat().st_size}))


if __name__ == "__main__":
    main()
