"""How the records of a change stream become objects: by table as they are, as one log, or as the files of AWS DMS."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import Protocol

from blocks.errors import ConfigurationError
from tasks.extractors.contract import AnyExtractor, ChangeExtractor, Output, Plan, Records
from tasks.layouts.dms import DmsLayout
from tasks.layouts.log import LogLayout
from tasks.run import Run

_AT_ONCE = 32 << 10
"""Bytes whose records are laid out on the event loop: a thread is slower to begin."""


class Layout(Protocol):
    """Lays out the records of one partition."""

    def lane(self, output: Output) -> Hashable:
        """Outputs of one lane have one object at a time: the objects of a lane are in the order of the log."""
        ...

    def laid_out(self, output: Output, made: Records) -> list[tuple[Output, Records]]:
        """What records become, and where they go."""
        ...


class TablesLayout:
    """Records stay as they are, and objects hold those of one table in one shape."""

    def lane(self, output: Output) -> Hashable:
        return output

    def laid_out(self, output: Output, made: Records) -> list[tuple[Output, Records]]:
        return [(output, made)]


def layout_of(run: Run, plan: Plan, sequence: int) -> Layout:
    """That of the destination."""
    # A full load takes the place of all files before it: rows of a snapshot that comes through a log may be some of them.
    begins = plan.since is None and (plan.snapshot is not None or sequence == 1)
    match run.destination.layout:
        case "tables":
            return TablesLayout()
        case "log":
            return LogLayout(run.destination.csv.null)
        case "dms":
            return DmsLayout(run.destination.dms, run.destination.csv.null, begins=begins)


async def laid_out(layout: Layout, output: Output, made: Records) -> list[tuple[Output, Records]]:
    """`Layout.laid_out`, in a thread where it takes long."""
    if isinstance(layout, TablesLayout) or len(made.data) <= _AT_ONCE:
        return layout.laid_out(output, made)
    return await asyncio.to_thread(layout.laid_out, output, made)


def check_fits(extractor: AnyExtractor, layout: str) -> None:
    """`ConfigurationError` for a stream that the layout is not made for."""
    if layout == "dms" and not isinstance(extractor, ChangeExtractor):
        raise ConfigurationError(
            "field layout of the destination: dms is for streams of changes, whose snapshot is the full load; for other "
            "streams use a destination with layout tables"
        )
