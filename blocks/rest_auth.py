"""How requests to an API prove who asks: credentials are added on the way out, to requests for the API's own host alone.

They are added below the client, by its transport, so that no request, log line, redirect or exception of the client has ever
held them: httpx logs the URL of every request, and an API key may be part of it.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Literal

import httpx
from pydantic import SecretStr

from blocks.errors import ConfigurationError

_EARLY_SECONDS = 30.0
"""A token is renewed this long before it expires, for clocks that differ and requests that wait."""

_UNSAID_SECONDS = 3600.0
"""How long a token is used whose life the server does not tell; one refused before is renewed all the same."""


class Credentials(ABC):
    """What is added to a request."""

    @abstractmethod
    async def added_to(self, request: httpx.Request) -> httpx.Request:
        """The request with the credentials, as a new one."""

    async def renewed(self, shown: httpx.Request) -> bool:
        """Called when the server refuses what was ``shown``; whether there is something new to show."""
        del shown
        return False


class Fixed(Credentials):
    """Headers and parameters that stay the same."""

    def __init__(self, headers: Mapping[str, SecretStr], params: Mapping[str, SecretStr]) -> None:
        self._headers = headers
        self._params = params

    async def added_to(self, request: httpx.Request) -> httpx.Request:
        return _with(request, self._headers, self._params) if self._headers or self._params else request


class OAuth2(Credentials):
    """A bearer token from a token endpoint, by client credentials or a refresh token (RFC 6749, 4.4 and 6)."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        token_url: str,
        form: Mapping[str, str],
        client_id: str,
        client_secret: SecretStr,
        place: Literal["header", "body"],
        headers: Mapping[str, SecretStr],
    ) -> None:
        self._client = client
        self._url = token_url
        self._form = dict(form)
        self._id = client_id
        self._secret = client_secret
        self._place = place
        self._headers = headers
        self._token = SecretStr("")
        self._expires = 0.0
        self._lock = asyncio.Lock()

    async def added_to(self, request: httpx.Request) -> httpx.Request:
        async with self._lock:
            if time.monotonic() >= self._expires:
                await self._ask()
        return _with(request, {**self._headers, "Authorization": self._shown()}, {})

    async def renewed(self, shown: httpx.Request) -> bool:
        async with self._lock:
            # Another request may have been refused with the same token, and renewed it meanwhile.
            if shown.headers.get("Authorization") == self._shown().get_secret_value():
                await self._ask()
        return True

    def _shown(self) -> SecretStr:
        return SecretStr(f"Bearer {self._token.get_secret_value()}")

    async def _ask(self) -> None:
        form = dict(self._form)
        headers = {"Accept": "application/json"}
        secret = self._secret.get_secret_value()
        if self._place == "header" and self._id:
            basic = httpx.BasicAuth(self._id, secret)
            response = await self._client.post(self._url, data=form, headers=headers, auth=basic)
        else:
            form |= {name: value for name, value in (("client_id", self._id), ("client_secret", secret)) if value}
            response = await self._client.post(self._url, data=form, headers=headers)
        self._take(response, _json(response))

    def _take(self, response: httpx.Response, told: dict[str, Any]) -> None:
        if (
            response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
            or response.status_code == HTTPStatus.TOO_MANY_REQUESTS
        ):
            raise httpx.HTTPStatusError(
                f"the token endpoint {self._url} answered {response.status_code}",
                request=httpx.Request("POST", self._url), response=response,
            )  # fmt: skip
        if "access_token" not in told:
            reason = told.get("error_description") or told.get("error") or f"status {response.status_code}"
            raise ConfigurationError(
                f"the token endpoint {self._url} gives no token: {str(reason)[:200]}; check auth, token_url, client_id, "
                "client_secret, refresh_token and scope of the rest-api block"
            )
        self._token = SecretStr(str(told["access_token"]))
        life = float(told.get("expires_in") or _UNSAID_SECONDS)
        self._expires = time.monotonic() + max(life - _EARLY_SECONDS, life / 2)
        if "refresh_token" in told and "refresh_token" in self._form:
            # Some servers give a new one with each token, and take the old one back. It lives as long as this run: a
            # block cannot be saved by two runs at once.
            self._form["refresh_token"] = str(told["refresh_token"])


def _json(response: httpx.Response) -> dict[str, Any]:
    try:
        told = response.json()
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


class Authorized(httpx.AsyncBaseTransport):
    """A transport that adds credentials to requests for one origin, and once more when they are refused with 401.

    A redirect may repeat a key of the query: ``cleaned`` takes it out, before the client logs and follows where it leads.
    """

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport,
        origin: str,
        credentials: Credentials,
        cleaned: Callable[[httpx.URL], httpx.URL],
    ) -> None:
        self._inner = inner
        self._origin = origin_of(httpx.URL(origin))
        self._credentials = credentials
        self._cleaned = cleaned

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if origin_of(request.url) != self._origin:
            return await self._inner.handle_async_request(request)
        response = await self._answered(request)
        if response.has_redirect_location:
            # One that is no URL is the client's to refuse, without showing it.
            with suppress(httpx.InvalidURL):
                response.headers["Location"] = str(self._cleaned(httpx.URL(response.headers["Location"])))
        return response

    async def _answered(self, request: httpx.Request) -> httpx.Response:
        shown = await self._credentials.added_to(request)
        response = await self._inner.handle_async_request(shown)
        if response.status_code != HTTPStatus.UNAUTHORIZED or not await self._credentials.renewed(shown):
            return response
        await response.aclose()
        return await self._inner.handle_async_request(await self._credentials.added_to(request))

    async def aclose(self) -> None:
        await self._inner.aclose()


def origin_of(url: httpx.URL) -> tuple[str, str, int | None]:
    """Scheme, host and port: what a URL shares with those that may be sent the same credentials."""
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)


def _with(request: httpx.Request, headers: Mapping[str, SecretStr], params: Mapping[str, SecretStr]) -> httpx.Request:
    all_headers = httpx.Headers(request.headers)
    all_headers.update({name: value.get_secret_value() for name, value in headers.items()})
    url = request.url
    for name, value in params.items():
        url = url.copy_set_param(name, value.get_secret_value())
    return httpx.Request(request.method, url, headers=all_headers, stream=request.stream, extensions=request.extensions)
