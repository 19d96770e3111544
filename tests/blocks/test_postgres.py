"""The PostgreSQL connection: which TLS it uses by default, what asyncpg is given, and that it keeps its password."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import ValidationError

from blocks.errors import ConfigurationError
from blocks.hosts import is_local
from blocks.postgres import Postgres

PASSWORD = "s3cret%pass"


def postgres(**fields: Any) -> Postgres:
    return Postgres(**({"host": "db.example", "database": "shop", "user": "reader", "password": PASSWORD} | fields))


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PEM file with a key and a self-signed certificate of 127.0.0.1, which is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + built.public_bytes(serialization.Encoding.PEM)
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    file.write_bytes(pem)
    return file


async def handshake(connection: Postgres, certificate: Path, name: str) -> str:
    """Shake hands with a TLS server that shows ``certificate`` while the client asks for ``name``; the TLS version."""
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_context.load_cert_chain(certificate)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=server_context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        context = connection.ssl()
        assert isinstance(context, ssl.SSLContext)
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
        version: str = writer.get_extra_info("ssl_object").version()
        writer.close()
        return version


def test_fields_are_documented() -> None:
    """Every field has a title and a description, which the Prefect UI shows as a form."""
    assert all(field.title and field.description for field in Postgres.model_fields.values())


@pytest.mark.parametrize("host", ["localhost", "db.localhost", "127.0.0.1", "127.8.8.8", "::1", "/var/run/postgresql"])
def test_local_hosts(host: str) -> None:
    """On the loopback and on a Unix socket TLS is used if the server offers it."""
    assert is_local(host)
    assert postgres(host=host).ssl() == "prefer"


@pytest.mark.parametrize("host", ["db.example", "10.0.0.1", "fd00::1", "localhost.example", "0.0.0.0"])
def test_remote_hosts(host: str) -> None:
    """Everywhere else the server has to prove that it is the host that was asked for."""
    assert not is_local(host)
    context = postgres(host=host).ssl()
    assert isinstance(context, ssl.SSLContext)
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    ("tls", "checks_name", "verify"),
    [("verify-ca", False, ssl.CERT_REQUIRED), ("require", False, ssl.CERT_NONE)],
)
def test_weaker_modes_check_what_they_say(tls: Any, checks_name: bool, verify: ssl.VerifyMode) -> None:
    """verify-ca leaves out the name, require leaves out the certificate as well."""
    context = postgres(tls=tls).ssl()
    assert isinstance(context, ssl.SSLContext)
    assert (context.check_hostname, context.verify_mode) == (checks_name, verify)


def test_plain_modes() -> None:
    """prefer leaves the choice to asyncpg, disable is asyncpg's False, and an emptied form field is the default."""
    assert postgres(tls="prefer").ssl() == "prefer"
    assert postgres(tls="disable").ssl() is False
    assert postgres(tls="").tls_mode == "verify-full"


async def test_verify_full_accepts_the_right_name_alone(certificate: Path) -> None:
    """With the CA given, verify-full takes the certificate's own name and refuses another."""
    connection = postgres(host="127.0.0.1", tls_ca_file=str(certificate))
    assert connection.tls_mode == "verify-full"
    assert await handshake(connection, certificate, "127.0.0.1")
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        await handshake(connection, certificate, "db.example")


async def test_verify_ca_accepts_any_name_of_the_authority(certificate: Path) -> None:
    """verify-ca takes any name under the given CA, and no certificate of another authority."""
    assert await handshake(postgres(tls="verify-ca", tls_ca_file=str(certificate)), certificate, "db.example")
    with pytest.raises(ssl.SSLCertVerificationError):
        await handshake(postgres(tls="verify-ca"), certificate, "db.example")


async def test_require_accepts_any_certificate(certificate: Path) -> None:
    """require encrypts and checks nothing."""
    assert await handshake(postgres(tls="require"), certificate, "db.example")


def test_client_certificate_is_loaded(certificate: Path) -> None:
    """A certificate file that holds its key too is enough to log in with."""
    assert postgres(host="localhost", tls_cert_file=str(certificate)).tls_mode == "verify-full"
    assert isinstance(postgres(tls_cert_file=str(certificate)).ssl(), ssl.SSLContext)


@pytest.mark.parametrize("field", ["tls_ca_file", "tls_cert_file", "tls_key_file"])
@pytest.mark.parametrize("content", [None, "no certificate"])
def test_bad_tls_files_are_named(field: str, content: str | None, tmp_path: Path, certificate: Path) -> None:
    """A TLS file that is missing or holds something else is an error that names the field and the file."""
    file = tmp_path / "bad.pem"
    if content is not None:
        file.write_text(content)
    files = {"tls_cert_file": str(certificate)} | {field: str(file)}
    with pytest.raises(ConfigurationError, match="tls_") as caught:
        postgres(**files).ssl()
    assert str(file) in str(caught.value)
    assert field in str(caught.value)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"tls": "require", "tls_ca_file": "/ca.pem"},
        {"tls": "prefer", "tls_cert_file": "/cert.pem"},
        {"tls_key_file": "/key.pem"},
        {"port": 0},
        {"host": ""},
        {"connect_timeout": 0},
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any]) -> None:
    """Fields that would have no effect, or could not work, are refused without showing the password."""
    with pytest.raises(ValidationError) as caught:
        postgres(**fields)
    assert PASSWORD not in str(caught.value)


def test_connect_arguments() -> None:
    """asyncpg gets every field, prepared statements are not cached, and no setting is sent but the program's name."""
    arguments = postgres(host="localhost", connect_timeout=3).connect_arguments()
    assert arguments == {
        "host": "localhost",
        "port": 5432,
        "user": "reader",
        "password": PASSWORD,
        "database": "shop",
        "ssl": "prefer",
        "timeout": 3,
        "statement_cache_size": 0,
        "server_settings": {"application_name": "headrace"},
    }


def test_no_password_lets_the_driver_look_for_one() -> None:
    """An empty password leaves PGPASSWORD and the password file to asyncpg."""
    assert postgres(host="localhost", password="").connect_arguments()["password"] is None


@pytest.mark.parametrize(
    ("host", "text"),
    [("db.example", "postgres://reader@db.example:5432/shop"), ("fd00::1", "postgres://reader@[fd00::1]:5432/shop")],
)
def test_description(host: str, text: str) -> None:
    """A connection describes itself as a URL without its password."""
    assert postgres(host=host).describe() == text


async def test_password_stays_hidden_and_survives_saving(prefect_api: str) -> None:
    """The password is in no text of the block and on no page, and is there again after loading."""
    connection = postgres()
    await connection.asave("hidden", overwrite=True)
    loaded: Postgres = await Postgres.aload("hidden")
    shown = f"{loaded!r} {loaded} {loaded.model_dump()} {loaded.model_dump_json()}"
    assert PASSWORD not in shown
    assert loaded.password.get_secret_value() == PASSWORD
