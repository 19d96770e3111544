"""The connection to a MongoDB deployment: where it is, who asks, how it proves itself, and from which state it reads."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import parse_qsl, unquote, unquote_plus, urlencode

from prefect.blocks.core import Block
from pydantic import BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from blocks.hosts import is_local
from blocks.schema import SchemaOnce
from blocks.tls import CaFile

Tls = Literal["verify-full", "verify-ca", "require", "disable"]
ReadPreference = Literal["primary", "primaryPreferred", "secondary", "secondaryPreferred", "nearest"]
ReadConcern = Literal["", "local", "available", "majority", "linearizable", "snapshot"]

_BlankIsNone = BeforeValidator(lambda value: None if value == "" else value)
_SCHEMES = ("mongodb://", "mongodb+srv://")
_SHARED = frozenset(
    {
        "replicaset", "directconnection", "loadbalanced", "srvservicename", "srvmaxhosts", "tls", "ssl", "tlsinsecure",
        "tlsallowinvalidhostnames", "readpreference", "readpreferencetags", "maxstalenessseconds", "readconcernlevel",
        "retryreads", "compressors", "zlibcompressionlevel", "connecttimeoutms", "sockettimeoutms",
        "serverselectiontimeoutms", "heartbeatfrequencyms", "localthresholdms", "maxpoolsize", "minpoolsize", "maxidletimems",
    }
)  # fmt: skip
"""Options of connection strings, in small letters, that another program's driver needs too, and that hold no secret."""


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
        if "@" in given.partition("://")[2].partition("/")[2].partition("?")[0]:
            raise ValueError("uri: a / in the user or the password is written %2F, an @ %40")
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
        user = self.account[0]
        account = f"{user}@" if user else ""
        return f"{scheme}://{account}{self._places}/{self.database}"

    @property
    def account(self) -> tuple[str, SecretStr, str]:
        """User, password, and the database that the account is of, wherever they are filled in; an empty user: none."""
        given = _split(self.uri.get_secret_value())
        secret = self.password if self.password.get_secret_value() else SecretStr(given.password)
        told = {name.lower(): value for name, value in given.options}
        # With a user of its own the block names the database, too: see `client_arguments`.
        source = "" if self.user else told.get("authsource") or given.path
        return self.user or given.user, secret, self.auth_source or source or "admin"

    @property
    def mechanism(self) -> str:
        """How the account logs in, where the connection string says it."""
        options = _split(self.uri.get_secret_value()).options
        return next((value for name, value in options if name.lower() == "authmechanism"), "")

    def place(self, **options: str) -> str:
        """The connection string for another program's driver: hosts and options, without the account and what belongs to it, and
        without files of this machine. ``options``: those that are added where neither string nor block have them."""
        given = [
            (name, value) for name, value in _split(self.uri.get_secret_value()).options if name.lower() in _SHARED
        ]
        ours = {"replicaSet": self.replica_set}
        ours["readPreference"] = self.read_preference if self.read_preference != "primary" else ""
        if self.tls_mode is not None:
            ours["tls"] = str(self.tls_mode != "disable").lower()
            given = [(name, value) for name, value in given if name.lower() != "ssl"]
        ours = {name: value for name, value in ours.items() if value}
        kept = [(name, value) for name, value in given if name.lower() not in map(str.lower, ours)]
        known = {name.lower() for name, _ in kept} | set(map(str.lower, ours))
        added = [(name, value) for name, value in options.items() if value and name.lower() not in known]
        scheme = _SCHEMES[1] if self._is_srv else _SCHEMES[0]
        return f"{scheme}{self._places.replace(' ', '')}/?{urlencode([*kept, *ours.items(), *added])}".removesuffix("?")

    @property
    def _is_srv(self) -> bool:
        return self.uri.get_secret_value().startswith(_SCHEMES[1])

    @property
    def _places(self) -> str:
        """The hosts, with their ports, and nothing secret."""
        if self.hosts:
            return ",".join(place.strip() for place in self.hosts.split(","))
        return _split(self.uri.get_secret_value()).hosts

    def _tls_arguments(self) -> dict[str, Any]:
        mode = self.tls_mode
        if mode is None:
            return {}
        loose = {"verify-ca": {"tlsAllowInvalidHostnames": True}, "require": {"tlsAllowInvalidCertificates": True}}
        return {"tls": mode != "disable", **loose.get(mode, {})}


class _Parts(NamedTuple):
    """A connection string taken apart as drivers do it: the account ends at the last ``@`` before the first ``/``."""

    user: str
    password: str
    hosts: str
    path: str
    options: list[tuple[str, str]]


def _split(uri: str) -> _Parts:
    place, _, rest = uri.partition("://")[2].partition("/")
    path, _, query = rest.partition("?")
    account, _, hosts = place.rpartition("@")
    if "?" in hosts:  # without the slash
        hosts, _, query = hosts.partition("?")
    user, _, password = account.partition(":")
    options = parse_qsl(query.replace(";", "&"), keep_blank_values=True)
    return _Parts(unquote_plus(user), unquote_plus(password), hosts, unquote(path), options)


def _name(host: str) -> str:
    """A host without its port."""
    host = host.strip()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0] if host.count(":") == 1 else host
