"""`headrace state`: look at a stream's watermark, or move it. Moving it is a commit too, so it can be looked up later."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from blocks.s3 import S3Destination
    from tasks.commits import Commit, CommitLog

state = typer.Typer(no_args_is_help=True, help="Look at a stream's watermark, or move it.")

StreamName = Annotated[str, typer.Argument(metavar="STREAM", help="The stream's name.")]
To = Annotated[
    str, typer.Option("--to", metavar="DESTINATION", help="The destination; default: that of the stream's deployment.")
]
File = Annotated[Path, typer.Option("--file", "-f", help="Where the deployments are looked up.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
_FILE = Path("prefect.yaml")


@state.command()
def show(stream: StreamName, to: To = "", file: File = _FILE) -> None:
    """Show the watermark block beside the newest commit in the bucket, and whether they agree."""
    from flows.cli_perform import perform

    async def look(destination: S3Destination) -> None:
        from tasks.checks import watermark

        async with _open(destination, stream) as log:
            block, bucket = await _standing(log)
            typer.echo(f"stream    {stream}\nfolder    {log.folder}\nblock     {block}\nbucket    {bucket}")
            typer.echo(await watermark(log))

    perform(lambda: look(destination_of(stream, to, file)))


@state.command("log")
def show_log(
    stream: StreamName,
    to: To = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, newest first.")] = 20,
    file: File = _FILE,
) -> None:
    """List the newest commits: number, time, mode, rows, and the position each reached."""
    from flows.cli_perform import perform

    async def look(destination: S3Destination) -> None:
        async with _open(destination, stream) as log:
            numbers = (await log.after(0))[-limit:]
            for number in reversed(numbers):
                commit = await log.read(number)
                typer.echo(_line(commit) if commit else f"{number:>6}  gone meanwhile")
            if not numbers:
                typer.echo(f"no commits in {log.folder}")

    perform(lambda: look(destination_of(stream, to, file)))


@state.command("set")
def set_position(
    stream: StreamName,
    position: Annotated[
        str, typer.Argument(metavar="POSITION", help='JSON: \'{"cursor": "id", "value": "42"}\'; null: the beginning.')
    ],
    to: To = "",
    yes: Yes = False,
    file: File = _FILE,
) -> None:
    """Move the watermark to a position, by an empty commit."""
    from flows.cli_deployments import MisusedError

    try:
        wanted = json.loads(position)
    except json.JSONDecodeError as error:
        raise MisusedError(f"POSITION {position!r} is not JSON: {error}; `headrace state show` shows one") from error

    async def after(_: CommitLog) -> Any:
        return wanted

    async def change(log: CommitLog) -> Commit:
        from tasks.state import set_position

        return await set_position(log, wanted, note="set by hand")

    _change(stream, to, file, yes, after, change)


@state.command()
def begin(
    stream: StreamName,
    warehouse: Annotated[
        str,
        typer.Option("--from", metavar="CONNECTION", help="What holds rows already: postgres/…, mysql/…, duckdb/…."),
    ],
    query: Annotated[
        str, typer.Option("--query", help="Gives the last cursor value: SELECT max(updated_at) FROM orders.")
    ],
    to: To = "",
    file: File = _FILE,
) -> None:
    """Give a stream that has no commit yet its first position: the last value that a destination holds already."""
    from blocks.connect import load_by_name
    from blocks.duck import DuckDB
    from blocks.mysql import MySQL
    from blocks.postgres import Postgres
    from flows.cli_perform import perform
    from tasks.first import begin as first

    async def do(destination: S3Destination, block: Postgres | MySQL | DuckDB) -> None:
        async with _open(destination, stream) as log:
            commit = await first(log, cursor, block, query)
            typer.echo(f"done      commit {commit.sequence}, {_text(commit.until)}")

    cursor = _cursor(stream, file)
    kinds: tuple[type[Any], ...] = (Postgres, MySQL, DuckDB)
    perform(lambda: do(destination_of(stream, to, file), load_by_name(kinds, warehouse)))


def _cursor(stream: str, file: Path) -> str:
    """The cursor of the stream's deployment."""
    from flows.cli_deployments import MisusedError, streams
    from flows.deployments import read

    known = [each for deployment in read(file).values() for each in streams(deployment)]
    sources = [each.get("source") or {} for each in known if each.get("stream") == stream]
    found = {str(source["cursor"]) for source in sources if source.get("cursor")}
    if len(found) != 1:
        raise MisusedError(f"{file}: stream {stream} has {'no cursor' if not found else 'several cursors'}")
    return found.pop()


@state.command()
def rewind(
    stream: StreamName,
    sequence: Annotated[int, typer.Argument(metavar="SEQUENCE", min=0, help="A commit's number; 0: the beginning.")],
    to: To = "",
    yes: Yes = False,
    file: File = _FILE,
) -> None:
    """Go back to where a commit had brought the stream; later files stay in the bucket."""

    async def after(log: CommitLog) -> Any:
        target = await log.read(sequence) if sequence else None
        return target.until if target else None

    async def change(log: CommitLog) -> Commit:
        from tasks.state import rewind

        return await rewind(log, sequence)

    _change(stream, to, file, yes, after, change)


@state.command()
def rebuild(stream: StreamName, to: To = "", yes: Yes = False, file: File = _FILE) -> None:
    """Make the watermark block anew from the commits in the bucket; commits nothing."""

    async def after(log: CommitLog) -> Any:
        last = await log.last()
        return last.until if last else None

    async def change(log: CommitLog) -> None:
        from tasks.state import rebuild

        await rebuild(log)

    _change(stream, to, file, yes, after, change)


def _change(
    stream: str,
    to: str,
    file: Path,
    yes: bool,
    after: Callable[[CommitLog], Awaitable[Any]],
    change: Callable[[CommitLog], Awaitable[Commit | None]],
) -> None:
    """Show before → after, ask, do it. Asked between two event loops: waiting for a person blocks none."""
    from flows.cli_deployments import MisusedError
    from flows.cli_perform import perform

    async def preview(destination: S3Destination) -> None:
        async with _open(destination, stream) as log:
            block, bucket = await _standing(log)
            typer.echo(f"{log.folder}\nblock     {block}\nbucket    {bucket}")
            typer.echo(f"after     {_text(await after(log))}")

    async def do(destination: S3Destination) -> None:
        async with _open(destination, stream) as log:
            await change(log)
            block, _ = await _standing(log)
            typer.echo(f"done      {block}")

    perform(lambda: preview(destination_of(stream, to, file)))
    if not yes:
        if not sys.stdin.isatty():
            raise MisusedError("this moves the watermark; give --yes where nobody can be asked")
        typer.confirm("Change it?", abort=True)
    perform(lambda: do(destination_of(stream, to, file)))


async def _standing(log: CommitLog) -> tuple[str, str]:
    """The block's and the bucket's word on where the stream stands."""
    from blocks.watermark import Watermark

    mark = await Watermark.of(log.stream)
    numbers = await log.after(0)
    newest = await log.read(numbers[-1]) if numbers else None
    block = f"commit {mark.sequence}, {_text(mark.position)}" if mark else "none"
    if mark and mark.pending:
        block += " (a plan is pending)"
    return block, f"commit {newest.sequence}, {_text(newest.until)}" if newest else "no commits"


def _line(commit: Commit) -> str:
    kind = commit.mode if commit.kind == "extract" else commit.kind
    when = f"{commit.committed_at:%Y-%m-%d %H:%M:%S}"
    notes = f"  ({'; '.join(commit.notes)})" if commit.kind == "set" else ""
    return f"{commit.sequence:>6}  {when}  {kind or '':<11} {commit.rows:>12,} rows  {_text(commit.until)}{notes}"


def _text(position: Any) -> str:
    return json.dumps(position, ensure_ascii=False) if position is not None else "the beginning"


@asynccontextmanager
async def _open(destination: S3Destination, stream: str) -> AsyncIterator[CommitLog]:
    from tasks.commits import CommitLog
    from tasks.failures import explained_by

    with explained_by(destination, stream):
        async with destination.client() as client:
            yield CommitLog(client, destination, stream)


def destination_of(stream: str, to: str, file: Path) -> S3Destination:
    """The destination that ``to`` names, or else that of the stream's deployment in the file."""
    from blocks.connect import load_by_name
    from blocks.s3 import S3Destination
    from flows.cli_deployments import MisusedError, streams
    from flows.deployments import read

    if not to:
        known = [each for deployment in read(file).values() for each in streams(deployment)]
        found = {str(each["to"]) for each in known if each.get("stream") == stream and each.get("to")}
        if len(found) != 1:
            told = f"several destinations ({', '.join(sorted(found))})" if found else "no stream of that name"
            raise MisusedError(f"{file} has {told}: {stream}; name the destination with --to s3-destination/lake")
        to = found.pop()
    return load_by_name((S3Destination,), to)
