"""The connection to a Kafka cluster: its brokers, how a reader proves itself to them, and the schema registry beside it."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from aws_msk_iam_sasl_signer import MSKAuthTokenProvider
from prefect.blocks.core import Block
from pydantic import BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from blocks.hosts import is_local
from blocks.schema import SchemaOnce
from blocks.tls import CaFile, CertificateFile, KeyFile, TlsSettings

Sasl = Literal["none", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "AWS_MSK_IAM"]
ListenerTls = Literal["verify-full", "verify-ca", "require", "disable"]

_BY_PASSWORD = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_OWN = (
    "bootstrap.servers", "group.id", "isolation.level", "auto.offset.reset", "enable.auto.commit", "enable.partition.eof",
    "allow.auto.create.topics", "security.protocol", "sasl.username", "sasl.password", "sasl.mechanism", "sasl.mechanisms",
    "enable.ssl.certificate.verification", "ssl.endpoint.identification.algorithm", "log_level",
)  # fmt: skip
"""Options that fields stand for, or that the promise of exactly once rests on."""


class Kafka(SchemaOnce, Block):
    """How to reach one Kafka cluster (or what speaks its protocol); with ZooKeeper or without is the brokers' business."""

    model_config = ConfigDict(hide_input_in_errors=True)

    _block_type_name = "Kafka"
    _block_type_slug = "kafka"
    # A plain string serves; the base class declares a URL type.
    _logo_url = "https://kafka.apache.org/images/logo.png"  # type: ignore[assignment]  # a plain string serves
    _description = "How to reach a Kafka cluster to extract from."
    _code_example = """```python
from blocks.kafka import Kafka

events = Kafka(bootstrap_servers="b1.example:9093,b2.example:9093", sasl="SCRAM-SHA-512", user="reader", password="…")
events.save("events", overwrite=True)
```"""

    bootstrap_servers: str = Field(
        title="Bootstrap servers",
        description="Some of the brokers, as host:port with commas between; they name the others.",
        min_length=1,
    )
    sasl: Sasl = Field(
        default="none",
        title="SASL",
        description="How to log in. none: not at all, or by the client certificate; OAUTHBEARER: with a token that "
        "oauth_token_url gives; AWS_MSK_IAM: with the AWS credentials of the surroundings.",
    )
    user: str = Field(default="", title="User", description="For PLAIN and SCRAM.")
    password: SecretStr = Field(default=SecretStr(""), title="Password", description="For PLAIN and SCRAM.")
    oauth_token_url: str = Field(default="", title="Token URL", description="Where OAUTHBEARER gets its tokens (OIDC).")
    oauth_client_id: str = Field(default="", title="Client id", description="Of the reader, for OAUTHBEARER.")
    oauth_client_secret: SecretStr = Field(default=SecretStr(""), title="Client secret", description="For OAUTHBEARER.")
    oauth_scope: str = Field(default="", title="Scope", description="For OAUTHBEARER; empty: none is asked for.")
    aws_region: str = Field(default="", title="AWS region", description="Of the cluster, for AWS_MSK_IAM.")
    aws_role_arn: str = Field(
        default="", title="AWS role", description="A role to assume for AWS_MSK_IAM; empty: the surroundings' own."
    )
    tls: Annotated[
        ListenerTls | None,
        BeforeValidator(lambda value: None if value == "" else value),
        Field(
            title="TLS",
            description="verify-full: encrypted, certificate and host name checked; verify-ca: certificate checked; "
            "require: encrypted, unchecked; disable: in clear. Empty: disable on this machine when no TLS file is given, "
            "verify-full otherwise.",
        ),
    ] = None
    tls_ca_file: CaFile = None
    tls_cert_file: CertificateFile = None
    tls_key_file: KeyFile = None
    timeout: float = Field(
        default=30,
        gt=0,
        title="Timeout (s)",
        description="How long the brokers may take to answer a question, the log-in included.",
    )
    client_options: dict[str, str] = Field(
        default={},
        title="Client options",
        description="Further options of librdkafka, such as client.rack; no secrets, they are shown.",
    )
    registry_url: str = Field(
        default="",
        title="Schema registry",
        description="For messages in Avro or with JSON Schema: the URL of a registry that speaks Confluent's API "
        "(Apicurio: …/apis/ccompat/v7).",
    )
    registry_user: str = Field(default="", title="Registry user", description="Empty: none, or the API key's id.")
    registry_password: SecretStr = Field(
        default=SecretStr(""), title="Registry password", description="Of the user, or the API key's secret."
    )

    @model_validator(mode="after")
    def _fields_fit(self) -> Kafka:
        needs = {"user": self.sasl in _BY_PASSWORD, "oauth_token_url": self.sasl == "OAUTHBEARER"}
        needs |= {"oauth_client_id": self.sasl == "OAUTHBEARER", "aws_region": self.sasl == "AWS_MSK_IAM"}
        for field, needed in needs.items():
            if needed and not getattr(self, field):
                raise ValueError(f"sasl {self.sasl} needs {field}")
            if getattr(self, field) and not needed:
                raise ValueError(f"{field} has no effect with sasl {self.sasl}")
        if self.sasl == "AWS_MSK_IAM" and self.tls_mode == "disable":
            raise ValueError("AWS_MSK_IAM needs TLS; choose verify-full for tls")
        for option in self.client_options:
            if option in _OWN:
                raise ValueError(f"client_options: {option} is set by headrace itself; leave it out")
        if "@" in urlsplit(self.registry_url).netloc:  # which errors would show
            raise ValueError("registry_url holds a user or a password; use registry_user and registry_password")
        self._tls.check()
        return self

    @property
    def tls_mode(self) -> ListenerTls:
        """The mode in force: the one chosen, or the default for these hosts."""
        if self.tls:
            return self.tls
        # A listener speaks either TLS or clear text: what others call prefer can't be.
        mode = self._tls.mode
        return "disable" if mode == "prefer" else mode

    def client_config(self) -> dict[str, Any]:
        """What any client of librdkafka is made with: https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md."""
        secured, named = self.tls_mode != "disable", self.sasl != "none"
        protocol = ("SASL_" if named else "") + ("SSL" if secured else "PLAINTEXT")
        return {
            "client.id": "headrace",
            **self.client_options,
            "bootstrap.servers": self.bootstrap_servers,
            "security.protocol": protocol,
            "allow.auto.create.topics": "false",
            "log_level": 0,  # what it logs comes as errors, too
            **(self._tls_config() if secured else {}),
            **self._sasl_config(),
        }

    def describe(self) -> str:
        """The connection as people write it, without its secrets."""
        return f"kafka://{self.user}{'@' if self.user else ''}{self.bootstrap_servers}"

    def _tls_config(self) -> dict[str, Any]:
        files = {
            "ssl.ca.location": self.tls_ca_file,
            "ssl.certificate.location": self.tls_cert_file,
            "ssl.key.location": self.tls_key_file or self.tls_cert_file,
        }
        verified = self.tls_mode.startswith("verify")
        return {
            "enable.ssl.certificate.verification": str(verified).lower(),
            "ssl.endpoint.identification.algorithm": "https" if self.tls_mode == "verify-full" else "none",
            **{option: file for option, file in files.items() if file},
        }

    def _sasl_config(self) -> dict[str, Any]:
        if self.sasl in _BY_PASSWORD:
            password = self.password.get_secret_value()
            return {"sasl.mechanism": self.sasl, "sasl.username": self.user, "sasl.password": password}
        if self.sasl == "OAUTHBEARER":
            scope = {"sasl.oauthbearer.scope": self.oauth_scope} if self.oauth_scope else {}
            return {
                "sasl.mechanism": "OAUTHBEARER",
                "sasl.oauthbearer.method": "oidc",
                "sasl.oauthbearer.token.endpoint.url": self.oauth_token_url,
                "sasl.oauthbearer.client.id": self.oauth_client_id,
                "sasl.oauthbearer.client.secret": self.oauth_client_secret.get_secret_value(),
                **scope,
            }
        if self.sasl == "AWS_MSK_IAM":
            return {"sasl.mechanism": "OAUTHBEARER", "oauth_cb": self._aws_token}
        return {}

    def _aws_token(self, _config: str) -> tuple[str, float]:
        """A token for an hour or less, and when it expires (seconds since 1970). Called by librdkafka, in its time."""
        if self.aws_role_arn:
            role = (self.aws_region, self.aws_role_arn, "headrace")
            token, expires = MSKAuthTokenProvider.generate_auth_token_from_role_arn(*role)
        else:
            token, expires = MSKAuthTokenProvider.generate_auth_token(self.aws_region)
        return token, expires / 1000

    @property
    def _tls(self) -> TlsSettings:
        hosts = [server.strip().rpartition(":")[0] for server in self.bootstrap_servers.split(",")]
        remote = next((host for host in hosts if not is_local(host)), hosts[0])
        return TlsSettings(remote, self.tls, self.tls_ca_file, self.tls_cert_file, self.tls_key_file)
