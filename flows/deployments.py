"""The deployments of a `prefect.yaml`, as the command line runs them without a server: entrypoint and parameters."""

from __future__ import annotations

import difflib
import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from blocks.errors import ConfigurationError


@dataclass(frozen=True)
class Deployment:
    """One entry of the file."""

    name: str
    entrypoint: str
    parameters: dict[str, Any]
    description: str
    schedule: str
    work_pool: str = ""

    @property
    def is_stream(self) -> bool:
        return "stream" in self.parameters

    @property
    def is_endless(self) -> bool:
        """Whether its run goes on until it is stopped."""
        return self.entrypoint.endswith(":follow")

    def flow(self) -> Any:
        """The flow of the entrypoint ``path/to/file.py:function``, imported as a module of this project."""
        path, _, function = self.entrypoint.partition(":")
        module = path.removesuffix(".py").replace("/", ".")
        try:
            return getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise ConfigurationError(
                f"deployment {self.name}: entrypoint {self.entrypoint} cannot be used: {error}"
            ) from error


def read(file: Path) -> dict[str, Deployment]:
    """All deployments of the file by name; `ConfigurationError` when it is not there or not a deployment file."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(f"there is no {file} here; run this in the project's folder, or give --file") from None
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{file} is not valid YAML: {error}") from error
    entries = (content or {}).get("deployments") or []
    return {str(entry.get("name", "")): _deployment(entry, file) for entry in entries}


def _deployment(entry: dict[str, Any], file: Path) -> Deployment:
    for field in ("name", "entrypoint"):
        if not entry.get(field):
            raise ConfigurationError(f"{file}: a deployment has no {field}: {json.dumps(entry, default=str)[:120]}")
    schedules = entry.get("schedules") or []
    return Deployment(
        name=entry["name"],
        entrypoint=entry["entrypoint"],
        parameters=dict(entry.get("parameters") or {}),
        description=str(entry.get("description") or "").strip(),
        schedule=", ".join(_schedule(schedule) for schedule in schedules),
        work_pool=str((entry.get("work_pool") or {}).get("name") or ""),
    )


def _schedule(schedule: dict[str, Any]) -> str:
    when = schedule.get("cron") or schedule.get("rrule") or f"every {schedule.get('interval')} s"
    return f"{when}{'' if schedule.get('active', True) else ' (paused)'}"


def pick(known: dict[str, Deployment], names: list[str]) -> list[Deployment]:
    """The deployments with those names (or of those streams); near matches for one that is not there."""
    streams = {str(found.parameters["stream"]): found for found in known.values() if found.is_stream}
    picked = []
    for name in names:
        found = known.get(name) or streams.get(name)
        if found is None:
            close = difflib.get_close_matches(name, [*known, *streams], n=3, cutoff=0.4)
            hint = f"did you mean {', '.join(dict.fromkeys(close))}?" if close else f"there are: {', '.join(known)}"
            raise ConfigurationError(f"there is no deployment {name!r}; {hint}")
        picked.append(found)
    return picked


def overrides(pairs: list[str]) -> dict[str, Any]:
    """``key=value`` pairs; a value is JSON where it can be, text otherwise, as `prefect deployment run -p` has it."""
    made: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ConfigurationError(f"-p {pair!r}: write key=value, such as -p mode=full")
        try:
            made[key] = json.loads(value)
        except json.JSONDecodeError:
            made[key] = value
    return made
