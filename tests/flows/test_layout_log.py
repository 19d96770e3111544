"""Layout log: the records of all tables in one sequence, in the order of the log, with rows that lose nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.flows.changes import ChangesShop
from tests.flows.layouts import COLUMNS, in_database, log_records, log_tables
from tests.flows.test_layout_dms import ADD, change, fill


@pytest.fixture
def log_shop(changes_shop: ChangesShop) -> ChangesShop:
    """The stream of changes, into a destination of layout log."""
    changes_shop.options["layout"] = "log"
    return changes_shop


@pytest.mark.parametrize("null", ["", "\\N", "NULL"])
async def test_one_sequence_makes_all_tables(log_shop: ChangesShop, tmp_path: Path, null: str) -> None:
    """Read line by line, object by object, and never sorted, the records make both tables, whatever stands for NULL."""
    log_shop.options["csv"] = {"null": null}
    await fill(log_shop)
    await log_shop.capture()
    for first in (100, 200):
        await change(log_shop, first)
        await log_shop.capture()
    records = await log_records(log_shop, tmp_path, nullstr=null)
    assert log_tables(records) == {table: await in_database(log_shop, table) for table in COLUMNS}
    positions = [record["_position"] for record in records if record["_op"] != "S"]
    assert positions == sorted(positions)
    assert len(set(positions)) == len(positions)
    assert [len(commit.entries) for commit in (await log_shop.commits())[1:]] == [1, 1]


async def test_records_of_a_transaction_stay_together(log_shop: ChangesShop, tmp_path: Path) -> None:
    """Statements on two tables in turn come in turn, as they do in the log."""
    await log_shop.capture()
    await log_shop.execute(
        "START TRANSACTION", ADD.format(1), "INSERT INTO items VALUES (1, 1, 1)", ADD.format(2),
        "INSERT INTO items VALUES (2, 1, 1)", "UPDATE orders SET counter = 2 WHERE id = 1", "COMMIT",
    )  # fmt: skip
    await log_shop.capture()
    told = [
        (r["_op"], r["_table"].split(".")[1], next(iter(r["_row"].values())))
        for r in await log_records(log_shop, tmp_path)
    ]
    assert told == [
        ("I", "orders", "1"),
        ("I", "items", "1"),
        ("I", "orders", "2"),
        ("I", "items", "2"),
        ("U", "orders", "1"),
    ]


async def test_rows_of_any_shape(log_shop: ChangesShop, tmp_path: Path) -> None:
    """A table that is altered goes on in the same object; what is emptied has no row; what the log lacks is absent."""
    await log_shop.execute(ADD.format(1))
    await log_shop.capture()
    await log_shop.execute(
        "ALTER TABLE orders ADD COLUMN more DECIMAL(30,10)",
        "INSERT INTO orders (id, counter, more) VALUES (2, 1, 12345678901234567890.1234567890)",
        "TRUNCATE TABLE orders",
        "INSERT INTO orders (id, counter, note) VALUES (3, 1, 'kept')",
        "SET SESSION binlog_row_image = 'MINIMAL'",
        "UPDATE orders SET counter = 2, note = NULL WHERE id = 3",
    )
    await log_shop.capture()
    (entry,) = (await log_shop.commits())[-1].entries
    _, added, emptied, _, updated = await log_records(log_shop, tmp_path)
    assert added["_row"]["more"] == "12345678901234567890.1234567890"
    assert (emptied["_op"], emptied["_row"]) == ("T", None)
    assert (updated["_row"], updated["_unchanged"]) == ({"id": "3", "counter": "2", "note": None}, '["at","more"]')
    assert entry.unchanged == ("at", "more")
