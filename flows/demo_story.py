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
from itertools import islice
from pathlib import Path
from typing import Any

import asyncpg
import duckdb
from prefect_aws import AwsCredentials
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from blocks.postgres import Postgres
from blocks.s3 import S3Destination
from blocks.watermark import Watermark
from flows.extract_all import Stream, extract_all
from flows.terminal import bars
from tasks.commits import Commit, CommitLog
from tasks.extractors.postgres.sql import Connection

CONSOLE = Console(highlight=False)

_SEED = """
CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL, email text, city text, note text,
                        profile jsonb NOT NULL, created_at timestamptz NOT NULL);
INSERT INTO customers
SELECT i, (ARRAY['Zoë Müller', 'Li Wei 李伟', 'Ann "Ace" O''Neil', 'José, Jr.'])[1 + i % 4] || ' ' || i,
       CASE WHEN i % 7 > 0 THEN 'c' || i || '@example.com' END,
       (ARRAY['Köln', 'São Paulo', 'Kraków', ''])[1 + i % 4],
       CASE i % 5 WHEN 0 THEN 'likes "quotes", commas' || chr(10) || 'and lines 🙂' END,
       jsonb_build_object('tier', i % 3, 'tags', ARRAY['a', 'b']), timestamptz '2025-01-01' + i * interval '1 minute'
FROM generate_series(1, {customers}) i;
CREATE TABLE orders (id int PRIMARY KEY, customer_id int NOT NULL, status text NOT NULL, total numeric(12, 2) NOT NULL,
                     paid boolean NOT NULL, updated_at timestamptz NOT NULL DEFAULT now());
INSERT INTO orders
SELECT i, 1 + i % {customers}, (ARRAY['new', 'paid', 'sent', 'back'])[1 + i % 4], (i::bigint * 7919 % 1000000) / 100.0, i % 3 = 0,
       timestamptz '2026-01-01' + i * interval '50 seconds'
FROM generate_series(1, {orders}) i;
CREATE INDEX ON orders (updated_at);
CREATE TABLE order_items (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, order_id int NOT NULL, sku text NOT NULL,
                          quantity int NOT NULL, price numeric(10, 2) NOT NULL);
INSERT INTO order_items (order_id, sku, quantity, price)
SELECT 1 + i % {orders}, 'SKU-' || i % 9973, 1 + i % 5, (i::bigint * 104729 % 100000) / 100.0 FROM generate_series(1, {items}) i;
ANALYZE;
"""

_CHANGES = """
UPDATE orders SET status = 'sent', total = total + 1.50, updated_at = now() WHERE id % 1000 = 0;
INSERT INTO orders (id, customer_id, status, total, paid)
SELECT i, 1, 'new', 9.99, false FROM generate_series({orders} + 1, {orders} + 250) i;
INSERT INTO order_items (order_id, sku, quantity, price)
SELECT {orders} + 1 + i % 250, 'SKU-new', 1, 9.99 FROM generate_series(1, 600) i;
"""

# What PostgreSQL says, and what the files say: the newest version of each key, and sums that no lost digit survives.
_TRUTH = {
    "customers": "SELECT count(*), sum(length(coalesce(note, ''))), count(email) FROM customers",
    "orders": "SELECT count(*), sum(total), count(*) FILTER (WHERE status = 'sent') FROM orders",
    "order-items": "SELECT count(*), sum(quantity * price), count(DISTINCT order_id) FROM order_items",
}
_FILES = {
    "customers": "SELECT count(*), sum(length(coalesce(note, ''))), count(email) FROM {files}",
    "orders": "SELECT count(*), sum(total::decimal(12,2)), count(*) FILTER (WHERE status = 'sent') FROM"
    " (SELECT * FROM {files} QUALIFY row_number() OVER (PARTITION BY id ORDER BY sequence DESC) = 1)",
    "order-items": "SELECT count(*), sum(quantity::int * price::decimal(10,2)), count(DISTINCT order_id) FROM {files}",
}


def _step(number: int, title: str, why: str) -> None:
    CONSOLE.print(f"\n[bold cyan]{number}  {title}[/]\n   [dim]{why}[/]")


class Story:
    """One telling: the database, the bucket, and how large they are."""

    def __init__(self) -> None:
        scale = float(os.environ.get("HEADRACE_DEMO_SCALE", "1"))
        self.sizes = {name: max(1_000, int(n * scale)) for name, n in _SIZES.items()}
        self.postgres = Postgres(
            host="127.0.0.1",
            port=int(os.environ["DEMO_POSTGRES_PORT"]),
            database="postgres",
            user="postgres",
            password=os.environ["DEMO_POSTGRES_PASSWORD"],
        )
        self.lake = S3Destination(
            bucket="lake",
            prefix="raw",
            region="us-east-1",
            endpoint=os.environ["DEMO_S3"],
            credentials=AwsCredentials(aws_access_key_id="demo", aws_secret_access_key="demo"),  # noqa: S106
        )

    async def tell(self) -> bool:
        """All steps; False when the files and the database do not agree."""
        connection: Connection = await asyncpg.connect(**self.postgres.connect_arguments())
        try:
            await self._seed(connection)
            await self._extract("2", "First run", "Three streams at once, straight from COPY into multipart uploads.")
            before = await self._watermarks()
            await self._change(connection)
            await self._extract("4", "Second run", "Incremental streams read only what is past their watermark.")
            await self._show(before)
            return await self._prove(connection)
        finally:
            await connection.close()

    async def _seed(self, connection: Connection) -> None:
        rows = sum(self.sizes.values())
        version = os.environ["DEMO_POSTGRES_VERSION"]
        _step(1, "A shop", f"PostgreSQL {version} gets {rows:,} rows with quotes, umlauts, emoji, NULLs and JSON.")
        await connection.execute(_SEED.format(**self.sizes))
        await self.postgres.asave("shop", overwrite=True)
        async with self.lake.client() as client:
            await client.create_bucket(Bucket=self.lake.bucket)
        await self.lake.asave("lake", overwrite=True)

    async def _extract(self, number: str, title: str, why: str) -> None:
        _step(int(number), title, why)
        with bars(CONSOLE):
            outcomes: Any = await extract_all(streams=_streams(), parallel=2)
        for done in outcomes:
            what = f"commit {done['sequence']}, {done['rows']:,} rows" if done["sequence"] else "nothing new"
            CONSOLE.print(f"   [green]✓[/] {done['stream']}: {what}, {done['seconds']:.1f} s")

    async def _watermarks(self) -> dict[str, Watermark]:
        found = {stream: await Watermark.of(stream) for stream in _STREAMS}
        return {name: mark for name, mark in found.items() if mark is not None}

    async def _change(self, connection: Connection) -> None:
        _step(3, "The shop goes on", "Some orders change, 250 are new, 600 items are sold.")
        await connection.execute(_CHANGES.format(**self.sizes))
        # A run reads up to the last whole second before the oldest transaction in flight, so that none is passed over.
        await asyncio.sleep(1.1)

    async def _show(self, before: dict[str, Watermark]) -> None:
        _step(5, "What lies in the bucket", "A file counts once its commit is there: one conditional write per run.")
        table = Table("file", "rows", "CSV", "stored", box=None, pad_edge=False, padding=(0, 3, 0, 3))
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
        newest = commits[-1].model_dump(mode="json", include={"stream", "sequence", "mode", "since", "until", "rows"})
        CONSOLE.print(f"\n   [bold]A commit[/] (in short)  {json.dumps(newest)}", soft_wrap=True)

    async def _commits(self) -> list[Commit]:
        found: list[Commit] = []
        async with self.lake.client() as client:
            for stream in _STREAMS:
                log = CommitLog(client, self.lake, stream)
                found += [commit for number in await log.after(0) if (commit := await log.read(number))]
        return found

    async def _prove(self, connection: Connection) -> bool:
        _step(6, "The proof", "DuckDB reads the committed files back; PostgreSQL is asked for the same figures.")
        folder = Path(os.environ["DEMO_FOLDER"]) / "read-back"
        await self._download(folder)
        for line in await asyncio.to_thread(_sample, folder):
            CONSOLE.print(f"   [dim]{escape(line)}[/]")
        agreed = True
        for name, truth in _TRUTH.items():
            said = tuple(await connection.fetchrow(truth) or ())
            read = await asyncio.to_thread(_ask, folder / name, _FILES[name])
            same = [str(value) for value in said] == [str(value) for value in read]
            agreed = agreed and same
            mark = "[green]✓[/]" if same else "[bold red]✗[/]"
            CONSOLE.print(f"   {mark} {name}: files say {_values(read)}, PostgreSQL says {_values(said)}")
        return agreed

    async def _download(self, folder: Path) -> None:
        async with self.lake.client() as client:
            for commit in await self._commits():
                # A full extract replaces what was there: the newest one is all a loader would keep.
                if commit.mode == "full" and commit.sequence < 2:
                    continue
                for entry in commit.entries:
                    answer = await client.get_object(Bucket=self.lake.bucket, Key=entry.key)
                    target = folder / commit.stream / f"{commit.sequence}-{Path(entry.key).name}"
                    await asyncio.to_thread(_write, target, await answer["Body"].read())


_SIZES = {"customers": 20_000, "orders": 300_000, "items": 900_000}
_STREAMS: dict[str, dict[str, Any]] = {
    "customers": {"source": {"table": "public.customers"}, "mode": "full"},
    "orders": {"source": {"table": "public.orders", "cursor": "updated_at"}, "mode": "incremental"},
    "order-items": {"source": {"table": "public.order_items", "cursor": "id"}, "mode": "incremental"},
}


def _streams() -> list[Stream]:
    """The streams as prefect.yaml would have them; made late, for their blocks have to be saved first."""
    made = []
    for name, given in _STREAMS.items():
        source = {"connection": "postgres/shop", **given["source"]}
        made.append({"stream": name, "to": "s3-destination/lake", "mode": given["mode"], "source": source})
    return [Stream.model_validate(stream) for stream in made]


def _write(target: Path, body: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(body)


def _ask(folder: Path, question: str) -> tuple[Any, ...]:
    files = (
        f"(SELECT *, parse_filename(filename).split('-')[1]::int AS sequence FROM read_csv('{folder}/*.csv.gz',"
        " header = true, all_varchar = true, allow_quoted_nulls = false, filename = true))"
    )
    answer = duckdb.sql(question.format(files=files)).fetchone()
    return tuple(answer or ())


def _sample(folder: Path) -> list[str]:
    """The first lines of the newest file of orders."""
    newest = sorted((folder / "orders").glob("2-*"))[0]
    with gzip.open(newest, "rt", encoding="utf-8") as lines:
        return [line.rstrip("\n") for line in islice(lines, 3)]


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size:,} B"


def _position(mark: Watermark) -> str:
    at = mark.position.get("value") if isinstance(mark.position, dict) else "–"
    return f"commit {mark.sequence} at {at}"


def _values(values: tuple[Any, ...]) -> str:
    return ", ".join(f"{value:,}" for value in values)


def main() -> int:
    agreed = asyncio.run(Story().tell())
    if not agreed:
        CONSOLE.print("\n[bold red]The files and the database differ.[/] This must not happen; please report it.")
        return 1
    seconds = time.monotonic() - float(os.environ["DEMO_STARTED"])
    CONSOLE.print(f"\n[bold green]The files hold exactly what the database holds.[/] {seconds:.0f} s in all. Next:")
    for command in _NEXT:
        CONSOLE.print(f"   {command}", soft_wrap=True)
    return 0


_NEXT = (
    "cp pipeline.example.conf pipeline.conf   [dim]# your database and bucket; then:[/] headrace configure pipeline.conf",
    "headrace discover postgres/shop          [dim]# tables, sizes, keys, cursor candidates[/]",
    "headrace run orders                      [dim]# a stream of prefect.yaml, here and now[/]",
)

if __name__ == "__main__":
    sys.exit(main())
