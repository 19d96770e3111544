"""The flow `load`: what a stream has committed, into DuckDB or PostgreSQL, each commit once. A sample, and of use as it is."""

from __future__ import annotations

import time
from typing import Annotated, Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import Field

from blocks.connect import BlockOrName
from blocks.duck import DuckDB
from blocks.postgres import Postgres
from blocks.s3 import S3Destination
from flows.extract import StreamName
from flows.termination import ended_by_sigterm
from tasks.commits import Commit, CommitLog
from tasks.failures import explained_by
from tasks.load import Load
from tasks.load import load as load_commit
from tasks.loads.files import Files
from tasks.loads.loader import Loader, session_of
from tasks.loads.targets import How, Naming


@flow(name="load", flow_run_name="load {stream}", persist_result=False)
async def load(
    stream: StreamName,
    lake: BlockOrName[S3Destination],
    into: BlockOrName[Postgres | DuckDB],
    sequence: Annotated[int, Field(ge=0)] = 0,
    schema_name: str = "",
    table_name: str = "{table}",
    how: How = "by mode",
) -> State[dict[str, Any]]:
    """Load the commits of a stream that the destination does not have yet, in order, each in one transaction.

    Args:
        stream: Name of the stream.
        lake: The S3 Destination block it is extracted to, such as s3-destination/lake.
        into: A Postgres or DuckDB block, such as duckdb/warehouse.
        sequence: Load up to this commit; 0 loads up to the newest.
        schema_name: The schema of the tables; empty takes the one the session is in.
        table_name: Names the tables; may hold {stream}, {table} and {schema} of the source.
        how: by mode replaces, merges, appends or applies changes, as the commit's mode asks for; append adds all records
            as they are.
    """
    started = time.monotonic()
    naming = Naming(schema_name, table_name)
    with ended_by_sigterm():
        async with lake.client() as client, session_of(into, naming) as session:
            log = CommitLog(client, lake, stream)
            loader = Loader(log, Files(client, lake), session, naming, how)
            with explained_by(lake, stream):
                await loader.begin()
                missing = await loader.missing(sequence)
            loaded = [commit for commit in missing if await load_commit(Load(loader, lake, commit))]
    return _outcome(stream, into, log, loaded, time.monotonic() - started)


def _outcome(
    stream: str, into: Postgres | DuckDB, log: CommitLog, loaded: list[Commit], seconds: float
) -> State[dict[str, Any]]:
    rows = sum(commit.rows for commit in loaded)
    said = f"{len(loaded)} commit(s), {rows:,} rows into {into.describe()}" if loaded else "nothing new"
    outcome = {
        "stream": stream,
        "sequence": loaded[-1].sequence if loaded else None,
        "sequences": [commit.sequence for commit in loaded],
        "committed": bool(loaded),
        "rows": rows,
        "bytes": sum(commit.bytes for commit in loaded),
        "seconds": round(seconds, 3),
        "commit": log.url(loaded[-1].sequence) if loaded else None,
    }
    return Completed(message=f"{stream}: {said}", data=outcome)
