"""`headrace run` and `headrace sweep`: flows in this process, watched in the terminal."""

from __future__ import annotations

import copy
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import State
from prefect.exceptions import ParameterBindError, ParameterTypeError
from prefect.flows import Flow
from prefect.logging.handlers import PrefectConsoleHandler
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from blocks.errors import ConfigurationError
from flows.cli_deployments import MisusedError, chosen, overridden
from flows.cli_perform import perform
from flows.deployments import Deployment, read
from flows.terminal import bars

_SAID_HERE = ("Encountered exception during execution", "Finished in state")
_RAISED = "Flow run encountered an exception"


@dataclass
class _Ended:
    """What became of one deployment's run."""

    name: str
    outcomes: list[dict[str, Any]] = field(default_factory=list)
    said: str = ""
    error: str = ""


def run(file: Path, names: Sequence[str], given: Sequence[str], *, everything: bool = False) -> int:
    """Run the deployments one after the other; 0, or 1 when any failed."""
    known = read(file)
    if not names and not everything:
        raise MisusedError(f"name a deployment, or say --all; there are: {', '.join(known)}")
    wanted = chosen(known, names)
    if everything:
        wanted += [each for each in known.values() if each.is_stream and not each.is_endless and each not in wanted]
    runs: list[tuple[Flow[..., Any], Deployment]] = [(each.flow(), each) for each in overridden(wanted, given)]
    for flow, deployment in runs:
        _check_names(flow, deployment)

    async def all_of_them() -> list[_Ended]:
        return [await _ended(flow, deployment) for flow, deployment in runs]

    console = Console(stderr=True, highlight=False)
    with _quiet(console), bars(console):
        ended = perform(all_of_them)
    _report(ended)
    return 1 if any(each.error for each in ended) else 0


def sweep(destination: str, streams: Sequence[str], older_than: str, *, delete: bool) -> int:
    """Run the flow `sweep` and print what it found; 0, or 1 when it failed."""
    from flows.sweep import sweep as flow

    parameters = {"to": destination, "streams": list(streams), "older_than": older_than, "dry_run": not delete}
    deployment = Deployment("sweep", "", parameters, "", "")
    with _quiet(Console(stderr=True, highlight=False)):
        ended = perform(lambda: _ended(flow, deployment))
    console = Console(highlight=False)
    for key in [key for found in ended.outcomes for kind in ("uploads", "objects") for key in found[kind]]:
        console.print(f"  {escape(key)}", soft_wrap=True)
    _report([ended])
    return 1 if ended.error else 0


def _check_names(flow: Flow[..., Any], deployment: Deployment) -> None:
    known = flow.parameters.properties
    if unknown := sorted(deployment.parameters.keys() - known.keys()):
        raise MisusedError(
            f"deployment {deployment.name}: its flow has no parameter {', '.join(unknown)}; there are: {', '.join(known)}"
        )


async def _ended(flow: Flow[..., Any], deployment: Deployment) -> _Ended:
    started = time.monotonic()
    run: Any = flow  # what an async flow returns is not known to be a coroutine
    state: State[Any] = await run(**deployment.parameters, return_state=True)
    result = await state.aresult(raise_on_failure=False)
    if not state.is_completed():
        return _Ended(deployment.name, error=_told(state, result))
    if not isinstance(result, (dict, list)):
        result = []
    outcomes = [result] if isinstance(result, dict) else result
    said = state.message or f"{time.monotonic() - started:.1f} s"
    return _Ended(deployment.name, [each for each in outcomes if isinstance(each, dict)], said)


def _told(state: State[Any], result: Any) -> str:
    if not isinstance(result, BaseException) or not (state.message or "").startswith(_RAISED):
        return state.message or str(result)
    notes = "".join(f"\n  ({note})" for note in getattr(result, "__notes__", ()))
    clear = isinstance(result, (ConfigurationError, ParameterTypeError, ParameterBindError))
    return f"{result}{notes}" if clear else f"{type(result).__name__}: {result}{notes}"


# -- what is printed ------------------------------------------------------------------------------------------------


def _report(ended: list[_Ended]) -> None:
    console = Console(highlight=False)
    rows = [outcome for each in ended for outcome in each.outcomes if "sequence" in outcome]
    if rows:
        # Lines that are cut help nobody who pipes them on.
        (console if console.is_terminal else Console(highlight=False, width=500)).print(_table(rows))
    for each in ended:
        if each.said and not any("sequence" in outcome for outcome in each.outcomes):
            console.print(f"{each.name}: {escape(each.said)}", soft_wrap=True)
    failed = [each for each in ended if each.error]
    errors = Console(stderr=True, highlight=False)
    for each in failed:
        errors.print(f"[red]✗[/] {each.name}: {escape(each.error)}", soft_wrap=True)
    if failed and len(ended) > 1:
        errors.print(f"{len(failed)} of {len(ended)} deployments failed.")


def _table(outcomes: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("stream")
    for name in ("commit", "rows", "MB", "seconds", "MB/s"):
        table.add_column(name, justify="right")
    table.add_column("", overflow="fold")
    for one in outcomes:
        size, seconds = one["bytes"] / 1e6, one["seconds"]
        figures = [f"{one['rows']:,}", f"{size:,.1f}", f"{seconds:,.1f}", f"{size / max(seconds, 0.001):,.1f}"]
        commit = str(one["sequence"] or "–")
        told = one["commit"] or "nothing new"
        if one["sequence"] and not one["committed"]:
            told += " (another run's)"
        table.add_row(one["stream"], commit, *figures, escape(told))
    return table


class _WithoutTraceback(logging.Formatter):
    def __init__(self, inner: logging.Formatter | None) -> None:
        super().__init__()
        self._inner = inner or logging.Formatter()

    def format(self, record: logging.LogRecord) -> str:
        short = copy.copy(record)
        short.exc_info = short.exc_text = short.stack_info = None
        return self._inner.format(short)


def _is_news(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_SAID_HERE)


@contextmanager
def _quiet(console: Console) -> Iterator[None]:
    """Prefect's log lines go to ``console``, between the bars; errors told at the end are not told twice."""
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in list(logging.root.manager.loggerDict))]
    handlers = {h for logger in loggers for h in logger.handlers if isinstance(h, PrefectConsoleHandler)}
    before = [(handler, handler.console, handler.formatter) for handler in handlers]
    debug = bool(os.environ.get("HEADRACE_DEBUG"))
    for handler in handlers:
        handler.console = console
        if not debug:
            handler.addFilter(_is_news)
            handler.setFormatter(_WithoutTraceback(handler.formatter))
    try:
        yield
    finally:
        for handler, former, formatter in before:
            handler.console = former
            handler.removeFilter(_is_news)
            handler.setFormatter(formatter)
