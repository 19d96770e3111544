"""Runs of REST streams: what is committed is what the API has, once, also after a kill; and what was counted is told."""

from __future__ import annotations

import asyncio
import secrets
import signal
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flows.extract import extract
from tests.flows.shops import Shop, save_block
from tests.flows.test_kills import kill_at
from tests.servers.faults import FaultProxy
from tests.servers.rest import Space
from tests.servers.s3 import S3Server
from tests.tasks.extractors.rest import block, in_thread, item

ROWS = 300


class RestShop(Shop):
    """A stream from an API to a bucket."""

    space: Space
    count = 0

    async def add(self, count: int) -> None:
        now = datetime.now(UTC)
        first = self.count + 1
        # Random text, so that a partition is about as large as its rows.
        made = [
            item(n, now + timedelta(microseconds=n), payload=secrets.token_hex(500), when={"day": n % 7})
            for n in range(first, first + count)
        ]
        await in_thread(self.space.add, made)
        self.count += count
        await asyncio.sleep(1.05)

    async def ids(self) -> list[int]:
        return list(range(1, self.count + 1))

    async def save(self, to: Any = None, block_: Any = None) -> dict[str, Any]:
        await save_block(to or self.destination(), self.name)
        await save_block(block_ or block(self.space), self.name)
        start = datetime.now(UTC) - timedelta(hours=1)
        source = {
            "connection": f"rest-api/{self.name}",
            "path": "/items",
            "params": {"since": "{since}", "until": "{until}", "inclusive": "1"},
            "records": "data.items",
            "pagination": {"kind": "page", "size_param": "per_page", "size": 20},
            "fields": [{"name": "id", "type": "integer", "key": True}, {"name": "note"}],
            "window": {"start": f"{start:%Y-%m-%dT%H:%M:%SZ}"},
            "lag": "0 seconds",
        }
        return {"stream": self.name, "source": source, "to": f"s3-destination/{self.name}"}

    async def run(self, mode: str = "full", to: Any = None, block: Any = None, **changes: Any) -> dict[str, Any]:
        parameters = await self.save(to, block)
        parameters["source"] |= {"cursor": "updated_at"} | changes.pop("source", {})
        outcome: dict[str, Any] = await extract(**parameters, mode=mode, **changes)
        return outcome


@pytest.fixture
async def rest_shop(rest_space: Space, s3_server: S3Server, bucket: str, prefect_api: str) -> RestShop:
    """An API with `ROWS` items, and an empty bucket."""
    assert prefect_api
    made = RestShop(None, s3_server, bucket, {"compression": "none"})  # type: ignore[arg-type]  # there is no database
    made.space = rest_space
    await made.add(ROWS)
    return made


@pytest.mark.parametrize("mode", ["full", "incremental"])
async def test_two_runs_bring_everything_once(rest_shop: RestShop, mode: str) -> None:
    """A run commits all items; the next brings what is new (incremental) or all again (full)."""
    first = await rest_shop.run(mode, partitions=3)
    await rest_shop.add(20)
    second = await rest_shop.run(mode, partitions=3)
    assert (first["sequence"], second["sequence"]) == (1, 2)
    assert second["rows"] == (20 if mode == "incremental" else first["rows"] + 20)
    await rest_shop.assert_sound(mode)
    assert (await rest_shop.run("incremental"))["committed"] is False
    (commit,) = (await rest_shop.commits())[:1]
    assert [column.name for column in commit.columns] == ["id", "note", "_extra"]
    assert commit.columns[0].key


@pytest.mark.parametrize(("step", "when"), [("result", "after"), ("commit", "before"), ("commit", "after")])
async def test_a_killed_run_is_made_up_for(
    rest_shop: RestShop, s3_faults: FaultProxy, prefect_faults: FaultProxy, step: str, when: str
) -> None:
    """After SIGKILL the next run takes up the plan: no item is lost, none is committed twice."""
    parameters = await rest_shop.save(rest_shop.destination(s3_faults.endpoint))
    parameters["source"]["cursor"] = "updated_at"
    parameters |= {"mode": "incremental", "partitions": 3, "parallel": 1}
    assert await kill_at(step, when, 1, parameters, s3_faults, prefect_faults) == -signal.SIGKILL
    await rest_shop.add(11)
    for _ in range(2):
        await rest_shop.run("incremental", partitions=3, parallel=1, source=_same_start(parameters))
    await rest_shop.assert_sound("incremental")
    first = (await rest_shop.commits())[0]
    assert first.resumed == ((step, when) != ("commit", "after"))


def _same_start(parameters: dict[str, Any]) -> dict[str, Any]:
    return {"window": parameters["source"]["window"]}


async def test_what_is_counted_is_in_the_commit(rest_shop: RestShop) -> None:
    """A loader can see that values were of another type, or left out."""
    fields = [{"name": "id", "type": "integer"}, {"name": "note", "type": "integer"}]
    await rest_shop.run("full", source={"fields": fields, "extra": "drop", "mistyped": "null"})
    (commit,) = await rest_shop.commits()
    (entry,) = commit.entries
    assert entry.counted["note: not of type integer, written as NULL"] == ROWS * 5 // 6
    assert entry.counted["payload: left out"] == ROWS
