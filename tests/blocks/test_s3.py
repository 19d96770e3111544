"""The destination: what it accepts, what it sends, and that its credentials renew themselves and stay hidden."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiobotocore.credentials import AioCredentials
from prefect_aws import AwsCredentials
from pydantic import ValidationError

from blocks.errors import ConfigurationError
from blocks.layout import DmsFiles
from blocks.s3 import CsvDialect, S3Destination
from blocks.s3_session import session_of

KEYS = {"aws_access_key_id": "AKIAPLAIN", "aws_secret_access_key": "s3cret-key"}


def test_fields_are_documented() -> None:
    """Every field has a title and a description, which the Prefect UI shows as a form."""
    for model in (S3Destination, CsvDialect, DmsFiles):
        assert all(field.title and field.description for field in model.model_fields.values())


@pytest.mark.parametrize("marker", ['"', "a,b", "\n", "\r"])
def test_null_marker_that_needs_quotes_is_refused(marker: str) -> None:
    """A NULL marker is written unquoted, so one that could not be is refused."""
    with pytest.raises(ValidationError, match="NULL marker"):
        CsvDialect(null=marker)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bucket": "s3://lake/raw"}, "pattern"),
        ({"prefix": "s3://lake/raw"}, "folder alone"),
        ({"endpoint": "minio:9000"}, "pattern"),
        ({"part_size_mb": 4}, "greater than or equal to 5"),
        ({"parallel_parts": 33}, "less than or equal to 32"),
        ({"compression": "none", "compression_level": 1}, "does not go with none"),
        ({"compression": "gzip", "compression_level": 10}, "does not go with gzip"),
        ({"compression": "zstd", "compression_level": 0}, "does not go with zstd"),
        ({"kms_key_id": "k", "encryption": "AES256"}, "needs encryption"),
        ({"verify_tls": False, "ca_file": "/ca.pem"}, "no effect"),
        ({"tags": {"team": "data & friends"}}, "pattern"),
        ({"expected_bucket_owner": "1234"}, "pattern"),
        ({"layout": "dms", "object_size_mb": 5000}, "object_size_mb up to 4096"),
        ({"dms": {"add_column_name": True}}, "dms has no effect in layout tables"),
        ({"layout": "dms", "dms": {"csv_no_sup_value": "a,b"}}, "pattern"),
        ({"credentials": {"aws_secret_access_key": "s3cret-key"}}, "go together"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any], message: str) -> None:
    """Fields that are wrong alone or together are found when the block is made, and the error hides its input."""
    with pytest.raises(ValidationError, match=message) as caught:
        S3Destination(**({"bucket": "lake"} | fields))
    assert "s3cret" not in str(caught.value)
    assert "input_value" not in str(caught.value)


@pytest.mark.parametrize("prefix", ["raw/shop", "/raw/shop/", "raw//shop"])
def test_keys_have_no_empty_folders(prefix: str) -> None:
    """However the prefix is written, keys have one slash between names and none at either end."""
    destination = S3Destination(bucket="lake", prefix=prefix)
    assert destination.key("orders/", "", "/data", "1.csv") == "raw/shop/orders/data/1.csv"
    assert destination.url(destination.key("a")) == "s3://lake/raw/shop/a"


def test_key_without_prefix() -> None:
    """Without a prefix keys begin with the stream."""
    assert S3Destination(bucket="lake").key("orders", "data") == "orders/data"


@pytest.mark.parametrize(("compression", "extension"), [("none", "csv"), ("gzip", "csv.gz"), ("zstd", "csv.zst")])
def test_extension_tells_the_compression(compression: Any, extension: str) -> None:
    """Object names say how the content is compressed."""
    assert S3Destination(bucket="lake", compression=compression).extension == extension


def test_emptied_form_fields_mean_the_default() -> None:
    """The empty strings a form sends for cleared fields are the same as leaving them out."""
    blank = S3Destination(
        bucket="lake", region="", endpoint="", ca_file="", kms_key_id="", storage_class="", expected_bucket_owner=""
    )
    assert blank == S3Destination(bucket="lake")


def test_object_arguments_hold_what_was_asked_for() -> None:
    """Objects carry encryption, class, tags and owner; other calls carry the owner alone; defaults carry nothing."""
    destination = S3Destination(
        bucket="lake",
        encryption="aws:kms",
        kms_key_id="key-1",
        storage_class="STANDARD_IA",
        tags={"team": "data + friends", "a": "b"},
        expected_bucket_owner="123456789012",
    )
    assert destination.object_arguments() == {
        "ServerSideEncryption": "aws:kms",
        "SSEKMSKeyId": "key-1",
        "StorageClass": "STANDARD_IA",
        "Tagging": "team=data%20%2B%20friends&a=b",
        "ExpectedBucketOwner": "123456789012",
    }
    assert destination.owner_arguments() == {"ExpectedBucketOwner": "123456789012"}
    assert S3Destination(bucket="lake").object_arguments() == {}


@pytest.mark.parametrize(
    ("endpoint", "signed"),
    [
        (None, False),
        ("https://minio.example", False),
        ("http://127.0.0.1:9000", False),
        ("http://localhost:9000", False),
        ("http://[::1]:9000", False),
        ("http://minio.example:9000", True),
    ],
)
async def test_payloads_are_signed_only_in_the_open(endpoint: str | None, signed: bool) -> None:
    """The costly hash over every byte is left out where TLS or the loopback already protects the bytes."""
    async with S3Destination(bucket="lake", endpoint=endpoint, credentials=AwsCredentials(**KEYS)).client() as s3:
        options: Any = s3.meta.config
        assert options.s3["payload_signing_enabled"] is signed


async def test_client_keeps_the_credentials_blocks_own_options() -> None:
    """Client parameters of the AWS credentials block still count; what this block says comes first."""
    parameters = {
        "endpoint_url": "http://127.0.0.1:9",
        "config": {"user_agent_extra": "acme", "read_timeout": 7, "s3": {"addressing_style": "virtual"}},
    }
    credentials = AwsCredentials(**KEYS, aws_client_parameters=parameters)
    async with S3Destination(bucket="lake", region="eu-west-1", credentials=credentials).client() as s3:
        assert s3.meta.endpoint_url == "http://127.0.0.1:9"
        assert s3.meta.region_name == "eu-west-1"
        options: Any = s3.meta.config
        assert "acme" in options.user_agent_extra
        assert options.read_timeout == 60
        assert options.s3["addressing_style"] == "path"


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_bad_ca_file_is_named(tmp_path: Path, content: str | None) -> None:
    """A CA file that is missing or holds none is a configuration error that names field and file."""
    file = tmp_path / "ca.pem"
    if content is not None:
        await asyncio.to_thread(file.write_text, content)
    with pytest.raises(ConfigurationError, match=rf"ca_file of s3://lake/ cannot be used: {file}: "):
        async with S3Destination(bucket="lake", ca_file=str(file)).client():
            pass


async def test_a_put_waits_for_nothing(lake: S3Destination) -> None:
    """No part waits for "100 Continue": a store that closes the connection meanwhile would look like a cancel."""
    seen: list[dict[str, str]] = []
    async with lake.client() as s3:
        s3.meta.events.register("before-send.s3", lambda request, **_: seen.append(dict(request.headers)))
        await s3.put_object(Bucket="lake", Key="a", Body=b"x")
    assert seen
    assert not any(name.lower() == "expect" for headers in seen for name in headers)


async def test_objects_carry_their_arguments(lake: S3Destination) -> None:
    """The store sees class, tags and encryption on what was written."""
    lake.tags, lake.storage_class, lake.encryption = {"team": "data + friends"}, "STANDARD_IA", "AES256"
    async with lake.client() as s3:
        await s3.put_object(Bucket="lake", Key="tagged", Body=b"x", **lake.object_arguments())
        head = await s3.head_object(Bucket="lake", Key="tagged")
        tags = await s3.get_object_tagging(Bucket="lake", Key="tagged")
    assert (head["StorageClass"], head["ServerSideEncryption"]) == ("STANDARD_IA", "AES256")
    assert tags["TagSet"] == [{"Key": "team", "Value": "data + friends"}]


async def test_assumed_role_renews_itself(aws_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials of an assumed role are asked for at first use, kept while they last, and asked for again."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", aws_server)
    block = AwsCredentials(**KEYS, assume_role_arn="arn:aws:iam::123456789012:role/loader")
    credentials: Any = await session_of(block, "us-east-1").get_credentials()
    first = await credentials.get_frozen_credentials()
    assert first.token
    assert first.access_key != KEYS["aws_access_key_id"]
    assert await credentials.get_frozen_credentials() == first
    for _ in range(2):
        credentials._expiry_time = datetime.now(UTC) - timedelta(seconds=1)
        renewed = await credentials.get_frozen_credentials()
        assert renewed != first
        first = renewed


async def test_assumed_role_reaches_the_bucket(
    lake: S3Destination, aws_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client of a role signs with the role's credentials."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", aws_server)
    lake.credentials = AwsCredentials(
        **KEYS,
        assume_role_arn="arn:aws:iam::123456789012:role/loader",
        assume_role_kwargs={"ExternalId": "tenant-1", "DurationSeconds": 900},
    )
    async with lake.client() as s3:
        await s3.put_object(Bucket="lake", Key="by-role", Body=b"x")
        assert await (await s3.get_object(Bucket="lake", Key="by-role"))["Body"].read() == b"x"


async def test_ambient_credentials_are_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty credentials block means those of the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAAMBIENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "ambient-secret")
    found = await session_of(S3Destination(bucket="lake").credentials, None).get_credentials()
    assert isinstance(found, AioCredentials)
    assert (found.access_key, found.secret_key) == ("AKIAAMBIENT", "ambient-secret")


async def test_profile_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile's keys come from the shared credentials file, whatever the environment holds."""
    file = tmp_path / "credentials"
    file.write_text("[loader]\naws_access_key_id = AKIAPROFILE\naws_secret_access_key = profile-secret\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAAMBIENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "ambient-secret")
    found = await session_of(AwsCredentials(profile_name="loader"), None).get_credentials()
    assert found is not None
    assert found.access_key == "AKIAPROFILE"


def test_secrets_stay_hidden() -> None:
    """Neither the secret key nor the key id nor the session token is in the block's own text."""
    credentials = AwsCredentials(**KEYS, aws_session_token="t0ken")
    destination = S3Destination(bucket="lake", credentials=credentials)
    shown = f"{destination!r} {destination}"
    assert not any(secret in shown for secret in ("s3cret-key", "AKIAPLAIN", "t0ken"))
    assert "s3cret-key" not in str(destination.model_dump()) + destination.model_dump_json()


async def test_saved_block_loads_equal(prefect_api: str, lake: S3Destination) -> None:
    """Nested credentials and CSV options survive saving, the secret key included."""
    lake.csv = CsvDialect(null="\\N", header=False)
    await lake.asave("round-trip", overwrite=True)
    loaded: S3Destination = await S3Destination.aload("round-trip")
    assert loaded.csv == lake.csv
    assert loaded.credentials.aws_secret_access_key == lake.credentials.aws_secret_access_key
