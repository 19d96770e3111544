"""Kafka Connect's REST API: https://kafka.apache.org/documentation/#connect_rest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from blocks.errors import ConfigurationError
from blocks.kafka_connect import KafkaConnect
from blocks.references import reveal

_REBALANCES = httpx.codes.CONFLICT
_SECONDS = 60.0
"""For so long workers may divide their work anew, and a connector may take to start."""


@dataclass(frozen=True)
class State:
    """How a connector is."""

    connector: str
    """RUNNING, PAUSED, STOPPED, FAILED, UNASSIGNED."""
    tasks: tuple[str, ...]
    trace: str
    """Of what failed; empty where nothing has."""

    @property
    def runs(self) -> bool:
        return self.connector == "RUNNING" and bool(self.tasks) and set(self.tasks) == {"RUNNING"}

    def __str__(self) -> str:
        return f"{self.connector}, tasks: {', '.join(self.tasks) or 'none'}"


class Connect:
    """One Connect cluster. What it refuses is a `ConfigurationError` in its words."""

    def __init__(self, block: KafkaConnect, client: httpx.AsyncClient) -> None:
        self._block, self._client = block, client

    async def config(self, name: str) -> dict[str, str] | None:
        """A connector's settings; None where there is no such."""
        answer = await self._asked("GET", f"/connectors/{name}/config")
        return None if answer.status_code == httpx.codes.NOT_FOUND else dict(self._told(answer))

    async def put(self, name: str, config: dict[str, str]) -> None:
        """Make a connector, or keep other settings for one."""
        self._told(await self._asked("PUT", f"/connectors/{name}/config", config))

    async def change(self, name: str, config: dict[str, str]) -> None:
        """Give a connector other settings. It is stopped first: else a task that still has the old ones reads on, and
        passes over what the new ones are to bring."""
        self._told(await self._asked("PUT", f"/connectors/{name}/stop"))
        await self._stopped(name)
        await self.put(name, config)
        await self.resume(name)

    async def resume(self, name: str) -> None:
        """Let a connector go on that was stopped or paused."""
        self._told(await self._asked("PUT", f"/connectors/{name}/resume"))

    async def state(self, name: str) -> State | None:
        """How a connector is; None where there is no such."""
        answer = await self._asked("GET", f"/connectors/{name}/status")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        told = self._told(answer)
        parts = [told["connector"], *told["tasks"]]
        trace = next((part["trace"] for part in parts if part.get("trace")), "")
        return State(told["connector"]["state"], tuple(task["state"] for task in told["tasks"]), trace)

    async def offset(self, name: str) -> dict[str, Any] | None:
        """Where in its source's log a connector was when it last stored that; None where it has stored nothing."""
        offsets = self._told(await self._asked("GET", f"/connectors/{name}/offsets"))["offsets"]
        return dict(offsets[0]["offset"]) if offsets else None

    async def restart_failed(self, name: str) -> None:
        """Start again what has failed of a connector."""
        query = "includeTasks=true&onlyFailed=true"
        self._told(await self._asked("POST", f"/connectors/{name}/restart?{query}"))

    async def wait(self, name: str) -> State:
        """The state once it runs; `ConfigurationError` with the trace where it fails, or does not run in time."""
        ends = time.monotonic() + _SECONDS
        while True:
            state = await self.state(name)
            if state is not None and state.runs:
                return state
            if state is not None and state.trace:
                raise ConfigurationError(f"connector {name} failed: {_reason(state.trace)}")
            if time.monotonic() > ends:
                raise ConfigurationError(f"connector {name} does not run after {_SECONDS:g} s: {state}")
            await asyncio.sleep(0.3)

    async def remove(self, name: str) -> bool:
        """Remove a connector and how far it had come, without which another of its name would go on there; if it was there."""
        if await self.config(name) is None:
            return False
        self._told(await self._asked("PUT", f"/connectors/{name}/stop"))
        await self._stopped(name)
        self._told(await self._asked("DELETE", f"/connectors/{name}/offsets"))
        self._told(await self._asked("DELETE", f"/connectors/{name}"))
        return True

    async def _stopped(self, name: str) -> None:
        ends = time.monotonic() + _SECONDS
        while (state := await self.state(name)) is not None and (state.connector != "STOPPED" or state.tasks):
            if time.monotonic() > ends:
                raise ConfigurationError(f"connector {name} does not stop within {_SECONDS:g} s: {state}")
            await asyncio.sleep(0.3)

    async def _asked(self, method: str, path: str, body: Any = None) -> httpx.Response:
        ends = time.monotonic() + _SECONDS
        while True:
            try:
                answer = await self._client.request(method, path, json=body)
            except httpx.TransportError as error:
                raise ConfigurationError(
                    f"{self._block.url} does not answer ({error or type(error).__name__}); check url, and whether a worker runs"
                ) from error
            if answer.status_code != _REBALANCES or time.monotonic() > ends:
                return answer
            await asyncio.sleep(0.5)

    def _told(self, answer: httpx.Response) -> Any:
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise ConfigurationError(f"{self._block.url} refuses the log-in; check user and password")
        if answer.is_error:
            try:
                reason = answer.json()["message"]
            except (ValueError, KeyError, TypeError):
                reason = answer.text
            raise ConfigurationError(f"Kafka Connect refuses: {reason}")
        return answer.json() if answer.content else None


def _reason(trace: str) -> str:
    """The innermost cause of a Java trace, and the outermost."""
    causes = [line.removeprefix("Caused by: ") for line in trace.splitlines() if line.startswith("Caused by: ")]
    return f"{trace.splitlines()[0]}" + (f" ({causes[-1]})" if causes else "")


@asynccontextmanager
async def connected(block: KafkaConnect) -> AsyncIterator[Connect]:
    """A client of the cluster's REST API."""
    block = await reveal(block)
    verify = await asyncio.to_thread(block.verify)
    auth = httpx.BasicAuth(*found) if (found := block.auth()) else None
    async with httpx.AsyncClient(base_url=block.url, auth=auth, verify=verify, timeout=block.timeout) as client:
        yield Connect(block, client)
