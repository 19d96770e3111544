"""A real Kafka Connect worker (distributed, with its REST API) that has Debezium's connectors, from Maven Central.

Its passwords come by a config provider: `secret` writes one to a file of the worker's, and says how it is referred to.
"""

import contextlib
import dataclasses
import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.servers.maven import SPARING, jars, java
from tests.servers.support import Daemon, data_folder, free_port

DEBEZIUM = "3.6.1.Final"
KAFKA = "4.3.1"
_ARTIFACTS = (
    *(f"org.apache.kafka:{name}:{KAFKA}" for name in ("connect-runtime", "connect-json", "connect-transforms")),
    *(f"io.debezium:debezium-connector-{name}:{DEBEZIUM}" for name in ("postgres", "mysql", "mongodb")),
    "org.slf4j:slf4j-simple:1.7.36",
)
_INSTEAD = "run the tests where Maven Central can be reached"

_CONFIGURATION = """
bootstrap.servers={bootstrap}
group.id=connect
listeners=http://127.0.0.1:{port}
rest.advertised.host.name=127.0.0.1
config.storage.topic=connect-configs
offset.storage.topic=connect-offsets
status.storage.topic=connect-status
config.storage.replication.factor=1
offset.storage.replication.factor=1
offset.storage.partitions=1
status.storage.replication.factor=1
status.storage.partitions=1
key.converter=org.apache.kafka.connect.json.JsonConverter
value.converter=org.apache.kafka.connect.json.JsonConverter
key.converter.schemas.enable=false
value.converter.schemas.enable=false
offset.flush.interval.ms=1000
# A worker that was killed may come back as soon as its session is over.
session.timeout.ms=6000
heartbeat.interval.ms=1000
scheduled.rebalance.max.delay.ms=0
plugin.discovery=service_load
config.providers=file
config.providers.file.class=org.apache.kafka.common.config.provider.FileConfigProvider
config.providers.file.param.allowed.paths={folder}
producer.linger.ms=5
"""


class ConnectError(Exception):
    """What the worker refused, in its words."""


@dataclasses.dataclass
class ConnectServer:
    """One worker; its port, and all it knows (in the broker's topics), stay over restarts."""

    bootstrap: str
    folder: Path
    port: int = dataclasses.field(default_factory=free_port)
    _daemon: Daemon | None = dataclasses.field(default=None, repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        classes = jars("connect", _ARTIFACTS, _INSTEAD)
        file = self.folder / "worker.properties"
        file.write_text(_CONFIGURATION.format(bootstrap=self.bootstrap, port=self.port, folder=self.folder))
        logs = ("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true")
        main = "org.apache.kafka.connect.cli.ConnectDistributed"
        self._daemon = Daemon(
            [java(), *SPARING, "-Xmx384m", *logs, "-cp", f"{classes}/*", main, file],
            log=self.folder / "log",
            env={"PATH": os.environ.get("PATH", ""), "HOME": str(self.folder), "LC_ALL": "C.UTF-8"},
            folder=self.folder,
        )
        self._daemon.wait_until(self._ready, 120)

    @property
    def running(self) -> bool:
        return self._daemon is not None and self._daemon.running

    def stop(self) -> None:
        if self._daemon:
            self._daemon.stop(signal.SIGTERM, 20)

    def kill(self) -> None:
        if self._daemon:
            self._daemon.kill()

    def restart(self) -> None:
        self.stop()
        self.start()

    def tail(self, lines: int = 60) -> str:
        return self._daemon.tail(lines) if self._daemon else ""

    def secret(self, name: str, value: str) -> str:
        """Keep a secret in a file of the worker's; how a connector's configuration refers to it."""
        file = self.folder / "secrets.properties"
        known = file.read_text() if file.exists() else ""
        escaped = value.replace("\\", "\\\\")
        file.write_text(f"{known}{name}={escaped}\n")
        return f"${{file:{file}:{name}}}"

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """One request to the REST API; what it answers."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data, {"Content-Type": "application/json"}, method=method
        )  # fmt: skip
        try:
            with urllib.request.urlopen(request, timeout=90) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            raise ConnectError(f"{method} {path}: {error.code} {error.read().decode(errors='replace')}") from error

    def put(self, name: str, config: Mapping[str, str], seconds: float = 60) -> None:
        """Make or change a connector, and return when its task runs."""
        self.ask("PUT", f"/connectors/{name}/config", dict(config))
        self.wait_running(name, seconds)

    def wait_running(self, name: str, seconds: float = 60) -> None:
        """Return when the connector's task runs; its own trace where it failed."""
        deadline = time.monotonic() + seconds
        while True:
            tasks = self._tasks(name)
            if tasks and all(task["state"] == "RUNNING" for task in tasks):
                return
            if failed := [task["trace"] for task in tasks if task["state"] == "FAILED"]:
                raise ConnectError(f"{name} failed: {failed[0]}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} does not run: {tasks}\n{self.tail()}")
            time.sleep(0.2)

    def remove(self, name: str) -> None:
        self.ask("DELETE", f"/connectors/{name}")

    def _tasks(self, name: str) -> list[dict[str, Any]]:
        with contextlib.suppress(ConnectError):
            tasks: list[dict[str, Any]] = self.ask("GET", f"/connectors/{name}/status")["tasks"]
            return tasks
        return []

    def _ready(self) -> bool:
        try:
            # The worker answers this one when it has joined its group, and not before.
            with urllib.request.urlopen(f"{self.url}/connectors", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@contextlib.contextmanager
def started(bootstrap: str) -> Iterator[ConnectServer]:
    """A worker on the broker at `bootstrap`, stopped and removed at the end."""
    with data_folder("connect") as folder:
        server = ConnectServer(bootstrap, folder)
        try:
            server.start()
            yield server
        finally:
            server.kill()
