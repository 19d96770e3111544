"""Texts of blocks that are kept elsewhere and looked up when they are used, so that a new value needs no redeploy.

``${env:NAME}`` is an environment variable of the machine that runs the flow, ``${aws-secret:NAME}`` a secret of AWS
Secrets Manager, ``${secret-block:NAME}`` a Secret block of Prefect's. With ``#KEY`` behind the name: a member of the
JSON object that is kept there.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import botocore.session
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError
from prefect.blocks.core import Block
from prefect.blocks.system import Secret
from pydantic import BaseModel, SecretStr

from blocks.connect import find
from blocks.errors import ConfigurationError

B = TypeVar("B", bound=Block)

_REFERENCE = re.compile(r"\$\{(?P<kind>env|aws-secret|secret-block):(?P<name>[^{}#]+)(?:#(?P<key>[^{}]+))?\}")

_LOGINS = {"user", "registry_user", "client_id", "oauth_client_id", "aws_access_key_id", "aws_session_token"}
"""Fields in clear that may hold a reference all the same: some rotations give a new user with each new password."""

_PASSES = {"InternalServiceError", "ThrottlingException", "RequestTimeout", "ServiceUnavailable"}


def without_references(text: str) -> str:
    """What a text gives away itself."""
    return _REFERENCE.sub("", text)


def revealed(block: B) -> B:
    """A copy of ``block`` with every reference replaced by what is kept there now; itself where it has none.

    Blocks: it may ask AWS or Prefect. `ConfigurationError` names block and field, never a value.
    """
    changed: B = _changed(block, _name(block), "", _filled)
    return changed


async def reveal(block: B) -> B:
    """`revealed` for an event loop, which is not kept waiting."""
    return await asyncio.to_thread(revealed, block) if _has_references(block) else block


def _has_references(block: Block) -> bool:
    found: list[str] = []

    def look(text: str, _block: str, _field: str) -> str:
        found.extend(match[0] for match in _REFERENCE.finditer(text))
        return text

    _changed(block, _name(block), "", look)
    return bool(found)


def _name(block: Block) -> str:
    slug, name = block.get_block_type_slug(), block._block_document_name
    return f"{slug}/{name}" if name else slug


def _changed(value: Any, block: str, field: str, change: Callable[[str, str, str], str]) -> Any:
    """``value`` with its texts changed, however deep; the same object where none is. Copies are not validated again."""
    match value:
        case SecretStr():
            text = value.get_secret_value()
            new = change(text, block, field)
            return value if new == text else SecretStr(new)
        case str() if field.rpartition(".")[2] in _LOGINS:
            return change(value, block, field)
        case str() if found := _REFERENCE.search(value):
            raise ConfigurationError(
                f"{block}, field {field}: {found[0]}: only secret fields and users can be kept elsewhere; write the value"
            )
        case BaseModel():
            members = {name: getattr(value, name) for name in type(value).model_fields}
            update = _changed_members(members, block, field, change)
            return value.model_copy(update=update) if update else value
        case dict():
            update = _changed_members(value, block, field, change)
            return value | update if update else value
    return value


def _changed_members(
    members: dict[Any, Any], block: str, field: str, change: Callable[[str, str, str], str]
) -> dict[Any, Any]:
    changed = {
        name: _changed(member, block, f"{field}.{name}" if field else str(name), change)
        for name, member in members.items()
    }
    return {name: new for name, new in changed.items() if new is not members[name]}


def _filled(text: str, block: str, field: str) -> str:
    def fill(match: re.Match[str]) -> str:
        reference = _Reference(match[0], match["name"].strip(), match["key"], f"{block}, field {field}")
        kept = {"env": _environment, "aws-secret": _aws_secret, "secret-block": _secret_block}[match["kind"]](reference)
        return kept if match["key"] is None else _member(kept, reference)

    return _REFERENCE.sub(fill, text)


@dataclass(frozen=True)
class _Reference:
    text: str
    name: str
    key: str | None
    place: str

    def error(self, problem: str) -> ConfigurationError:
        return ConfigurationError(f"{self.place}: {self.text}: {problem}")


def _environment(reference: _Reference) -> str:
    try:
        return os.environ[reference.name]
    except KeyError:
        raise reference.error(
            f"the environment variable {reference.name} is not set where this run is; set it for the worker, or as a job "
            "variable (env) of the work pool or the deployment"
        ) from None


def _secret_block(reference: _Reference) -> str:
    found = find(Secret, reference.name)
    if found is None:
        raise reference.error(
            f"there is no block secret/{reference.name}; create it on the Blocks page of the Prefect UI (Secret)"
        )
    value = found.get()
    return value if isinstance(value, str) else json.dumps(value)


def _aws_secret(reference: _Reference) -> str:
    # arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME
    region = reference.name.split(":")[3] if reference.name.startswith("arn:") else None
    try:
        answer = _secrets_manager(region).get_secret_value(SecretId=reference.name)
    except ClientError as error:
        if (code := error.response["Error"]["Code"]) in _PASSES:
            error.add_note(f"{reference.place}: {reference.text}")
            raise
        raise reference.error(
            f"AWS Secrets Manager answers {code}; check the secret's name, the region, and that the worker's role may do "
            "secretsmanager:GetSecretValue (and kms:Decrypt, for a key of your own)"
        ) from None
    except (NoCredentialsError, NoRegionError) as error:
        raise reference.error(f"{error} Give the worker a role, or AWS_REGION and AWS_PROFILE") from None
    except BotoCoreError as error:
        error.add_note(f"{reference.place}: {reference.text}")
        raise
    if "SecretString" not in answer:
        raise reference.error("the secret holds bytes; keep it as text")
    return str(answer["SecretString"])


@functools.cache
def _secrets_manager(region: str | None) -> Any:
    """A client with the credentials of the surroundings (which renew themselves); making one takes half a second."""
    session = botocore.session.get_session()
    return session.create_client("secretsmanager", region_name=region)


def _member(kept: str, reference: _Reference) -> str:
    try:
        members = json.loads(kept)
    except ValueError:
        members = None
    if not isinstance(members, dict):
        raise reference.error(f"what is kept there is not a JSON object; leave out #{reference.key}")
    if reference.key not in members:
        raise reference.error(f"what is kept there has no {reference.key}; it has {', '.join(sorted(members))}")
    value = members[reference.key]
    return value if isinstance(value, str) else json.dumps(value)
