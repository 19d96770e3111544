"""Which errors a person has to mend and which may pass by themselves, and S3's errors in words that say what to mend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, PartialCredentialsError
from pydantic import ValidationError

from blocks.errors import ConfigurationError, SnapshotLost
from blocks.s3 import S3Destination

RETRIES = 3
RETRY_SECONDS: list[float] = [1, 5, 20]

_MEND = {
    "NoSuchBucket": "there is no bucket {bucket!r}; check the field bucket, or create it",
    "AccessDenied": "access to {place} is denied; the credentials need s3:PutObject, s3:GetObject, s3:ListBucket, "
    "s3:DeleteObject and s3:AbortMultipartUpload there",
    "InvalidAccessKeyId": "the store does not know the access key; check credentials.aws_access_key_id",
    "SignatureDoesNotMatch": "the signature is wrong; check credentials.aws_secret_access_key",
    "ExpiredToken": "the session token has expired; renew credentials.aws_session_token, or assume a role instead",
    "InvalidToken": "the session token is not valid; check credentials.aws_session_token",
    "PermanentRedirect": "the bucket lies in another region than {region!r}; check the field region",
    "AuthorizationHeaderMalformed": "the bucket lies in another region than {region!r}; check the field region",
    "IllegalLocationConstraintException": "the bucket lies in another region than {region!r}; check the field region",
    "NotImplemented": "the store does not know an option this destination asks for; check checksum, encryption, tags "
    "and storage_class",
    "InvalidStorageClass": "the store has no such storage class; check the field storage_class",
    "KMS.NotFoundException": "there is no such KMS key; check the field kms_key_id",
}
_SAME = {
    "403": "AccessDenied",
    "Forbidden": "AccessDenied",
    "301": "PermanentRedirect",
    "AllAccessDisabled": "AccessDenied",
}


@contextmanager
def explained_by(destination: S3Destination, stream: str) -> Iterator[None]:
    """Turn what the store refuses for good into a `ConfigurationError`; name the stream in every error."""
    try:
        yield
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise ConfigurationError(
            f"stream {stream}: {error}; fill in credentials of the s3-destination block, or give the machine a role"
        ) from error
    except EndpointConnectionError as error:
        raise ConfigurationError(f"stream {stream}: {error}; check the field endpoint of the destination") from error
    except ClientError as error:
        raise _mended(error, destination, stream) from error
    except Exception as error:
        error.add_note(f"stream {stream}")
        raise


def _mended(error: ClientError, destination: S3Destination, stream: str) -> Exception:
    code = error.response.get("Error", {}).get("Code", "")
    sentence = _MEND.get(_SAME.get(code, code))
    if sentence is None:
        error.add_note(f"stream {stream}")
        return error
    place = destination.url(destination.key(stream))
    told = sentence.format(bucket=destination.bucket, place=place, region=destination.region)
    return ConfigurationError(f"stream {stream}: {told} ({error})")


async def may_pass(_task: Any, _task_run: Any, state: Any) -> bool:
    """Prefect's ``retry_condition_fn``: retry what is not for a person, or a new plan, to mend."""
    try:
        await state.aresult()
    except (ConfigurationError, SnapshotLost, ValidationError):
        return False
    except Exception:
        return True
    return False
