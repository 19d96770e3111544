"""Layouts lose no value: what a record holds is in the line that is made of it, whatever the dialect is."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.layout import DmsFiles
from tasks.csv_records import field, rows
from tasks.extractors.contract import CHANGE_COLUMNS, Column, Output, Records
from tasks.layouts import TablesLayout, laid_out
from tasks.layouts.dms import DmsLayout, DmsOutput
from tasks.layouts.log import LOG, LogLayout

NAMES = ("a", 'b,"', "c\n")
ORDERS = Output(
    name="shop.orders", table="shop.orders", columns=(*CHANGE_COLUMNS, *(Column(name=n, type="t") for n in NAMES))
)
VALUES = st.tuples(*[st.none() | st.text(st.sampled_from('a,"\n\r\\N ü{}'), max_size=4)] * 3)
RECORDS = st.lists(st.tuples(st.sampled_from("SIUD"), VALUES), min_size=1, max_size=6)
NULLS = st.sampled_from(["", "\\N", "NULL", "a"])
AT = "2026-01-31 12:00:00.25+00"


def record(op: str, number: int, unchanged: str | None, values: tuple[str | None, ...], null: str) -> str:
    """A record as extractors write it."""
    fields = [op, AT, f"{number:05d}", field(unchanged, null), *(field(value, null) for value in values)]
    return ",".join(fields) + "\n"


def records(wanted: list[tuple[str, tuple[str | None, ...]]], null: str) -> Records:
    text = "".join(record(op, number, None, values, null) for number, (op, values) in enumerate(wanted))
    return Records(data=text.encode(), count=len(wanted))


@given(RECORDS, NULLS)
def test_a_log_has_the_values(wanted: list[tuple[str, tuple[str | None, ...]]], null: str) -> None:
    """As texts by the names of the columns, NULL as null."""
    ((output, made),) = LogLayout(null).laid_out(ORDERS, records(wanted, null))
    assert (output, made.count) == (LOG, len(wanted))
    found = list(rows(made.data, null))
    assert [(row[0], row[4]) for row in found] == [(op, "shop.orders") for op, _ in wanted]
    assert [json.loads(row[5] or "") for row in found] == [
        dict(zip(NAMES, values, strict=True)) for _, values in wanted
    ]


@pytest.mark.parametrize("time", ["", "ts"])
@pytest.mark.parametrize("begins", [True, False])
@given(wanted=RECORDS, null=NULLS)
def test_files_of_dms_have_the_values(
    wanted: list[tuple[str, tuple[str | None, ...]]], null: str, time: str, begins: bool
) -> None:
    """Rows of a snapshot are the full load of a stream that begins, and insertions later on."""
    layout = DmsLayout(DmsFiles(timestamp_column_name=time), null, begins=begins)
    lead = ["2026-01-31 12:00:00.250000"] if time else []
    expected: dict[bool, list[list[str | None]]] = {True: [], False: []}
    for op, values in wanted:
        is_load = begins and op == "S"
        expected[is_load].append([*([] if is_load else ["I" if op == "S" else op]), *lead, *values])
    found: dict[bool, list[list[str | None]]] = {True: [], False: []}
    for output, made in layout.laid_out(ORDERS, records(wanted, null)):
        assert isinstance(output, DmsOutput)
        found[output.load] = list(rows(made.data, null))
        assert made.count == len(found[output.load])
        assert all(len(row) == len(output.columns) for row in found[output.load])
    assert found == expected


def test_columns_that_the_log_lacks() -> None:
    """They are absent in a log; in files of DMS they are NULL in deletions, and what is said in updates."""
    values = (None, "1", None)
    text = "".join(record(op, 1, '["a","c\\n"]', values, "") for op in "UD")
    made = Records(data=text.encode(), count=2, absent=frozenset({"a", "c\n"}))
    ((_, logged),) = LogLayout("").laid_out(ORDERS, made)
    assert [json.loads(row[5] or "") for row in rows(logged.data, "")] == [{'b,"': "1"}] * 2
    assert logged.absent == made.absent
    ((_, filed),) = DmsLayout(DmsFiles(csv_no_sup_value="?"), "", begins=False).laid_out(ORDERS, made)
    assert filed.data == b"U,?,1,?\nD,,1,\n"


@pytest.mark.parametrize("layout", [TablesLayout(), LogLayout(""), DmsLayout(DmsFiles(), "", begins=True)])
async def test_much_is_laid_out_as_little_is(layout: TablesLayout | LogLayout | DmsLayout) -> None:
    """Large chunks go through a thread, and become what small ones become."""
    wanted: list[tuple[str, tuple[str | None, ...]]] = [("S", (str(n), None, 'a,"\n')) for n in range(5_000)]
    (large,) = await laid_out(layout, ORDERS, records(wanted, ""))
    lines = [record(op, number, None, values, "") for number, (op, values) in enumerate(wanted)]
    small = [layout.laid_out(ORDERS, Records(data=line.encode(), count=1))[0] for line in lines]
    assert large[1].data == b"".join(made.data for _, made in small)
    assert {output for output, _ in small} == {large[0]}
