"""A real S3 server: the one of `TEST_S3_ENDPOINT`, else Ceph's gateway, started for the run."""

import contextlib
import dataclasses
import os
import secrets
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import aioboto3
from aiobotocore.config import AioConfig

from tests.servers import ceph
from tests.servers.support import ServerUnavailableError

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client

_ONE_ATTEMPT = AioConfig(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})


@dataclasses.dataclass(frozen=True)
class S3Server:
    """How one user reaches the server; `gateway` is there if the server is ours."""

    endpoint: str
    access_key: str
    secret_key: str
    region: str
    version: str
    gateway: ceph.Gateway | None = dataclasses.field(default=None, repr=False)

    def client(self, config: AioConfig = _ONE_ATTEMPT) -> "AbstractAsyncContextManager[S3Client]":
        """A client of this user that does not retry, so that a test sees every answer."""
        session = aioboto3.Session(
            aws_access_key_id=self.access_key, aws_secret_access_key=self.secret_key, region_name=self.region
        )
        return session.client("s3", endpoint_url=self.endpoint, config=config)

    @property
    def environment(self) -> dict[str, str]:
        """What a subprocess needs to use this server through any AWS library."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def through(self, endpoint: str) -> "S3Server":
        """The same user behind a proxy."""
        return dataclasses.replace(self, endpoint=endpoint)

    async def bucket(self) -> str:
        """Create a bucket, and return its name."""
        name = f"test-{secrets.token_hex(6)}"
        async with self.client() as client:
            await client.create_bucket(Bucket=name)
        return name

    async def remove(self, bucket: str) -> None:
        """Remove a bucket with its objects, their versions, and its unfinished uploads."""
        async with self.client() as client:
            for upload in (await client.list_multipart_uploads(Bucket=bucket)).get("Uploads", []):
                await client.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
            async for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket):
                found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
                for version in found:
                    await client.delete_object(Bucket=bucket, Key=version["Key"], VersionId=version["VersionId"])
            await client.delete_bucket(Bucket=bucket)

    def stranger(self) -> "S3Server":
        """Another user of the same server, who has no right to anything of this one's."""
        if self.gateway is None:
            return self._given_stranger()
        name, secret = f"stranger-{secrets.token_hex(4)}", secrets.token_hex(20)
        self.gateway.add_user(name, name, secret)
        return dataclasses.replace(self, access_key=name, secret_key=secret)

    def _given_stranger(self) -> "S3Server":
        names = ("TEST_S3_STRANGER_ACCESS_KEY", "TEST_S3_STRANGER_SECRET_KEY")
        keys = [os.environ.get(name, "") for name in names]
        if not all(keys):
            raise ServerUnavailableError(f"a second user of the server of TEST_S3_ENDPOINT is needed: set {names}")
        return dataclasses.replace(self, access_key=keys[0], secret_key=keys[1])


@contextlib.contextmanager
def started() -> Iterator[S3Server]:
    """A server that is stopped and removed at the end, or the one of TEST_S3_ENDPOINT, which is left running."""
    endpoint = os.environ.get("TEST_S3_ENDPOINT")
    if endpoint:
        yield S3Server(
            endpoint=endpoint,
            access_key=os.environ["TEST_S3_ACCESS_KEY"],
            secret_key=os.environ["TEST_S3_SECRET_KEY"],
            region=os.environ.get("TEST_S3_REGION", "us-east-1"),
            version="of TEST_S3_ENDPOINT",
        )
        return
    access_key, secret_key = "owner", secrets.token_hex(20)
    with ceph.started("owner", access_key, secret_key) as gateway:
        yield S3Server(
            endpoint=f"http://127.0.0.1:{gateway.port}",
            access_key=access_key,
            secret_key=secret_key,
            region="us-east-1",
            version=gateway.version,
            gateway=gateway,
        )
