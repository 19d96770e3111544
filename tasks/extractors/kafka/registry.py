"""Schemas of a registry that speaks Confluent's API (Confluent's own, Apicurio, Karapace, Redpanda), by their numbers."""

from __future__ import annotations

import functools

import httpx

from blocks.errors import ConfigurationError
from blocks.kafka import Kafka
from blocks.references import revealed


class Registry:
    """Asks for a schema once. Blocks."""

    def __init__(self, block: Kafka) -> None:
        self._block = block
        self.schema = functools.cache(self._fetched)
        """The text of the schema with a number; `ConfigurationError` where it cannot be had for good."""

    def _fetched(self, number: int) -> str:
        block = revealed(self._block)
        if not block.registry_url:
            raise ConfigurationError(
                f"a message names schema {number} of a registry; fill in registry_url of {block.describe()}"
            )
        auth = (block.registry_user, block.registry_password.get_secret_value()) if block.registry_user else None
        url = f"{block.registry_url.rstrip('/')}/schemas/ids/{number}"
        answer = httpx.get(url, auth=auth, timeout=block.timeout, headers={"Accept": "application/json"})
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise ConfigurationError(
                f"{url}: the registry refuses the log-in; check registry_user and registry_password"
            )
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise ConfigurationError(f"{url}: the registry has no such schema; check registry_url")
        answer.raise_for_status()
        try:
            return str(answer.json()["schema"])
        except (ValueError, LookupError, TypeError) as error:  # not the message's fault: it is no dead letter
            raise ConfigurationError(
                f"{url}: what answers is no registry that speaks Confluent's API; check registry_url"
            ) from error
