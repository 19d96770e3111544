"""A real Apache Kafka 4 broker that is its own controller (KRaft: there is no ZooKeeper any more), from Maven Central.

Taken from `TEST_KAFKA_BOOTSTRAP` (a broker that runs already, in clear) or started here, with a second listener that
wants TLS and a log-in.
"""

import base64
import contextlib
import dataclasses
import fnmatch
import os
import secrets
import signal
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic, OffsetSpec

from tests.servers.certificates import Authority
from tests.servers.maven import SPARING, jars, java
from tests.servers.support import Daemon, ServerUnavailableError, data_folder, free_port, run

VERSION = "4.3.1"
_ARTIFACTS = (f"org.apache.kafka:kafka_2.13:{VERSION}", "org.slf4j:slf4j-simple:1.7.36")
_INSTEAD = "set TEST_KAFKA_BOOTSTRAP to the host:port of a broker of your own"

USER, PASSWORD = "reader", "secret; with 'marks'"
_JAAS = "org.apache.kafka.common.security"

_CONFIGURATION = r"""
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=CLEAR://127.0.0.1:{port},SASL://127.0.0.1:{secured},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=CLEAR://127.0.0.1:{port},SASL://localhost:{secured}
listener.security.protocol.map=CLEAR:PLAINTEXT,SASL:SASL_SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=CLEAR
log.dirs={folder}/data

listener.name.sasl.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER
listener.name.sasl.plain.sasl.jaas.config={jaas}.plain.PlainLoginModule required user_{user}="{password}";
listener.name.sasl.scram-sha-256.sasl.jaas.config={jaas}.scram.ScramLoginModule required;
listener.name.sasl.scram-sha-512.sasl.jaas.config={jaas}.scram.ScramLoginModule required;
listener.name.sasl.oauthbearer.sasl.jaas.config={jaas}.oauthbearer.OAuthBearerLoginModule required \
    unsecuredLoginStringClaim_sub="broker";
ssl.keystore.type=PEM
ssl.keystore.location={folder}/server.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.crt

# A broker that was killed may come back as soon as its session is over.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
num.network.threads=2
num.io.threads=2
num.partitions=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
# Kept for good, unless a topic says otherwise: tests send messages of other years.
log.retention.ms=-1
# Retention and compaction are looked at often, so that a test can watch them.
log.retention.check.interval.ms=500
log.initial.task.delay.ms=500
log.cleaner.backoff.ms=500
log.segment.delete.delay.ms=100
log.cleaner.dedupe.buffer.size=4194304
"""


class Broker:
    """One data folder and the broker on it; its ports stay the same over restarts."""

    def __init__(self, folder: Path, heap_mb: int = 384) -> None:
        self.port, self.secured_port, controller = free_port(), free_port(), free_port()
        self._folder = folder
        self._heap = heap_mb
        self._classes = jars("kafka", _ARTIFACTS, _INSTEAD)
        self._daemon: Daemon | None = None
        self._file = folder / "server.properties"
        self._file.write_text(
            _CONFIGURATION.format(
                port=self.port, secured=self.secured_port, controller=controller, folder=folder,
                jaas=_JAAS, user=USER, password=PASSWORD,
            )
        )  # fmt: skip

    def create(self) -> Authority:
        """Fill the data folder; the authority that signed the broker's certificate."""
        authority = Authority(self._folder)
        certificate, key = authority.issue("server")
        (self._folder / "server.pem").write_bytes(key.read_bytes() + certificate.read_bytes())
        # Of random ones, each 64th begins with a dash, and the program takes it for an option.
        identity = "K" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]
        accounts = [
            word
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
            for word in ("--add-scram", f'{mechanism}=[name={USER},password="{PASSWORD}"]')
        ]
        format_words: list[str | Path] = ["format", "-t", identity, "-c", self._file, *accounts]
        run([*self._java("kafka.tools.StorageTool"), *format_words], env=self._environment())
        return authority

    def start(self) -> None:
        self._daemon = Daemon(
            [*self._java("kafka.Kafka"), self._file],
            log=self._folder / "log",
            env=self._environment(),
            folder=self._folder,
        )
        self._daemon.wait_until(self._answers, 60)

    @property
    def running(self) -> bool:
        return self._daemon is not None and self._daemon.running

    @property
    def pid(self) -> int:
        """The process of the broker that was started last."""
        assert self._daemon is not None, "never started"
        return self._daemon.pid

    def stop(self) -> None:
        if self._daemon:
            self._daemon.stop(signal.SIGTERM, 20)

    def kill(self) -> None:
        """SIGKILL: what it had acknowledged is in the page cache, and survives."""
        if self._daemon:
            self._daemon.kill()

    def _answers(self) -> bool:
        admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{self.port}", "log_level": 0})
        with contextlib.suppress(Exception):
            return bool(admin.list_topics(timeout=1).brokers)
        return False

    def _java(self, main: str) -> list[str]:
        memory = (f"-Xmx{self._heap}m", "-Xms64m")
        logs = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
        return [java(), *SPARING, *memory, logs, "-cp", f"{self._classes}/*", main]

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", ""), "HOME": str(self._folder), "LC_ALL": "C.UTF-8"}


@dataclasses.dataclass(frozen=True)
class KafkaServer:
    """How to reach a broker; `broker` is there if it is ours to stop."""

    bootstrap: str
    version: str
    secured: str = ""
    """The listener with TLS, where `USER` logs in by `PASSWORD`; the certificate is valid for localhost."""
    ca_file: Path | None = None
    broker: Broker | None = dataclasses.field(default=None, repr=False)

    @property
    def running(self) -> bool:
        return self.broker is None or self.broker.running

    def stop(self) -> None:
        self._own().stop()

    def kill(self) -> None:
        self._own().kill()

    def restart(self) -> None:
        self._own().stop()
        self._own().start()

    def _own(self) -> Broker:
        if self.broker is None:
            raise ServerUnavailableError(
                "the broker of TEST_KAFKA_BOOTSTRAP is not ours to stop: unset it for this test"
            )
        return self.broker

    @property
    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 2})

    def producer(self, **settings: Any) -> Producer:
        return Producer({"bootstrap.servers": self.bootstrap, "log_level": 2, "linger.ms": 5, **settings})

    def topic(self, name: str = "", *, partitions: int = 1, **config: str) -> str:
        """A new topic; its name. Settings are written with `_` for `.`."""
        name = name or f"t-{secrets.token_hex(6)}"
        settings = {key.replace("_", "."): value for key, value in config.items()}
        _done(admin := self.admin, admin.create_topics([NewTopic(name, partitions, 1, config=settings)]))
        return name

    def add_partitions(self, topic: str, total: int) -> None:
        _done(admin := self.admin, admin.create_partitions([NewPartitions(topic, total)]))

    def drop(self, *topics: str) -> None:
        _done(admin := self.admin, admin.delete_topics(list(topics), operation_timeout=30))

    def end(self, topic: str) -> int:
        """How many offsets are given out in a topic of one partition."""
        place = TopicPartition(topic, 0)
        (asked,) = (admin := self.admin).list_offsets({place: OffsetSpec.latest()}).values()
        offset = asked.result(30).offset
        del admin
        return int(offset)

    def wait_for_topics(self, *patterns: str, seconds: float = 120) -> None:
        """Return as soon as each pattern is that of a topic: a connector makes one with its first message."""
        admin, deadline = self.admin, time.monotonic() + seconds
        while missing := [one for one in patterns if not fnmatch.filter(admin.list_topics(timeout=10).topics, one)]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no topic is called {missing}")
            time.sleep(0.2)

    def wait_for_end(self, topic: str, end: int, seconds: float = 60) -> None:
        """Return as soon as a topic of one partition has come to that offset."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "none", "enable.auto.commit": False,
                             "fetch.wait.max.ms": 10, "log_level": 2})  # fmt: skip
        deadline = time.monotonic() + seconds
        try:
            consumer.assign([TopicPartition(topic, 0, end - 1)])
            while (message := consumer.poll(0.1)) is None or message.error() is not None:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{topic} has not come to {end}: {message and message.error()}")
        finally:
            consumer.close()

    def send(self, topic: str, *values: bytes | str | None, **arguments: Any) -> None:
        """Produce messages and return when the broker has them all."""
        producer = self.producer()
        refused: list[str] = []

        def delivered(error: Any, _message: Any) -> None:
            if error is not None:
                refused.append(str(error))

        for value in values:
            producer.produce(topic, value, on_delivery=delivered, **arguments)
            producer.poll(0)
        if producer.flush(30) or refused:
            raise TimeoutError(f"the broker did not take all messages of {topic}: {refused[:1]}")


def _done(_admin: AdminClient, asked: Mapping[str, Future[Any]]) -> None:
    """Wait for what was asked of a client, which has to live as long."""
    for each in asked.values():
        each.result(30)


def _given(bootstrap: str) -> KafkaServer:
    return KafkaServer(bootstrap=bootstrap, version="of TEST_KAFKA_BOOTSTRAP")


@contextlib.contextmanager
def started() -> Iterator[KafkaServer]:
    """A broker that is stopped and removed at the end, or the one of TEST_KAFKA_BOOTSTRAP, which is left as it is."""
    if given := os.environ.get("TEST_KAFKA_BOOTSTRAP"):
        yield _given(given)
        return
    with data_folder("kafka") as folder:
        broker = Broker(folder)
        authority = broker.create()
        broker.start()
        try:
            yield KafkaServer(
                bootstrap=f"127.0.0.1:{broker.port}",
                version=VERSION,
                secured=f"localhost:{broker.secured_port}",
                ca_file=authority.ca_file,
                broker=broker,
            )
        finally:
            broker.kill()
