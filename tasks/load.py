"""The task `load`: one commit into a destination, once."""

from __future__ import annotations

from prefect import get_run_logger, task

from blocks.s3 import S3Destination
from tasks.commits import Commit
from tasks.failures import RETRIES, RETRY_SECONDS, explained_by, may_pass
from tasks.loads.loader import Loader


class Load:
    """One commit, and what loads it. A plain class, for Prefect walks through the fields of models (see `tasks.run`)."""

    def __init__(self, loader: Loader, lake: S3Destination, commit: Commit) -> None:
        self.loader, self.lake, self.commit = loader, lake, commit


@task(name="load", task_run_name="load {load.commit.stream} {load.commit.sequence}", persist_result=False,
      retries=RETRIES, retry_delay_seconds=RETRY_SECONDS, retry_condition_fn=may_pass)  # fmt: skip
async def load(load: Load) -> bool:
    """Load the commit; False: it was loaded already."""
    commit = load.commit
    with explained_by(load.lake, commit.stream):
        done = await load.loader.load(commit)
    told = "loaded commit %d: %d row(s) of %d file(s), %s" if done else "commit %d was loaded by another run"
    figures = (
        (commit.sequence, commit.rows, len(commit.entries), commit.mode or commit.kind) if done else (commit.sequence,)
    )
    get_run_logger().info(told, *figures)
    return done
