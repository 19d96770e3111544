"""A database's password is changed between two runs of a stream whose block and deployment stay as they are."""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from prefect.blocks.system import Secret

from blocks.errors import ConfigurationError
from tests.blocks.conftest import aws_server, secrets_manager
from tests.flows.shops import Shop

__all__ = ["aws_server", "secrets_manager"]

Keep = Callable[[str], Awaitable[None]]


@pytest.fixture(params=["env", "aws-secret", "secret-block"])
def keeper(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Keep]:
    """What the block says, and how a password is put there."""
    name = f"shop-{secrets.token_hex(4)}"
    if request.param == "aws-secret":
        manager: Any = request.getfixturevalue("secrets_manager")
        manager.create_secret(Name=name, SecretString="{}")

    async def in_environment(password: str) -> None:
        monkeypatch.setenv("SHOP_PASSWORD", password)

    async def in_aws(password: str) -> None:
        manager.put_secret_value(SecretId=name, SecretString=json.dumps({"password": password}))

    async def in_block(password: str) -> None:
        await Secret(value=password).asave(name, overwrite=True)

    kept: dict[str, tuple[str, Keep]] = {
        "env": ("${env:SHOP_PASSWORD}", in_environment),
        "aws-secret": (f"${{aws-secret:{name}#password}}", in_aws),
        "secret-block": (f"${{secret-block:{name}}}", in_block),
    }
    return kept[request.param]


async def test_a_new_password_needs_no_redeploy(shop: Shop, keeper: tuple[str, Keep]) -> None:
    """The run after the rotation reads with the new password; with the old one the server refuses it."""
    said, keep = keeper
    role = f"reader_{secrets.token_hex(4)}"
    block = shop.block(user=role, password=said)
    await shop.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'first'", f"GRANT SELECT ON things TO {role}")
    try:
        await keep("first")
        assert (await shop.run("incremental", block=block))["committed"]
        await shop.execute(f"ALTER ROLE {role} PASSWORD 'second'")
        await shop.add(3)
        with pytest.raises(ConfigurationError, match="password authentication failed"):
            await shop.run("incremental", block=block)
        await keep("second")
        assert (await shop.run("incremental", block=block))["committed"]
        await shop.assert_sound("incremental")
    finally:
        await shop.execute(f"DROP OWNED BY {role}", f"DROP ROLE {role}")
