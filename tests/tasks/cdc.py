"""What `headrace cdc` does for a stream, as lists of what it tells."""

from __future__ import annotations

from tasks.cdc import capture
from tasks.extractors.kafka.source import KafkaTopics


class Commands:
    """Of the stream of that name."""

    name: str

    async def enable(self, source: KafkaTopics) -> list[str]:
        return [line async for line in capture.enable(self.name, source)]

    async def status(self, source: KafkaTopics) -> list[str]:
        return [f"{finding.level}: {finding.text}" async for finding in capture.status(self.name, source)]

    async def disable(self, source: KafkaTopics) -> list[str]:
        return [line async for line in capture.disable(self.name, source)]
