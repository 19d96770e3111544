"""The layout log: the records of all tables in one sequence of objects, in the order of the log, with the row as JSON.

JSON, and not the ragged lines without names that AWS DMS writes with preserveTransactions: every record has the same
columns, whatever its table is and however that is altered, and every warehouse can load and take apart the row (SUPER,
VARIANT, JSON).
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator

from tasks import csv_records
from tasks.csv_records import field, quoted
from tasks.extractors.contract import CHANGE_COLUMNS, Column, Output, Records

_TEXT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False)

LOG = Output(
    name="",
    table="",
    columns=(
        *CHANGE_COLUMNS,
        Column(name="_table", type="text", nullable=False),
        Column(name="_row", type="json"),
    ),
)
"""``_row`` is an object of column names and texts, those that the field has in CSV: no digit of a number is lost. NULL is
null, a column that the log does not have is absent, and the row of a T is NULL."""


class LogLayout:
    """See the module."""

    def __init__(self, null: str) -> None:
        """``null``: what stands for NULL."""
        self._null = null

    def lane(self, output: Output) -> Hashable:
        return output

    def laid_out(self, output: Output, made: Records) -> list[tuple[Output, Records]]:
        lines = list(self._lines(output, made.data))
        if not lines and not made.counted:
            return []
        data = "".join(lines).encode()
        return [(LOG, Records(data=data, count=len(lines), absent=made.absent, counted=made.counted))]

    def _lines(self, output: Output, data: bytes) -> Iterator[str]:
        null, names = self._null, [column.name for column in output.columns[len(CHANGE_COLUMNS) :]]
        table = field(output.table, null)
        for op, at, position, unchanged, *values in csv_records.rows(data, null):
            head = ",".join((field(op, null), field(at, null), field(position, null), field(unchanged, null), table))
            if op == "T":
                yield f"{head},{null}\n"
                continue
            row = dict(zip(names, values, strict=True))
            for name in json.loads(unchanged or "[]"):
                del row[name]
            yield f"{head},{quoted(_TEXT.encode(row))}\n"
