"""A server of S3, STS and Secrets Manager for the tests of the blocks, started once and only when asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import botocore.session
import pytest
from moto.server import ThreadedMotoServer

from blocks import references
from blocks.s3 import S3Destination


@pytest.fixture(scope="session")
def aws_server() -> Iterator[str]:
    """The URL of moto's server; the project's other S3 server has no roles to assume, and keeps no secrets."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
async def lake(aws_server: str) -> S3Destination:
    """A destination on that server, its bucket made, with static keys."""
    destination = S3Destination(
        bucket="lake",
        prefix="raw",
        endpoint=aws_server,
        region="us-east-1",
        credentials={"aws_access_key_id": "AKIAFIXTURE", "aws_secret_access_key": "s3cret-key"},
    )
    async with destination.client() as s3:
        await s3.create_bucket(Bucket="lake")
    return destination


@pytest.fixture
def secrets_manager(aws_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of Secrets Manager, which the surroundings name as well."""
    for name, value in {
        "AWS_ENDPOINT_URL_SECRETS_MANAGER": aws_server,
        "AWS_ACCESS_KEY_ID": "AKIAFIXTURE",
        "AWS_SECRET_ACCESS_KEY": "s3cret-key",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }.items():
        monkeypatch.setenv(name, value)
    references._secrets_manager.cache_clear()
    session = botocore.session.get_session()
    client = session.create_client("secretsmanager", endpoint_url=aws_server, region_name="eu-west-1")
    yield client
    client.close()
    references._secrets_manager.cache_clear()
