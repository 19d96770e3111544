"""A stream's first position from what a destination holds already: a pipeline that ran otherwise until now is gone on with."""

from __future__ import annotations

from blocks.duck import DuckDB
from blocks.errors import ConfigurationError
from blocks.mysql import MySQL
from blocks.postgres import Postgres
from tasks.commits import Commit, CommitLog
from tasks.extractors.mysql.session import Session
from tasks.extractors.position import position
from tasks.loads.loader import session_of
from tasks.loads.targets import Naming
from tasks.state import check_is_new, set_position


async def value_of(block: Postgres | MySQL | DuckDB, query: str) -> str:
    """The one value of a query as text, times in UTC; `ConfigurationError` where there is none."""
    inner = query.strip().rstrip(";")
    if isinstance(block, MySQL):
        mysql = await Session.open(block)
        try:
            found = await mysql.value(f"SELECT CAST(({inner}) AS CHAR)")
        finally:
            mysql.close()
    else:
        async with session_of(block, Naming()) as session:
            found = await session.value(f"SELECT CAST(({inner}) AS {session.warehouse.text})")
    if found is None:
        raise ConfigurationError(
            f"{block.describe()}: {query} gives NULL; a first run without a position brings all rows"
        )
    return str(found)


async def begin(log: CommitLog, cursor: str, block: Postgres | MySQL | DuckDB, query: str) -> Commit:
    """Commit the value as the position of a stream that has no commit yet; `ConfigurationError` where it has."""
    check_is_new(log, await log.after(0))
    value = await value_of(block, query)
    note = f"first position, by a query on {block.describe()}"
    return await set_position(log, position(cursor, value), note=note, is_first=True)
