"""Fixtures: the real servers, started when the first test asks for one, and what a test gets of its own on each.

A server that can't be had on this machine skips the test and says how to get it; where CI is set it fails.
"""

import atexit
import csv
import os
import secrets
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from tests.servers.prefect import PrefectServer
from tests.servers.prefect import database as prefect_database
from tests.servers.support import free_port

# Prefect reads its settings when it is imported: they point at the test server before it is there, so that no
# test can ever write to the server, or read the profile, of the person who runs the tests.
_PREFECT = PrefectServer(free_port(), Path(tempfile.gettempdir(), f"headrace-prefect-{secrets.token_hex(6)}"))
atexit.register(shutil.rmtree, _PREFECT.home, ignore_errors=True)
for _name in [name for name in os.environ if name.startswith("PREFECT_")]:
    del os.environ[_name]
os.environ.update(_PREFECT.environment)
# Or each of the hundreds of processes that the tests start compiles the project anew, half a second of CPU.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

from contextlib import asynccontextmanager, contextmanager  # noqa: E402

import pytest  # noqa: E402
from blockbuster import BlockBuster  # noqa: E402

from tests.servers import changes, connect, faults, kafka, mongodb, mysql, postgres, rest, s3  # noqa: E402
from tests.servers.support import ServerUnavailableError, unavailable  # noqa: E402

csv.field_size_limit(1 << 30)  # some tests read values of many megabytes

_started: dict[str, str] = {}  # the servers of this run and their versions, for the summary


@contextmanager
def _or_skip() -> Iterator[None]:
    try:
        yield
    except ServerUnavailableError as error:
        unavailable(error)


class _DatabaseServer(Protocol):
    @property
    def running(self) -> bool: ...
    def restart(self) -> None: ...
    async def create_database(self) -> Self: ...
    async def drop(self) -> None: ...


_S = TypeVar("_S", bound=_DatabaseServer)


@asynccontextmanager
async def _database_on(server: _S) -> AsyncIterator[_S]:
    """An empty database, dropped at the end; its server runs, whatever an earlier test, or this one, does to it."""
    if not server.running:
        server.restart()
    created = await server.create_database()
    yield created
    if not created.running:
        created.restart()
    await created.drop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """A test that asks a server for what it does not have (TLS, a restart) is skipped, not failed."""
    with _or_skip():
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests that take longest go first, so that no process is left with one of them at the end."""
    items.sort(key=lambda item: item.get_closest_marker("timeout") is None)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A process of `pytest --numprocesses` tells the first one what it started."""
    if (told := getattr(session.config, "workeroutput", None)) is not None:
        told["servers"] = _started


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    _started.update(getattr(node, "workeroutput", {}).get("servers", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what the tests ran against."""
    if _started:
        terminalreporter.write_line("servers: " + ", ".join(f"{name} {v}" for name, v in _started.items()))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.PostgresServer]:
    """One PostgreSQL for the whole run."""
    with _or_skip(), postgres.started() as server:
        _started["PostgreSQL"] = server.version
        yield server


@pytest.fixture
async def database(postgres_server: postgres.PostgresServer) -> AsyncIterator[postgres.PostgresServer]:
    """An empty database of this test's own."""
    async with _database_on(postgres_server) as created:
        yield created


@pytest.fixture
def postgres_wire(database: postgres.PostgresServer) -> Iterator[faults.TcpProxy]:
    """A proxy in front of this test's database that can cut, stall and slow down its connections."""
    with faults.TcpProxy(database.host, database.port) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def mysql_server() -> Iterator[mysql.MySQLServer]:
    """One MySQL for the whole run."""
    with _or_skip(), mysql.started("MySQL") as server:
        _started["MySQL"] = server.version
        yield server


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[mysql.MySQLServer]:
    """One MariaDB for the whole run."""
    with _or_skip(), mysql.started("MariaDB") as server:
        _started["MariaDB"] = server.version
        yield server


@pytest.fixture(params=["mysql", "mariadb"])
async def mysql_database(request: pytest.FixtureRequest) -> AsyncIterator[mysql.MySQLServer]:
    """An empty database of this test's own, once on MySQL and once on MariaDB."""
    server: mysql.MySQLServer = request.getfixturevalue(f"{request.param}_server")
    async with _database_on(server) as created:
        yield created


@pytest.fixture
async def only_mysql_database(mysql_server: mysql.MySQLServer) -> AsyncIterator[mysql.MySQLServer]:
    """An empty database of this test's own, on MySQL alone."""
    async with _database_on(mysql_server) as created:
        yield created


@pytest.fixture
def mysql_wire(mysql_database: mysql.MySQLServer) -> Iterator[faults.TcpProxy]:
    """A proxy in front of this test's database that can cut, stall and slow down its connections."""
    with faults.TcpProxy(mysql_database.host, mysql_database.port) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def mongodb_server() -> Iterator[mongodb.MongoServer]:
    """One server of MongoDB's protocol for the whole run."""
    with _or_skip(), mongodb.started() as server:
        _started["MongoDB"] = server.version
        yield server


@pytest.fixture(scope="session")
def mongodb_stand_in(mongodb_server: mongodb.MongoServer) -> Iterator[changes.ReplicaSet]:
    """What stands in for a replica set: the server's documents, with change streams."""
    if mongodb_server.is_mongod:
        pytest.skip(f"needs no server of its own: unset {mongodb.VARIABLE}, which names one, for this test")
    with changes.started(mongodb_server) as stand_in:
        yield stand_in


@pytest.fixture(scope="session")
def mongodb_replica_set(request: pytest.FixtureRequest, mongodb_server: mongodb.MongoServer) -> mongodb.MongoServer:
    """A replica set: the one that `TEST_MONGODB_URL` names, or what stands in for one."""
    if not mongodb_server.is_mongod:
        stand_in: changes.ReplicaSet = request.getfixturevalue("mongodb_stand_in")
        return stand_in.server
    if "replicaSet=" not in mongodb_server.options:
        pytest.skip(f"needs a replica set: say replicaSet=… in {mongodb.VARIABLE}, or unset it")
    return mongodb_server


@pytest.fixture
async def mongodb_replicated(mongodb_replica_set: mongodb.MongoServer) -> AsyncIterator[mongodb.MongoServer]:
    """An empty database of this test's own, on a replica set."""
    async with _database_on(mongodb_replica_set) as created:
        yield created


@pytest.fixture(scope="session")
def rest_server() -> Iterator[rest.RestServer]:
    """One HTTP API for the whole run."""
    with _or_skip(), rest.started() as server:
        _started["uvicorn"] = server.version
        yield server


@pytest.fixture(scope="session")
def kafka_session() -> Iterator[kafka.KafkaServer]:
    """One Kafka broker for the whole run."""
    with _or_skip(), kafka.started() as server:
        _started["Kafka"] = server.version
        yield server


@pytest.fixture
async def mongodb_database(mongodb_server: mongodb.MongoServer) -> AsyncIterator[mongodb.MongoServer]:
    """An empty database of this test's own."""
    async with _database_on(mongodb_server) as created:
        yield created


@pytest.fixture
def mongodb_wire(mongodb_database: mongodb.MongoServer) -> Iterator[faults.TcpProxy]:
    """A proxy in front of this test's server that can cut, stall and slow down its connections."""
    with faults.TcpProxy(mongodb_database.host, mongodb_database.port) as proxy:
        yield proxy


@pytest.fixture
def rest_space(rest_server: rest.RestServer) -> rest.Space:
    """A part of the API for this test alone, with nothing in it."""
    return rest_server.space(secrets.token_hex(6))


@pytest.fixture
def kafka_server(kafka_session: kafka.KafkaServer) -> kafka.KafkaServer:
    """The broker, running, whatever an earlier test did to it."""
    if not kafka_session.running:
        kafka_session.restart()
    return kafka_session


@pytest.fixture(scope="session")
def connect_session(kafka_session: kafka.KafkaServer) -> Iterator[connect.ConnectServer]:
    """One Kafka Connect worker with Debezium's connectors for the whole run."""
    if not kafka_session.running:
        kafka_session.restart()
    with _or_skip(), connect.started(kafka_session.bootstrap) as server:
        _started["Debezium"] = connect.DEBEZIUM
        yield server


@pytest.fixture
def connect_server(kafka_server: kafka.KafkaServer, connect_session: connect.ConnectServer) -> connect.ConnectServer:
    """The worker, running, whatever an earlier test did to it."""
    if not connect_session.running:
        connect_session.start()
    return connect_session


@pytest.fixture(scope="session")
def s3_server() -> Iterator[s3.S3Server]:
    """One S3 server for the whole run."""
    with _or_skip(), s3.started() as server:
        _started["S3"] = server.version
        yield server


@pytest.fixture
async def bucket(s3_server: s3.S3Server) -> AsyncIterator[str]:
    """The name of an empty bucket of this test's own."""
    name = await s3_server.bucket()
    yield name
    await s3_server.remove(name)


@pytest.fixture
def s3_faults(s3_server: s3.S3Server) -> Iterator[faults.FaultProxy]:
    """A proxy in front of the S3 server that fails requests as it is told."""
    with faults.FaultProxy(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[PrefectServer]:
    """One Prefect server for the whole run; its address is in the environment from the beginning."""
    from prefect import __version__ as version

    with prefect_database() as url:
        _PREFECT.database = url
        with _or_skip():
            _PREFECT.start()
        _started["Prefect"] = version
        yield _PREFECT
        _drain_prefect()
        _PREFECT.stop()


@pytest.fixture
def prefect_api(prefect_server: PrefectServer) -> str:
    """The URL of the Prefect API, which this process and its subprocesses use; running, whatever was done to it."""
    if not prefect_server.running:
        prefect_server.start()
    return prefect_server.url


def _drain_prefect() -> None:
    """Let Prefect's background threads send their last logs and events while there still is a server."""
    from prefect._internal.concurrency.services import QueueService

    for service in QueueService.__subclasses__():
        service.drain_all(timeout=5, at_exit=False)


_ROOT = Path(__file__).parent.parent
_OURS = tuple(f"{_ROOT / folder}{os.sep}" for folder in ("flows", "tasks", "blocks"))
_STANDARD_LIBRARY = f"{sysconfig.get_path('stdlib')}{os.sep}"
_INSTALLED = f"{os.sep}site-packages{os.sep}"


def _called_by_us() -> bool:
    """Whether the innermost frame outside the standard library is our code.

    Libraries that we call may block for reasons of their own: botocore reads its service models from disk, Prefect
    its profile. What we call ourselves, directly or by way of `pathlib` and its like, must not.
    """
    frame = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_OURS):
            return True
        standard = file.startswith((_STANDARD_LIBRARY, "<frozen")) and _INSTALLED not in file
        if not standard and not file.endswith(f"{os.sep}blockbuster.py"):
            return False
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _guarded(may_block: Callable[..., bool]) -> Callable[..., bool]:
    def predicate(*args: Any, **kwargs: Any) -> bool:
        return not _called_by_us() or may_block(*args, **kwargs)

    return predicate


@pytest.fixture(autouse=True)
def event_loop_guard() -> Iterator[BlockBuster]:
    """Fail the test when our code blocks the event loop."""
    guard = BlockBuster()
    for function in guard.functions.values():
        function.can_block_predicate = _guarded(function.can_block_predicate)
    for name in ("threading.Lock.acquire", "threading.Lock.acquire_lock"):
        # Loggers lock their handlers for as long as one line takes to write.
        guard.functions[name].can_block_in("logging/__init__.py", {"acquire", "handle"})
    guard.activate()
    yield guard
    guard.deactivate()
