"""The command `headrace`. Prefect is imported by the commands that need it, so that help comes at once."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from flows.cli_cdc import cdc
from flows.cli_state import state

_DEFAULTS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "60",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",
}

DeploymentFile = Annotated[Path, typer.Option("--file", "-f", help="The file that holds the deployments.")]
Overrides = Annotated[
    list[str],
    typer.Option("--param", "-p", metavar="KEY=VALUE", help="Override a parameter; VALUE is JSON, or else a string."),
]
Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Deployments; none: all of the file.")]
_FILE = Path("prefect.yaml")
_NO_OVERRIDES: list[str] = []


class Explained(TyperGroup):
    """Puts errors into one block on stderr; exit code 1, or 2 where the command line is wrong."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            code = _exit_code(error)
            if code is None:
                raise
            if ctx.params.get("debug"):
                traceback.print_exception(error)
            else:
                typer.echo(_block(error), err=True)
            raise typer.Exit(code) from None


def _exit_code(error: Exception) -> int | None:
    """None: typer deals with it itself."""
    from flows.cli_deployments import MisusedError

    if isinstance(error, MisusedError):
        return 2
    # Typer's own errors and exits carry their exit code.
    return None if hasattr(error, "exit_code") or isinstance(error, typer.Abort) else 1


def _block(error: Exception) -> str:
    from blocks.errors import ConfigurationError
    from flows.cli_deployments import MisusedError

    if isinstance(error, (ConfigurationError, MisusedError)):
        return f"Error: {error}"
    notes = "".join(f"\n  ({note})" for note in getattr(error, "__notes__", ()))
    return f"Error: {type(error).__name__}: {error}{notes}\n`headrace --debug …` shows where it happened."


app = typer.Typer(
    cls=Explained,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Stream databases into CSV files on S3: fast, in flat memory, exactly once.\n\n"
    "Works with the Prefect server of PREFECT_API_URL, or without any. "
    "Exit codes: 0 done, 1 failed, 2 wrong usage.",
)
app.add_typer(state, name="state")
app.add_typer(cdc, name="cdc")


@app.callback()
def _main(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    if debug:
        os.environ["HEADRACE_DEBUG"] = "1"


@app.command()
def run(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Deployments of the file.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every deployment that extracts one stream.")] = False,
    param: Overrides = _NO_OVERRIDES,
    file: DeploymentFile = _FILE,
) -> None:
    """Run deployments here and now, one after the other.

    One that fails does not stop the next. Ctrl-C cancels: unfinished uploads are aborted, nothing is committed.
    """
    from flows.cli_run import run as run_deployments

    raise typer.Exit(run_deployments(file, names or [], param, everything=everything))


@app.command("list")
def list_deployments(file: DeploymentFile = _FILE) -> None:
    """List the deployments: stream, source, destination, mode, schedule and watermark."""
    from flows.cli_show import show_deployments

    show_deployments(file)


@app.command()
def check(names: Names = None, file: DeploymentFile = _FILE) -> None:
    """Check connections, privileges, the bucket and the watermark of each stream, and say what to mend.

    Test objects are written below the stream's _probe folder and removed again. Exit code 1 when anything fails.
    """
    from flows.cli_show import show_checks

    raise typer.Exit(0 if show_checks(file, names or []) else 1)


@app.command()
def doctor(file: DeploymentFile = _FILE) -> None:
    """Look at the server, pools, workers, blocks, and at every stream: is all that should run running? Changes nothing.

    Exit code 1 when anything stands still or soon will.
    """
    from flows.cli_doctor import show_doctor

    raise typer.Exit(0 if show_doctor(file) else 1)


@app.command()
def plan(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A deployment of the file.")],
    param: Overrides = _NO_OVERRIDES,
    file: DeploymentFile = _FILE,
) -> None:
    """Show what a run would read and where it would put it: window, SQL, partitions, estimates. Writes nothing."""
    from flows.cli_show import show_plan

    show_plan(file, name, param)


@app.command("load-sql")
def load_sql(
    name: Annotated[str, typer.Argument(metavar="STREAM|DEPLOYMENT", help="A stream, or its deployment in the file.")],
    into: Annotated[
        str, typer.Option("--into", "-i", help="redshift, snowflake, bigquery, duckdb or postgres (for psql).")
    ],
    sequence: Annotated[int, typer.Option("--sequence", "-n", min=0, help="Which commit; 0: the newest.")] = 0,
    schema: Annotated[str, typer.Option("--schema", help="Of the tables; default: the session's.")] = "",
    table: Annotated[
        str, typer.Option("--table", help="Names the tables; may hold {stream}, {table}, {schema}.")
    ] = "{table}",
    access: Annotated[
        str,
        typer.Option(
            "--access", help="By what it reads the bucket: a role's ARN, a storage integration, a connection."
        ),
    ] = "",
    append: Annotated[bool, typer.Option("--append", help="Add all records as they are, whatever the mode.")] = False,
    to: Annotated[str, typer.Option("--to", help="The destination; default: that of the stream's deployment.")] = "",
    file: DeploymentFile = _FILE,
) -> None:
    """Print the SQL that loads a commit into a warehouse: once, however often it is sent."""
    from flows.cli_load import show_script
    from tasks.loads.targets import Naming

    show_script(name, file, to, into, sequence, Naming(schema, table), access, how="append" if append else "by mode")


@app.command()
def discover(
    connection: Annotated[str, typer.Argument(metavar="CONNECTION", help="A saved block, such as postgres/shop.")],
    schema: Annotated[str, typer.Option("--schema", help="Only this schema; of MySQL another database.")] = "",
    like: Annotated[
        str,
        typer.Option("--like", help="Only tables whose name is like this: 'order*'; of an API the endpoint's path."),
    ] = "*",
    nested: Annotated[
        Literal["columns", "json"],
        typer.Option(
            "--nested",
            help="Nested objects of documents and records: a column for each member (a_b), or one of JSON for each object.",
        ),
    ] = "columns",
    as_yaml: Annotated[bool, typer.Option("--yaml", help="Print deployments to paste into prefect.yaml.")] = False,
) -> None:
    """List tables with their size, primary key, and columns that could be the cursor of an incremental stream."""
    from flows.cli_discover import show_tables

    show_tables(connection, schema, like, nested, as_yaml=as_yaml)


@app.command()
def sweep(
    destination: Annotated[str, typer.Argument(metavar="DESTINATION", help="Such as s3-destination/lake.")],
    stream: Annotated[list[str], typer.Option("--stream", help="Only this stream; may be repeated.")] = _NO_OVERRIDES,
    older_than: Annotated[str, typer.Option("--older-than", help="Leave what is younger.")] = "24 hours",
    delete: Annotated[bool, typer.Option("--delete", help="Remove it; without this, only look.")] = False,
) -> None:
    """Show what runs that died have left in the bucket, and with --delete remove it."""
    from flows.cli_run import sweep as sweep_destination

    raise typer.Exit(sweep_destination(destination, stream, older_than, delete=delete))


@app.command()
def configure(
    path: Annotated[Path, typer.Argument(metavar="[FILE]", help="See pipeline.example.conf.")] = Path("pipeline.conf"),
    allow_readable: Annotated[
        bool, typer.Option("--allow-readable", help="Accept secrets in a file others may read.")
    ] = False,
) -> None:
    """Save the connections and destinations of a file as Prefect blocks: all of them, or none."""
    from blocks.pipeline_conf import configure as save_blocks

    for change in save_blocks(path, allow_readable=allow_readable):
        typer.echo(change)


@app.command()
def demo() -> None:
    """Show it all on this machine: PostgreSQL, and MySQL if installed, to S3 and back to a proof. Leaves nothing behind."""
    from flows.demo import main

    main()


if __name__ == "__main__":
    sys.exit(app())
