"""Values kept elsewhere, on real keepers: the environment, Secrets Manager (moto's server of it), Prefect's Secret blocks."""

from __future__ import annotations

import json
import secrets
from typing import Any

import pytest
from prefect.blocks.system import Secret
from prefect_aws import AwsCredentials

from blocks import references
from blocks.errors import ConfigurationError
from blocks.mongodb import MongoDB
from blocks.postgres import Postgres
from blocks.references import reveal, revealed
from blocks.rest import RestApi
from blocks.s3 import S3Destination


def postgres(**fields: Any) -> Postgres:
    return Postgres(**({"host": "db.example", "database": "shop", "user": "reader"} | fields))


async def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable of the machine that runs the flow, as it is now: a new value is seen by the next connection."""
    block = postgres(password="${env:SHOP_PASSWORD}")
    for value in ("before", "after#}${"):
        monkeypatch.setenv("SHOP_PASSWORD", value)
        assert (await reveal(block)).connect_arguments()["password"] == value
    assert block.password.get_secret_value() == "${env:SHOP_PASSWORD}"


async def test_secrets_manager(secrets_manager: Any) -> None:
    """A secret, or a member of one, by name or by ARN; rotated, also by a new user, without a touch of the block."""
    name = f"prod/shop-{secrets.token_hex(4)}"
    arn = secrets_manager.create_secret(Name=name, SecretString="plain")["ARN"]
    assert revealed(postgres(password=f"${{aws-secret:{name}}}")).password.get_secret_value() == "plain"
    block = postgres(user=f"${{aws-secret:{arn}#username}}", password=f"${{aws-secret:{name}#password}}")
    for user in ("reader", "reader_clone"):
        secrets_manager.put_secret_value(
            SecretId=name, SecretString=json.dumps({"username": user, "password": f"{user}-pw"})
        )
        arguments = (await reveal(block)).connect_arguments()
        assert (arguments["user"], arguments["password"]) == (user, f"{user}-pw")


async def test_secret_blocks(prefect_api: str) -> None:
    """A Secret block of Prefect's, or a member of one that holds JSON."""
    assert prefect_api
    name = f"shop-{secrets.token_hex(4)}"
    block = postgres(password=f"${{secret-block:{name}}}")
    for value in ("before", "after"):
        await Secret(value=value).asave(name, overwrite=True)
        assert (await reveal(block)).password.get_secret_value() == value
    await Secret(value={"password": "member", "port": 1}).asave(name, overwrite=True)
    member = postgres(password=f"${{secret-block:{name}#password}}")
    assert (await reveal(member)).password.get_secret_value() == "member"


async def test_wherever_a_block_keeps_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside a text, in headers, and in the keys of a nested block; a block without references is the same object."""
    monkeypatch.setenv("KEPT", "k3pt-value")
    api = revealed(RestApi(base_url="https://api.example", headers={"X-Key": "Token ${env:KEPT}"}))
    assert api.headers["X-Key"].get_secret_value() == "Token k3pt-value"
    assert api.hidden("no k3pt-value") == "no k3pt-value"  # as a whole it is no secret: the header is
    assert api.hidden("Token k3pt-value") == "***"
    mongo = revealed(MongoDB(uri="mongodb://reader:${env:KEPT}@db.example/", database="shop"))
    assert mongo.client_arguments()["host"] == "mongodb://reader:k3pt-value@db.example/"
    credentials = AwsCredentials(aws_access_key_id="${env:KEPT}", aws_secret_access_key="${env:KEPT}")
    lake = S3Destination(bucket="lake", region="us-east-1", endpoint="http://127.0.0.1:1", credentials=credentials)
    async with lake.client() as client:
        signer: Any = client
        keys = signer._get_credentials()
        assert (keys.access_key, keys.secret_key) == ("k3pt-value", "k3pt-value")
    plain = postgres(password="${literal")
    assert await reveal(plain) is plain
    for shown in (api, mongo, revealed(postgres(password="${env:KEPT}"))):
        assert "k3pt-value" not in f"{shown!r} {shown} {shown.describe()}"


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("password", "${env:NOT_SET_HERE}", "the environment variable NOT_SET_HERE is not set where this run is"),
        ("password", "${aws-secret:not-there}", "ResourceNotFoundException; check the secret's name, the region"),
        ("password", "${aws-secret:whole#pass}", "has no pass; it has password$"),
        ("password", "${aws-secret:text#pass}", "is not a JSON object; leave out #pass"),
        ("password", "${aws-secret:bytes}", "holds bytes"),
        ("password", "${secret-block:not-there}", "there is no block secret/not-there"),
        ("host", "${env:HOME}", "only secret fields and users"),
    ],
)
async def test_errors_name_block_field_and_way_out(
    secrets_manager: Any, prefect_api: str, field: str, value: str, reason: str
) -> None:
    """A reference that leads nowhere is a configuration error, and no value of the secret is in it."""
    assert prefect_api
    kept: dict[str, dict[str, Any]] = {
        "whole": {"SecretString": '{"password": "s3cret-value"}'},
        "text": {"SecretString": "s3cret-value"},
        "bytes": {"SecretBinary": b"s3cret-value"},
    }
    name = value.removeprefix("${aws-secret:").removesuffix("}").partition("#")[0]
    if name in kept:
        secrets_manager.create_secret(Name=name, **kept[name])
    block = postgres(**{field: value})
    block._block_document_name = "shop"
    with pytest.raises(ConfigurationError, match=reason) as caught:
        await reveal(block)
    assert str(caught.value).startswith(f"postgres/shop, field {field}: {value}: ")
    assert "s3cret-value" not in f"{caught.value!r} {caught.value.__cause__!r}"


async def test_a_region_that_is_missing(secrets_manager: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Surroundings without a region are told what to set."""
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.delenv("AWS_REGION", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/no/such/file")
    references._secrets_manager.cache_clear()
    with pytest.raises(ConfigurationError, match=r"field password: .*region.*AWS_REGION"):
        await reveal(postgres(password="${aws-secret:shop}"))
