"""What a server says of its log: whether it can be followed, where it ends, which files there are."""

from __future__ import annotations

from dataclasses import dataclass

import aiomysql

from blocks.errors import ConfigurationError, PositionLost
from tasks.extractors.contract import Behind
from tasks.extractors.mysql.binlog.gtids import GtidSet
from tasks.extractors.mysql.binlog.position import LogPosition
from tasks.extractors.mysql.session import Session
from tasks.extractors.mysql.sql import number_of

_DENIED = (1227, 1045, 1142)


@dataclass(frozen=True)
class LogFile:
    """One file of the log."""

    name: str
    size: int

    @property
    def number(self) -> int:
        return int(self.name.rpartition(".")[2])


@dataclass(frozen=True)
class LogServer:
    """The log of the server that a session is connected to."""

    session: Session
    identity: str

    @classmethod
    async def of(cls, session: Session) -> LogServer:
        """Look at the settings; `ConfigurationError` says which one has to be changed, and how."""
        rows = await session.rows(
            "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('log_bin', 'binlog_format',"
            " 'server_uuid', 'server_id', 'binlog_row_value_options')"
        )
        told = {str(name).lower(): str(value or "") for name, value in rows}
        if told.get("log_bin", "").upper() != "ON":
            raise ConfigurationError(
                "the server keeps no binary log: set log_bin in my.cnf (and server_id), or backup retention on RDS, "
                "and restart it"
            )
        if told.get("binlog_format", "ROW").upper() != "ROW":
            raise ConfigurationError(
                f"binlog_format is {told['binlog_format']}: statements cannot be read as rows. SET GLOBAL binlog_format = "
                "'ROW' (RDS: the parameter binlog_format), and let sessions that are open connect anew"
            )
        if "PARTIAL_JSON" in told.get("binlog_row_value_options", "").upper():
            raise ConfigurationError(
                "binlog_row_value_options is PARTIAL_JSON: updates of JSON columns are in the log as differences. "
                "SET GLOBAL binlog_row_value_options = ''"
            )
        return cls(
            session,
            identity=told.get("server_uuid") or told["server_id"],
        )

    async def end(self, epoch: int = 0) -> LogPosition:
        """Where the log ends now. ``gtids`` is left open: what the server says of both at once may not be of one moment."""
        as_of = await self.now()
        for statement in ("SHOW BINARY LOG STATUS", "SHOW MASTER STATUS"):
            try:
                rows = await self.session.rows(statement)
            except aiomysql.MySQLError as error:
                if not self.session.is_usable:
                    raise
                if number_of(error) in _DENIED:
                    raise ConfigurationError(
                        f"the account may not see where the log ends ({error.args[-1]}): GRANT REPLICATION CLIENT ON *.* "
                        "TO it (MariaDB: BINLOG MONITOR)"
                    ) from error
                continue
            if rows and rows[0][0]:
                return LogPosition(
                    server=self.identity, file=str(rows[0][0]), position=int(rows[0][1] or 0), epoch=epoch, as_of=as_of
                )
        raise ConfigurationError("the server keeps no binary log")

    async def now(self) -> int:
        """The server's clock, in microseconds since 1970."""
        seconds, _, rest = (await self.session.value("SELECT UNIX_TIMESTAMP(NOW(6))") or "0").partition(".")
        return int(seconds) * 1_000_000 + int(rest.ljust(6, "0")[:6])

    async def behind(self, position: LogPosition) -> Behind:
        """How far a position in this log is from its end."""
        end = await self.end()
        if position.server != self.identity or position.place > end.place:
            return Behind()
        if position.place == end.place:
            return Behind(seconds=0, bytes=0)
        seconds = max(0, end.as_of - position.as_of) / 1_000_000 if position.as_of else None
        return Behind(seconds=seconds, bytes=await self._between(position, end))

    async def _between(self, position: LogPosition, end: LogPosition) -> int | None:
        if position.number == end.number:
            return end.position - position.position
        sizes = {file.number: file.size for file in await self.files() if position.number <= file.number < end.number}
        return sum(sizes.values()) - position.position + end.position if position.number in sizes else None

    async def files(self) -> list[LogFile]:
        """All files, the oldest first."""
        return [LogFile(str(row[0]), int(row[1] or 0)) for row in await self.session.rows("SHOW BINARY LOGS")]

    async def executed(self) -> GtidSet:
        """All GTIDs of the server; empty where it counts none."""
        variable = "gtid_binlog_state" if self.session.is_mariadb else "gtid_executed"
        return GtidSet.parse(await self._variable(variable))

    async def _variable(self, name: str) -> str:
        return await self.session.value(f"SELECT @@global.{name}") or ""

    async def check_is_there(self, position: LogPosition) -> None:
        """`PositionLost` where this server's log does not hold the position (any more)."""
        files = {file.name: file for file in await self.files()}
        file = files.get(position.file)
        names = list(files)
        if file is None:
            oldest, newest = (names[0], names[-1]) if names else ("none", "none")
            raise PositionLost(f"{position} is not in the log any more; the server has {oldest} to {newest}")
        if position.position > file.size:
            raise PositionLost(
                f"{position} lies behind the end of {file.name} ({file.size}): the log was begun anew, or restored"
            )
        if position.gtids and not GtidSet.parse(position.gtids) <= await self.executed():
            raise PositionLost(f"the server does not know all transactions up to {position}: its log was begun anew")


def choices(stream_word: str = "STREAM") -> str:
    """The ways out of a lost position, for people."""
    return (
        f"Choose: read everything anew (`headrace state set {stream_word} null`, then run: a new snapshot); go on with what "
        f"is written from now on, and accept the gap (`headrace state set {stream_word} null` and start: now); or set a "
        f"position by hand (`headrace state set {stream_word} POSITION`)"
    )
