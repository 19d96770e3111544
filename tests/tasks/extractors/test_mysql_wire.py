"""Reading from real servers: large rows, errors in the middle of a result, lost connections, slow destinations, TLS."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import aiomysql
import pytest

from blocks.errors import ConfigurationError, SnapshotLost
from blocks.mysql import MySQL
from tasks.extractors.contract import ReadOptions
from tasks.extractors.mysql import packets, wire
from tasks.extractors.mysql.forms import Form
from tasks.extractors.mysql.session import Session
from tasks.extractors.mysql.source import MySQLQuery, MySQLTable
from tests.servers.faults import TcpProxy
from tests.servers.mysql import MySQLServer
from tests.tasks.extractors.test_mysql import block_of
from tests.windows import NUMBERS


async def rows_of(source: MySQLTable | MySQLQuery, pause: Callable[[], Awaitable[None]] | None = None) -> list[Any]:
    """The records of a full read; ``pause`` is awaited at the first write."""
    chunks: list[bytes] = []

    async def write(data: bytes) -> None:
        if pause is not None and not chunks:
            await pause()
        chunks.append(data)

    async with source.open(ReadOptions()) as extractor:
        plan = await extractor.plan(None)
        told = await extractor.read(plan, plan.partitions[0], write)
    rows = list(csv.reader(io.StringIO(b"".join(chunks).decode(), newline="")))
    assert told.rows == len(rows)
    return rows


async def big(server: MySQLServer, rows: int = 60_000) -> MySQLTable:
    """A table of about 20 MB: more than sockets and buffers hold."""
    await server.execute(
        "CREATE TABLE big (id INT PRIMARY KEY, pad VARCHAR(400) NOT NULL)",
        server.deep_recursion,
        f"INSERT INTO big {NUMBERS.format(rows)} i, REPEAT(CHAR(97 + i % 26), 330) FROM n",
    )
    return MySQLTable(connection=block_of(server), table="big")


@pytest.fixture(params=["wire", "public API"])
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either way to read."""
    if request.param != "wire":
        monkeypatch.setattr(wire, "unusable", lambda _connection: "made so by the test")


@pytest.mark.usefixtures("reader")
async def test_rows_of_many_megabytes(mysql_database: MySQLServer) -> None:
    """Rows below, at and far above the 16 MiB of a packet come whole, among small ones."""
    sizes = [1, packets.FULL - 5, packets.FULL, 3, (16 << 20) + 1, 40 << 20, 0]
    limit = await mysql_database.fetch_value("SELECT @@GLOBAL.max_allowed_packet")
    await mysql_database.execute(
        "CREATE TABLE large (id INT PRIMARY KEY, doc LONGTEXT, raw LONGBLOB)",
        "SET GLOBAL max_allowed_packet = 1073741824",
    )
    for number, size in enumerate(sizes):
        await mysql_database.execute(f"INSERT INTO large VALUES ({number}, REPEAT('q', {size}), 'ab')")
    # What the server sends is not bounded by it.
    await mysql_database.execute(f"SET GLOBAL max_allowed_packet = {min(limit, 16 << 20)}")
    got = await rows_of(MySQLTable(connection=block_of(mysql_database), table="large"))
    assert [(int(i), len(doc), raw) for i, doc, raw in got] == [(n, size, "6162") for n, size in enumerate(sizes)]
    assert {hashlib.sha256(doc.encode()).hexdigest() for _, doc, _ in got} == {
        hashlib.sha256(b"q" * size).hexdigest() for size in sizes
    }
    await mysql_database.execute(f"SET GLOBAL max_allowed_packet = {limit}")


@pytest.mark.usefixtures("reader")
async def test_an_error_in_the_middle_of_a_result(mysql_database: MySQLServer) -> None:
    """A statement that fails after rows were sent raises the server's error, which is the user's to mend."""
    await big(mysql_database)
    query = "SELECT id, pad, (SELECT IF(id = 50000, (SELECT 1 UNION ALL SELECT 2), 1)) AS one FROM big"
    with pytest.raises((ConfigurationError, aiomysql.MySQLError), match="more than 1 row"):
        await rows_of(MySQLQuery(connection=block_of(mysql_database), query=query))


@pytest.mark.usefixtures("reader")
async def test_a_query_killed_on_the_server(mysql_database: MySQLServer) -> None:
    """KILL QUERY in the middle of a result is an error, never the end of the rows."""
    source = await big(mysql_database)
    with pytest.raises(aiomysql.MySQLError, match=r"interrupted|partition 00001"):
        await rows_of(source, lambda: _kill(mysql_database, "QUERY"))


@pytest.mark.usefixtures("reader")
async def test_a_connection_killed_on_the_server(mysql_database: MySQLServer) -> None:
    """KILL of the connection loses the snapshot, and says so: the run plans anew."""
    source = await big(mysql_database)
    with pytest.raises(SnapshotLost):
        await rows_of(source, lambda: _kill(mysql_database, "CONNECTION"))


async def _kill(server: MySQLServer, what: str) -> None:
    processes = await server.fetch("SHOW FULL PROCESSLIST")
    readers = [row[0] for row in processes if row[3] == server.database and "big" in str(row[7])]
    assert len(readers) == 1
    await server.execute(f"KILL {what} {readers[0]}")


@pytest.mark.usefixtures("reader")
async def test_a_cut_connection(mysql_database: MySQLServer, mysql_wire: TcpProxy) -> None:
    """A connection cut in the middle of a result loses the snapshot, and says so."""
    await big(mysql_database)
    behind = MySQLTable(connection=block_of(mysql_database.through(mysql_wire.port)), table="big")

    async def cut() -> None:
        await asyncio.to_thread(mysql_wire.cut)

    with pytest.raises(SnapshotLost):
        await rows_of(behind, cut)


@pytest.mark.usefixtures("reader")
async def test_a_failed_write_leaves_the_snapshot_alive(mysql_database: MySQLServer) -> None:
    """After an error of the destination the same snapshot is read again: rows written since are not in it."""
    source = await big(mysql_database)

    async def fail(_data: bytes) -> None:
        raise ZeroDivisionError

    async with source.open(ReadOptions()) as extractor:
        plan = await extractor.plan(None)
        await mysql_database.execute("DELETE FROM big WHERE id > 10")
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                await extractor.read(plan, plan.partitions[0], fail)
        size = 0

        async def write(data: bytes) -> None:
            nonlocal size
            size += data.count(b"\n")

        assert (await extractor.read(plan, plan.partitions[0], write)).rows == size == 60_000


async def test_a_slow_destination_outlasts_the_servers_time_limits(mysql_database: MySQLServer) -> None:
    """wait_timeout and net_write_timeout of the server do not end a read that waits for its destination."""
    source = await big(mysql_database)
    limits = ("wait_timeout", "net_write_timeout", "interactive_timeout")
    before = {name: await mysql_database.fetch_value(f"SELECT @@GLOBAL.{name}") for name in limits}
    await mysql_database.execute(*(f"SET GLOBAL {name} = 1" for name in limits))
    try:
        assert len(await rows_of(source, lambda: asyncio.sleep(3))) == 60_000
    finally:
        await mysql_database.execute(*(f"SET GLOBAL {name} = {value}" for name, value in before.items()))


@pytest.mark.usefixtures("reader")
async def test_values_longer_than_a_packet_are_whole(mysql_database: MySQLServer) -> None:
    """Bytes whose hex is longer than max_allowed_packet are not made NULL, and a function's NULL is an error."""
    await mysql_database.execute("CREATE TABLE blobs (id INT, raw LONGBLOB)")
    await mysql_database.execute("INSERT INTO blobs VALUES (1, REPEAT('a', 700000))")
    limit = await mysql_database.fetch_value("SELECT @@GLOBAL.max_allowed_packet")
    await mysql_database.execute("SET GLOBAL max_allowed_packet = 1048576")
    try:
        table = MySQLTable(connection=block_of(mysql_database), table="blobs")
        assert [(i, len(raw), set(raw)) for i, raw in await rows_of(table)] == [("1", 1_400_000, {"6", "1"})]
        query = MySQLQuery(connection=block_of(mysql_database), query="SELECT CONCAT(HEX(raw), 'x') AS c FROM blobs")
        with pytest.raises(ConfigurationError, match="max_allowed_packet"):
            await rows_of(query)
    finally:
        await mysql_database.execute(f"SET GLOBAL max_allowed_packet = {limit}")


def encrypted(server: MySQLServer) -> MySQL:
    """The block that reaches a test's database over TLS."""
    fields = block_of(server).model_dump() | {"password": server.password}
    return MySQL(**fields | {"tls": "verify-ca", "tls_ca_file": str(server.ca_file)})


async def test_over_tls(mysql_database: MySQLServer) -> None:
    """The transport that is taken over may be TLS: rows come as they do in clear, and the connection is used again."""
    plain = await big(mysql_database)
    table = MySQLTable(connection=encrypted(mysql_database), table="big")
    assert await rows_of(table) == await rows_of(plain)
    session = await Session.open(encrypted(mysql_database))
    try:
        ((_, cipher),) = await session.rows("SHOW STATUS LIKE 'Ssl_cipher'")
        assert cipher
        for _ in range(3):
            assert await session.stream("SELECT id FROM big", [Form.PLAIN], plain_dialect(), _nowhere) == 60_000
            assert await session.value("SELECT 7") == "7"
    finally:
        session.close()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no uvloop for Windows")
def test_under_uvloop(mysql_database: MySQLServer) -> None:
    """uvloop's transports are taken over as asyncio's are; nothing falls back to the slow way."""
    import uvloop

    async def both() -> list[tuple[str | None, int]]:
        await big(mysql_database)
        told = []
        for block in (block_of(mysql_database), encrypted(mysql_database)):
            session = await Session.open(block)
            told.append((session.unusable, len(await rows_of(MySQLTable(connection=block, table="big")))))
            session.close()
        return told

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(both()) == [(None, 60_000)] * 2


async def test_a_slow_destination_stops_the_server(mysql_database: MySQLServer) -> None:
    """While a write waits, no more than the buffer is read: memory does not grow with the table."""
    source = await big(mysql_database)
    largest = 0

    async def write(data: bytes) -> None:
        nonlocal largest
        largest = max(largest, len(data))
        await asyncio.sleep(0.01)

    async with source.open(ReadOptions()) as extractor:
        plan = await extractor.plan(None)
        await extractor.read(plan, plan.partitions[0], write)
    assert largest <= 2 * wire.BUFFER_BYTES


def plain_dialect() -> Any:
    return ReadOptions().dialect


async def _nowhere(_data: bytes) -> None:
    return
