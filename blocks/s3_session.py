"""An asynchronous AWS session out of Prefect's credentials block, whose assumed roles renew themselves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from aiobotocore.credentials import AioCredentialResolver, AioDeferredRefreshableCredentials
from aiobotocore.session import AioSession, get_session
from botocore.credentials import CredentialProvider
from botocore.handlers import add_expect_header
from botocore.loaders import create_loader

if TYPE_CHECKING:
    from prefect_aws import AwsCredentials

_LOADER = create_loader()
"""Keeps the service descriptions it has parsed, so that only the first client of a process pays for them."""

_EXPECT: Any = add_expect_header  # the stubs want a handler of any arguments

_Refresh = Callable[[], Awaitable[dict[str, Any]]]


def session_of(block: AwsCredentials, region: str | None) -> AioSession:
    """A session with the block's keys, profile or surroundings, and then its role if it names one. Sends nothing."""
    base = _base_session(block)
    if not block.assume_role_arn:
        return base
    session = _session()
    provider = _AssumedRole(_refresher(base, _role_arguments(block), region))
    session.register_component("credential_provider", AioCredentialResolver(providers=[provider]))
    return session


def _session() -> AioSession:
    session = get_session()
    session.register_component("data_loader", _LOADER)
    # Waiting for "100 Continue" costs a round trip for each part; and a connection that the store closes meanwhile
    # (an idle one, say) cancels the wait in aiohttp 3, which would look like a cancel of the run.
    session.unregister("before-call.s3", _EXPECT)
    return session


def _base_session(block: AwsCredentials) -> AioSession:
    session = _session()
    if block.profile_name:
        session.set_config_variable("profile", block.profile_name)
    if (key := block.aws_access_key_id) and (secret := block.aws_secret_access_key):
        session.set_credentials(key, secret.get_secret_value(), block.aws_session_token)
    return session


def _role_arguments(block: AwsCredentials) -> dict[str, Any]:
    defaults = {"RoleArn": block.assume_role_arn, "RoleSessionName": f"headrace-{uuid4().hex[:8]}"}
    return defaults | block.assume_role_kwargs.get_params_override()


def _refresher(base: AioSession, arguments: dict[str, Any], region: str | None) -> _Refresh:
    async def refresh() -> dict[str, Any]:
        # A new client each time: aiobotocore's own create_assume_role_refresher enters one context
        # twice, and so fails on its second refresh.
        async with base.create_client("sts", region_name=region) as sts:
            answer = await sts.assume_role(**arguments)
        credentials = answer["Credentials"]
        return {
            "access_key": credentials["AccessKeyId"],
            "secret_key": credentials["SecretAccessKey"],
            "token": credentials["SessionToken"],
            "expiry_time": credentials["Expiration"].isoformat(),
        }

    return refresh


class _AssumedRole(CredentialProvider):
    """The one link of a provider chain: credentials that call STS at first use, and again before they expire."""

    METHOD = "assume-role"

    def __init__(self, refresh: _Refresh) -> None:
        super().__init__()
        self._refresh = refresh

    async def load(self) -> AioDeferredRefreshableCredentials:
        return AioDeferredRefreshableCredentials(self._refresh, self.METHOD)
