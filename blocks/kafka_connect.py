"""The connection to a Kafka Connect cluster's REST API, by which connectors are made, watched and removed."""

from __future__ import annotations

from ssl import SSLContext, create_default_context
from urllib.parse import urlsplit

from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, SecretStr, field_validator

from blocks.errors import ConfigurationError
from blocks.schema import SchemaOnce
from blocks.tls import CaFile


class KafkaConnect(SchemaOnce, Block):
    """How to reach one Kafka Connect cluster that has Debezium's connectors."""

    model_config = ConfigDict(hide_input_in_errors=True)

    _block_type_name = "Kafka Connect"
    _block_type_slug = "kafka-connect"
    # A plain string serves; the base class declares a URL type.
    _logo_url = "https://kafka.apache.org/images/logo.png"  # type: ignore[assignment]  # a plain string serves
    _description = "How to reach a Kafka Connect cluster that captures changes of databases."
    _code_example = """```python
from blocks.kafka_connect import KafkaConnect

connect = KafkaConnect(url="https://connect.example:8083")
connect.save("main", overwrite=True)
```"""

    url: str = Field(title="URL", description="Of the REST API of one worker, or of what stands before them all.")
    user: str = Field(default="", title="User", description="For basic authentication; empty: none.")
    password: SecretStr = Field(default=SecretStr(""), title="Password", description="Of the user.")
    tls_ca_file: CaFile = None
    timeout: float = Field(default=60, gt=0, title="Timeout (s)", description="How long an answer may take.")

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise ValueError("begins with http:// or https://")
        if "@" in urlsplit(url).netloc:  # which errors would show
            raise ValueError("holds a user or a password; they have fields of their own")
        return url.rstrip("/")

    def auth(self) -> tuple[str, str] | None:
        """User and password, where there are."""
        return (self.user, self.password.get_secret_value()) if self.user else None

    def verify(self) -> SSLContext | bool:
        """By what the server's certificate is checked. Reads the file; `ConfigurationError` where it is bad."""
        if not self.tls_ca_file:
            return True
        try:
            return create_default_context(cafile=self.tls_ca_file)
        except OSError as error:
            raise ConfigurationError(f"tls_ca_file of {self.url} cannot be used: {self.tls_ca_file}: {error}") from None
