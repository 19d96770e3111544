"""`headrace cdc`: the capture of a database's changes by Debezium, switched on, looked at, and off."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

cdc = typer.Typer(no_args_is_help=True, help="Capture a database's changes into Kafka: connector, slot, publication.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="A deployment whose source has the field capture.")]
DeploymentFile = Annotated[Path, typer.Option("--file", "-f", help="The file that holds the deployments.")]
_FILE = Path("prefect.yaml")


@cdc.command()
def enable(name: Name, file: DeploymentFile = _FILE) -> None:
    """Register or update the Debezium connector of a stream, and start again what has failed of it."""
    _say("enable", name, file)


@cdc.command()
def status(name: Name, file: DeploymentFile = _FILE) -> None:
    """Show the connector's state, how far it is behind, and the WAL its slot retains. Exit code 1 when it does not run."""
    raise typer.Exit(1 if "error" in _say("status", name, file) else 0)


@cdc.command()
def disable(name: Name, file: DeploymentFile = _FILE) -> None:
    """Remove the connector, its slot and its publication. What the topics hold stays."""
    _say("disable", name, file)


def _say(what: str, name: str, file: Path) -> set[str]:
    """Print what is told as it is told; the levels of the findings among it."""
    from flows import deployments
    from flows.cli_deployments import chosen, stream_of
    from flows.cli_perform import perform
    from tasks.cdc import capture

    def prepare() -> Any:
        stream = stream_of(chosen(deployments.read(file), [name])[0].parameters)
        return told(stream.stream, stream.source)

    async def told(stream: str, source: Any) -> set[str]:
        levels = set()
        async for line in getattr(capture, what)(stream, source):
            typer.echo(str(line))
            levels.add(getattr(line, "level", ""))
        return levels

    return perform(prepare)
