"""The block of an API: what it refuses, what it sends, and to whom; against a real server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr, ValidationError

from blocks.errors import ConfigurationError
from blocks.rest import RestApi
from tests.servers import certificates, rest
from tests.servers.rest import Space, basic
from tests.tasks.extractors.rest import in_thread, items

OAUTH: dict[str, Any] = {"auth": "oauth2-client", "client_id": "id", "client_secret": "s3cr3t"}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"base_url": "shop.example"}, "is no URL"),
        ({"base_url": "ftp://shop.example"}, "is no URL"),
        ({"base_url": "https://user:s3cr3t@shop.example"}, "credentials have fields of their own"),
        ({"base_url": "https://shop.example?key=s3cr3t"}, "credentials have fields of their own"),
        ({"auth": "basic"}, "auth basic needs user"),
        ({"auth": "bearer"}, "auth bearer needs token"),
        ({"auth": "api-key", "key": "s3cr3t"}, "auth api-key needs key_name"),
        ({"auth": "oauth2-client", "client_id": "id"}, "auth oauth2-client needs token_url, client_secret"),
        ({"auth": "oauth2-refresh", "refresh_token": "s3cr3t"}, "auth oauth2-refresh needs token_url"),
        ({"token": "s3cr3t"}, "token: of no use to auth none"),
        ({"auth": "bearer", "token": "s3cr3t", "password": "s3cr3t"}, "password: of no use to auth bearer"),
        ({"base_url": "http://shop.example", "tls": "verify-full"}, "base_url is not https"),
        ({"tls": "disable"}, "base_url is https"),
        ({"proxy": "user:s3cr3t@host:3128"}, "is no URL such as http://host:3128"),
        ({"proxy": "socks5://user:s3cr3t@host:3128"}, "is no URL such as http://host:3128"),
        ({"tls": "require", "tls_ca_file": "/x"}, "tls_ca_file has no effect"),
    ],
)
def test_what_does_not_fit_is_refused(fields: dict[str, Any], told: str) -> None:
    """The field is named, and no secret is in the error."""
    with pytest.raises(ValidationError, match=told) as raised:
        RestApi(**{"base_url": "https://shop.example", **fields})
    assert "s3cr3t" not in str(raised.value)


async def headers_sent(space: Space, **fields: Any) -> dict[str, Any]:
    """The first request that came, as the server saw it."""
    await in_thread(space.add, items(1))
    async with RestApi(base_url=space.url, **fields).client() as client:
        response = await client.get(f"{space.url}/items")
        assert response.is_success
        assert "authorization" not in response.request.headers
    found: dict[str, Any] = (await in_thread(space.asked))[0]
    return found


async def test_basic(rest_space: Space) -> None:
    """HTTP Basic, in UTF-8."""
    sent = await headers_sent(rest_space, auth="basic", user="me", password="pä:ss")
    assert sent["headers"]["authorization"] == basic("me", "pä:ss")


async def test_bearer_and_further_headers(rest_space: Space) -> None:
    """Both are sent."""
    sent = await headers_sent(rest_space, auth="bearer", token="t0ken", headers={"X-Tenant": "shop"})
    assert sent["headers"]["authorization"] == "Bearer t0ken"
    assert sent["headers"]["x-tenant"] == "shop"


async def test_api_keys(rest_space: Space) -> None:
    """In a header or in the query."""
    sent = await headers_sent(rest_space, auth="api-key", key="k3y", key_name="X-Api-Key")
    assert sent["headers"]["x-api-key"] == "k3y"
    other = Space(rest_space.server, f"{rest_space.name}-2")
    assert (await headers_sent(other, auth="api-key", key="k3y", key_name="api_key", key_in="query"))["query"] == {
        "api_key": "k3y"
    }


@pytest.mark.parametrize(
    "fields",
    [OAUTH, OAUTH | {"client_secret_in": "body"}, {"auth": "oauth2-refresh", "refresh_token": "again"}],
    ids=["client", "client in the body", "refresh"],
)
async def test_oauth2(rest_space: Space, fields: dict[str, Any]) -> None:
    """One token serves many requests at once; one that the server takes no more is renewed once."""
    await in_thread(rest_space.add, items(1))
    api = RestApi(base_url=rest_space.url, token_url=f"{rest_space.url}/_token", scope="read", **fields)
    async with api.client() as client:
        for _ in range(2):
            answers = await asyncio.gather(*(client.get(f"{rest_space.url}/private") for _ in range(5)))
            assert [answer.status_code for answer in answers] == [200] * 5
            await asyncio.sleep(1.1)
    seen = await in_thread(rest_space.seen)
    tokens = [one for one in seen if one["path"].endswith("/_token")]
    assert len(tokens) == 2
    assert "'scope': 'read'" in tokens[0]["form"]


async def test_a_token_endpoint_that_refuses(rest_space: Space) -> None:
    """The error says what it said, and holds no secret."""
    api = RestApi(base_url=rest_space.url, token_url=f"{rest_space.url}/_token", **OAUTH | {"client_secret": "wr0ng"})
    async with api.client() as client:
        with pytest.raises(ConfigurationError, match="gives no token: no such client; check auth") as raised:
            await client.get(f"{rest_space.url}/private")
    assert "wr0ng" not in str(raised.value)


async def test_tls_is_verified(tmp_path: Path) -> None:
    """The certificate's authority has to be known, unless that is switched off; HTTP/2 is offered without harm."""
    authority = certificates.Authority(tmp_path)
    ca = str(authority.ca_file)
    server = rest.started(*authority.issue("server"))
    running = await in_thread(server.__enter__)
    try:
        for fields in ({"tls_ca_file": ca}, {"tls": "require"}, {"tls_ca_file": ca, "http2": True}):
            async with RestApi(base_url=running.url, **fields).client() as client:
                assert (await client.get(f"{running.url}/s/a/_seen")).is_success
        async with RestApi(base_url=running.url, tls="verify-full").client() as client:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await client.get(f"{running.url}/s/a/_seen")
        with pytest.raises(ConfigurationError, match=r"tls_ca_file of https.* cannot be used"):
            async with RestApi(base_url=running.url, tls_ca_file=str(tmp_path / "none")).client():
                pass
    finally:
        await in_thread(server.__exit__, None, None, None)


def test_secrets_are_hidden() -> None:
    """In what is shown of a block, and in what a server repeats."""
    api = RestApi(base_url="https://a.example", auth="bearer", token="t0ken-1", headers={"X-Key": "k3y-1"})
    assert "t0ken-1" not in repr(api) + str(api.model_dump())
    assert "k3y-1" not in repr(api) + str(api.model_dump())
    assert api.hidden("no t0ken-1, no k3y-1") == "no ***, no ***"
    assert isinstance(api.headers["X-Key"], SecretStr)


async def test_a_saved_block_keeps_its_secrets(prefect_api: str) -> None:
    """Headers too: they are stored out of sight, and there again when it is loaded."""
    assert prefect_api
    api = RestApi(base_url="https://a.example", auth="bearer", token="t0ken-1", headers={"X-Key": "k3y-1"})
    await api.asave("t-rest", overwrite=True)
    loaded: Any = await RestApi.aload("t-rest")
    assert loaded.headers["X-Key"].get_secret_value() == "k3y-1"
    assert loaded.token.get_secret_value() == "t0ken-1"
