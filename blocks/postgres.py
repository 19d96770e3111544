"""The connection to a PostgreSQL server: where it is, who asks, and how it proves itself."""

from __future__ import annotations

from ssl import SSLContext
from typing import Any, Literal

from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, SecretStr, model_validator

from blocks.schema import SchemaOnce
from blocks.tls import CaFile, CertificateFile, Choice, KeyFile, Tls, TlsSettings


class Postgres(SchemaOnce, Block):
    """How to reach one database of one PostgreSQL server (or of what speaks its protocol)."""

    model_config = ConfigDict(hide_input_in_errors=True)

    _block_type_name = "Postgres"
    _block_type_slug = "postgres"
    # A plain string serves; the base class declares a URL type.
    _logo_url = "https://www.postgresql.org/media/img/about/press/elephant.png"  # type: ignore[assignment]  # a plain string serves
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
    tls: Choice = None
    tls_ca_file: CaFile = None
    tls_cert_file: CertificateFile = None
    tls_key_file: KeyFile = None
    connect_timeout: float = Field(
        default=10,
        gt=0,
        title="Connect timeout (s)",
        description="How long one attempt to connect may take, log-in included.",
    )

    @model_validator(mode="after")
    def _tls_files_are_used(self) -> Postgres:
        self._tls.check()
        return self

    @property
    def tls_mode(self) -> Tls:
        """The mode in force: the one chosen, or the default for this host."""
        return self._tls.mode

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
        return self._tls.context(self.describe())

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

    @property
    def _tls(self) -> TlsSettings:
        return TlsSettings(self.host, self.tls, self.tls_ca_file, self.tls_cert_file, self.tls_key_file)
