"""REST endpoints pass the contract, whatever the way they are paged in."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tasks.extractors.contract import Extractor, ReadOptions
from tasks.extractors.rest.source import RestEndpoint
from tests.contract import ExtractorContract
from tests.servers.rest import Space
from tests.tasks.extractors.rest import FIELDS, endpoint, in_thread, item

ROWS = 500


@dataclass
class Endpoint:
    """Items with a time, asked for by it."""

    space: Space
    pagination: dict[str, Any]
    params: dict[str, str] = field(default_factory=dict)
    can_increment: bool = True
    can_partition: bool = False
    rows: int = 0

    def open(self, options: ReadOptions) -> Extractor:
        return self._endpoint("/items").open(options)

    def misnamed(self, options: ReadOptions) -> Extractor:
        return self._endpoint("/itmes").open(options)

    def _endpoint(self, path: str) -> RestEndpoint:
        params = {"since": "{since}", "until": "{until}", "limit": "40"} | self.params
        return endpoint(
            self.space, path, params=params, pagination=self.pagination, fields=FIELDS, extra="json",
            cursor="updated_at", lag="", records="" if "as" in params else "data.items",
        )  # fmt: skip

    async def add(self, count: int) -> None:
        now = datetime.now(UTC)
        made = [item(n, now + timedelta(microseconds=n)) for n in range(self.rows + 1, self.rows + count + 1)]
        await in_thread(self.space.add, made)
        self.rows += count
        await asyncio.sleep(1.01)  # windows end at whole seconds

    async def move(self, amount: int) -> None:
        raise NotImplementedError("there are no partitions for anything to come apart between")

    async def count(self) -> int:
        return self.rows


class Contract(ExtractorContract):
    pagination: dict[str, Any]
    params: dict[str, str] = {}  # noqa: RUF012 - never changed

    @pytest.fixture
    async def subject(self, rest_space: Space) -> Endpoint:
        made = Endpoint(rest_space, self.pagination, self.params)
        await made.add(ROWS)
        return made


class TestNextUrl(Contract):
    pagination = {"kind": "next", "value": "next"}  # noqa: RUF012 - never changed


class TestOffset(Contract):
    pagination = {"kind": "offset", "limit": 40}  # noqa: RUF012 - never changed


class TestLink(Contract):
    pagination = {"kind": "link"}  # noqa: RUF012 - never changed
    params = {"as": "bare"}  # noqa: RUF012 - never changed


del Contract
