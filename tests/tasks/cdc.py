"""What `headrace cdc` does for a stream, as lists of what it tells."""

from __future__ import annotations

import asyncio

from tasks.cdc import capture
from tasks.extractors.kafka.source import KafkaTopics
from tests.servers.connect import ConnectServer


class Commands:
    """Of the stream of that name."""

    name: str

    async def enable(self, source: KafkaTopics) -> list[str]:
        return [line async for line in capture.enable(self.name, source)]

    async def status(self, source: KafkaTopics) -> list[str]:
        return [f"{finding.level}: {finding.text}" async for finding in capture.status(self.name, source)]

    async def disable(self, source: KafkaTopics) -> list[str]:
        return [line async for line in capture.disable(self.name, source)]

    async def enabled_after_a_stop(self, connect: ConnectServer, source: KafkaTopics) -> str:
        """What enabling tells of a connector that was stopped, which takes a moment to be."""
        connect.ask("PUT", f"/connectors/{self.name}/stop")
        async with asyncio.timeout(30):
            while "was stopped, and goes on" not in (told := "\n".join(await self.enable(source))):
                pass
        return told
