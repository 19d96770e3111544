"""`headrace load-sql`: the statements that load a commit, printed."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import typer

from blocks.errors import ConfigurationError
from blocks.s3 import S3Destination
from flows.cli_deployments import MisusedError
from flows.cli_perform import perform
from flows.cli_state import destination_of
from flows.deployments import read
from tasks.commits import Commit, CommitLog
from tasks.failures import explained_by
from tasks.loads.script import Into, script, warehouse_of
from tasks.loads.targets import How, Naming


def show_script(
    name: str, file: Path, to: str, into: str, sequence: int, naming: Naming, access: str, how: How
) -> None:
    """Print the statements for commit ``sequence`` (0: the newest) of a stream."""
    kinds: tuple[Into, ...] = get_args(Into)
    kind = next((each for each in kinds if each == into), None)
    if kind is None:
        raise MisusedError(f"--into {into!r}: write one of {', '.join(kinds)}")
    stream = _stream(name, file)
    # The destination is a block, and loaded outside an event loop.
    commit, url = perform(lambda: _commit(destination_of(stream, to, file), stream, sequence))
    typer.echo(script(commit, warehouse_of(kind, naming, access, url), how), nl=False)


def _stream(name: str, file: Path) -> str:
    """The stream of the deployment that is called so, or else the name itself."""
    found = read(file).get(name) if file.exists() else None
    return str(found.parameters["stream"]) if found and found.is_stream else name


async def _commit(destination: S3Destination, stream: str, sequence: int) -> tuple[Commit, str]:
    async with destination.client() as client:
        log = CommitLog(client, destination, stream)
        with explained_by(destination, stream):
            commit = await (log.read(sequence) if sequence else log.last())
        if commit is None:
            wanted = f"commit {sequence}" if sequence else "commit"
            raise ConfigurationError(
                f"stream {stream}: there is no {wanted} in {log.folder}; `headrace state log {stream}`"
            )
        return commit, log.url(commit.sequence)
