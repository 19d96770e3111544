"""What the demo shows, step by step. Runs in a process of its own, against the servers `flows.demo` started for it.

Every sentence it prints is true of what has just happened; the last step proves it or fails.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import aiomysql
import asyncpg
from prefect_aws import AwsCredentials
from pydantic import SecretStr
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from blocks.mysql import MySQL
from blocks.postgres import Postgres
from blocks.rest import RestApi
from blocks.s3 import S3Destination
from blocks.watermark import Watermark
from flows import demo_events, demo_payments, demo_proof, demo_shop
from flows.demo_shop import Size
from flows.extract_all import Stream, extract_all
from flows.terminal import bars
from tasks.commits import Commit, CommitLog
from tasks.extractors.postgres.sql import Connection

CONSOLE = Console(highlight=False)

_POSTGRES = "postgres/shop"
_MYSQL = "mysql/shop"

_STREAMS: dict[str, dict[str, Any]] = {
    "customers": {"source": {"connection": _POSTGRES, "table": "public.customers"}, "mode": "full"},
    "orders": {
        "source": {"connection": _POSTGRES, "table": "public.orders", "cursor": "updated_at"},
        "mode": "incremental",
    },
    "order-items": {
        "source": {"connection": _POSTGRES, "table": "public.order_items", "cursor": "id"},
        "mode": "incremental",
    },
}
_PAYMENTS: dict[str, dict[str, Any]] = {
    "payments": {"source": {"connection": _MYSQL, "table": "payments", "cursor": "updated_at"}, "mode": "incremental"},
}

_NEXT = (
    "cp pipeline.example.conf pipeline.conf   [dim]# your database and bucket; then:[/] headrace configure pipeline.conf",
    "headrace discover postgres/shop          [dim]# tables, sizes, keys, cursor candidates[/]",
    "headrace run orders                      [dim]# a stream of prefect.yaml, here and now[/]",
)


class Story:
    """One telling: the databases, the bucket, and how large they are."""

    def __init__(self) -> None:
        scale = float(os.environ.get("HEADRACE_DEMO_SCALE", "1"))
        self.size = Size.scaled(scale)
        self.payments = demo_payments.Size.scaled(scale)
        self.postgres = Postgres(
            host="127.0.0.1",
            port=int(os.environ["DEMO_POSTGRES_PORT"]),
            database="postgres",
            user="postgres",
            password=os.environ["DEMO_POSTGRES_PASSWORD"],
        )
        self.mysql = _mysql()
        self.api = RestApi(base_url=os.environ["DEMO_API"])
        self.streams = _STREAMS | demo_events.STREAM | (_PAYMENTS if self.mysql else {})
        self.lake = S3Destination(
            bucket="lake",
            prefix="raw",
            region="us-east-1",
            endpoint=os.environ["DEMO_S3"],
            credentials=AwsCredentials(aws_access_key_id="demo", aws_secret_access_key="demo"),  # noqa: S106 - moto's
        )

    async def tell(self) -> bool:
        """All steps; False when the files and a database do not agree."""
        async with AsyncExitStack() as stack:
            connection: Connection = await asyncpg.connect(**self.postgres.connect_arguments())
            stack.push_async_callback(connection.close)
            other: Any = None
            if self.mysql:
                other = await stack.enter_async_context(aiomysql.connect(**self.mysql.connect_arguments()))
            await self._open_shop(connection, other)
            how = "Three streams, straight from COPY into multipart uploads; the pages of an API, eight at a time"
            how += f"; and {_flavour()}, whose packets become CSV." if self.mysql else "."
            await self._extract(2, "First run", how)
            before = await self._watermarks()
            await self._go_on(connection, other)
            await self._extract(4, "Second run", "Incremental streams read only what is past their watermark.")
            await self._show(before)
            return await self._prove(connection, other)

    async def _open_shop(self, connection: Connection, other: Any) -> None:
        version = os.environ["DEMO_POSTGRES_VERSION"]
        rows = self.size.customers + self.size.orders * (1 + demo_shop.ITEMS_PER_ORDER)
        _step(
            1, "A shop", f"PostgreSQL {version} gets about {rows:,} rows with quotes, umlauts, emoji, NULLs and JSON."
        )
        await _all(demo_shop.fill(connection, self.size), self.size.chunks + 1)
        await self.postgres.asave("shop", overwrite=True)
        if self.mysql:
            version = f"{_flavour()} {os.environ['DEMO_MYSQL_VERSION']}"
            _aside(f"{version} gets {self.payments.payments:,} payments.")
            await _all(demo_payments.fill(other, self.payments), self.payments.chunks)
            await self.mysql.asave("shop", overwrite=True)
        else:
            _aside(os.environ["DEMO_MYSQL_LEFT_OUT"])
        _aside("An API has events as JSON: their properties are nested, and no two kinds have the same.")
        await self.api.asave("shop", overwrite=True)
        async with self.lake.client() as client:
            await client.create_bucket(Bucket=self.lake.bucket)
        await self.lake.asave("lake", overwrite=True)

    async def _extract(self, number: int, title: str, why: str) -> None:
        _step(number, title, why)
        with bars(CONSOLE):
            outcomes: Any = await extract_all(streams=_as_parameters(self.streams), parallel=2)
        for done in outcomes:
            what = f"commit {done['sequence']}, {done['rows']:,} rows" if done["sequence"] else "nothing new"
            CONSOLE.print(f"   [green]✓[/] {done['stream']}: {what}, {done['seconds']:.1f} s")

    async def _watermarks(self) -> dict[str, Watermark]:
        found = {stream: await Watermark.of(stream) for stream in self.streams}
        return {name: mark for name, mark in found.items() if mark is not None}

    async def _go_on(self, connection: Connection, other: Any) -> None:
        done = await demo_shop.change(connection, self.size)
        _step(
            3,
            "The shop goes on",
            f"{done.new_orders:,} new orders with {done.new_items:,} items, {done.shipped:,} old ones shipped, "
            f"{done.renamed:,} customers renamed.",
        )
        if self.mysql:
            paid = await demo_payments.change(other, self.payments)
            _aside(f"In {_flavour()}: {paid.new:,} new payments, {paid.refunded:,} old ones refunded.")
        await demo_events.go_on(self.api.base_url, more := max(10, self.size.orders // 1000))
        _aside(f"The API: {more:,} new events.")
        # A run reads up to the last whole second before the oldest transaction in flight, so that none is passed over.
        await asyncio.sleep(1.1)

    async def _show(self, before: dict[str, Watermark]) -> None:
        _step(5, "What lies in the bucket", "A file counts once its commit is there: one conditional write per run.")
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 3))
        table.add_column("file", overflow="fold")
        for figure in ("rows", "CSV", "stored"):
            table.add_column(figure, justify="right", no_wrap=True)
        commits = await self._commits()
        for commit in commits:
            for entry in commit.entries:
                key = entry.key.removeprefix("raw/").replace("0" * 12, "…")
                table.add_row(key, f"{entry.rows:,}", _mb(entry.bytes), _mb(entry.meta.content_length))
        CONSOLE.print(table)
        CONSOLE.print("\n   [bold]Watermarks[/], before → after the second run")
        after = await self._watermarks()
        for name, mark in after.items():
            CONSOLE.print(f"   {name}: {_position(before[name])} → {_position(mark)}", soft_wrap=True)
        newest = commits[-1].model_dump(mode="json", include={"sequence", "mode", "since", "until", "rows"})
        CONSOLE.print(f"\n   [bold]A commit[/], in short: {json.dumps(newest)}", soft_wrap=True)

    async def _commits(self) -> list[Commit]:
        found: list[Commit] = []
        async with self.lake.client() as client:
            for stream in self.streams:
                log = CommitLog(client, self.lake, stream)
                found += [commit for number in await log.after(0) if (commit := await log.read(number))]
        return found

    async def _prove(self, connection: Connection, other: Any) -> bool:
        _step(
            6,
            "The proof",
            "DuckDB loads the committed files as a warehouse would, and compares every value of every row.",
        )
        folder = Path(os.environ["DEMO_FOLDER"]) / "read-back"
        await asyncio.to_thread(folder.mkdir)
        commits = await self._commits()
        agreed = True
        for stream, given in self.streams.items():
            # A full extract replaces what was there; incremental ones are merged in the order of their commits.
            own = [commit for commit in commits if commit.stream == stream]
            async with self.lake.client() as client:
                files = await demo_proof.download(
                    client, self.lake.bucket, own[-1:] if own[-1].mode == "full" else own, folder
                )
            if stream == "orders":
                for line in await asyncio.to_thread(_sample, files[-1][1]):
                    CONSOLE.print(f"   [dim]{escape(line)}[/]", soft_wrap=True)
            table, columns = stream.replace("-", "_"), own[-1].columns
            if given["source"]["connection"] == demo_events.CONNECTION:
                server, truth = "the API", await demo_events.in_api(self.api.base_url)
            elif given["source"]["connection"] == _MYSQL:
                server, truth = _flavour(), await demo_proof.in_mysql(other, table, columns)
            else:
                server, truth = "PostgreSQL", await demo_proof.in_postgres(connection, table, columns)
            read = await asyncio.to_thread(demo_proof.in_files, table, files, columns)
            agreed = agreed and read == truth
            if read == truth:
                CONSOLE.print(f"   [green]✓[/] {stream}: {_told(read)}, in the files as in {server}")
            else:
                CONSOLE.print(f"   [bold red]✗[/] {stream}: the files hold {_told(read)}; {server} {_told(truth)}")
        return agreed


def _step(number: int, title: str, why: str) -> None:
    CONSOLE.print(f"\n[bold cyan]{number}  {title}[/]\n   [dim]{why}[/]")


def _aside(text: str) -> None:
    CONSOLE.print(f"   [dim]{escape(text)}[/]", soft_wrap=True)


async def _all(steps: AsyncIterator[int], count: int) -> None:
    """Take so many steps under a bar, and what comes after the last row (keys and indexes) without one."""
    for _ in track(range(count), "  ", console=CONSOLE, transient=True):
        await anext(steps)
    async for _ in steps:
        pass


def _mysql() -> MySQL | None:
    """The connection to MySQL or MariaDB; None where there is no server."""
    if "DEMO_MYSQL_PORT" not in os.environ:
        return None
    return MySQL(
        host="127.0.0.1",
        port=int(os.environ["DEMO_MYSQL_PORT"]),
        database="shop",
        user="demo",
        password=SecretStr(os.environ["DEMO_MYSQL_PASSWORD"]),
    )


def _flavour() -> str:
    return os.environ["DEMO_MYSQL_FLAVOUR"]


def _as_parameters(streams: dict[str, dict[str, Any]]) -> list[Stream]:
    """The streams as prefect.yaml would have them; made late, for their blocks have to be saved first."""
    made = [{"stream": name, "to": "s3-destination/lake", **given} for name, given in streams.items()]
    return [Stream.model_validate(stream) for stream in made]


def _sample(file: Path) -> list[str]:
    """The header and the first lines."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [line.rstrip("\n") for line in islice(lines, 3)]


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size:,} B"


def _position(mark: Watermark) -> str:
    at = f" at {mark.position.get('value')}" if isinstance(mark.position, dict) else ""
    return f"commit {mark.sequence}{at}"


def _told(found: demo_proof.Summary) -> str:
    return f"{found.rows:,} rows, sum {found.total:,f}, fingerprint {found.fingerprint % 16**8:08x}"


def main() -> int:
    story = Story()
    what = f"{'databases' if story.mysql else 'database'} and the API"
    if not asyncio.run(story.tell()):
        CONSOLE.print(f"\n[bold red]The files and the {what} differ.[/] This must not happen; please report it.")
        return 1
    seconds = time.monotonic() - float(os.environ["DEMO_STARTED"])
    CONSOLE.print(f"\n[bold green]The files hold exactly what the {what} hold.[/] {seconds:.0f} s in all. Next:")
    for command in _NEXT:
        CONSOLE.print(f"   {command}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
