"""A run's memory does not grow with the table: more is extracted than the process may hold."""

from __future__ import annotations

import asyncio
import json
import os
import sys

from tests.flows.shops import Shop
from tests.servers.support import say

SOAK = bool(os.environ.get("HEADRACE_SOAK"))
MIB = 1 << 20
TABLE_BYTES = (4096 if SOAK else 640) * MIB
LIMIT_BYTES = 512 * MIB

# Rows too short to be compressed: the table is as large as its CSV.
FILL = """
    CREATE TABLE large (id bigint PRIMARY KEY, payload text NOT NULL);
    INSERT INTO large SELECT i, repeat(md5(i::text), 32) FROM generate_series(1, {rows}) i;
    ANALYZE large;
"""


async def test_a_table_larger_than_the_memory_is_extracted(shop: Shop) -> None:
    """With less memory to its name than the table has bytes, a run in several partitions commits all of it."""
    rows = TABLE_BYTES // 1024
    await shop.execute(FILL.format(rows=rows))
    parameters = await shop.save(shop.destination(part_size_mb=8, object_size_mb=128))
    parameters["source"]["table"] = "public.large"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.flows.one_run", json.dumps(parameters), str(LIMIT_BYTES),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=os.environ | {"PREFECT_LOGGING_LEVEL": "ERROR"},
    )  # fmt: skip
    said, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    told = json.loads(said.splitlines()[-1])
    (commit,) = await shop.commits()
    assert commit.rows == told["rows"] == rows
    assert len(commit.entries) >= 4
    assert sum(entry.meta.content_length for entry in commit.entries) > TABLE_BYTES > LIMIT_BYTES
    peak = told["peak"]
    say(f"\n{commit.bytes / MIB:,.0f} MiB of CSV, peak memory {peak / MIB:,.0f} MiB")
    assert peak < LIMIT_BYTES
