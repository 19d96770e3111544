"""The connection to a MongoDB deployment: where it is, who asks, how it proves itself, and from which state it reads."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from prefect.blocks.core import Block
from pydantic import BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from blocks.errors import ConfigurationError
from blocks.hosts import is_local
from blocks.schema import SchemaOnce
from blocks.tls import CaFile

Tls = Literal["verify-full", "verify-ca", "require", "disable"]
ReadPreference = Literal["primary", "primaryPreferred", "secondary", "secondaryPreferred", "nearest"]
ReadConcern = Literal["", "local", "available", "majority", "linearizable", "snapshot"]

_BlankIsNone = BeforeValidator(lambda value: None if value == "" else value)
_SCHEMES = ("mongodb://", "mongodb+srv://")
_OURS = ("authsource", "tlscafile", "tlscertificatekeyfile", "tlscertificatekeyfilepassword", "tlscrlfile", "appname")
"""Options of this program's own connections, in small letters."""


class MongoDB(SchemaOnce, Block):
    """How to reach one database of a MongoDB server, replica set or cluster (or of what speaks its protocol)."""

    model_config = ConfigDict(hide_input_in_errors=True)

    _block_type_name = "MongoDB"
    _block_type_slug = "mongodb"
    # A plain string serves; the base class declares a URL type.
    _logo_url = "https://www.mongodb.com/assets/images/global/favicon.ico"  # type: ignore[assignment]  # a plain string serves
    _description = "How to reach a MongoDB database to extract from."
    _code_example = """```python
from blocks.mongodb import MongoDB

shop = MongoDB(hosts="db1.example,db2.example", replica_set="rs0", database="shop", user="reader", password="…")
shop.save("shop", overwrite=True)
```"""

    hosts: str = Field(
        default="",
        title="Hosts",
        description="Name or address of the server, with :port if it is not 27017; several of a replica set with commas.",
    )
    uri: SecretStr = Field(
        default=SecretStr(""),
        title="Connection string",
        description="Instead of the hosts: mongodb://… or mongodb+srv://…, with any option of MongoDB's connection strings. "
        "The fields below, where they are filled in, go before what it says.",
    )
    database: str = Field(
        title="Database",
        description="The database whose collections are read.",
        min_length=1,
    )
    user: str = Field(
        default="",
        title="User",
        description="The account to log in as; reading needs no more than the role read on the database.",
    )
    password: SecretStr = Field(
        default=SecretStr(""),
        title="Password",
        description="Empty: none.",
    )
    auth_source: str = Field(
        default="",
        title="Authentication database",
        description="The database that the account was made in; empty: admin.",
    )
    replica_set: str = Field(
        default="",
        title="Replica set",
        description="Its name; empty: the one server that is named, or whatever the connection string says.",
    )
    tls: Annotated[Tls | None, _BlankIsNone] = Field(
        default=None,
        title="TLS",
        description="verify-full: encrypted, certificate and host name checked; verify-ca: certificate checked; require: "
        "encrypted, unchecked; disable: in clear. Empty: what the connection string says, or else disable on this machine "
        "when no TLS file is given, verify-full otherwise.",
    )
    tls_ca_file: CaFile = None
    tls_cert_file: Annotated[str | None, _BlankIsNone] = Field(
        default=None,
        title="Client certificate",
        description="PEM file of the certificate to log in with, and of its private key, without a passphrase.",
    )
    read_preference: ReadPreference = Field(
        default="primary",
        title="Read preference",
        description="Which member of a replica set is read. Secondaries lag behind: set lag on the stream then.",
    )
    read_concern: ReadConcern = Field(
        default="",
        title="Read concern",
        description="Empty: the server's default. majority: nothing that could be rolled back. snapshot: all partitions of a "
        "run show one moment (replica sets, MongoDB 5 or newer), which the server keeps for five minutes by default.",
    )
    connect_timeout: float = Field(
        default=10,
        gt=0,
        title="Connect timeout (s)",
        description="How long it may take until a server is found that can be read from.",
    )

    @model_validator(mode="after")
    def _fits(self) -> MongoDB:
        given = self.uri.get_secret_value()
        if bool(given) == bool(self.hosts):
            raise ValueError("give hosts, or a connection string in uri, and not both")
        if given and not given.startswith(_SCHEMES):
            raise ValueError(f"uri begins with {' or '.join(_SCHEMES)}")
        if self.tls_ca_file and self.tls_mode not in ("verify-full", "verify-ca", None):
            raise ValueError(f"tls_ca_file has no effect with tls {self.tls_mode}; choose verify-full or verify-ca")
        if self.tls_cert_file and self.tls_mode == "disable":
            raise ValueError("tls_cert_file has no effect with tls disable; choose verify-full")
        return self

    @property
    def tls_mode(self) -> Tls | None:
        """The mode in force; None: the connection string says it."""
        if self.tls:
            return self.tls
        asked = self.uri.get_secret_value().lower()
        if any(option in asked for option in ("tls=", "ssl=")):
            return None
        in_clear = self.is_local and not (self.tls_ca_file or self.tls_cert_file)
        return "disable" if in_clear else "verify-full"

    @property
    def is_local(self) -> bool:
        """Whether all hosts are this machine."""
        return all(is_local(_name(host)) for host in self._places.split(","))

    def client_arguments(self) -> dict[str, Any]:
        """Keyword arguments of ``AsyncIOMotorClient``, secrets included."""
        uri = self.uri.get_secret_value()
        wanted: dict[str, Any] = {
            "host": uri or [place.strip() for place in self.hosts.split(",")],
            "username": self.user,
            "password": self.password.get_secret_value(),
            "authSource": self.auth_source or ("admin" if self.user else ""),
            "replicaSet": self.replica_set,
            "readConcernLevel": "" if self.read_concern == "snapshot" else self.read_concern,
            "tlsCAFile": self.tls_ca_file,
            "tlsCertificateKeyFile": self.tls_cert_file,
        }
        if not uri and not self.replica_set and "," not in self.hosts:
            wanted["directConnection"] = True
        preference = {} if uri and self.read_preference == "primary" else {"readPreference": self.read_preference}
        milliseconds = int(self.connect_timeout * 1000)
        return {
            **{name: value for name, value in wanted.items() if value},
            **self._tls_arguments(),
            **preference,
            "serverSelectionTimeoutMS": milliseconds,
            "connectTimeoutMS": milliseconds,
            "appname": "headrace",
            "tz_aware": True,
        }

    def describe(self) -> str:
        """The connection as people write it, ``mongodb://user@host:port/database``, without its secrets."""
        scheme = "mongodb+srv" if self._is_srv else "mongodb"
        user = self.user or unquote(_split(self.uri.get_secret_value()).username or "")
        account = f"{user}@" if user else ""
        return f"{scheme}://{account}{self._places}/{self.database}"

    @property
    def account(self) -> tuple[str, SecretStr, str]:
        """User, password, and the database that the account is of, wherever they are filled in; an empty user: none."""
        parts = _split(self.uri.get_secret_value())
        user = self.user or unquote(parts.username or "")
        secret = self.password if self.password.get_secret_value() else SecretStr(unquote(parts.password or ""))
        options = {name.lower(): value for name, value in parse_qsl(parts.query)}
        return user, secret, self.auth_source or options.get("authsource") or unquote(parts.path.strip("/")) or "admin"

    def place(self, **options: str) -> str:
        """The connection string for another program's driver: with hosts and options, without the account and without files of
        this machine; ``options``: those that are added where it does not have them."""
        given = parse_qsl(_split(self.uri.get_secret_value()).query)
        kept = {name: value for name, value in given if name.lower() not in _OURS}
        if self.replica_set:
            options = {**options, "replicaSet": self.replica_set}
        if self.read_preference != "primary":
            options["readPreference"] = self.read_preference
        known = {name.lower() for name in kept}
        kept |= {name: value for name, value in options.items() if value and name.lower() not in known}
        scheme = _SCHEMES[1] if self._is_srv else _SCHEMES[0]
        return f"{scheme}{self._places.replace(' ', '')}/?{urlencode(kept)}".removesuffix("?")

    @property
    def _is_srv(self) -> bool:
        return self.uri.get_secret_value().startswith(_SCHEMES[1])

    @property
    def _places(self) -> str:
        """The hosts, with their ports, and nothing secret."""
        if self.hosts:
            return ",".join(place.strip() for place in self.hosts.split(","))
        return str(_split(self.uri.get_secret_value()).netloc).rpartition("@")[2]

    def _tls_arguments(self) -> dict[str, Any]:
        mode = self.tls_mode
        if mode is None:
            return {}
        loose = {"verify-ca": {"tlsAllowInvalidHostnames": True}, "require": {"tlsAllowInvalidCertificates": True}}
        return {"tls": mode != "disable", **loose.get(mode, {})}


def _split(uri: str) -> Any:
    try:
        return urlsplit(uri)
    except ValueError as error:
        raise ConfigurationError(f"field uri is not a connection string: {type(error).__name__}") from None


def _name(host: str) -> str:
    """A host without its port."""
    host = host.strip()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0] if host.count(":") == 1 else host
