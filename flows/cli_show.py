"""`headrace list`, `check` and `plan`: what is configured, whether it would work, and what a run would do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from blocks.errors import ConfigurationError
from blocks.watermark import Watermark
from flows import cli_deployments
from flows.cli_deployments import MisusedError, streams
from flows.cli_perform import perform
from flows.deployments import Deployment, read
from tasks import checks
from tasks.commits import SEQUENCE_DIGITS, CommitLog
from tasks.extractors.contract import Plan, ReadOptions
from tasks.failures import explained_by
from tasks.findings import Finding
from tasks.state import settled

if TYPE_CHECKING:
    from flows.extract_all import Stream

_COLOURS = {"ok": "green", "warning": "yellow", "error": "red"}
_SHOWN_PARTITIONS = 10


# -- list -----------------------------------------------------------------------------------------------------------


def show_deployments(file: Path) -> None:
    """A table with a line for each stream of each deployment."""
    known = read(file)
    names = {str(each["stream"]) for one in known.values() for each in streams(one)}

    async def watermarks() -> dict[str, Watermark | None]:
        return {name: await Watermark.of(name) for name in sorted(names)}

    marks = perform(watermarks)
    table = _plain_table("deployment", "stream", "source", "destination", "mode", "schedule", "watermark")
    for deployment in known.values():
        for line in _lines(deployment, marks):
            table.add_row(*map(escape, line))
    console = Console(highlight=False)
    # Lines that are cut help nobody who pipes them on.
    console.print(table) if console.is_terminal else Console(highlight=False, width=500).print(table)


def _lines(deployment: Deployment, marks: dict[str, Watermark | None]) -> list[list[str]]:
    schedule = deployment.schedule or "–"
    parameters = deployment.parameters
    if not streams(deployment):
        return [[deployment.name, "–", "–", str(parameters.get("to", "–")), "–", schedule, "–"]]
    return [
        [
            deployment.name,
            str(each["stream"]),
            _source(each.get("source")),
            str(each.get("to", "–")),
            str(each.get("mode", "full")),
            schedule,
            _position(marks.get(str(each["stream"]))),
        ]
        for each in streams(deployment)
    ]


def _source(source: Any) -> str:
    if not isinstance(source, dict):
        return "–"
    tables = ", ".join(map(str, source.get("tables") or ()))
    return f"{source.get('connection', '?')} {source.get('table') or tables or 'query'}"


def _position(mark: Watermark | None) -> str:
    if mark is None:
        return "–"
    value = mark.position.get("value") if isinstance(mark.position, dict) else mark.position
    return f"{mark.sequence}" + (f": {value}" if value is not None else "")


# -- check ----------------------------------------------------------------------------------------------------------


def show_checks(file: Path, names: Sequence[str]) -> bool:
    """Print what was found for each stream; False when anything stands in the way of a run."""
    known = read(file)
    wanted = cli_deployments.chosen(known, names) if names else list(known.values())
    found = {str(each.get("stream")): each for one in wanted for each in streams(one)}
    if not found:
        raise MisusedError(f"{', '.join(one.name for one in wanted)}: no stream to check")
    console = Console(highlight=False)
    fine = [_check(console, name, parameters) for name, parameters in found.items()]
    return all(fine)


def _check(console: Console, name: str, parameters: dict[str, Any]) -> bool:
    console.print(f"[bold]{escape(name)}[/]")

    async def look(stream: Stream) -> bool:
        fine = True
        async for finding in checks.check(stream.stream, stream.source, stream.to, _options(stream)):
            say(console, finding)
            fine = fine and finding.level != "error"
        return fine

    try:
        return perform(lambda: look(cli_deployments.stream_of(parameters)))
    except ConfigurationError as error:
        say(console, Finding("error", str(error)))
        return False


def say(console: Console, finding: Finding) -> None:
    """Print a finding, indented."""
    sign, _, rest = str(finding).partition(" ")
    console.print(f"  [{_COLOURS[finding.level]}]{sign}[/] {escape(rest)}", soft_wrap=True)


def _options(stream: Stream) -> ReadOptions:
    return ReadOptions(
        mode=stream.mode,
        columns=tuple(stream.columns),
        partitions=stream.partitions,
        object_bytes=stream.to.object_size_mb << 20,
        dialect=stream.to.csv,
        layout=stream.to.layout,
        dms=stream.to.dms,
    )


# -- plan -----------------------------------------------------------------------------------------------------------


def show_plan(file: Path, name: str, given: Sequence[str]) -> None:
    """Plan each stream of a deployment from where it stands, and print the plan."""
    (found,) = cli_deployments.overridden(cli_deployments.chosen(read(file), [name]), given)
    if not streams(found):
        raise MisusedError(f"{found.name}: no stream to plan")
    for parameters in streams(found):
        # Bound per turn of the loop; mypy infers no type for a lambda with a default.
        perform(lambda parameters=parameters: _plan(cli_deployments.stream_of(parameters)))  # type: ignore[misc]  # a lambda with a default


async def _plan(stream: Stream) -> None:
    async with stream.to.client() as client:
        log = CommitLog(client, stream.to, stream.stream)
        with explained_by(stream.to, stream.stream):
            mark = await settled(log)
        async with stream.source.open(_options(stream)) as extractor:
            plan = await extractor.plan(mark.position)
    target = stream.to.url(
        stream.to.key(stream.stream, stream.to.data_folder, f"{mark.sequence + 1:0{SEQUENCE_DIGITS}d}")
    )
    _print_plan(stream.stream, plan, mark.sequence + 1, target)


def _print_plan(stream: str, plan: Plan, sequence: int, target: str) -> None:
    console = Console(highlight=False)
    window = f"{_text(plan.since)} → {_text(plan.until)}"
    lines = [("stream", stream), ("mode", plan.mode), ("window", window)]
    if plan.partitions:
        size = f"{plan.estimated_rows or 0:,} rows, {(plan.estimated_bytes or 0) / 1e6:,.1f} MB"
        lines += [("estimate", size), ("columns", ", ".join(column.name for column in plan.columns))]
        lines += [("target", f"{target}/"), ("commit", str(sequence))]
        lines += [("partitions", f"{len(plan.partitions)}")]
    else:
        lines += [("partitions", "none: nothing new, nothing would be committed")]
    for label, value in lines:
        console.print(f"{label:<11} {escape(value)}", soft_wrap=True)
    for partition in plan.partitions[:_SHOWN_PARTITIONS]:
        console.print(
            f"  {partition.name}  {escape(f'{_text(partition.lower)} → {_text(partition.upper)}')}", soft_wrap=True
        )
    if len(plan.partitions) > _SHOWN_PARTITIONS:
        console.print(f"  … and {len(plan.partitions) - _SHOWN_PARTITIONS} more")
    console.print(f"SQL\n  {escape(plan.statement)}", soft_wrap=True)
    for note in plan.notes:
        console.print(f"[yellow]![/] {escape(note)}", soft_wrap=True)


def _text(value: Any) -> str:
    """A bound: places in a log and in topics in short, anything else as the JSON that `headrace state` shows."""
    match value:
        case None:
            return "…"
        case {"file": file, "position": place}:
            return f"{file}:{place}"
        case {"since": {"file": file, "position": place}}:
            return f"{file}:{place}"
        case {"topic": topic, "partition": partition, "offset": offset}:
            return f"{topic}[{partition}]:{offset}"
        case {"topics": topics}:
            return ", ".join(f"{name}:{','.join(map(str, topic['offsets']))}" for name, topic in topics.items())
    return json.dumps(value, ensure_ascii=False)


def _plain_table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
