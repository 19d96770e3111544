"""The MongoDB connection: its TLS by default, what the driver is given, real log-ins, and what stays secret."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from blocks.errors import ConfigurationError
from blocks.mongodb import MongoDB
from tasks.extractors.mongodb.client import Server, connected, server_of
from tests.servers.certificates import Authority
from tests.servers.mongodb import MongoServer
from tests.servers.support import free_port
from tests.tasks.extractors.test_mongodb import block_of

PASSWORD = "s3cret%pass/@:"


def mongodb(**fields: Any) -> MongoDB:
    return MongoDB(**({"hosts": "db.example", "database": "shop", "user": "reader", "password": PASSWORD} | fields))


def by_uri(uri: str, **fields: Any) -> MongoDB:
    return MongoDB(uri=uri, database="shop", **fields)


async def answers(block: MongoDB) -> Server:
    async with connected(block) as client:
        return await server_of(client, block)


async def complaint(block: MongoDB) -> str:
    """What a person is told of a connection that must fail; never the password."""
    with pytest.raises(ConfigurationError) as caught:
        await answers(block)
    secret = block.password.get_secret_value()
    assert not secret or secret not in f"{caught.value} {caught.value!r}"
    return str(caught.value)


@pytest.mark.parametrize(
    ("block", "mode"),
    [
        (mongodb(), "verify-full"),
        (mongodb(hosts="localhost"), "disable"),
        (mongodb(hosts="127.0.0.1:27018,localhost"), "disable"),
        (mongodb(hosts="127.0.0.1,db.example"), "verify-full"),
        (mongodb(hosts="localhost", tls_ca_file="ca.pem"), "verify-full"),
        (mongodb(hosts="[::1]:27017"), "disable"),
        (mongodb(tls="require"), "require"),
        (by_uri("mongodb+srv://cluster.example/"), "verify-full"),
        (by_uri("mongodb://localhost/"), "disable"),
        (by_uri("mongodb://a,b/?tls=false"), None),
        (by_uri("mongodb://a,b/?ssl=true", tls="verify-ca"), "verify-ca"),
    ],
)
def test_tls_is_verified_unless_it_is_this_machine(block: MongoDB, mode: str | None) -> None:
    """The default depends on where the server is; a connection string that speaks of TLS is left its word."""
    assert block.tls_mode == mode
    arguments = block.client_arguments()
    assert arguments.get("tls") == (None if mode is None else mode != "disable")
    assert arguments.get("tlsAllowInvalidCertificates", False) == (mode == "require")
    assert arguments.get("tlsAllowInvalidHostnames", False) == (mode == "verify-ca")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"hosts": ""}, "give hosts, or a connection string"),
        ({"uri": "mongodb://x/"}, "give hosts, or a connection string"),
        ({"hosts": "", "uri": "postgres://x/"}, "uri begins with mongodb://"),
        ({"tls": "require", "tls_ca_file": "ca.pem"}, "tls_ca_file has no effect with tls require"),
        ({"tls": "disable", "tls_cert_file": "c.pem"}, "tls_cert_file has no effect"),
        ({"database": ""}, "database"),
        ({"read_concern": "strong"}, "read_concern"),
    ],
)
def test_fields_that_do_not_go_together(fields: dict[str, Any], told: str) -> None:
    """What is wrong is said before anything is connected."""
    with pytest.raises(ValidationError, match=told):
        mongodb(**fields)


def test_secrets_are_not_shown() -> None:
    """Neither the password nor the connection string is in what is printed."""
    secret = by_uri("mongodb://reader:hunter2@db1.example,db2.example:27018/?authSource=x&w=hunter3")
    assert secret.describe() == "mongodb://reader@db1.example,db2.example:27018/shop"
    for block in (secret, mongodb()):
        for shown in (repr(block), str(block), block.describe(), block.model_dump_json()):
            assert "hunter" not in shown
            assert PASSWORD not in shown


def test_what_the_driver_is_given() -> None:
    """One server is asked directly; several are a replica set; empty fields leave a connection string its word."""
    one = mongodb().client_arguments()
    assert (one["host"], one["directConnection"], one["authSource"]) == (["db.example"], True, "admin")
    several = mongodb(hosts="a, b:2", replica_set="rs0", auth_source="shop", read_concern="majority").client_arguments()
    assert (several["host"], several["replicaSet"], several["authSource"]) == (["a", "b:2"], "rs0", "shop")
    assert "directConnection" not in several
    assert several["readConcernLevel"] == "majority"
    uri = by_uri("mongodb://u:p@a,b/?readPreference=secondary").client_arguments()
    assert {"username", "password", "readPreference", "authSource"}.isdisjoint(uri)
    assert by_uri("mongodb://a/", read_preference="nearest").client_arguments()["readPreference"] == "nearest"


async def test_a_real_log_in(mongodb_database: MongoServer) -> None:
    """By fields and by a connection string."""
    assert (await answers(block_of(mongodb_database))).version
    assert (await answers(by_uri(mongodb_database.url))).wire > 13


async def test_a_wrong_password_is_told(mongodb_database: MongoServer) -> None:
    """The account is refused, with the fields to look at."""
    if not mongodb_database.user:
        pytest.skip("the server of TEST_MONGODB_URL asks for no password")
    told = await complaint(block_of(mongodb_database, password="wrong-one"))
    assert "check user, password and auth_source" in told


async def test_a_server_that_is_not_there() -> None:
    """It is told soon, with the place."""
    told = await complaint(mongodb(hosts=f"127.0.0.1:{free_port()}", connect_timeout=0.5))
    assert "cannot be reached" in told
    assert "check hosts" in told


async def test_a_connection_string_that_is_none() -> None:
    """What the driver says of it, without the secret."""
    told = await complaint(by_uri("mongodb://u:hunter2@a:notaport/"))
    assert "hunter2" not in told


async def test_tls(mongodb_database: MongoServer, tmp_path: Any) -> None:
    """The certificate is verified against the file that is named; a stranger's is refused."""
    place = {"hosts": f"localhost:{mongodb_database.tls_port}"}
    assert (await answers(block_of(mongodb_database, tls_ca_file=mongodb_database.authority, **place))).version
    assert (await answers(block_of(mongodb_database, tls="require", **place))).version
    stranger = str(Authority(tmp_path).ca_file)
    told = await complaint(block_of(mongodb_database, tls_ca_file=stranger, connect_timeout=1, **place))
    assert "certificate verify failed" in told.lower()
    told = await complaint(block_of(mongodb_database, tls_ca_file=str(tmp_path / "missing.pem"), **place))
    assert "missing.pem" in told
