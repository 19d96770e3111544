"""The command `headrace`. Prefect is imported when a command needs it, so that help is quick."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows import deployments

# Settings are read when Prefect is imported; what the user has set stays.
_DEFAULTS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "60",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",
}

app = typer.Typer(name="headrace", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  help="Stream database tables into CSV on S3, exactly once.")  # fmt: skip
state_app = typer.Typer(no_args_is_help=True, help="Look at a stream's watermark, or move it.")
app.add_typer(state_app, name="state")

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

T = TypeVar("T")
File = Annotated[Path, typer.Option("--file", "-f", help="The deployments.")]
Parameters = Annotated[list[str], typer.Option("--param", "-p", help="key=value, over the deployment's own.")]
To = Annotated[str, typer.Option(help="Destination block; default: the one of the stream's deployment.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
_FILE = Path("prefect.yaml")


@app.callback()
def main(debug: Annotated[bool, typer.Option(help="Show tracebacks.")] = False) -> None:
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    _Debug.on = debug


class _Debug:
    on = False


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Errors as one block on stderr and exit code 1."""
    try:
        yield
    except (typer.Exit, typer.Abort, KeyboardInterrupt):
        raise
    except Exception as error:
        if _Debug.on:
            raise
        _tell(error)
        raise typer.Exit(1) from None


def _tell(error: BaseException) -> None:
    from blocks.errors import ConfigurationError

    kind = "" if isinstance(error, ConfigurationError) else f"{type(error).__name__}: "
    notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", []))
    err.print(f"[bold red]✗[/] {escape(kind + str(error) + notes)}", soft_wrap=True)


def _run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run to the end; on Ctrl-C or SIGTERM cancel, let the clean-up end, and exit with 128 + the signal."""
    received: list[int] = []

    async def guarded() -> T:
        task = asyncio.current_task()

        def cancel(number: int) -> None:
            received.append(number)
            if task is not None:
                task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, cancel, number)
        return await work()

    with _told():
        try:
            return _loop_run(guarded())
        except (asyncio.CancelledError, KeyboardInterrupt):
            err.print("cancelled; unfinished uploads are removed")
            raise typer.Exit(128 + (received[0] if received else signal.SIGINT)) from None


def _loop_run(work: Coroutine[Any, Any, T]) -> T:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    return uvloop.run(work)


# -- running ---------------------------------------------------------------------------------------------------------


@app.command()
def run(
    names: Annotated[list[str] | None, typer.Argument(help="Deployments or streams.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every stream of the file.")] = False,
    param: Parameters = [],  # noqa: B006
    file: File = _FILE,
) -> None:
    """Run deployments of prefect.yaml here and now, one after the other; needs no server and no worker."""
    with _told():
        known = deployments.read(file)
        picked = (
            [found for found in known.values() if found.is_stream] if every else deployments.pick(known, names or [])
        )
        given = deployments.overrides(param)
    if not picked:
        raise typer.BadParameter("name deployments of prefect.yaml, or give --all")
    if _run(lambda: _run_all(picked, given)):
        raise typer.Exit(1)


async def _run_all(picked: list[deployments.Deployment], given: dict[str, Any]) -> int:
    """How many failed."""
    with out.status("Starting Prefect …") if out.is_terminal else contextlib.nullcontext():
        from flows.terminal import bars
    table, failed = Table("", "stream", "commit", "rows", "MB", "seconds", "MB/s", "", box=None), 0
    with bars(out):
        for found in picked:
            try:
                outcome = await found.flow()(**{**found.parameters, **given})
            except Exception as error:
                if _Debug.on:
                    raise
                _tell(error)
                failed += 1
                table.add_row("[red]✗[/]", found.name, *[""] * 5, escape(str(error).split("\n", 1)[0]))
            else:
                for one in outcome if isinstance(outcome, list) else [outcome]:
                    table.add_row(*_figures(found, one))
    out.print(table)
    return failed


def _figures(found: deployments.Deployment, one: dict[str, Any]) -> tuple[str, ...]:
    if "stream" not in one:
        return "[green]✓[/]", found.name, *[""] * 5, escape(str(one)[:120])
    size, seconds = one["bytes"] / 1e6, one["seconds"]
    rate = f"{size / seconds:,.0f}" if seconds else ""
    told = (
        one["commit"] if one["committed"] else ("nothing new" if one["sequence"] is None else "another run was first")
    )
    number = str(one["sequence"] or "")
    return "[green]✓[/]", one["stream"], number, f"{one['rows']:,}", f"{size:,.1f}", f"{seconds:.1f}", rate, told


@app.command("list")
def list_(file: File = _FILE) -> None:
    """The deployments of prefect.yaml, with the watermarks of their streams."""
    with _told():
        known = deployments.read(file)
    _run(lambda: _list(known))


async def _list(known: dict[str, deployments.Deployment]) -> None:
    from blocks.watermark import Watermark

    table = Table("name", "stream", "source", "to", "mode", "schedule", "commit", "position", box=None)
    for found in known.values():
        given = found.parameters
        mark = await Watermark.of(str(given["stream"])) if found.is_stream else None
        source = given.get("source") or {}
        read = f"{source.get('connection', '')} {source.get('table') or 'query'}" if source else ""
        position = mark.position if mark else None
        told = str(position.get("value")) if isinstance(position, dict) else ""
        table.add_row(found.name, str(given.get("stream", "")), read, str(given.get("to", "")), str(given.get("mode", "")),
                      found.schedule, str(mark.sequence) if mark else "", told)  # fmt: skip
    out.print(table)


@app.command()
def plan(name: str, param: Parameters = [], file: File = _FILE) -> None:  # noqa: B006
    """What a run would do: window, SQL, partitions, estimates, target. Reads no row, writes nothing."""
    with _told():
        found = deployments.pick(deployments.read(file), [name])[0]
        given = {**found.parameters, **deployments.overrides(param)}
    _run(lambda: _plan(given))


async def _plan(given: dict[str, Any]) -> None:
    from flows.preview import preview

    for label, value in (await preview(given)).items():
        out.print(f"[bold]{label:>12}[/]  {escape(str(value))}", soft_wrap=True)


@app.command()
def check(names: Annotated[list[str] | None, typer.Argument()] = None, file: File = _FILE) -> None:
    """Connections, privileges, a test write, conditional writes, and watermark against bucket, for streams of prefect.yaml."""
    with _told():
        known = deployments.read(file)
        picked = deployments.pick(known, names) if names else [found for found in known.values() if found.is_stream]
    if not _run(lambda: _check(picked)):
        raise typer.Exit(1)


async def _check(picked: list[deployments.Deployment]) -> bool:
    from flows.preview import checks

    marks = {"ok": "[green]✓[/]", "warning": "[yellow]![/]", "error": "[red]✗[/]"}
    fine = True
    for found in picked:
        out.print(f"[bold]{found.name}[/]")
        async for grade, told in checks(found.parameters):
            out.print(f"  {marks[grade]} {escape(told)}", soft_wrap=True)
            fine = fine and grade != "error"
    return fine


@app.command()
def discover(
    connection: Annotated[str, typer.Argument(help="A connection block, such as postgres/shop.")],
    schema: Annotated[str, typer.Option(help="Only this schema.")] = "",
    like: Annotated[str, typer.Option(help="Only tables whose name matches this pattern, such as 'order*'.")] = "*",
) -> None:
    """The tables of a database with size, keys and cursor candidates."""
    _run(lambda: _discover(connection, schema, like))


async def _discover(connection: str, schema: str, like: str) -> None:
    from blocks.connect import load_by_name
    from blocks.postgres import Postgres
    from tasks.extractors.postgres.discover import tables

    block = await asyncio.to_thread(load_by_name, (Postgres,), connection)
    shown = Table("table", "rows (about)", "MB", "key", "cursor candidates", box=None)
    for found in await tables(block, schema, like):
        shown.add_row(
            found.name, f"{found.rows:,}", f"{found.bytes / 1e6:,.1f}", ", ".join(found.key), ", ".join(found.cursors)
        )
    out.print(shown)


@app.command()
def configure(
    file: Annotated[Path, typer.Argument()] = Path("pipeline.conf"),
    allow_readable: Annotated[bool, typer.Option(help="Accept a file with secrets that others can read.")] = False,
) -> None:
    """Register the block types, and create or update blocks from a pipeline.conf. Shows what changed, never a secret."""
    with _told():
        from blocks.pipeline_conf import configure as apply

        for change in apply(file, allow_readable=allow_readable):
            out.print(escape(str(change)), soft_wrap=True)


@app.command()
def sweep(
    destination: Annotated[str, typer.Argument(help="Such as s3-destination/lake.")],
    stream: Annotated[list[str], typer.Option(help="Only these streams.")] = [],  # noqa: B006
    older_than: Annotated[str, typer.Option(help="Younger leftovers may belong to a run under way.")] = "24 hours",
    delete: Annotated[bool, typer.Option(help="Remove them; without it they are only shown.")] = False,
) -> None:
    """What runs that died have left in the bucket."""

    async def work() -> dict[str, Any]:
        from flows.sweep import sweep as flow

        asked: dict[str, Any] = {"to": destination, "streams": stream, "older_than": older_than, "dry_run": not delete}
        found: Any = await flow(**asked)
        return dict(found)

    found = _run(work)
    for key in (*found["uploads"], *found["objects"]):
        out.print(escape(key), soft_wrap=True)
    done = "removed" if delete else "would remove (give --delete)"
    out.print(
        f"{done}: {len(found['uploads'])} unfinished upload(s), {len(found['objects'])} object(s), {found['bytes']:,} bytes"
    )


@app.command()
def demo() -> None:
    """PostgreSQL to S3 and back to a proof, in a minute; brings its own servers and leaves nothing."""
    from flows.demo import main as tell

    tell()


# -- state -----------------------------------------------------------------------------------------------------------


def _with_log(stream: str, to: str, file: Path, work: Callable[[Any], Awaitable[T]]) -> T:
    """Do something with the stream's commit log."""

    async def opened() -> T:
        from blocks.connect import load_by_name
        from blocks.s3 import S3Destination
        from tasks.commits import CommitLog
        from tasks.failures import explained_by

        name, known = stream, to
        if not to:
            found = deployments.pick(deployments.read(file), [stream])[0]
            name, known = str(found.parameters["stream"]), str(found.parameters["to"])
        destination = await asyncio.to_thread(load_by_name, (S3Destination,), known)
        with explained_by(destination, name):
            async with destination.client() as client:
                return await work(CommitLog(client, destination, name))

    return _run(opened)


@state_app.command("show")
def state_show(stream: str, to: To = "", file: File = _FILE) -> None:
    """The watermark, and what the bucket says."""

    async def work(log: Any) -> None:
        from blocks.watermark import Watermark

        mark, last = await Watermark.of(log.stream), await log.last()
        block = f"commit {mark.sequence}, {mark.position}" if mark else "there is none"
        pending = "a plan is under way, or was left by a run that died" if mark and mark.pending else "none"
        bucket = (
            f"commit {last.sequence}, {last.until} ({last.committed_at:%Y-%m-%d %H:%M:%S} UTC)" if last else "no commit"
        )
        for label, value in {"block": block, "pending": pending, "bucket": bucket, "folder": log.folder}.items():
            out.print(f"[bold]{label:>8}[/]  {escape(value)}", soft_wrap=True)

    _with_log(stream, to, file, work)


@state_app.command("log")
def state_log(
    stream: str, to: To = "", last: Annotated[int, typer.Option(help="How many.")] = 20, file: File = _FILE
) -> None:
    """The newest commits."""

    async def work(log: Any) -> None:
        table = Table("commit", "at (UTC)", "mode", "rows", "files", "until", "", box=None)
        for number in (await log.after(0))[-last:]:
            found = await log.read(number)
            table.add_row(str(number), f"{found.committed_at:%Y-%m-%d %H:%M:%S}", found.mode or found.kind, f"{found.rows:,}",
                          str(len(found.entries)), escape(str(found.until)), escape("; ".join(found.notes))[:60])  # fmt: skip
        out.print(table)

    _with_log(stream, to, file, work)


def _moved(stream: str, to: str, file: Path, yes: bool, what: str, work: Callable[[Any], Awaitable[Any]]) -> None:
    """Ask, move the watermark, and show where it was and is."""
    if not yes:
        if not sys.stdin.isatty():
            err.print("this moves the watermark; give --yes where nobody can be asked")
            raise typer.Exit(2)
        typer.confirm(f"{stream}: {what}?", abort=True)

    async def moved(log: Any) -> None:
        from blocks.watermark import Watermark

        before = await Watermark.of(log.stream)
        await work(log)
        after = await Watermark.of(log.stream)
        told = [f"commit {mark.sequence}, {mark.position}" if mark else "none" for mark in (before, after)]
        out.print(escape(f"{log.stream}: {told[0]} → {told[1]}"), soft_wrap=True)

    _with_log(stream, to, file, moved)


@state_app.command("set")
def state_set(
    stream: str, position: Annotated[str, typer.Argument(help="JSON; null starts again.")], to: To = "", yes: Yes = False,
    file: File = _FILE,
) -> None:  # fmt: skip
    """Set the position. It is a commit without files, so that bucket and block agree and a run under way loses its race."""
    import json

    try:
        wanted = json.loads(position)
    except json.JSONDecodeError as error:
        example = '{"cursor": "id", "value": "7"}'
        raise typer.BadParameter(f"the position is not JSON: {error}; such as null or {example}") from None

    async def work(log: Any) -> None:
        from tasks.state import set_position

        await set_position(log, wanted, note="set by hand")

    _moved(stream, to, file, yes, f"set the position to {position}", work)


@state_app.command("rewind")
def state_rewind(
    stream: str, commit: Annotated[int, typer.Argument(min=0)], to: To = "", yes: Yes = False, file: File = _FILE
) -> None:
    """Go back to where a commit had brought the stream (0: the beginning). Files of later commits stay."""

    async def work(log: Any) -> None:
        from tasks.state import rewind

        await rewind(log, commit)

    _moved(stream, to, file, yes, f"rewind to commit {commit}", work)


@state_app.command("rebuild")
def state_rebuild(stream: str, to: To = "", yes: Yes = False, file: File = _FILE) -> None:
    """Make the watermark block anew from the commits in the bucket."""

    async def work(log: Any) -> None:
        from tasks.state import rebuild

        await rebuild(log)

    _moved(stream, to, file, yes, "take the bucket's word for the watermark", work)
