"""What the commands ask of the deployments in a `prefect.yaml`, beside what `flows.deployments` reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from blocks.errors import ConfigurationError
from flows import deployments
from flows.deployments import Deployment

if TYPE_CHECKING:
    from flows.extract_all import Stream


class MisusedError(Exception):
    """The command line asks for what there is not; exit code 2."""


def streams(deployment: Deployment) -> list[dict[str, Any]]:
    """The parameters of every stream it extracts, as `extract` has them: one, several (extract_all), or none (sweep)."""
    if deployment.is_endless:
        own = ("stream", "source", "to", "parallel")
        return [{name: each for name, each in deployment.parameters.items() if name in own} | {"mode": "changes"}]
    if deployment.is_stream:
        return [deployment.parameters]
    return [each for each in deployment.parameters.get("streams") or [] if isinstance(each, dict)]


def chosen(known: dict[str, Deployment], names: Sequence[str]) -> list[Deployment]:
    """Those named, as ``orders`` or ``extract/orders``, each once; `MisusedError` with near matches otherwise."""
    try:
        return deployments.pick(known, list(dict.fromkeys(name.rpartition("/")[2] for name in names)))
    except ConfigurationError as error:
        raise MisusedError(str(error)) from None


def overridden(found: Sequence[Deployment], given: Sequence[str]) -> list[Deployment]:
    """With the ``key=value`` words of ``-p`` over their own parameters."""
    try:
        changes = deployments.overrides(list(given))
    except ConfigurationError as error:
        raise MisusedError(str(error)) from None
    return [replace(each, parameters=each.parameters | changes) for each in found]


def stream_of(parameters: dict[str, Any]) -> Stream:
    """The parameters of `extract`, validated, with the blocks loaded that they name."""
    from pydantic import ValidationError

    from flows.extract_all import Stream

    try:
        return Stream.model_validate(parameters)
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False, include_context=False)
        lines = [f"field {'.'.join(map(str, one['loc']))}: {one['msg']}" for one in found]
        raise ConfigurationError(f"stream {parameters.get('stream')}: " + "\n  ".join(lines)) from None
