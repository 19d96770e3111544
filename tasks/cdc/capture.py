"""Capture switched on, looked at, and off: the connector of a stream of Debezium's events, and what it needs of its database."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from functools import partial

from blocks.errors import ConfigurationError
from tasks.cdc import connect
from tasks.cdc.sides import Config, Side, side_of
from tasks.cdc.stream import Stream
from tasks.extractors.kafka.patterns import is_meant
from tasks.findings import Finding, Findings


async def enable(name: str, source: object) -> AsyncIterator[str]:
    """Make, or bring up to date, what captures the stream's tables; says what it does. May be repeated.

    `ConfigurationError` for what has to be mended first; nothing is made then.
    """
    stream = await Stream.of(name, source).revealed()
    side = side_of(stream)
    async with connect.connected(stream.capture.connect) as cluster:
        before = await cluster.config(name)
    _refuse_foreign(stream, side, before)
    _refuse_moved(stream, side, before)
    ready = await side.ready(before, partial(_refuse_unread, stream))
    yield ready.told
    for table in ready.added:
        yield f"{table} is new: its changes come from now on, the rows that it has do not (signal a snapshot to Debezium)"
    async for line in _connector(stream, {**ready.config, **_told(stream), **stream.capture.settings}):
        yield line


def _told(stream: Stream) -> dict[str, str]:
    """What the stream's columns need to be in the events."""
    return {"provide.transaction.metadata": "true"} if "transaction" in stream.source.chosen else {}


async def _connector(stream: Stream, config: dict[str, str]) -> AsyncIterator[str]:
    async with connect.connected(stream.capture.connect) as cluster:
        before = await cluster.config(stream.name)
        same = before is not None and {key: value for key, value in before.items() if key != "name"} == config
        if before is None:
            await cluster.put(stream.name, config)
        elif not same:
            await cluster.change(stream.name, config)
        yield f"connector {stream.name}: {'created' if before is None else 'unchanged' if same else 'updated'}"
        state = await cluster.state(stream.name)
        if same and state is not None and state.connector in ("STOPPED", "PAUSED"):
            await cluster.resume(stream.name)
            yield f"connector {stream.name}: was {state.connector.lower()}, and goes on"
        if state is not None and state.trace:
            await cluster.restart_failed(stream.name)
            yield f"connector {stream.name}: what had failed is started again"
        yield f"connector {stream.name}: {await cluster.wait(stream.name)}"
        if not stream.capture.password and stream.password:
            yield "the database's password is stored with the connector; see the field capture.password"


async def status(name: str, source: object) -> Findings:
    """How the connector is, how far it is behind, and whether the server keeps what it needs."""
    stream = Stream.of(name, source)
    async with connect.connected(stream.capture.connect) as cluster:
        state = await cluster.state(name)
        offset = None if state is None else await cluster.offset(name)
    if state is None:
        yield Finding("error", f"connector {name}: there is none", f"headrace cdc enable {name}")
    elif state.runs:
        yield Finding("ok", f"connector {name}: {state}")
    else:
        reason = f": {state.trace.splitlines()[0]}" if state.trace else ""
        yield Finding(
            "error", f"connector {name}: {state}{reason}", f"headrace cdc enable {name} starts again what failed"
        )
    side = side_of(stream)
    async for finding in side.look():
        yield finding
    if offset is not None and (behind := await side.behind(offset)) is not None:
        yield behind


async def look(name: str, source: object) -> Findings:
    """What `headrace check` says of the database."""
    async for finding in side_of(Stream.of(name, source)).look():
        yield finding


async def disable(name: str, source: object) -> AsyncIterator[str]:
    """Remove the connector (with how far it had come), and what was made in the database; says what it does. May be repeated."""
    stream = Stream.of(name, source)
    side = side_of(stream)
    async with connect.connected(stream.capture.connect) as cluster:
        _refuse_foreign(stream, side, await cluster.config(name))
        removed = await cluster.remove(name)
    yield f"connector {name}: {'removed' if removed else 'there was none'}"
    for line in await side.drop():
        yield line


def _refuse_unread(stream: Stream, tables: Sequence[str]) -> None:
    """What is captured has to be in the topics that the stream reads; Debezium puts ``_`` for signs that no topic's name has."""
    if any(name.startswith(("transforms", "topic.")) for name in stream.capture.settings):
        return  # which may call them otherwise
    for table in tables:
        topic = re.sub(r"[^A-Za-z0-9._-]", "_", f"{stream.prefix}.{table}")
        if not is_meant(topic, stream.source.topics):
            raise ConfigurationError(
                f"field topics: changes of {table} come in the topic {topic}, which {', '.join(stream.source.topics)} does not "
                "mean; name it, or leave the table out of debezium.tables"
            )


def _refuse_foreign(stream: Stream, side: Side, config: Config | None) -> None:
    """A connector that has the stream's name is not the stream's for that: it is neither changed nor removed then."""
    if config is None:
        return
    wanted = dict(side.own)
    wanted |= {key: value for key, value in stream.capture.settings.items() if key in wanted}
    if others := [f"{key} {config.get(key)}" for key, value in wanted.items() if config.get(key) != value]:
        raise ConfigurationError(
            f"field capture.connect: the cluster has a connector {stream.name} that is not this stream's ({', '.join(others)}): "
            "give the stream another name, or remove that connector if nobody needs it"
        )


def _refuse_moved(stream: Stream, side: Side, config: Config | None) -> None:
    """A connector keeps its place in the log by its name and its topics' prefix alone. In another database it brings no
    snapshot. A database whose server has another address is no other."""
    setting, wanted = side.scope
    known = (config or {}).get(setting)
    if known and known != stream.capture.settings.get(setting, wanted):
        raise ConfigurationError(
            f"field capture.database: connector {stream.name} captures the database {known}, and has a place in its log. Name "
            f"{known} again and `headrace cdc disable {stream.name}`, which removes all of it; then enable begins anew"
        )
