"""The project's own sample of PostgreSQL's WAL through Kafka, by the commands a person types."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

from blocks.kafka_connect import KafkaConnect
from flows.cli import app
from tests.flows.cdc import DebeziumShop
from tests.servers.postgres import connected
from tests.tasks.extractors.kafka import block_of

ROOT = Path(__file__).parent.parent.parent


async def test_the_sample_of_the_wal_runs(cdc_shop: DebeziumShop, tmp_path: Path) -> None:
    """Enable, status, check, run and follow; a kill of Connect is seen and mended; disable leaves nothing at the database."""
    shop = cdc_shop
    await shop.destination().asave(shop.name, overwrite=True)
    await block_of(shop.kafka).asave(shop.name, overwrite=True)
    await shop.block().asave(shop.name, overwrite=True)
    await KafkaConnect(url=shop.connect.url).asave(shop.name, overwrite=True)
    password = shop.connect.secret(shop.name, shop.server.password)
    content = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    entries = [entry for entry in content["deployments"] if entry["name"].startswith("shop-wal")]
    assert len(entries) == 2
    for entry in entries:
        entry["parameters"] |= {"stream": shop.name, "to": f"s3-destination/{shop.name}"}
        source: dict[str, Any] = dict(entry["parameters"]["source"])
        capture = {"connect": f"kafka-connect/{shop.name}", "database": f"postgres/{shop.name}", "password": password}
        source |= {"connection": f"kafka/{shop.name}", "topics": [f"{shop.name}.public.*"], "capture": capture}
        entry["parameters"]["source"] = source | {"debezium": {"tables": ["public.orders", "public.items"]}}
    file = tmp_path / "prefect.yaml"
    file.write_text(yaml.safe_dump({"deployments": entries}))

    async def told(*words: str) -> Any:
        return await asyncio.to_thread(CliRunner().invoke, app, [*words, "--file", str(file)])

    await shop.execute("INSERT INTO orders (id, counter) VALUES (1, 1)", "INSERT INTO items VALUES (1, 1, 1)")
    try:
        enabled = await told("cdc", "enable", "shop-wal")
        assert (enabled.exit_code, f"connector {shop.name}: created" in enabled.output) == (0, True), enabled.output
        tables = (f"{shop.name}.public.{name}" for name in ("orders", "items"))
        await asyncio.to_thread(shop.kafka.wait_for_topics, *tables)
        checked = await told("check", "shop-wal")
        assert checked.exit_code == 0, checked.output
        assert "wal_level is logical" in checked.output
        ran = await told("run", "shop-wal")
        assert (ran.exit_code, f"_commits/{1:020d}.json" in ran.output) == (0, True), ran.output
        await shop.execute("UPDATE orders SET counter = 2", "DELETE FROM items")
        planned = await told("plan", "shop-wal")
        topic = rf"{shop.name}\.public\.\w+"
        assert re.search(rf"^window +{topic}:\d+, {topic}:\d+ → {topic}:\d+", planned.output, re.MULTILINE), (
            planned.output
        )
        followed = await told("run", "shop-wal-follow", "-p", "every=0.5", "-p", "stop_after=20")
        assert (followed.exit_code, "2 rows in" in followed.output) == (0, True), followed.output
        status = await told("cdc", "status", "shop-wal")
        assert (status.exit_code, "RUNNING, tasks: RUNNING" in status.output) == (0, True), status.output
        doctored = await told("doctor")
        assert f"✓ connector {shop.name}: RUNNING, tasks: RUNNING" in doctored.output, doctored.output
        assert re.search(r"✓ capture: slot \w+: read, .* MB of WAL retained", doctored.output), doctored.output
        for output in (doctored.output, enabled.output, checked.output, ran.output, status.output):
            assert "Traceback" not in output
    finally:
        disabled = await told("cdc", "disable", "shop-wal")
    assert (disabled.exit_code, disabled.output.count("removed")) == (0, 3), disabled.output
    async with connected(shop.server) as connection:
        assert (
            await connection.fetchval("SELECT count(*) FROM pg_replication_slots WHERE database = current_database()")
            == 0
        )
    changes = await shop.changes()
    assert {name: [row["_op"] for row in rows] for name, rows in changes.items()} == {
        "orders": ["S", "U"],
        "items": ["S", "D"],
    }
