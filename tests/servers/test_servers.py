"""The servers of the tests are what the tests take them for, and the proxies do what they are told."""

import asyncio
import contextlib
import io
import os
import signal
import ssl
import subprocess
import sys
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import aiomysql
import asyncpg
import pytest
from aiobotocore.config import AioConfig
from aiohttp import ClientPayloadError
from blockbuster import BlockingError
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError, ResponseStreamingError

from tests.servers import faults, support
from tests.servers.faults import Call, Delay, FaultProxy, Reset, TcpProxy, Truncate, s3_error, slow_down
from tests.servers.mysql import MySQLServer
from tests.servers.postgres import CERTIFIED_USER, PostgresServer
from tests.servers.prefect import PrefectServer
from tests.servers.s3 import S3Server

RETRYING = AioConfig(retries={"total_max_attempts": 4, "mode": "standard"}, s3={"addressing_style": "path"})
_ROOT = Path(__file__).parent.parent.parent
PART = 5 << 20  # the smallest that may be followed by another one


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return error.value.response["Error"]["Code"]


async def query(server: PostgresServer, sql: str) -> object:
    connection = await asyncpg.connect(server.dsn())
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


class TestPostgres:
    async def test_tls_is_verified(self, database: PostgresServer) -> None:
        """The server's certificate is valid for its address, and for nobody who does not trust its authority."""
        connection = await asyncpg.connect(database.dsn(tls=True))
        assert await connection.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        await connection.close()
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncpg.connect(database.dsn(), ssl=ssl.create_default_context())

    async def test_client_certificate_is_a_login(self, database: PostgresServer) -> None:
        """The client's certificate logs its user in without a password, and nothing else does."""
        trusting = ssl.create_default_context(cafile=database.dsn(tls=True) and str(database.ca_file))
        await query(database, f"CREATE ROLE {CERTIFIED_USER} LOGIN")
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
            await asyncpg.connect(database.dsn(), user=CERTIFIED_USER, ssl=trusting)
        trusting.load_cert_chain(str(database.client_certificate), str(database.client_key))
        connection = await asyncpg.connect(database.dsn(), user=CERTIFIED_USER, ssl=trusting)
        assert await connection.fetchval("SELECT current_user") == CERTIFIED_USER
        await connection.close()
        await query(database, f"DROP ROLE {CERTIFIED_USER}")

    async def test_wrong_password_is_rejected(self, database: PostgresServer) -> None:
        """Passwords are checked, without TLS too."""
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(database.dsn(), password="wrong")

    async def test_killed_server_comes_back_with_what_was_committed(self, database: PostgresServer) -> None:
        """After SIGKILL and a restart on the same port, committed and prepared transactions are there."""
        connection = await asyncpg.connect(database.dsn())
        await connection.execute("CREATE TABLE t AS SELECT 1 AS id")
        await connection.execute("BEGIN; INSERT INTO t VALUES (2); PREPARE TRANSACTION 'held'")
        database.kill()
        with pytest.raises((asyncpg.PostgresConnectionError, ConnectionError, asyncpg.InterfaceError)):
            await connection.fetch("SELECT * FROM t")
        connection.terminate()
        database.restart()
        assert await query(database, "SELECT sum(id) FROM t") == 1
        assert await query(database, "SELECT count(*) FROM pg_prepared_xacts") == 1

    async def test_logical_decoding_and_its_slots(self, database: PostgresServer) -> None:
        """Changes can be decoded from the WAL; the slot does not keep the database from being dropped."""
        await query(database, "CREATE PUBLICATION p FOR ALL TABLES")
        await query(database, "SELECT pg_create_logical_replication_slot('s', 'pgoutput')")
        await query(database, "CREATE TABLE t (id int)")
        await query(database, "INSERT INTO t VALUES (1)")
        changes = "pg_logical_slot_get_binary_changes('s', NULL, NULL, 'proto_version', '1', 'publication_names', 'p')"
        assert await query(database, f"SELECT count(*) FROM {changes} WHERE get_byte(data, 0) = ascii('I')") == 1


class TestMySQL:
    async def test_flavour_and_version(self, mysql_database: MySQLServer) -> None:
        """The server is of the kind and the version the summary names."""
        told = await mysql_database.fetch_value("SELECT version()")
        assert ("MariaDB" in told) == mysql_database.is_mariadb
        assert mysql_database.instance is None or told.startswith(mysql_database.version)

    async def test_binlog_has_whole_rows_and_gtids(self, mysql_database: MySQLServer) -> None:
        """Every change goes into the binary log as a whole row with its column names, under a GTID."""
        for variable, value in {"log_bin": 1, "binlog_format": "ROW", "binlog_row_image": "FULL"}.items():
            assert await mysql_database.fetch_value(f"SELECT @@GLOBAL.{variable}") == value
        assert await mysql_database.fetch_value("SELECT @@GLOBAL.binlog_row_metadata") == "FULL"
        gtid = "gtid_binlog_pos" if mysql_database.is_mariadb else "gtid_executed"
        before = await mysql_database.fetch_value(f"SELECT @@GLOBAL.{gtid}")
        await mysql_database.execute("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
        assert await mysql_database.fetch_value(f"SELECT @@GLOBAL.{gtid}") not in ("", before)

    async def test_tls_is_verified(self, mysql_database: MySQLServer) -> None:
        """The server's certificate is valid for its address, and for nobody who does not trust its authority."""
        async with aiomysql.connect(**mysql_database.arguments(tls=True)) as connection, connection.cursor() as cursor:
            await cursor.execute("SHOW STATUS LIKE 'Ssl_version'")
            assert (await cursor.fetchone())[1].startswith("TLS")
        with pytest.raises(aiomysql.OperationalError) as caught:
            await aiomysql.connect(**mysql_database.arguments() | {"ssl": ssl.create_default_context()})
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)

    async def test_wrong_password_is_rejected(self, mysql_database: MySQLServer) -> None:
        """Passwords are checked, without TLS too."""
        with pytest.raises(aiomysql.OperationalError, match="Access denied"):
            await aiomysql.connect(**mysql_database.arguments() | {"password": "wrong"})

    async def test_limited_account(self, mysql_database: MySQLServer) -> None:
        """An account may do what it was granted, no more, and goes with the database."""
        await mysql_database.execute("CREATE TABLE t (id int)")
        user = await mysql_database.create_user("SELECT ON {database}.t")
        assert await user.fetch("SELECT * FROM t") == []
        with pytest.raises(aiomysql.OperationalError, match="denied"):
            await user.execute("INSERT INTO t VALUES (1)")

    async def test_certificate_can_be_asked_for(self, mysql_database: MySQLServer) -> None:
        """An account that requires a certificate is let in with the client's, and not without."""
        user = await mysql_database.create_user(require="X509")
        arguments = user.arguments(tls=True) | {"db": None}
        with pytest.raises(aiomysql.OperationalError, match="Access denied"):
            await aiomysql.connect(**arguments)
        arguments["ssl"].load_cert_chain(*user.certificate)
        async with aiomysql.connect(**arguments):
            pass

    async def test_killed_server_comes_back_with_what_was_committed(self, mysql_database: MySQLServer) -> None:
        """After SIGKILL and a restart on the same port, what was committed is there and nothing else."""
        await mysql_database.execute("CREATE TABLE t (id int) ENGINE=InnoDB", "INSERT INTO t VALUES (1)")
        async with aiomysql.connect(**mysql_database.arguments()) as connection, connection.cursor() as cursor:
            await cursor.execute("BEGIN")
            await cursor.execute("INSERT INTO t VALUES (2)")
            mysql_database.kill()
            with pytest.raises(aiomysql.OperationalError, match="Lost connection"):
                await cursor.execute("SELECT * FROM t")
        mysql_database.restart()
        assert await mysql_database.fetch("SELECT id FROM t") == [(1,)]

    async def test_connections_are_cut(self, mysql_database: MySQLServer, mysql_wire: TcpProxy) -> None:
        """A result whose connection is reset after a megabyte is an error."""
        through = mysql_database.through(mysql_wire.port).arguments()
        async with aiomysql.connect(**through) as connection, connection.cursor() as cursor:
            mysql_wire.cut_after(1 << 20)
            with pytest.raises(aiomysql.OperationalError, match="Lost connection"):
                await cursor.execute("SELECT repeat('x', 10000000)")


class TestS3:
    async def test_one_of_many_conditional_writes_wins(self, s3_server: S3Server, bucket: str) -> None:
        """Of 16 writers of one key that must not exist, one is told it wrote, and its object is what is there."""
        async with s3_server.client() as client:

            async def write(number: int) -> int | str:
                try:
                    await client.put_object(Bucket=bucket, Key="k", Body=b"%d" % number, IfNoneMatch="*")
                except ClientError as error:
                    return error.response["Error"]["Code"]
                return number

            told = await asyncio.gather(*map(write, range(16)))
            body = await (await client.get_object(Bucket=bucket, Key="k"))["Body"].read()
        winners = [answer for answer in told if isinstance(answer, int)]
        assert [int(body)] == winners
        assert Counter(told)["PreconditionFailed"] == 15

    async def test_multipart_upload(self, s3_server: S3Server, bucket: str) -> None:
        """The parts of an upload become one object when it is completed."""
        async with s3_server.client() as client:
            upload = (await client.create_multipart_upload(Bucket=bucket, Key="k"))["UploadId"]
            tags = []
            for number, body in enumerate((b"a" * PART, b"b"), 1):
                part = await client.upload_part(
                    Bucket=bucket, Key="k", UploadId=upload, PartNumber=number, Body=io.BytesIO(body)
                )
                tags.append(part["ETag"])
            await client.complete_multipart_upload(
                Bucket=bucket,
                Key="k",
                UploadId=upload,
                MultipartUpload={"Parts": [{"ETag": tag, "PartNumber": n} for n, tag in enumerate(tags, 1)]},
            )
            assert (await client.head_object(Bucket=bucket, Key="k"))["ContentLength"] == PART + 1

    async def test_late_part_of_an_aborted_upload_is_refused(self, s3_server: S3Server, bucket: str) -> None:
        """After an abort nothing of the upload is there, and a part that comes later gets an error."""
        async with s3_server.client() as client:
            upload = (await client.create_multipart_upload(Bucket=bucket, Key="k"))["UploadId"]
            await client.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=b"a")
            await client.abort_multipart_upload(Bucket=bucket, Key="k", UploadId=upload)
            with pytest.raises(ClientError) as error:
                await client.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=2, Body=b"b")
            assert code(error) == "NoSuchUpload"
            assert "Uploads" not in await client.list_multipart_uploads(Bucket=bucket)

    async def test_strangers_are_denied(self, s3_server: S3Server, bucket: str) -> None:
        """A wrong secret fails the signature; another user is known, and has no access."""
        stranger = s3_server.stranger()
        async with S3Server(**{**vars(s3_server), "secret_key": "wrong"}).client() as client:
            with pytest.raises(ClientError) as error:
                await client.put_object(Bucket=bucket, Key="k", Body=b"")
            assert code(error) == "SignatureDoesNotMatch"
        async with stranger.client() as client:
            assert (await client.list_buckets())["Buckets"] == []
            with pytest.raises(ClientError) as error:
                await client.put_object(Bucket=bucket, Key="k", Body=b"")
            assert code(error) == "AccessDenied"


class TestFaultProxy:
    async def test_503_twice_then_success(self, s3_server: S3Server, s3_faults: FaultProxy, bucket: str) -> None:
        """A client that retries gets through after two answers of 503, its signature valid at the server."""
        s3_faults.before(slow_down(), method="PUT", path="/k$", times=2)
        async with s3_server.through(s3_faults.endpoint).client(RETRYING) as client:
            await client.put_object(Bucket=bucket, Key="k", Body=b"x" * 200_000)
        seen = s3_faults.requests(method="PUT", path="/k$")
        assert [(request.status, request.forwarded) for request in seen] == [(503, False), (503, False), (200, True)]
        assert all(request.bytes_in >= 200_000 for request in seen)
        async with s3_server.client() as client:
            assert (await client.head_object(Bucket=bucket, Key="k"))["ContentLength"] == 200_000

    async def test_large_bodies_stream_through(self, s3_server: S3Server, s3_faults: FaultProxy, bucket: str) -> None:
        """Bodies of many megabytes pass unchanged, in both directions, on one connection of the client's."""
        body = os.urandom(20 << 20)
        async with s3_server.through(s3_faults.endpoint).client() as client:
            await client.put_object(Bucket=bucket, Key="k", Body=body)
            answer = await client.get_object(Bucket=bucket, Key="k")
            assert await answer["Body"].read() == body

    @pytest.mark.parametrize("when", ["before", "after"])
    async def test_callback(self, s3_server: S3Server, s3_faults: FaultProxy, bucket: str, when: str) -> None:
        """A callback before a request finds nothing at the server, one after it finds it done; the client waits."""
        found: list[int] = []

        async def look(request: faults.Request) -> None:
            async with s3_server.client() as direct:
                found.append((await direct.list_objects_v2(Bucket=bucket))["KeyCount"])

        rule = getattr(s3_faults, when)(Call(look), method="PUT")
        async with s3_server.through(s3_faults.endpoint).client() as client:
            await client.put_object(Bucket=bucket, Key="k", Body=b"x")
        assert found == [0 if when == "before" else 1]
        assert rule.fired == 1

    async def test_client_killed_by_callback(self, s3_server: S3Server, s3_faults: FaultProxy, bucket: str) -> None:
        """A subprocess that is killed in the callback before its third part leaves two parts."""
        through = s3_server.through(s3_faults.endpoint)
        script = """if True:
            import boto3, sys
            s3 = boto3.client("s3")
            upload = s3.create_multipart_upload(Bucket=sys.argv[1], Key="k")["UploadId"]
            for number in range(1, 9):
                s3.upload_part(Bucket=sys.argv[1], Key="k", UploadId=upload, PartNumber=number, Body=b"x")
        """
        child = subprocess.Popen([sys.executable, "-c", script, bucket], env={**os.environ, **through.environment})
        rule = s3_faults.before(Call(lambda _: child.kill(), then=Reset()), query="partNumber=3")
        assert await asyncio.to_thread(child.wait) == -signal.SIGKILL
        rule.wait()
        async with s3_server.client() as client:
            upload = (await client.list_multipart_uploads(Bucket=bucket))["Uploads"][0]["UploadId"]
            parts = await client.list_parts(Bucket=bucket, Key="k", UploadId=upload)
        assert [part["PartNumber"] for part in parts["Parts"]] == [1, 2]

    async def test_nth_and_times(self, s3_server: S3Server, s3_faults: FaultProxy, bucket: str) -> None:
        """A rule for the second match leaves the first and the third alone."""
        s3_faults.before(s3_error(403, "AccessDenied"), method="PUT", nth=2)
        told = []
        async with s3_server.through(s3_faults.endpoint).client() as client:
            for _ in range(3):
                try:
                    await client.put_object(Bucket=bucket, Key="k", Body=b"x")
                    told.append("")
                except ClientError as error:
                    told.append(error.response["Error"]["Code"])
        assert told == ["", "AccessDenied", ""]

    async def test_reset_before_the_answer(self, s3_server: S3Server, s3_faults: FaultProxy, bucket: str) -> None:
        """After a reset in place of the answer the client does not know; the server has done it.

        Twice, as aiohttp, below any retries of botocore's, sends idempotent requests once more after a reset.
        """
        s3_faults.after(Reset(), method="PUT", times=2)
        async with s3_server.through(s3_faults.endpoint).client() as client:
            with pytest.raises((ConnectionClosedError, EndpointConnectionError)):
                await client.put_object(Bucket=bucket, Key="k", Body=b"x")
            assert (await client.head_object(Bucket=bucket, Key="k"))["ContentLength"] == 1
        seen = s3_faults.requests(method="PUT")
        assert [(request.status, request.forwarded) for request in seen] == [(None, True)] * 2

    async def test_reset_mid_request(self, s3_server: S3Server, s3_faults: FaultProxy, bucket: str) -> None:
        """A request that is cut in the middle of its body leaves nothing at the server."""
        s3_faults.before(Reset(body_bytes=100_000), method="PUT", times=2)
        async with s3_server.through(s3_faults.endpoint).client() as client:
            with pytest.raises((ConnectionClosedError, EndpointConnectionError)):
                await client.put_object(Bucket=bucket, Key="k", Body=b"x" * 8_000_000)
            assert s3_faults.requests(method="PUT")[0].bytes_in == 100_000
            assert (await client.list_objects_v2(Bucket=bucket))["KeyCount"] == 0

    @pytest.mark.parametrize("fault", [Reset(body_bytes=1000), Truncate(1000)], ids=["reset", "truncated"])
    async def test_answer_cut(
        self, s3_server: S3Server, s3_faults: FaultProxy, bucket: str, fault: Reset | Truncate
    ) -> None:
        """An answer that ends early, by a reset or in good order, is an error to the client, not a short object."""
        s3_faults.after(fault, method="GET", path="/k$")
        async with s3_server.through(s3_faults.endpoint).client() as client:
            await client.put_object(Bucket=bucket, Key="k", Body=b"x" * 100_000)
            async with (await client.get_object(Bucket=bucket, Key="k"))["Body"] as body:
                with pytest.raises((ClientPayloadError, ResponseStreamingError)):
                    await body.read()

    async def test_delay(self, s3_server: S3Server, s3_faults: FaultProxy, bucket: str) -> None:
        """A request is held back as long as the rule says."""
        s3_faults.before(Delay(0.3), method="PUT")
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with s3_server.through(s3_faults.endpoint).client() as client:
            await client.put_object(Bucket=bucket, Key="k", Body=b"x")
        assert loop.time() - began > 0.3

    def test_error_of_a_callback_is_raised(self, s3_server: S3Server) -> None:
        """An assertion that fails in a callback fails the test, at the end of the proxy."""

        def wrong(request: faults.Request) -> None:
            raise RuntimeError("not as expected")

        proxy = FaultProxy(s3_server.endpoint)
        proxy.__enter__()
        proxy.before(Call(wrong))
        with pytest.raises(ConnectionError):
            urllib.request.urlopen(proxy.endpoint, timeout=5)
        with pytest.raises(ExceptionGroup, match="callback"):
            proxy.__exit__(None, None, None)


class TestTcpProxy:
    async def test_copy_is_cut(self, database: PostgresServer, postgres_wire: TcpProxy) -> None:
        """A COPY whose connection is reset after a megabyte fails, and has brought no more than that."""
        received = bytearray()

        async def sink(data: bytes) -> None:
            received.extend(data)

        connection = await asyncpg.connect(database.through(postgres_wire.port).dsn())
        postgres_wire.cut_after(1 << 20)
        with pytest.raises((ConnectionError, asyncpg.PostgresConnectionError)):
            await connection.copy_from_query("SELECT generate_series(1, 10000000)", output=sink)
        connection.terminate()
        assert 0 < len(received) <= 1 << 20

    async def test_tls_through_the_proxy(self, database: PostgresServer, postgres_wire: TcpProxy) -> None:
        """The certificate is valid behind the proxy too."""
        connection = await asyncpg.connect(database.through(postgres_wire.port).dsn(tls=True))
        assert await connection.fetchval("SELECT 1") == 1
        await connection.close()

    async def test_cut_refuse_stall(self, database: PostgresServer, postgres_wire: TcpProxy) -> None:
        """Open connections are cut, new ones refused, and nothing moves while stalled, each until told otherwise."""
        through = database.through(postgres_wire.port)
        connection = await asyncpg.connect(through.dsn())
        with postgres_wire.stalled():
            waiting = asyncio.create_task(connection.fetchval("SELECT 1"))
            assert not (await asyncio.wait([waiting], timeout=0.3))[0]
        assert await waiting == 1
        with postgres_wire.refusing():
            with pytest.raises(OSError, match="Connect call failed"):
                await asyncpg.connect(through.dsn())
            assert await connection.fetchval("SELECT 2") == 2
        assert postgres_wire.connections == 1
        postgres_wire.cut()
        with pytest.raises((ConnectionError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError)):
            await connection.fetchval("SELECT 3")
        connection.terminate()
        assert await query(through, "SELECT 4") == 4

    async def test_throttle(self, database: PostgresServer, postgres_wire: TcpProxy) -> None:
        """A server's answer comes no faster than the throttle lets it."""
        connection = await asyncpg.connect(database.through(postgres_wire.port).dsn())
        postgres_wire.throttle(400_000)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await connection.fetchval("SELECT repeat('x', 200000)")
        assert loop.time() - began > 0.45
        await connection.close()


class TestPrefect:
    async def test_flows_and_the_command_line_use_the_server(self, prefect_api: str) -> None:
        """This process and its subprocesses talk to the server of the tests."""
        from prefect import get_client

        async with get_client() as client:
            assert str(client.api_url).rstrip("/") == prefect_api
            assert await client.read_flow_runs() is not None

    def test_stored_things_survive_a_kill(self, prefect_server: PrefectServer) -> None:
        """A server that was killed comes back on the same port."""
        prefect_server.kill()
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(f"{prefect_server.url}/health")
        prefect_server.restart()
        with urllib.request.urlopen(f"{prefect_server.url}/health") as answer:
            assert answer.status == 200


_BLOCKING = """
import asyncio, pathlib, time

async def sleeps():
    time.sleep(0)

async def reads():
    pathlib.Path(__file__).read_bytes()

async def reads_in_a_thread():
    await asyncio.to_thread(pathlib.Path(__file__).read_bytes)
"""


class TestEventLoopGuard:
    @pytest.mark.parametrize(
        ("folder", "function", "raises"),
        [
            ("flows", "sleeps", True),
            ("tasks/extractors", "reads", True),
            ("blocks", "reads_in_a_thread", False),
            (".venv/lib/site-packages/library", "sleeps", False),
        ],
    )
    async def test_only_our_own_blocking_fails(self, folder: str, function: str, raises: bool) -> None:
        """Code in our folders that blocks the event loop itself is caught; threads and libraries may block."""
        names: dict[str, Any] = {"__file__": __file__}
        exec(compile(_BLOCKING, str(_ROOT / folder / "made_up.py"), "exec"), names)
        with pytest.raises(BlockingError) if raises else contextlib.nullcontext():
            await names[function]()


def test_servers_die_with_the_tests(tmp_path: Path) -> None:
    """A test run that is killed leaves neither a server nor its folder."""
    script = """if True:
        import sys, pathlib
        from tests.servers.support import Daemon, data_folder
        with data_folder("guarded") as folder:
            daemon = Daemon(["sleep", "60"], log=folder / "log", folder=folder)
            print(daemon.pid, folder, flush=True)
            sys.stdin.read()
    """
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=_ROOT
    ) as run:
        assert run.stdout is not None
        pid, folder = run.stdout.readline().split()
        run.kill()
    support.wait_until(lambda: not Path("/proc", pid, "exe").exists() and not Path(folder).exists(), 10)
