"""The connection to a PostgreSQL server: where it is, who asks, and how it proves itself."""

from __future__ import annotations

from pathlib import Path
from ssl import CERT_NONE, SSLContext, create_default_context
from typing import Annotated, Any, Literal

from prefect.blocks.core import Block
from pydantic import BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from blocks.errors import ConfigurationError
from blocks.hosts import is_local

Tls = Literal["verify-full", "verify-ca", "require", "prefer", "disable"]

_BlankIsNone = BeforeValidator(lambda value: None if value == "" else value)


class Postgres(Block):
    """How to reach one database of one PostgreSQL server (or of what speaks its protocol)."""

    model_config = ConfigDict(hide_input_in_errors=True)

    _block_type_name = "Postgres"
    _block_type_slug = "postgres"
    _logo_url = "https://www.postgresql.org/media/img/about/press/elephant.png"  # type: ignore[assignment]
    _description = "How to reach a PostgreSQL database to extract from."
    _code_example = """```python
from blocks.postgres import Postgres

shop = Postgres(host="db.example", database="shop", user="reader", password="…")
shop.save("shop", overwrite=True)
```"""

    host: str = Field(
        title="Host",
        description="Name or address of the server, or the folder of its Unix socket (begins with /).",
        min_length=1,
    )
    port: int = Field(
        default=5432,
        ge=1,
        le=65535,
        title="Port",
        description="The server's port.",
    )
    database: str = Field(
        title="Database",
        description="The database to read.",
        min_length=1,
    )
    user: str = Field(
        title="User",
        description="The role to log in as; reading needs no more than SELECT on the tables.",
        min_length=1,
    )
    password: SecretStr = Field(
        default=SecretStr(""),
        title="Password",
        description="Empty: PGPASSWORD or ~/.pgpass of the machine that runs the flow, or none at all.",
    )
    tls: Annotated[Tls | None, _BlankIsNone] = Field(
        default=None,
        title="TLS",
        description="verify-full: encrypted, certificate and host name checked; verify-ca: certificate checked; "
        "require: encrypted, unchecked; prefer: encrypted if the server can; disable: in clear. "
        "Empty: prefer on this machine when no TLS file is given, verify-full otherwise.",
    )
    tls_ca_file: Annotated[str | None, _BlankIsNone] = Field(
        default=None,
        title="CA file",
        description="PEM file of the authorities that may sign the server's certificate; empty: those the system "
        "trusts. The files have to lie on the machine that runs the flow.",
    )
    tls_cert_file: Annotated[str | None, _BlankIsNone] = Field(
        default=None,
        title="Client certificate",
        description="PEM file of the certificate to log in with.",
    )
    tls_key_file: Annotated[str | None, _BlankIsNone] = Field(
        default=None,
        title="Client key",
        description="PEM file of its private key, without a passphrase; empty: it is in the certificate's file.",
    )
    connect_timeout: float = Field(
        default=10,
        gt=0,
        title="Connect timeout (s)",
        description="How long one attempt to connect may take, log-in included.",
    )

    @model_validator(mode="after")
    def _tls_files_are_used(self) -> Postgres:
        if self.tls_ca_file and not self.tls_mode.startswith("verify"):
            raise ValueError(f"tls_ca_file has no effect with tls {self.tls_mode}; choose verify-full or verify-ca")
        if self.tls_cert_file and self.tls_mode in ("prefer", "disable"):
            raise ValueError(f"tls_cert_file has no effect with tls {self.tls_mode}; choose verify-full")
        if self.tls_key_file and not self.tls_cert_file:
            raise ValueError("tls_key_file needs tls_cert_file")
        return self

    @property
    def tls_mode(self) -> Tls:
        """The mode in force: the one chosen, or the default for this host."""
        if self.tls:
            return self.tls
        files = self.tls_ca_file or self.tls_cert_file
        return "prefer" if is_local(self.host) and not files else "verify-full"

    def ssl(self) -> SSLContext | Literal["prefer"] | bool:
        """What asyncpg takes as ``ssl``. Reads the TLS files; `ConfigurationError` names the one that is bad.

        A context means "encrypted or not at all" to asyncpg, and is checked as strictly as it says itself. Built here
        also for ``require``: asyncpg's own would let a root.crt in the home folder change what it means.
        """
        match self.tls_mode:
            case "prefer":
                return "prefer"
            case "disable":
                return False
        context = self._context()
        if self.tls_cert_file:
            self._load_certificate(context, self.tls_cert_file)
        return context

    def connect_arguments(self) -> dict[str, Any]:
        """Keyword arguments of ``asyncpg.connect``."""
        return {
            "host": self.host,
            "port": self.port,
            "user": self.user,
            # None lets asyncpg look where libpq would.
            "password": self.password.get_secret_value() or None,
            "database": self.database,
            "ssl": self.ssl(),
            "timeout": self.connect_timeout,
            # Prepared statements do not outlive a transaction behind a pooler, and none is used twice here.
            "statement_cache_size": 0,
            "server_settings": {"application_name": "headrace"},
        }

    def describe(self) -> str:
        """The connection as people write it, ``postgres://user@host:port/database``, without its secrets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"postgres://{self.user}@{host}:{self.port}/{self.database}"

    def _context(self) -> SSLContext:
        try:
            context = create_default_context(cafile=self.tls_ca_file)
        except OSError as error:
            raise self._bad_file("tls_ca_file", self.tls_ca_file, error) from None
        context.check_hostname = self.tls_mode == "verify-full"
        if self.tls_mode == "require":
            context.verify_mode = CERT_NONE
        return context

    def _load_certificate(self, context: SSLContext, certificate: str) -> None:
        try:
            # A passphrase that is wrong keeps OpenSSL from asking for one on the terminal of a worker.
            context.load_cert_chain(certificate, self.tls_key_file, password=lambda: "")
        except (OSError, ValueError) as error:
            raise self._bad_certificate(certificate, error) from None

    def _bad_certificate(self, certificate: str, error: Exception) -> ConfigurationError:
        # OpenSSL does not say which of the two files it means, so a file that cannot be read is looked for first.
        files = {"tls_cert_file": certificate} | ({"tls_key_file": self.tls_key_file} if self.tls_key_file else {})
        for field, file in files.items():
            try:
                Path(file).read_bytes()
            except OSError as unreadable:
                return self._bad_file(field, file, unreadable)
        return self._bad_file(" or ".join(files), " or ".join(files.values()), error)

    def _bad_file(self, field: str, file: str | None, error: Exception) -> ConfigurationError:
        return ConfigurationError(f"{field} of {self.describe()} cannot be used: {file}: {error}")
