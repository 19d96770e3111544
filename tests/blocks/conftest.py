"""An S3 server with an STS for the tests of the blocks, started once and only when asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from moto.server import ThreadedMotoServer

from blocks.s3 import S3Destination


@pytest.fixture(scope="session")
def aws_server() -> Iterator[str]:
    """The URL of an S3 and STS server; the project's other S3 server has no roles to assume."""
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
