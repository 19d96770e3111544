"""Requests: the endpoint's path, parameters, headers and body with the placeholders filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

import httpx
from pydantic import JsonValue

from blocks.errors import ConfigurationError
from tasks.extractors.rest.errors import shown
from tasks.extractors.rest.pagination import Place
from tasks.extractors.rest.spec import Spec
from tasks.extractors.rest.times import Window

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
BOUNDS = ("since", "until")

_LEFT_OUT = object()


@dataclass(frozen=True)
class Request:
    """One request, without credentials."""

    method: str
    url: httpx.URL
    headers: dict[str, str] = field(default_factory=dict)
    body: JsonValue = None

    def with_params(self, params: Mapping[str, Any], place: Place) -> Request:
        """The same with some parameters set."""
        if place == "params":
            return replace(self, url=self.url.copy_merge_params(params))
        body = self.body if isinstance(self.body, dict) else {}
        return replace(self, body={**body, **params})

    def at(self, url: httpx.URL) -> Request:
        """The same for another URL."""
        return replace(self, url=url)

    def __str__(self) -> str:
        return f"{self.method} {shown(self.url)}"


def placeholders(spec: Spec) -> set[str]:
    """The names in braces anywhere in an endpoint's request."""
    return set(_PLACEHOLDER.findall(repr([spec.path, spec.params, spec.headers, spec.body])))


def request(base_url: str, spec: Spec, window: Window, values: Mapping[str, str]) -> Request:
    """The first request of an endpoint: for a window, and for a parent with such ``values``.

    Parameters, headers and members of the body that name a bound there is none of are left out.
    """
    known: dict[str, str | None] = {**values}
    for name, bound in (("since", window.since), ("until", window.until)):
        known[name] = None if bound is None else spec.times.written(bound, is_since=name == "since")
    numbers = spec.times.format in ("epoch", "epoch-ms")
    params = {key: text for key, value in spec.params.items() if (text := _filled(value, known)) is not None}
    headers = {key: text for key, value in spec.headers.items() if (text := _filled(value, known)) is not None}
    body = _body(spec.body, known, numbers=numbers)
    url = httpx.URL(base_url + _path(spec.path, known))
    return Request(
        spec.method, url.copy_merge_params(params) if params else url, headers, None if body is _LEFT_OUT else body
    )


def _filled(text: str, known: Mapping[str, str | None]) -> str | None:
    """``text`` with what its placeholders stand for; None where one stands for nothing. Other braces are left alone."""
    found = [name for name in _PLACEHOLDER.findall(text) if name in known]
    if any(known[name] is None for name in found):
        return None
    return _PLACEHOLDER.sub(lambda match: known[match[1]] or "" if match[1] in known else match[0], text)


def _path(path: str, known: Mapping[str, str | None]) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1] not in known:
            raise ConfigurationError(f"field path: nothing is known of {{{match[1]}}}; name it in parent.values")
        if (text := known[match[1]]) is None:
            raise ConfigurationError(f"field path: {{{match[1]}}} needs a bound; set window.start for the first window")
        return quote(text, safe="")

    if "://" in path:
        raise ConfigurationError("field path: it is added to the connection's base URL, and cannot be a whole URL")
    return "/" + _PLACEHOLDER.sub(value, path).lstrip("/")


def _body(value: JsonValue, known: Mapping[str, str | None], *, numbers: bool) -> Any:
    """The body with placeholders filled in. A string that is nothing but an epoch's becomes a number."""
    if isinstance(value, str):
        text = _filled(value, known)
        if text is None:
            return _LEFT_OUT
        return int(text) if numbers and value in ("{since}", "{until}") else text
    if isinstance(value, list):
        made = (_body(member, known, numbers=numbers) for member in value)
        return [member for member in made if member is not _LEFT_OUT]
    if isinstance(value, dict):
        pairs = ((key, _body(member, known, numbers=numbers)) for key, member in value.items())
        return {key: member for key, member in pairs if member is not _LEFT_OUT}
    return value
