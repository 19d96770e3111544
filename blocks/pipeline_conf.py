"""``headrace configure``: one file of connections and destinations becomes saved blocks, all of them or none."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from prefect.blocks.core import Block
from pydantic import ValidationError

from blocks.conf_file import Section, Value, is_readable_by_others, read_sections
from blocks.conf_keys import Keys, flatten, nest
from blocks.connect import find
from blocks.duck import DuckDB
from blocks.errors import ConfigurationError
from blocks.kafka import Kafka
from blocks.kafka_connect import KafkaConnect
from blocks.mongodb import MongoDB
from blocks.mysql import MySQL
from blocks.postgres import Postgres
from blocks.rest import RestApi
from blocks.s3 import S3Destination

T = TypeVar("T")

BLOCKS: dict[str, type[Block]] = {
    kind.get_block_type_slug(): kind
    for kind in (Postgres, MySQL, MongoDB, RestApi, Kafka, KafkaConnect, DuckDB, S3Destination)
}
"""The kinds of section a file may have. A new source adds its block here."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


@dataclass(frozen=True)
class Change:
    """What became of one block. ``fields`` are sentences such as ``port: 5432 → 5433``; secrets are never in them."""

    block: str
    action: Literal["created", "updated", "unchanged"]
    fields: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.block}: {self.action}" + (f" ({', '.join(self.fields)})" if self.fields else "")


def configure(
    path: str | Path, *, environment: Mapping[str, str] | None = None, allow_readable: bool = False
) -> list[Change]:
    """Create or update the block of every section; what changed, in file order. Running it again changes nothing.

    The file is the whole truth about a block, except that a secret it leaves out stays as it is stored (typed into the
    Blocks page, say); a secret given empty is removed. Blocks the file does not name are left alone.
    `ConfigurationError` lists everything that is wrong, and then nothing was saved. A file that holds secrets and that
    its group or anyone may read is refused unless ``allow_readable``.
    """
    file = Path(path)
    drafts = _drafts(file, os.environ if environment is None else environment, allow_readable)
    stored = [_stored(draft) for draft in drafts]
    blocks = _all_or_none(file, _Draft.block, drafts, stored)
    return [_save(*each) for each in zip(drafts, blocks, stored, strict=True)]


@dataclass(frozen=True)
class _Draft:
    """One section, understood as far as is possible without validation."""

    section: str
    kind: type[Block]
    name: str
    values: dict[str, Any]
    keys: Keys = field(repr=False)

    def block(self, stored: Block | None) -> Block:
        """The block as it will be saved; one `ConfigurationError` line per bad key."""
        values = self._kept(stored) | self.values
        try:
            return self.kind(**nest({key: value for key, value in values.items() if value is not None}, self.keys))
        except ValidationError as error:
            # include_input would carry the password.
            found = error.errors(include_input=False, include_url=False, include_context=False)
            lines = [f"[{self.section}] {self._complaint(one['loc'], one['msg'])}" for one in found]
            raise ConfigurationError("\n".join(lines)) from None

    def _kept(self, stored: Block | None) -> dict[str, Any]:
        """The stored secrets the file says nothing about."""
        before = flatten(stored) if stored else {}
        return {key: value for key, value in before.items() if value is not None and self._is_left_out(key)}

    def _is_left_out(self, key: str) -> bool:
        return self.keys.is_secret(key) and not any(key.startswith(f"{given}.") for given in self.values)

    def _complaint(self, location: Iterable[Any], message: str) -> str:
        key = ".".join(str(part) for part in location)
        message = message.removeprefix("Value error, ").replace("Field required", "is missing, and has no default")
        return f"{key}: {message}" if key else message


def _drafts(file: Path, environment: Mapping[str, str], allow_readable: bool) -> list[_Draft]:
    sections = read_sections(file)
    if not sections:
        raise ConfigurationError(f"{file} has no sections: copy one from pipeline.example.conf")
    exposed = not allow_readable and is_readable_by_others(file)
    return _all_or_none(file, partial(_draft, environment, exposed), *zip(*sections.items(), strict=True))


def _draft(environment: Mapping[str, str], exposed: bool, section: str, body: Section) -> _Draft:
    kind, name = _kind_and_name(section)
    keys = Keys(kind)
    values: dict[str, Any] = {}
    problems: list[str] = []
    for key, value in body.items():
        try:
            _check_key(key, keys, body, exposed and value.is_literal)
            values[key] = _understood(key, value, keys, environment)
        except ConfigurationError as error:
            problems.append(f"[{section}] {key}: {error}")
    if problems:
        raise ConfigurationError("\n".join(problems))
    return _Draft(section, kind, name, values, keys)


def _understood(key: str, value: Value, keys: Keys, environment: Mapping[str, str]) -> Any:
    try:
        return keys.parse(key, value.resolve(environment))
    except KeyError as error:
        name = error.args[0]
        raise ConfigurationError(
            f"the environment variable {name} is not set; set it, or write ${{{name}:-default}}"
        ) from None
    except json.JSONDecodeError:
        raise ConfigurationError("is not valid JSON") from None


def _kind_and_name(section: str) -> tuple[type[Block], str]:
    slug, _, name = section.partition(":")
    if slug not in BLOCKS:
        raise ConfigurationError(
            f"[{section}]: there is no kind {slug!r}{_meant(slug, BLOCKS)}; kinds: {', '.join(BLOCKS)}"
        )
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"[{section}]: write [{slug}:name], the name in a-z, 0-9 and -")
    return BLOCKS[slug], name


def _check_key(key: str, keys: Keys, others: Iterable[str], gives_away: bool) -> None:
    if keys.field(key) is None:
        meant = keys.closest(key)
        advice = f"did you mean {meant}?" if meant else f"keys: {', '.join(keys)}"
        raise ConfigurationError(f"there is no such key; {advice}")
    if whole := next((other for other in others if key.startswith(f"{other}.")), None):
        raise ConfigurationError(f"{whole} is given as a whole too; keep one of the two")
    if gives_away and keys.is_secret(key):
        raise ConfigurationError(
            "a secret in a file that others may read; chmod 600 it, write ${VARIABLE} instead of the secret, "
            "or pass --allow-readable"
        )


def _meant(word: str, words: Iterable[str]) -> str:
    close = get_close_matches(word, list(words), n=1)
    return f", did you mean {close[0]}?" if close else ""


def _all_or_none(file: Path, step: Callable[..., T], *arguments: Iterable[Any]) -> list[T]:
    """``map(step, *arguments)``; if any step fails, one error with the lines of all, each after the file's name."""
    results: list[T] = []
    problems: list[str] = []
    for each in zip(*arguments, strict=True):
        try:
            results.append(step(*each))
        except ConfigurationError as error:
            problems.extend(f"{file}: {line}" for line in str(error).splitlines())
    if problems:
        raise ConfigurationError("\n".join(problems))
    return results


def _stored(draft: _Draft) -> Block | None:
    try:
        return find(draft.kind, draft.name)
    except ConfigurationError:
        # Stored fields that no longer pass validation are what this run is about to replace.
        return None


def _save(draft: _Draft, block: Block, stored: Block | None) -> Change:
    # Saved even when no value changed: an upgrade may have changed the schema the document is shown by.
    # _sync is taken by the decorator around save, which the declared signature does not show.
    block.save(draft.name, overwrite=True, _sync=True)  # type: ignore[call-arg]  # _sync is the decorator's
    label = f"{draft.kind.get_block_type_slug()}/{draft.name}"
    if stored is None:
        return Change(label, "created")
    fields = tuple(_differences(flatten(stored), flatten(block), draft.keys))
    return Change(label, "updated" if fields else "unchanged", fields)


def _differences(before: dict[str, Any], after: dict[str, Any], keys: Keys) -> Iterator[str]:
    for key in before | after:
        old, new = before.get(key), after.get(key)
        if old != new:
            yield f"{key}: changed" if keys.is_secret(key) else f"{key}: {_shown(old)} → {_shown(new)}"


def _shown(value: Any) -> str:
    return "nothing" if value in (None, "") else str(value)
