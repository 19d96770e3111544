"""The connection to a MySQL or MariaDB server: where it is, who asks, and how it proves itself.

Which of the two it is, and its version, the server says itself when it is reached.
"""

from __future__ import annotations

from ssl import SSLContext
from typing import Any

from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, SecretStr, model_validator

from blocks.schema import SchemaOnce
from blocks.tls import CaFile, CertificateFile, Choice, KeyFile, Tls, TlsSettings


class MySQL(SchemaOnce, Block):
    """How to reach one database of one MySQL or MariaDB server (or of what speaks their protocol)."""

    model_config = ConfigDict(hide_input_in_errors=True)

    _block_type_name = "MySQL"
    _block_type_slug = "mysql"
    # A plain string serves; the base class declares a URL type.
    _logo_url = "https://labs.mysql.com/common/logos/mysql-logo.svg"  # type: ignore[assignment]  # a plain string serves
    _description = "How to reach a MySQL or MariaDB database to extract from."
    _code_example = """```python
from blocks.mysql import MySQL

shop = MySQL(host="db.example", database="shop", user="reader", password="…")
shop.save("shop", overwrite=True)
```"""

    host: str = Field(
        title="Host",
        description="Name or address of the server, or the path of its Unix socket (begins with /).",
        min_length=1,
    )
    port: int = Field(
        default=3306,
        ge=1,
        le=65535,
        title="Port",
        description="The server's port.",
    )
    database: str = Field(
        title="Database",
        description="The database to read; tables of others are written database.table.",
        min_length=1,
    )
    user: str = Field(
        title="User",
        description="The account to log in as; reading needs no more than SELECT on the tables.",
        min_length=1,
    )
    password: SecretStr = Field(
        default=SecretStr(""),
        title="Password",
        description="Empty: none. Option files such as ~/.my.cnf are not read.",
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
    def _tls_fits(self) -> MySQL:
        if self.is_socket and self.tls_mode not in ("prefer", "disable"):
            raise ValueError("a Unix socket does not leave the machine and has no TLS; leave the fields tls… empty")
        self._tls.check()
        return self

    @property
    def is_socket(self) -> bool:
        """Whether ``host`` is the path of a Unix socket."""
        return self.host.startswith("/")

    @property
    def tls_mode(self) -> Tls:
        """The mode in force: the one chosen, or the default for this host."""
        return self._tls.mode

    @property
    def must_encrypt(self) -> bool:
        """Whether a server that offers no TLS is to be refused."""
        return self.tls_mode not in ("prefer", "disable")

    def ssl(self) -> SSLContext | None:
        """What aiomysql takes as ``ssl``. Reads the TLS files; `ConfigurationError` names the one that is bad.

        A context does not keep aiomysql from logging in to a server that says it has no TLS, as anyone in the middle can
        say: where `must_encrypt`, refuse such a server first.
        """
        if self.tls_mode == "disable" or self.is_socket:
            return None
        return self._tls.context(self.describe())

    def connect_arguments(self) -> dict[str, Any]:
        """Keyword arguments of ``aiomysql.Connection``; its ``connect_timeout`` ends before the log-in begins."""
        place = {"unix_socket": self.host} if self.is_socket else {"host": self.host, "port": self.port}
        return {
            **place,
            "user": self.user,
            # aiomysql sends the Latin-1 bytes of a password; servers expect the UTF-8 ones.
            "password": self.password.get_secret_value().encode().decode("latin-1"),
            "db": self.database,
            "ssl": self.ssl(),
            "connect_timeout": self.connect_timeout,
            "charset": "utf8mb4",
            "autocommit": True,
            "program_name": "headrace",
        }

    def describe(self) -> str:
        """The connection as people write it, ``mysql://user@host:port/database``, without its secrets."""
        if self.is_socket:
            return f"mysql://{self.user}@localhost/{self.database} ({self.host})"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mysql://{self.user}@{host}:{self.port}/{self.database}"

    @property
    def _tls(self) -> TlsSettings:
        return TlsSettings(self.host, self.tls, self.tls_ca_file, self.tls_cert_file, self.tls_key_file)
