"""The client of a connection, what its server can do, and its errors in words that say what to mend."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pymongo.errors
from bson.codec_options import CodecOptions, DatetimeConversion
from motor.motor_asyncio import AsyncIOMotorClient

from blocks.errors import ConfigurationError
from blocks.mongodb import MongoDB
from blocks.references import reveal

OPTIONS: CodecOptions[dict[str, Any]] = CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_MS)
"""How the values of plans are decoded: dates of any year stay what they are."""

_SNAPSHOTS = 13
"""The wire version of MongoDB 5.0, from which on finds outside of transactions can read a snapshot."""

# https://www.mongodb.com/docs/manual/reference/error-codes/
DENIED = 13
_LOGIN = (11, 18)
_MENDABLE = (2, 9, 14, 15, 26, 28, 40, 59, 72, 115, 166, 168, 238)
SNAPSHOT_GONE = (239, 246)
"""SnapshotTooOld and SnapshotUnavailable."""


@dataclass(frozen=True)
class Server:
    """What a server says of itself."""

    version: str
    now: datetime
    """By the server's own clock."""
    replicated: bool
    """Whether it is of a replica set or a sharded cluster."""
    wire: int

    @property
    def has_snapshots(self) -> bool:
        """Whether reads can be told to show one moment."""
        return self.replicated and self.wire >= _SNAPSHOTS


@asynccontextmanager
async def connected(block: MongoDB) -> AsyncIterator[Any]:
    """A client (motor's) that has found its server, closed at the end; `ConfigurationError` when there is none."""
    client = await opened(block)
    try:
        yield client
    finally:
        client.close()


async def opened(block: MongoDB) -> Any:
    """A client; nothing is sent to the server yet."""
    block = await reveal(block)
    try:
        return AsyncIOMotorClient(**block.client_arguments())
    except (pymongo.errors.ConfigurationError, pymongo.errors.InvalidURI, OSError, ValueError) as error:
        raise ConfigurationError(f"{block.describe()}: {_without_secrets(block, str(error))}") from None


async def server_of(client: Any, block: MongoDB) -> Server:
    """What answers; `ConfigurationError` when nothing does, or it refuses the account."""
    try:
        hello = await client.admin.command("hello")
        build = await client.admin.command("buildInfo")
    except pymongo.errors.PyMongoError as error:
        raise _unreachable(block, error) from error
    return Server(
        version=build["version"],
        now=hello["localTime"],
        replicated="setName" in hello or hello.get("msg") == "isdbgrid",
        wire=hello["maxWireVersion"],
    )


def explained(error: pymongo.errors.PyMongoError, what: str) -> Exception:
    """``error`` as a `ConfigurationError` when the user has to mend it, itself with a note otherwise."""
    code = getattr(error, "code", None)
    if code == DENIED:
        return ConfigurationError(f"{what}: {_short(error)}; grant the user the role read on the database")
    if code in _LOGIN:
        return ConfigurationError(f"{what}: {_short(error)}; check user, password and auth_source of the connection")
    if code in _MENDABLE or (isinstance(code, int) and code > 10_000 and not getattr(error, "timeout", False)):
        return ConfigurationError(f"{what}: {_short(error)}")
    error.add_note(what)
    return error


def _unreachable(block: MongoDB, error: pymongo.errors.PyMongoError) -> Exception:
    code = getattr(error, "code", None)
    if code in _LOGIN:
        return explained(error, f"{block.describe()} refuses the account")
    if isinstance(error, pymongo.errors.ConnectionFailure):
        return ConfigurationError(
            f"{block.describe()} cannot be reached: {_without_secrets(block, _short(error))}; check hosts, tls and whether "
            "the server runs"
        )
    return explained(error, f"{block.describe()} cannot be asked")


def _without_secrets(block: MongoDB, text: str) -> str:
    for secret in (block.password.get_secret_value(), block.uri.get_secret_value()):
        text = text.replace(secret, "…") if secret else text
    return text


def _short(error: Exception) -> str:
    """Without the whole answer, and the description of the topology, that pymongo appends."""
    return re.split(r", full error:|, Timeout:|, Topology Description:", str(error))[0]
