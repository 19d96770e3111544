"""`headrace doctor`: whether what should run is running, and can go on. Looks, and leaves everything as it was."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect.client.orchestration import get_client
from rich.console import Console
from rich.markup import escape

from blocks.connect import WAY_OUT, find
from blocks.errors import ConfigurationError
from blocks.pipeline_conf import BLOCKS
from flows.cli_deployments import stream_of, streams
from flows.cli_perform import perform
from flows.cli_show import say
from flows.deployments import Deployment, read
from tasks import doctor_prefect, doctor_stream
from tasks.findings import Finding, Findings

if TYPE_CHECKING:
    from flows.extract_all import Stream


def show_doctor(file: Path) -> bool:
    """Print all findings; False when one of them is an error."""
    known = read(file)
    ward = _Ward(Console(highlight=False))
    if not perform(lambda: ward.of_prefect(known)):
        return False
    ward.head("blocks")
    names = sorted({name for each in known.values() for name in _blocks(each.parameters)})
    perform(lambda: ward.each([_block(name) for name in names]))
    wanted = {str(one["stream"]): one for each in known.values() for one in streams(each) if one.get("stream")}
    for name, parameters in wanted.items():
        ward.head(name)
        try:
            perform(partial(_of_stream, ward, parameters))
        except ConfigurationError as error:
            ward.say(Finding("error", str(error)))
    return ward.fine


def _of_stream(ward: _Ward, parameters: dict[str, Any]) -> Coroutine[Any, Any, None]:
    # Blocks are loaded here, outside of the event loop.
    return ward.of_stream(stream_of(parameters))


class _Ward:
    """Prints findings, and remembers whether one was an error."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.fine = True

    def head(self, title: str) -> None:
        self._console.print(f"[bold]{escape(title)}[/]")

    def say(self, finding: Finding) -> None:
        say(self._console, finding)
        self.fine = self.fine and finding.level != "error"

    async def all(self, findings: Findings) -> None:
        async for finding in findings:
            self.say(finding)

    async def each(self, findings: list[Finding]) -> None:
        for finding in findings:
            self.say(finding)

    async def of_prefect(self, known: dict[str, Deployment]) -> bool:
        """False: the server does not answer."""
        self.head("prefect")
        async with get_client() as client:
            finding = await doctor_prefect.server(client)
            self.say(finding)
            if finding.level == "error":
                return False
            await self.all(doctor_prefect.pools(client, sorted({d.work_pool for d in known.values() if d.work_pool})))
            await self.all(doctor_prefect.due(client, [d.name for d in known.values() if d.work_pool]))
        return True

    async def of_stream(self, stream: Stream) -> None:
        await self.all(doctor_stream.look(stream.stream, stream.source, stream.to))


def _block(name: str) -> Finding:
    """Whether a block can be loaded; to be called outside an event loop."""
    slug, _, document = name.partition("/")
    try:
        block = find(BLOCKS[slug], document)
    except ConfigurationError as error:
        return Finding("error", f"block {name}: {error}")
    if block is None:
        return Finding("error", f"block {name}: is not there", WAY_OUT)
    return Finding("ok", f"block {name}: is there")


def _blocks(value: Any) -> Iterator[str]:
    """The names of blocks in parameters, at any depth: ``postgres/shop`` where postgres is a kind of block."""
    if isinstance(value, dict):
        for each in value.values():
            yield from _blocks(each)
    elif isinstance(value, list):
        for each in value:
            yield from _blocks(each)
    elif isinstance(value, str) and value.count("/") == 1 and value.partition("/")[0] in BLOCKS:
        yield value
