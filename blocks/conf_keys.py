"""The keys of a block's section: dotted names of its fields, what text means to each, and which are secret."""

from __future__ import annotations

import json
import types
from difflib import get_close_matches
from typing import Any, Union, get_args, get_origin

from prefect.blocks.core import Block
from pydantic import BaseModel, SecretBytes, SecretStr

from blocks.connect import load_by_name

_PLAIN_SECRETS = {"aws_access_key_id", "aws_session_token"}
"""Fields of prefect-aws that are plain text there and nobody else's business all the same."""


class Keys:
    """The keys a kind of block takes, dotted into nested models; a mapping field takes any key below it."""

    def __init__(self, kind: type[BaseModel]) -> None:
        self._annotations = dict(_walk(kind, ""))

    def __iter__(self) -> Any:
        return iter(self._annotations)

    def field(self, key: str) -> str | None:
        """The field ``key`` sets: itself, or the mapping it is an entry of. None: no such key."""
        if key in self._annotations:
            return key
        parent = key.rpartition(".")[0]
        while parent and not _is_mapping(self._annotations.get(parent)):
            parent = parent.rpartition(".")[0]
        return parent or None

    def closest(self, key: str) -> str | None:
        """The key that was probably meant."""
        return next(iter(get_close_matches(key, list(self._annotations), n=1, cutoff=0.5)), None)

    def is_secret(self, key: str) -> bool:
        """Whether the value is to be kept out of sight."""
        field = self.field(key)
        secret_types = (SecretStr, SecretBytes)
        return key.rpartition(".")[2] in _PLAIN_SECRETS or (
            field is not None and any(leaf in secret_types for leaf in _leaves(self._annotations[field]))
        )

    def parse(self, key: str, text: str) -> Any:
        """What ``text`` means to a known key, before validation; `ValueError` for JSON that is none.

        An empty text is None where the field may be, lists are JSON or separated by commas, a nested block may
        be given by its name.
        """
        if (field := self.field(key)) != key or field is None:
            return text
        annotation = self._annotations[field]
        if text == "" and type(None) in get_args(annotation):
            return None
        if blocks := _of(Block, annotation):
            return load_by_name(blocks, text)
        return _structured(annotation, text)


def nest(values: dict[str, Any], keys: Keys) -> dict[str, Any]:
    """Dotted keys as nested dictionaries; below a mapping field the rest of the key is one name, dots included."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        field = keys.field(key) or key
        *folders, leaf = [*field.split("."), key[len(field) + 1 :]] if field != key else field.split(".")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = value
    return tree


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves of a block by dotted key, secrets in plain; a nested block that is saved on its own is its name."""
    if isinstance(value, Block) and prefix and value._block_document_name:
        return {prefix: f"{value.get_block_type_slug()}/{value._block_document_name}"}
    if isinstance(value, BaseModel):
        return _flatten_all({name: getattr(value, name) for name in type(value).model_fields}, prefix)
    if isinstance(value, dict):
        return _flatten_all(value, prefix)
    return {prefix: value.get_secret_value() if isinstance(value, SecretStr | SecretBytes) else value}


def _flatten_all(members: dict[str, Any], prefix: str) -> dict[str, Any]:
    below = f"{prefix}." if prefix else ""
    return {key: leaf for name, value in members.items() for key, leaf in flatten(value, f"{below}{name}").items()}


def _walk(model: type[BaseModel], prefix: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, field in model.model_fields.items():
        nested = _of(BaseModel, field.annotation)
        if not nested or _of(Block, field.annotation):
            found.append((f"{prefix}{name}", field.annotation))
        for member in nested:
            found.extend(_walk(member, f"{prefix}{name}."))
    return found


def _leaves(annotation: Any) -> list[Any]:
    if get_origin(annotation) is None:
        return [annotation]
    return [leaf for part in get_args(annotation) for leaf in _leaves(part)]


def _of(base: type[Any], annotation: Any) -> tuple[type[Any], ...]:
    """The classes under ``base`` that an annotation names, itself or in a union."""
    return tuple(leaf for leaf in _members(annotation) if isinstance(leaf, type) and issubclass(leaf, base))


def _members(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        return [member for part in get_args(annotation) for member in _members(part)]
    return [annotation]


def _is_mapping(annotation: Any) -> bool:
    return any((get_origin(member) or member) is dict for member in _members(annotation))


def _structured(annotation: Any, text: str) -> Any:
    origins = [get_origin(member) or member for member in _members(annotation)]
    if dict in origins:
        return json.loads(text or "{}")
    if list in origins or tuple in origins:
        return json.loads(text) if text.startswith("[") else [part.strip() for part in text.split(",") if part.strip()]
    return text
