"""Whether topics can be read: the brokers, the topics, how long they keep what was not read, and what messages look like."""

from __future__ import annotations

import asyncio
from typing import Any

from blocks.errors import ConfigurationError, SnapshotLost
from blocks.hosts import is_local
from blocks.kafka import Kafka
from tasks.extractors.contract import ReadOptions
from tasks.extractors.kafka.cluster import EARLIEST, LATEST, Cluster, Place
from tasks.extractors.kafka.consumer import Reader
from tasks.extractors.kafka.planner import chosen, meant, not_there
from tasks.findings import Finding, Findings, greeting

_SHORTEST_KEPT = 24 * 3600 * 1000
_DECODED = 100
"""Messages of a topic that are decoded, at least, if it has so many."""

_LOOKED_AT = 20
"""Topics whose settings and messages are looked at."""


async def look(source: Any, options: ReadOptions) -> Findings:
    """All findings about a source of topics, as they are made."""
    source.open(options)  # tells what does not fit
    block: Kafka = source.connection
    cluster = await asyncio.to_thread(Cluster, block)
    names = await asyncio.to_thread(cluster.names)
    in_clear = block.tls_mode == "disable"
    hosts = [server.strip().rpartition(":")[0] for server in block.bootstrap_servers.split(",")]
    tls = None if in_clear else f"TLS ({block.tls_mode})"
    yield greeting(
        f"{block.describe()} answers", tls, in_clear_is_meant=block.tls is not None or all(map(is_local, hosts))
    )
    if source.capture is not None and (missing := not_there(source.topics, names)):
        yield Finding(
            "warning",
            f"source: no topic is called {', '.join(missing)} yet: the connector makes one with its first message",
            "`headrace cdc enable` makes the connector, `headrace cdc status` tells how it is; the table may be empty",
        )
        if not (wanted := meant(source.topics, names)):
            return
    else:
        wanted = chosen(source.topics, names)
    topics = await asyncio.to_thread(cluster.topics, wanted)
    places = [(topic.name, number) for topic in topics.values() for number in range(topic.partitions)]
    first = await asyncio.to_thread(cluster.offsets, places, EARLIEST)
    next_ = await asyncio.to_thread(cluster.offsets, places, LATEST)
    count = sum(next_[place] - first[place] for place in places)
    yield Finding(
        "ok", f"source: {len(topics)} topic(s), {len(places)} partition(s), up to {count:,} messages: {_listed(wanted)}"
    )
    for name in wanted[:_LOOKED_AT]:
        yield await asyncio.to_thread(_kept, cluster, name)
    for name in wanted[:_LOOKED_AT]:
        place = max((place for place in places if place[0] == name), key=lambda place: next_[place] - first[place])
        for finding in await asyncio.to_thread(_decoded, source, options, place, first[place], next_[place]):
            yield finding


def _kept(cluster: Cluster, name: str) -> Finding:
    """How long the topic keeps messages: a stream that does not run for longer loses some."""
    try:
        settings = cluster.settings(name)
    except ConfigurationError as error:
        return Finding(
            "warning", f"source: {name}: its settings cannot be seen: {error}", "grant DESCRIBE_CONFIGS on it"
        )
    text, way_out = f"source: {name}", f"kafka-configs --alter --entity-type topics --entity-name {name} --add-config"
    if "compact" in settings["cleanup.policy"]:
        return Finding(
            "warning",
            f"{text} is compacted: of messages with one key the broker may leave only the last, so changes between are not seen",
            f"{way_out} cleanup.policy=delete, if every change is wanted",
        )
    kept = int(settings["retention.ms"])
    if kept < 0:
        return Finding("ok", f"{text} keeps its messages for good")
    if kept < _SHORTEST_KEPT:
        return Finding(
            "warning",
            f"{text} keeps messages for {kept / 3_600_000:.1f} hours: a stream that does not run for longer loses some",
            f"{way_out} retention.ms=604800000",
        )
    return Finding("ok", f"{text} keeps messages for {kept / 3_600_000:.0f} hours")


def _decoded(source: Any, options: ReadOptions, place: Place, start: int, end: int) -> list[Finding]:
    """Whether the topic's first messages can be read, and are what the format says."""
    if start >= end:
        return [Finding("ok", f"source: {place[0]} is empty")]
    reader = Reader(source.connection, *place, start, end)
    try:
        decode, made, count = source.maker(options.dialect)(None), [], 0
        while count < _DECODED and not reader.has_ended:  # however few come at once
            messages = reader.batch()
            made += decode(messages)
            count += len(messages)
    except SnapshotLost:
        return []  # of messages that retention has just removed nothing can be said
    except ConfigurationError as error:
        level: Any = "warning" if source.undecodable == "dead-letter" else "error"
        return [Finding(level, f"source: {error}", "check the field format, or set undecodable: dead-letter")]
    finally:
        reader.close()
    tables = sorted({output.table for output, _ in made})
    text = f"{place[0]} can be read; {count} message(s) are {source.format}: {_listed(tables) or 'no row'}"
    return [Finding("ok", f"source: {text}")]


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
