"""The connection to an HTTP API: where it is, who asks, and how fast."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ssl import SSLContext, create_default_context
from typing import Literal
from urllib.parse import quote

import httpx
from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, SecretStr, field_validator, model_validator

from blocks.rest_auth import Authorized, Credentials, Fixed, OAuth2
from blocks.rest_transport import AiohttpTransport
from blocks.schema import SchemaOnce
from blocks.tls import CaFile, CertificateFile, Choice, KeyFile, TlsSettings

_SHORT = 3
"""A secret that is not longer cannot be told from other text."""

Auth = Literal["none", "basic", "bearer", "api-key", "oauth2-client", "oauth2-refresh"]

_NEEDED: dict[Auth, tuple[str, ...]] = {
    "none": (),
    "basic": ("user",),
    "bearer": ("token",),
    "api-key": ("key", "key_name"),
    "oauth2-client": ("token_url", "client_id", "client_secret"),
    "oauth2-refresh": ("token_url", "refresh_token"),
}
_ALLOWED: dict[Auth, tuple[str, ...]] = {
    "basic": ("password",),
    "api-key": ("key_in",),
    "oauth2-client": ("scope", "client_secret_in"),
    "oauth2-refresh": ("client_id", "client_secret", "scope", "client_secret_in"),
}


class RestApi(SchemaOnce, Block):
    """How to reach one HTTP API."""

    model_config = ConfigDict(hide_input_in_errors=True)

    _block_type_name = "REST API"
    _block_type_slug = "rest-api"
    # A plain string serves; the base class declares a URL type.
    _logo_url = "https://raw.githubusercontent.com/encode/httpx/master/docs/img/butterfly.png"  # type: ignore[assignment]  # a plain string serves
    _description = "How to reach an HTTP API to extract from."
    _code_example = """```python
from blocks.rest import RestApi

shop = RestApi(base_url="https://api.shop.example/v1", auth="bearer", token="…")
shop.save("shop", overwrite=True)
```"""

    base_url: str = Field(
        title="Base URL",
        description="What the paths of endpoints are added to, such as https://api.shop.example/v1.",
        min_length=1,
    )
    auth: Auth = Field(
        default="none",
        title="Authentication",
        description="basic: user and password; bearer: token; api-key: key and key_name; oauth2-client: a token by "
        "client_id and client_secret; oauth2-refresh: a token by refresh_token. Sent to the base URL's host alone.",
    )
    user: str = Field(default="", title="User", description="For basic.")
    password: SecretStr = Field(default=SecretStr(""), title="Password", description="For basic.")
    token: SecretStr = Field(default=SecretStr(""), title="Token", description="For bearer.")
    key: SecretStr = Field(default=SecretStr(""), title="API key", description="For api-key.")
    key_name: str = Field(
        default="", title="Name of the API key", description="For api-key: the header or parameter, such as X-Api-Key."
    )
    key_in: Literal["header", "query"] = Field(
        default="header", title="Place of the API key", description="For api-key: a header, or a parameter of the URL."
    )
    token_url: str = Field(
        default="", title="Token URL", description="For oauth2: the whole URL of the token endpoint."
    )
    client_id: str = Field(default="", title="Client id", description="For oauth2.")
    client_secret: SecretStr = Field(default=SecretStr(""), title="Client secret", description="For oauth2.")
    refresh_token: SecretStr = Field(
        default=SecretStr(""),
        title="Refresh token",
        description="For oauth2-refresh. One the server replaces with each token it gives is not saved: use a kind that stays.",
    )
    scope: str = Field(default="", title="Scope", description="For oauth2: the scopes to ask for, separated by blanks.")
    client_secret_in: Literal["header", "body"] = Field(
        default="header", title="Place of the client secret", description="For oauth2: HTTP Basic, or the form itself."
    )
    headers: dict[str, SecretStr] = Field(
        default={},
        title="Headers",
        description="Further headers of every request to the base URL's host; kept secret.",
    )
    tls: Choice = None
    tls_ca_file: CaFile = None
    tls_cert_file: CertificateFile = None
    tls_key_file: KeyFile = None
    proxy: SecretStr = Field(
        default=SecretStr(""),
        title="Proxy",
        description="URL of a proxy, http://user:password@host:port; empty: none, whatever the surroundings name.",
    )
    connect_timeout: float = Field(
        default=10,
        gt=0,
        title="Connect timeout (s)",
        description="How long one attempt to connect may take.",
    )
    read_timeout: float = Field(
        default=60,
        gt=0,
        title="Read timeout (s)",
        description="How long the server may be silent before and within an answer.",
    )
    concurrency: int = Field(
        default=8,
        ge=1,
        le=256,
        title="Requests at once",
        description="Of one run, where its pages do not depend on one another.",
    )
    requests_per_second: float = Field(
        default=0,
        ge=0,
        title="Requests per second",
        description="At most so many of one run; 0: as many as the server takes. What it says itself (Retry-After, "
        "RateLimit) is heeded always.",
    )
    retries: int = Field(
        default=6,
        ge=0,
        le=50,
        title="Retries",
        description="How often a request that failed for a passing reason is sent again, after waits that grow.",
    )
    longest_wait: float = Field(
        default=900,
        gt=0,
        title="Longest wait (s)",
        description="A server that asks to wait for longer than this ends the run.",
    )
    response_limit_mb: int = Field(
        default=4096,
        ge=1,
        title="Largest response (MB)",
        description="A response that is larger, when unpacked, ends the run.",
    )
    http2: bool = Field(default=False, title="HTTP/2", description="Offer it to the server (https only).")

    @field_validator("base_url", "token_url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        url = httpx.URL(value)
        if value and (url.scheme not in ("http", "https") or not url.host):
            raise ValueError("is no URL; write it whole, such as https://api.shop.example/v1")
        if url.userinfo or url.query or url.fragment:
            raise ValueError("holds a user, a query or a fragment; credentials have fields of their own")
        return value.rstrip("/")

    @field_validator("proxy")
    @classmethod
    def _is_proxy(cls, value: SecretStr) -> SecretStr:
        url = httpx.URL(value.get_secret_value())
        if value.get_secret_value() and (url.scheme not in ("http", "https") or not url.host):
            raise ValueError("is no URL such as http://host:3128")
        return value

    @model_validator(mode="after")
    def _auth_is_whole(self) -> RestApi:
        needed, allowed = _NEEDED[self.auth], _ALLOWED.get(self.auth, ())
        if missing := [name for name in needed if not _plain(getattr(self, name))]:
            raise ValueError(f"auth {self.auth} needs {', '.join(missing)}")
        others = {name for names in (*_NEEDED.values(), *_ALLOWED.values()) for name in names} - {*needed, *allowed}
        defaults = type(self).model_fields
        if idle := sorted(name for name in others if getattr(self, name) != defaults[name].default):
            raise ValueError(f"{', '.join(idle)}: of no use to auth {self.auth}")
        return self

    @model_validator(mode="after")
    def _tls_fits(self) -> RestApi:
        if not self.is_encrypted and any((self.tls, self.tls_ca_file, self.tls_cert_file, self.tls_key_file)):
            raise ValueError("base_url is not https; leave the fields tls… empty")
        if self.is_encrypted and self.tls == "disable":
            raise ValueError("base_url is https; choose another mode than tls disable")
        if self.is_encrypted:
            self._tls.check()
        return self

    @property
    def is_encrypted(self) -> bool:
        """Whether the API is asked over TLS."""
        return self.base_url.startswith("https:")

    @property
    def host(self) -> str:
        """The API's host, which alone gets credentials."""
        return httpx.URL(self.base_url).host

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        """A client that shows the credentials where they belong. Reads the TLS files; `ConfigurationError` for a bad one."""
        # Making a TLS context reads files.
        verify = await asyncio.to_thread(self._verify)
        plain, apart = self._transport(verify), self._transport(verify)
        async with httpx.AsyncClient(transport=apart, timeout=self._timeout(), trust_env=False) as tokens:
            transport = Authorized(plain, self.base_url, self._credentials(tokens), self.without_key)
            async with httpx.AsyncClient(
                transport=transport, timeout=self._timeout(), trust_env=False, follow_redirects=True, max_redirects=10
            ) as client:
                yield client

    def _verify(self) -> SSLContext:
        """Also where the API is asked in clear: it may redirect to https."""
        return self._tls.context(self.describe()) if self.is_encrypted else create_default_context()

    def _transport(self, verify: SSLContext) -> httpx.AsyncBaseTransport:
        proxy = self.proxy.get_secret_value()
        if not (self.http2 and self.is_encrypted):
            return AiohttpTransport(verify, proxy, self._timeout())
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=self.concurrency, keepalive_expiry=30)
        return httpx.AsyncHTTPTransport(verify=verify, http2=True, limits=limits, proxy=proxy or None, trust_env=False)

    def _timeout(self) -> httpx.Timeout:
        return httpx.Timeout(self.read_timeout, connect=self.connect_timeout, pool=None)

    def _credentials(self, tokens: httpx.AsyncClient) -> Credentials:
        headers = dict(self.headers)
        match self.auth:
            case "basic":
                pair = f"{self.user}:{self.password.get_secret_value()}".encode()
                headers["Authorization"] = SecretStr(f"Basic {base64.b64encode(pair).decode()}")
            case "bearer":
                headers["Authorization"] = SecretStr(f"Bearer {self.token.get_secret_value()}")
            case "api-key" if self.key_in == "header":
                headers[self.key_name] = self.key
            case "api-key":
                return Fixed(headers, {self.key_name: self.key})
            case "oauth2-client" | "oauth2-refresh":
                return self._oauth2(tokens)
        return Fixed(headers, {})

    def _oauth2(self, tokens: httpx.AsyncClient) -> OAuth2:
        form = {"grant_type": "client_credentials"}
        if self.auth == "oauth2-refresh":
            form = {"grant_type": "refresh_token", "refresh_token": self.refresh_token.get_secret_value()}
        if self.scope:
            form["scope"] = self.scope
        return OAuth2(
            tokens, self.token_url, form, self.client_id, self.client_secret, self.client_secret_in, self.headers
        )  # fmt: skip

    def without_key(self, url: httpx.URL) -> httpx.URL:
        """A URL that a server gave, which may repeat the key it was asked with; `client` adds it again."""
        if self.auth != "api-key" or self.key_in != "query":
            return url
        said = [text for text in (self.key.get_secret_value(),) if len(text) > _SHORT]
        said += [quote(text, safe="") for text in said]
        params = url.params.multi_items()
        kept = [(name, text) for name, text in params if name != self.key_name and not any(one in text for one in said)]
        return url if len(kept) == len(params) else url.copy_with(params=kept)

    def hidden(self, text: str) -> str:
        """``text`` without this block's secrets, wherever a server has put them."""
        for secret in (
            self.password,
            self.token,
            self.key,
            self.client_secret,
            self.refresh_token,
            *self.headers.values(),
        ):
            if len(value := secret.get_secret_value()) > _SHORT:
                text = text.replace(value, "***")
        return text

    def describe(self) -> str:
        """The connection as people write it, without its secrets."""
        return self.base_url

    @property
    def _tls(self) -> TlsSettings:
        return TlsSettings(self.host, self.tls, self.tls_ca_file, self.tls_cert_file, self.tls_key_file)


def _plain(value: str | SecretStr) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else value
