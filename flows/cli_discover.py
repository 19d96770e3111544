"""`headrace discover`: the tables behind a connection, as a list or as deployments to paste."""

from __future__ import annotations

from prefect.blocks.core import Block
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from blocks.connect import load_by_name, names_of
from blocks.s3 import S3Destination
from flows.cli_perform import perform
from tasks import discover
from tasks.extractors.catalog import Found, Nested, deployment


def show_tables(connection: str, schema: str, like: str, nested: Nested, *, as_yaml: bool) -> None:
    """Print what was found; a line on stderr when nothing was."""
    block, found = perform(lambda: _look(load_by_name(discover.KINDS, connection), schema, like, nested))
    if not found:
        Console(stderr=True).print("no tables; is the schema or the pattern right, and may the user see them?")
    elif as_yaml:
        _print_yaml(found, f"{block.get_block_type_slug()}/{connection.rpartition('/')[2]}")
    else:
        _print_table(found)


async def _look(block: Block, schema: str, like: str, nested: Nested) -> tuple[Block, list[Found]]:
    return block, await discover.tables(block, schema, like, nested)


def _print_yaml(found: list[Found], connection: str) -> None:
    destination = next(iter(names_of(S3Destination)), "s3-destination/lake")
    taken: set[str] = set()
    entries = []
    for table in found:
        stream = base = table.stream
        number = 2
        while stream in taken:
            stream, number = f"{base}-{number}", number + 1
        taken.add(stream)
        entries.append(deployment(table, stream, connection, destination))
    # Not through rich: it would wrap, and eat [brackets].
    Console(highlight=False, markup=False, soft_wrap=True).print("deployments:\n" + "\n\n".join(entries))


def _print_table(found: list[Found]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("table", overflow="fold")
    for name in ("rows, about", "MB"):
        table.add_column(name, justify="right")
    for name in ("primary key", "cursor candidates"):
        table.add_column(name, overflow="fold")
    for one in found:
        rows = "?" if one.rows is None else f"{one.rows:,}"
        told = ", ".join(map(str, one.cursors)) or (one.told if not one.fields else "") or "–"
        if not one.readable:
            told = f"no SELECT privilege; {told}"
        cells = [one.written, rows, f"{one.bytes / 1e6:,.1f}", ", ".join(one.key) or "–", told]
        table.add_row(*map(escape, cells))
    console = Console(highlight=False)
    console.print(table) if console.is_terminal else Console(highlight=False, width=500).print(table)
    for one in found:
        if one.fields:
            _print_fields(console, one)
    if any(one.rows is None and one.kind == "table" for one in found):
        console.print("?: never analysed; ANALYZE the table for an estimate")


def _print_fields(console: Console, found: Found) -> None:
    """Of a source without a schema: what a sample has."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2))
    for name in (f"fields of {found.written}", "in", "types", "as a column"):
        table.add_column(name, overflow="fold", justify="right" if name == "in" else "left")
    for field in found.fields:
        table.add_row(*map(escape, (field.path, f"{field.share:.1%}", ", ".join(field.kinds), field.type)))
    console.print()
    console.print(table) if console.is_terminal else Console(highlight=False, width=500).print(table)
    console.print(f"  of {found.sampled:,} documents {found.drawn}" + (f"; {found.told}" if found.told else ""))
