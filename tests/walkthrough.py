"""What the README says, typed from a fresh clone against real servers: ``python -m tests.walkthrough``. No part of `make test`.

The lines of its code blocks are taken from the README itself. Between them only the configuration is filled in, as a person
would. Then every deployment whose source is here (PostgreSQL, MySQL, S3) is run with ``--watch``, and the load that each
commit starts is waited for. ``--screenshots FOLDER`` takes pictures of the UI by chromium; ``--venv FOLDER`` takes an
environment that is there already, in place of the one that the README has made.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import duckdb
import httpx
from websockets.asyncio.client import connect

from flows import demo_shop
from tests.servers import mysql, postgres, s3
from tests.servers.faults import TcpProxy
from tests.servers.mysql import MySQLServer, connected
from tests.servers.postgres import PostgresServer
from tests.servers.prefect import QUIET
from tests.servers.s3 import S3Server
from tests.servers.support import Daemon, accepts_connections, free_port, say, wait_until

ROOT = Path(__file__).parent.parent
STREAMS = ("customers", "orders", "order-items", "products", "stock", "shop-changes")
"""Of the deployments those whose sources are here; and two more, by other flows."""
OTHERS = ("extract-all/all", "sweep/lake")
LOADED = ("customers", "orders", "order_items")
SIZE = demo_shop.Size(customers=2_000, orders=60_000)

_TABLES = (
    "CREATE TABLE products (id BIGINT PRIMARY KEY, name VARCHAR(80) NOT NULL, price DECIMAL(10,2) NOT NULL)",
    "INSERT INTO products VALUES (1, 'Tea, green', 4.20), (2, 'Jam \"Extra\"', 3.10), (3, 'Crème brûlée', 5.90)",
    "CREATE TABLE stock (product_id BIGINT PRIMARY KEY, pieces INT NOT NULL,"
    " updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6))",
    "INSERT INTO stock (product_id, pieces) VALUES (1, 12), (2, 0), (3, 7)",
    "CREATE TABLE orders (id BIGINT PRIMARY KEY, status VARCHAR(20) NOT NULL)",
    "INSERT INTO orders VALUES (1, 'new'), (2, 'paid')",
    "CREATE TABLE order_drafts (id BIGINT PRIMARY KEY)",
)


def typed() -> list[str]:
    """The commands of the README's blocks about a person's own database, without their comments."""
    begin, end = "## Your own database and bucket", "\n## What a stream is"
    part = (ROOT / "README.md").read_text().partition(begin)[2].partition(end)[0]
    lines = [
        line for text in re.findall(r"^```sh\n(.*?)^```$", part, re.MULTILINE | re.DOTALL) for line in text.splitlines()
    ]
    return [re.sub(r"\s+#.*$", "", line) for line in lines if line.strip()]


@dataclass
class Person:
    """A shell in a clone, with a Prefect home and a port of its own."""

    clone: Path
    home: Path
    venv: Path
    port: int = field(default_factory=free_port)
    started: list[Daemon] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "VIRTUAL_ENV"))}
        return inherited | QUIET | {
            "PATH": f"{self.venv / 'bin'}:{os.environ['PATH']}",
            # An environment that is taken has the project installed from elsewhere.
            "PYTHONPATH": str(self.clone),
            "PREFECT_HOME": str(self.home),
            "PREFECT_SERVER_API_PORT": str(self.port),
            "HEADRACE_HOME": str(self.clone),
            "TMPDIR": str(self.home),
        }  # fmt: skip

    @property
    def ui(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def type(self, line: str, seconds: float = 600) -> str:
        """Run a line and show what it says; an exit code other than 0 ends the walk."""
        line = line.replace(":4200/", f":{self.port}/")
        say(f"$ {line}")
        # Into a file: a server in the background keeps a pipe open for ever.
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                ["bash", "-c", line], cwd=self.clone, env=self.environment, timeout=seconds, check=False,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
            output.seek(0)
            said = output.read()
        say("".join(f"    {part}\n" for part in said.strip().splitlines()[-12:]))
        if done.returncode:
            raise SystemExit(f"{line} ended with {done.returncode}:\n{said}")
        return said

    def leave_running(self, line: str) -> None:
        """Run a line in a terminal of its own."""
        say(f"$ {line} &")
        log = self.home / f"terminal-{len(self.started)}.log"
        self.started.append(Daemon(["bash", "-c", f"exec {line}"], log=log, env=self.environment, cwd=self.clone))

    def ask(self, path: str, **body: Any) -> Any:
        """What the server's API says."""
        data = json.dumps(body).encode()
        asked = urllib.request.Request(f"{self.ui}/api/{path}", data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return json.load(answer)

    def loads(self) -> list[dict[str, Any]]:
        return list(self.ask("flow_runs/filter", flows={"name": {"any_": ["load"]}}))

    def show_terminals(self) -> None:
        """What the server and the worker have said last: their files go with the scratch folder."""
        for number, daemon in enumerate(self.started):
            lines = daemon.log.read_text(errors="replace").splitlines()[-60:]
            say("".join(f"    {number}: {line}\n" for line in lines))

    def leave(self) -> None:
        for daemon in reversed(self.started):
            daemon.stop(seconds=20)


def configuration(
    database: PostgresServer, port: int, shop: MySQLServer, lake: S3Server, bucket: str, folder: Path
) -> str:
    """What a person fills in; the passwords are variables of the worker."""
    return (
        f"[postgres:shop]\nhost = {database.host}\nport = {port}\ndatabase = {database.database}\n"
        f"user = {database.user}\npassword = {database.password}\n\n"
        f"[mysql:shop]\nhost = {shop.host}\nport = {shop.port}\ndatabase = {shop.database}\nuser = {shop.user}\n"
        f"password = {shop.password}\n\n[duckdb:warehouse]\npath = {folder}/warehouse.duckdb\n\n"
        f"[s3-destination:lake]\nbucket = {bucket}\nendpoint = {lake.endpoint}\nregion = {lake.region}\n"
        f"credentials.aws_access_key_id = {lake.access_key}\ncredentials.aws_secret_access_key = {lake.secret_key}\n"
    )


async def fill(database: PostgresServer, shop: MySQLServer) -> None:
    """The shop that prefect.yaml names."""
    connection = await asyncpg.connect(database.dsn())
    try:
        async for _ in demo_shop.fill(connection, SIZE):
            pass
    finally:
        await connection.close()
    async with connected(shop) as other, other.cursor() as cursor:
        for statement in _TABLES:
            await cursor.execute(statement)


async def sell(database: PostgresServer) -> None:
    """The shop goes on: what the runs of the deployments find that is new."""
    connection = await asyncpg.connect(database.dsn())
    try:
        await demo_shop.change(connection, SIZE)
    finally:
        await connection.close()


async def rows(database: PostgresServer) -> dict[str, int]:
    connection = await asyncpg.connect(database.dsn())
    try:
        return {table: await connection.fetchval(f"SELECT count(*) FROM {table}") for table in LOADED}
    finally:
        await connection.close()


def rows_loaded(warehouse: Path) -> dict[str, int]:
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        found = {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone() for table in LOADED}
    return {table: row[0] for table, row in found.items() if row}


def walk(person: Person, filled_in: str, database: PostgresServer) -> None:
    """The README's lines, then each deployment once, then the loads."""
    (person.clone / "pipeline.conf").write_text(filled_in)
    (person.clone / "pipeline.conf").chmod(0o600)
    for line in typed():
        match shlex.split(line):
            case ["make", *_] if person.venv.exists():
                continue
            case ["make", target, *_]:
                person.type(f"make {target}")
            case ["prefect", "worker", "start", *_]:
                person.leave_running(line)
            case ["prefect", "server", "start", *_]:
                person.leave_running(line)
                wait_until(lambda: _healthy(person), 120)
            case _:
                person.type(line)
    asyncio.run(sell(database))
    for name in (*(f"extract/{stream}" for stream in STREAMS), *OTHERS):
        said = person.type(f"prefect deployment run {name} --watch")
        if "Completed" not in said and "finished successfully" not in said:
            raise SystemExit(f"{name} did not complete")
    _wait_for_loads(person, 300)
    say(f"{len(person.loads())} loads, started by commits, are completed")
    there, loaded = asyncio.run(rows(database)), rows_loaded(person.clone.parent / "warehouse.duckdb")
    if there != loaded:
        raise SystemExit(f"the warehouse has {loaded}, the shop {there}")


def _healthy(person: Person) -> bool:
    try:
        with urllib.request.urlopen(f"{person.ui}/api/health", timeout=5):
            return True
    except OSError:
        return False


def _wait_for_loads(person: Person, seconds: float) -> None:
    """Until each stream that was run has a load, and all loads have completed."""
    ends = time.monotonic() + seconds
    while True:
        loads = person.loads()
        if failed := [run["name"] for run in loads if run["state_type"] in ("FAILED", "CRASHED", "CANCELLED")]:
            raise SystemExit(f"loads failed: {', '.join(failed)}")
        waits = set(STREAMS) - {run["parameters"].get("stream") for run in loads}
        waits |= {run["name"] for run in loads if run["state_type"] != "COMPLETED"}
        if not waits:
            return
        if time.monotonic() > ends:
            raise SystemExit(f"not loaded within {seconds:g} s: {', '.join(sorted(waits))}")
        time.sleep(2)


def pages(person: Person, wire: TcpProxy) -> dict[str, str]:
    """The pages a person works with, by the name of the picture; the run is one with partitions, slow enough to tell of."""
    wire.throttle(150_000)
    person.type("prefect deployment run extract/orders -p mode=full -p partitions=4 --watch")
    wire.throttle(None)
    (deployment,) = [found for found in person.ask("deployments/filter") if found["name"] == "orders"]
    asked = {"deployments": {"id": {"any_": [deployment["id"]]}}, "sort": "START_TIME_DESC", "limit": 1}
    runs = person.ask("flow_runs/filter", **asked)
    newest = {"sort": "CREATED_DESC", "limit": 1}
    (commit,) = person.ask("artifacts/filter", artifacts={"key": {"any_": ["commit-orders"]}}, **newest)
    (progress,) = person.ask("artifacts/filter", artifacts={"type": {"any_": ["progress"]}}, **newest)
    return {
        "form": f"deployments/deployment/{deployment['id']}/run",
        "run": f"runs/flow-run/{runs[0]['id']}",
        "artifacts": "artifacts",
        "commits": "artifacts/key/commit-orders",
        "commit": f"artifacts/artifact/{commit['id']}",
        "progress": f"artifacts/artifact/{progress['id']}",
        "blocks": "blocks",
        "deployments": "deployments",
    }


def chromium() -> str:
    """The browser; without one nothing is begun that would need it ten minutes later."""
    if found := shutil.which("chromium") or shutil.which("chromium-browser"):
        return found
    raise SystemExit("there is no chromium here; on Debian: sudo apt-get install chromium")


_HIDE_BROKEN = "for (const each of document.images) if (!each.naturalWidth) each.style.visibility = 'hidden'"
"""The logos of blocks lie on the internet, which the machine that takes the pictures may not reach."""


async def take(shots: dict[str, str], to: Path, folder: Path) -> None:
    """Pictures of pages, by chromium's DevTools protocol; each page has ten seconds until it stands still."""
    port, to = free_port(), to.absolute()
    to.mkdir(parents=True, exist_ok=True)
    browser = Daemon(
        [chromium(), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1440,1000",
         f"--user-data-dir={folder}", f"--remote-debugging-port={port}", "about:blank"], log=folder.with_suffix(".log"),
    )  # fmt: skip
    try:
        browser.wait_until(lambda: accepts_connections(port), 60)
        (page,) = [one for one in httpx.get(f"http://127.0.0.1:{port}/json").json() if one["type"] == "page"]
        async with connect(page["webSocketDebuggerUrl"], max_size=None) as devtools:

            async def said(number: int, method: str, **parameters: Any) -> Any:
                await devtools.send(json.dumps({"id": number, "method": method, "params": parameters}))
                while (answer := json.loads(await devtools.recv())).get("id") != number:
                    pass
                return answer["result"]

            for number, (name, url) in enumerate(shots.items()):
                await said(4 * number + 1, "Page.navigate", url=url)
                await asyncio.sleep(10)
                await said(4 * number + 2, "Runtime.evaluate", expression=_HIDE_BROKEN)
                shot = await said(4 * number + 3, "Page.captureScreenshot")
                (to / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))
    finally:
        browser.stop()


@contextmanager
def servers() -> Iterator[tuple[PostgresServer, MySQLServer, S3Server, str, TcpProxy]]:
    """The databases and the bucket of the shop, and the way to the first of them."""
    with ExitStack() as stack:
        database = stack.enter_context(postgres.started())
        shop = stack.enter_context(mysql.started("MariaDB"))
        lake = stack.enter_context(s3.started())

        async def made() -> tuple[PostgresServer, MySQLServer, str]:
            ours = await database.create_database(), await shop.create_database(), await lake.bucket()
            await fill(ours[0], ours[1])
            return ours

        ours, theirs, bucket = asyncio.run(made())
        yield ours, theirs, lake, bucket, stack.enter_context(TcpProxy(ours.host, ours.port))


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--screenshots", type=Path, metavar="FOLDER")
    words.add_argument("--venv", type=Path, metavar="FOLDER")
    words.add_argument("--keep", action="store_true", help="Let all of it run until Ctrl-C.")
    asked = words.parse_args()
    if asked.screenshots:
        chromium()
    with (
        tempfile.TemporaryDirectory(prefix="headrace-walk-") as scratch,
        servers() as (database, shop, lake, bucket, wire),
    ):
        folder = Path(scratch)
        subprocess.run(["git", "clone", "--quiet", ROOT, folder / "headrace"], check=True)
        clone = folder / "headrace"
        person = Person(clone, folder / "prefect", asked.venv.absolute() if asked.venv else clone / ".venv")
        person.home.mkdir()
        try:
            walk(person, configuration(database, wire.port, shop, lake, bucket, folder), database)
            if asked.screenshots:
                shots = {name: f"{person.ui}/{path}" for name, path in pages(person, wire).items()}
                asyncio.run(take(shots, asked.screenshots, folder / "chromium"))
            if asked.keep:
                say(f"{person.ui} — Ctrl-C ends all of it")
                while True:
                    time.sleep(1)
        except BaseException:
            person.show_terminals()
            raise
        finally:
            person.leave()


if __name__ == "__main__":
    main()
