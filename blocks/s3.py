"""The destination: a bucket, how to reach it, and what its objects look like. Nothing is sent before a client is used."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ssl import create_default_context
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import quote, urlencode, urlsplit

from aiobotocore.config import AioConfig
from prefect.blocks.core import Block
from prefect_aws import AwsCredentials
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from blocks.errors import ConfigurationError
from blocks.hosts import is_local
from blocks.layout import DmsFiles, Layout
from blocks.references import reveal
from blocks.s3_session import session_of
from blocks.schema import SchemaOnce

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client

Compression = Literal["none", "gzip", "zstd"]
Encryption = Literal["none", "AES256", "aws:kms", "aws:kms:dsse"]

LEVELS = {"gzip": range(10), "zstd": range(1, 23)}
EXTENSIONS = {"none": "csv", "gzip": "csv.gz", "zstd": "csv.zst"}

MOST_COPIED_MB = 4096
"""Objects grow past their size by a chunk at most; a copy of more than 5 GiB would need parts."""

Tag = Annotated[str, Field(pattern=r"^[\w .:/=+@-]*$")]
"""The characters S3 takes in the keys and values of tags."""

BlankIsNone = BeforeValidator(lambda value: None if value == "" else value)
"""A form sends an emptied field as ``""``; it means the default."""


class CsvDialect(BaseModel):
    """How CSV is written: ``,`` ``"`` ``\\n`` always, and what a loader may want otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="CSV dialect")

    header: bool = Field(
        default=True,
        title="Header line",
        description="Whether every object begins with a line of column names.",
    )
    null: str = Field(
        default="",
        title="NULL marker",
        description="What stands, unquoted, for NULL: nothing by default, \\N for some loaders. "
        "A real string equal to it is quoted.",
    )
    binary: Literal["hex", "base64"] = Field(
        default="hex",
        title="Bytes as",
        description="How binary columns become text: lower-case hex, or base64 with padding.",
    )

    @field_validator("null")
    @classmethod
    def _needs_no_quotes(cls, marker: str) -> str:
        if found := set(marker) & set('",\r\n'):
            raise ValueError(f"the NULL marker is written without quotes and cannot hold {sorted(found)}")
        return marker


class S3Destination(SchemaOnce, Block):
    """A folder of a bucket that takes CSV objects and their commits: AWS, MinIO, Ceph, R2 or any other S3.

    Credentials are those of the nested block; left empty, those of the surroundings (environment, profile,
    container or instance role). Roles are assumed again by themselves before they expire.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    _block_type_name = "S3 Destination"
    _block_type_slug = "s3-destination"
    # A plain string serves; the base class declares a URL type.
    _logo_url = "https://cdn.sanity.io/images/3ugk85nk/production/d74b16fe84ce626345adf235a47008fea2869a60-225x225.png"  # type: ignore[assignment]  # a plain string serves
    _description = "A bucket and a folder that streams are extracted to as CSV objects, and how to write them."
    _code_example = """```python
from blocks.s3 import S3Destination

lake = S3Destination(bucket="acme-lake", prefix="raw", region="eu-central-1", compression="zstd")
lake.save("lake", overwrite=True)
```"""

    bucket: str = Field(
        title="Bucket",
        description="The bucket's name alone, or an access point's ARN; a folder goes into the prefix.",
        pattern=r"^(arn:\S+|[^\s/]+)$",
    )
    prefix: str = Field(
        default="",
        title="Prefix",
        description="The folder of the bucket under which each stream has its own; empty: the bucket's root.",
    )
    region: Annotated[str | None, BlankIsNone] = Field(
        default=None,
        title="Region",
        description="The bucket's region; empty: the one of the credentials, the profile or AWS_REGION.",
    )
    endpoint: Annotated[str | None, BlankIsNone] = Field(
        default=None,
        title="Endpoint",
        description="The URL of a store that is not AWS (MinIO, Ceph, R2, …), such as https://minio.example:9000; "
        "the bucket is then addressed as a path.",
        pattern=r"^https?://[^\s/]+/?$",
    )
    ca_file: Annotated[str | None, BlankIsNone] = Field(
        default=None,
        title="CA file",
        description="PEM file of the authorities that may sign the endpoint's certificate; empty: the well-known ones. "
        "It has to lie on the machine that runs the flow.",
    )
    verify_tls: bool = Field(
        default=True,
        title="Verify TLS",
        description="Whether the endpoint has to prove who it is. Off, anyone on the way can read and change the data.",
    )
    credentials: AwsCredentials = Field(
        default_factory=AwsCredentials,
        title="Credentials",
        description="Keys, a profile, or a role to assume; left empty, the credentials of the surroundings "
        "(environment, container, instance).",
        # The access key id and the session token are plain text in this block of prefect-aws.
        repr=False,
    )
    compression: Compression = Field(
        default="gzip",
        title="Compression",
        description="gzip is read by every warehouse; zstd is smaller and faster where the loader knows it.",
    )
    compression_level: int | None = Field(
        default=None,
        title="Compression level",
        description="gzip 0 to 9, zstd 1 to 22; empty: the fastest level that still pays.",
    )
    checksum: Literal["crc32", "md5", "none"] = Field(
        default="crc32",
        title="Checksum",
        description="What the store checks every part against. md5 for stores that do not know the newer CRC-32.",
    )
    part_size_mb: int = Field(
        default=8,
        ge=5,
        le=512,
        title="Part size (MiB)",
        description="Size of one part of a multipart upload; grows by itself so that 10,000 parts never run out.",
    )
    parallel_parts: int = Field(
        default=3,
        ge=1,
        le=32,
        title="Parallel parts",
        description="How many parts of one object are on their way at once. Memory of a run is about "
        "partitions in flight times (parallel parts + 1) times part size.",
    )
    object_size_mb: int = Field(
        default=256,
        ge=1,
        title="Object size (MiB)",
        description="About how much data, before compression, one object holds when a run chooses its own partitions.",
    )
    csv: CsvDialect = Field(
        default_factory=CsvDialect,
        title="CSV",
        description="Header line, NULL marker and the spelling of bytes.",
    )
    layout: Layout = Field(
        default="tables",
        title="Layout of change streams",
        description="tables: objects for each table. log: one sequence of objects for all tables, in the order of the log, "
        "with the row as JSON. dms: file names and columns as AWS DMS writes them.",
    )
    dms: DmsFiles = Field(
        default_factory=DmsFiles,
        title="DMS files",
        description="Settings of the layout dms, by the names they have in AWS DMS.",
    )
    encryption: Encryption = Field(
        default="none",
        title="Encryption",
        description="Encryption at rest to ask for; none: whatever the bucket does by itself (AES256 on AWS).",
    )
    kms_key_id: Annotated[str | None, BlankIsNone] = Field(
        default=None,
        title="KMS key",
        description="Id or ARN of the key for aws:kms and aws:kms:dsse; empty: the account's default key for S3.",
    )
    storage_class: Annotated[str | None, BlankIsNone] = Field(
        default=None,
        title="Storage class",
        description="Such as STANDARD_IA or INTELLIGENT_TIERING; empty: the bucket's default.",
    )
    tags: dict[Tag, Tag] = Field(
        default_factory=dict,
        max_length=10,
        title="Object tags",
        description="Up to ten tags put on every object, for cost reports and lifecycle rules "
        "(needs s3:PutObjectTagging).",
    )
    expected_bucket_owner: Annotated[str | None, BlankIsNone] = Field(
        default=None,
        title="Expected bucket owner",
        description="Twelve-digit account that must own the bucket; another owner is refused.",
        pattern=r"^[0-9]{12}$",
    )
    allow_unconditional_commits: bool = Field(
        default=False,
        title="Allow unconditional commits",
        description="For stores without conditional writes (If-None-Match). What is lost: of two runs of one stream "
        "at the same time both may commit, and rows are loaded twice. Leave off where the store can do it.",
    )

    _is_proved: bool = PrivateAttr(default=False)

    @property
    def is_proved(self) -> bool:
        """Whether the store was seen to refuse a second conditional write, by this object."""
        return self._is_proved

    def prove(self) -> None:
        """Remember that it was."""
        self._is_proved = True

    @field_validator("prefix")
    @classmethod
    def _without_outer_slashes(cls, prefix: str) -> str:
        if "://" in prefix:
            raise ValueError("give the folder alone; the bucket has its own field")
        return _joined(prefix)

    @model_validator(mode="after")
    def _fits_together(self) -> S3Destination:
        levels = LEVELS.get(self.compression)
        if self.compression_level is not None and (levels is None or self.compression_level not in levels):
            raise ValueError(f"compression_level {self.compression_level} does not go with {self.compression}")
        keys = (self.credentials.aws_access_key_id, self.credentials.aws_secret_access_key)
        if any(keys) and not all(keys):
            raise ValueError("credentials.aws_access_key_id and credentials.aws_secret_access_key go together")
        if self.kms_key_id and not self.encryption.startswith("aws:kms"):
            raise ValueError("kms_key_id needs encryption aws:kms or aws:kms:dsse")
        if self.ca_file and not self.verify_tls:
            raise ValueError("ca_file has no effect while verify_tls is off; leave one of them out")
        if self.layout == "dms" and self.object_size_mb > MOST_COPIED_MB:
            raise ValueError(
                f"layout dms copies objects, which S3 does up to 5 GiB: object_size_mb up to {MOST_COPIED_MB}"
            )
        if self.layout != "dms" and self.dms != DmsFiles():
            raise ValueError(f"dms has no effect in layout {self.layout}; leave it out, or set layout to dms")
        return self

    @property
    def dialect(self) -> CsvDialect:
        """`csv` as the layout has it: whether there is a header is a setting of its own in DMS."""
        return self.csv.model_copy(update={"header": self.dms.add_column_name}) if self.layout == "dms" else self.csv

    @property
    def data_folder(self) -> str:
        """Where a stream's objects are written: those of layout dms wait there, under a name that crawlers pass over."""
        return "_data" if self.layout == "dms" else "data"

    @property
    def extension(self) -> str:
        """What data objects end in: ``csv``, ``csv.gz`` or ``csv.zst``."""
        return EXTENSIONS[self.compression]

    def key(self, *parts: str) -> str:
        """The key of what lies at ``parts`` under the prefix, without empty folders."""
        return _joined(self.prefix, *parts)

    def url(self, key: str) -> str:
        """``s3://bucket/key`` for a whole key, as loaders and people write it."""
        return f"s3://{self.bucket}/{key}"

    def page(self, key: str) -> str:
        """Where people look at a folder: AWS's console, or the folder's address at another store."""
        if self._endpoint:
            return f"{self._endpoint.rstrip('/')}/{quote(self.bucket)}/{quote(key)}/"
        return f"https://console.aws.amazon.com/s3/buckets/{quote(self.bucket)}?prefix={quote(key)}/"

    def owner_arguments(self) -> dict[str, Any]:
        """What every call about an object carries: ``ExpectedBucketOwner``, if one is set."""
        return {"ExpectedBucketOwner": self.expected_bucket_owner} if self.expected_bucket_owner else {}

    def object_arguments(self) -> dict[str, Any]:
        """What ``put_object`` and ``create_multipart_upload`` carry beside it: encryption, storage class, tags."""
        wanted = {
            "ServerSideEncryption": None if self.encryption == "none" else self.encryption,
            "SSEKMSKeyId": self.kms_key_id,
            "StorageClass": self.storage_class,
            "Tagging": urlencode(self.tags, quote_via=quote),
        }
        return self.owner_arguments() | {name: value for name, value in wanted.items() if value}

    @asynccontextmanager
    async def client(self) -> AsyncIterator[S3Client]:
        """A client for this bucket, to be entered once per run: making one costs up to half a second.

        Raises `ConfigurationError` for a CA file that is missing or holds none; nothing is sent to the store yet.
        """
        credentials = (await reveal(self)).credentials
        arguments = self.credentials.aws_client_parameters.get_params_override()
        arguments["config"] = AioConfig(**(_asked_for(arguments.get("config")) | _options(self._endpoint)))
        arguments["endpoint_url"] = self._endpoint
        if (verify := self._verify()) is not True:
            arguments["verify"] = verify
        session = session_of(credentials, self._region)
        async with session.create_client("s3", region_name=self._region, **arguments) as client:
            yield client

    @property
    def _region(self) -> str | None:
        return self.region or self.credentials.region_name

    @property
    def _endpoint(self) -> str | None:
        return self.endpoint or self.credentials.aws_client_parameters.endpoint_url

    def _verify(self) -> bool | str:
        if not self.ca_file:
            return self.verify_tls
        try:
            create_default_context(cafile=self.ca_file)
        except OSError as error:
            place = self.url(self.prefix)
            raise ConfigurationError(f"ca_file of {place} cannot be used: {self.ca_file}: {error}") from None
        return self.ca_file


def _joined(*parts: str) -> str:
    return "/".join(piece for part in parts for piece in part.split("/") if piece)


def _asked_for(config: Any) -> dict[str, Any]:
    # The only place where botocore keeps what was asked for apart from its defaults; its own merge() reads it too.
    return {} if config is None else dict(config._user_provided_options)


def _options(endpoint: str | None) -> dict[str, Any]:
    addressing = {"addressing_style": "path"} if endpoint else {}
    return {
        # Stores other than AWS reject the trailing checksums that botocore sends on its own since 1.36.
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
        "connect_timeout": 10,
        "read_timeout": 60,
        "retries": {"mode": "standard", "total_max_attempts": 6},
        "tcp_keepalive": True,
        # One client serves all partitions of a run; sockets are opened only when they are used.
        "max_pool_connections": 256,
        "s3": {"payload_signing_enabled": _in_the_open(endpoint)} | addressing,
    }


def _in_the_open(endpoint: str | None) -> bool:
    """Whether a payload needs its own signature: TLS protects it already, the loopback needs no protection.

    Signing hashes every byte with SHA-256 on the event loop's thread.
    """
    address = urlsplit(endpoint or "")
    return address.scheme == "http" and not is_local(address.hostname or "")
