"""Where in a server's log a stream begins that comes from another server, or that the user named a place for."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from blocks.errors import PositionLost
from tasks.extractors.mysql.binlog.gtids import GtidSet
from tasks.extractors.mysql.binlog.log import FIRST
from tasks.extractors.mysql.binlog.position import LogPosition
from tasks.extractors.mysql.binlog.server import LogServer
from tasks.extractors.mysql.binlog.window import Window

_PLACE = re.compile(r"([^:\s]+\.\d+):(\d+)")


class Starts:
    """Finds places in the log of one server. Whatever cannot be found is a `PositionLost`."""

    def __init__(self, server: LogServer, window: Callable[[], Awaitable[Window]]) -> None:
        """``window``: opens a reader of that server's log."""
        self._server, self._window = server, window

    async def elsewhere(self, since: LogPosition) -> LogPosition:
        """The same position in this log, of another server of the cluster."""
        other = f"the position is one of server {since.server}, and this one is {self._server.identity}"
        if not since.gtids:
            raise PositionLost(f"{other}; without GTIDs nothing tells where that is here")
        if since.prepared:
            raise PositionLost(f"{other}, and {len(since.prepared)} XA transaction(s) were prepared there")
        try:
            found = await self._by_gtids(since)
        except PositionLost as error:
            raise PositionLost(f"{other}: {error}") from None
        return found.model_copy(update={"epoch": since.epoch + 1})

    async def _by_gtids(self, since: LogPosition) -> LogPosition:
        """Where in this server's log the transactions begin that are not in ``since.gtids``."""
        known = GtidSet.parse(since.gtids)
        if not known <= await self._server.executed():
            raise PositionLost("the server does not know all transactions of the position")
        window = await self._window()
        for file in reversed(await self._server.files()):
            if await window.gtids_before(file.name) <= known:
                found = {"server": self._server.identity, "file": file.name, "position": FIRST, "born": 0}
                return since.model_copy(update={**found, "by_gtids": True})
        raise PositionLost("the server's log begins later")

    async def named(self, text: str) -> LogPosition | None:
        """The place that the user named; None where it is no name of one."""
        if found := _PLACE.fullmatch(text):
            start = LogPosition(server=self._server.identity, file=found[1], position=max(FIRST, int(found[2])))
            await self._server.check_is_there(start)
            return start
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return await self._named_by_gtids(text)
        # As the server's own session has it, whose zone is UTC.
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        window = await self._window()
        for file in reversed(await self._server.files()):
            # It is known to the second, and so are MariaDB's transactions.
            if await window.begun_at(file.name) < int(moment.timestamp()):
                since = int(moment.timestamp() * 1_000_000)
                return LogPosition(server=self._server.identity, file=file.name, position=FIRST, not_before=since)
        raise PositionLost(f"the log begins later than {text}")

    async def _named_by_gtids(self, text: str) -> LogPosition | None:
        try:
            known = GtidSet.parse(text)
        except ValueError:
            return None
        if not known:
            return None
        return await self._by_gtids(LogPosition(server="", file="", position=FIRST, gtids=str(known)))
