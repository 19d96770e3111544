"""A Prefect server and an S3 server for the tests of the blocks, each started once and only when asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from moto.server import ThreadedMotoServer
from prefect.testing.utilities import prefect_test_harness

from blocks.s3 import S3Destination


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A Prefect server with an empty database, which every client in the session talks to."""
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The URL of an S3 and STS server."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
async def lake(s3_server: str) -> S3Destination:
    """A destination on the S3 server, its bucket made, with static keys."""
    destination = S3Destination(
        bucket="lake",
        prefix="raw",
        endpoint=s3_server,
        region="us-east-1",
        credentials={"aws_access_key_id": "AKIAFIXTURE", "aws_secret_access_key": "s3cret-key"},
    )
    async with destination.client() as s3:
        await s3.create_bucket(Bucket="lake")
    return destination
