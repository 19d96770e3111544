"""The layout dms: records as AWS DMS writes them into the files of an S3 target.

https://docs.aws.amazon.com/dms/latest/userguide/CHAP_Target.S3.html: a record of a change begins with ``I``, ``U`` (the
row after it) or ``D`` (the row before it), then the time of the commit where ``timestampColumnName`` is set, as
``yyyy-MM-dd HH:mm:ss.SSSSSS``, then the columns; a record of the full load has no operation but with
``includeOpForFullLoad``. What the files are called is the business of `tasks.publish`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable
from dataclasses import replace
from functools import lru_cache

from blocks.errors import ConfigurationError
from blocks.layout import DmsFiles
from tasks import csv_records
from tasks.csv_records import field, records
from tasks.extractors.contract import CHANGE_COLUMNS, Column, Output, Records

# The fields of CHANGE_COLUMNS; of these only the last is ever quoted.
_HEAD = re.compile(rb'([^,"\n]*+),([^,"\n]*+),([^,"\n]*+),("(?:[^"]++|"")*+"|[^,"\n]*+)(?:,|\Z)')

_TIME = re.compile(rb"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?:\.(\d+))?\+00")

EMPTIED = "emptied (TRUNCATE or DROP), which the files do not tell"
"""In what a commit counts: DMS writes no record of it either."""


class DmsOutput(Output):
    """Files of one table in one shape: of the full load, or of changes."""

    load: bool


class DmsLayout:
    """See the module."""

    def __init__(self, files: DmsFiles, null: str, *, begins: bool) -> None:
        """``null``: what stands for NULL. ``begins``: rows of a snapshot are the full load; later ones are insertions."""
        self._files, self._null, self._begins = files, null, begins
        self._absent = null.encode()
        self._outputs: dict[tuple[Output, bool], DmsOutput] = {}

    def lane(self, output: Output) -> Hashable:
        return output.name

    def laid_out(self, output: Output, made: Records) -> list[tuple[Output, Records]]:
        lines: dict[bool, list[bytes]] = {True: [], False: []}
        emptied = 0
        for record in records(made.data):
            head = _HEAD.match(record)
            if head is None:
                raise ValueError(f"no record of a change: {record[:80]!r}")
            op, at, _, unchanged = head.groups()
            if op == b"T":
                emptied += 1
                continue
            row = record[head.end() :]
            if op == b"U" and unchanged != self._absent:
                row = self._with_absent(output, row, unchanged)
            is_load = op == b"S" and self._begins
            lines[is_load].append(self._lead(b"I" if op == b"S" else op, at, is_load=is_load) + row + b"\n")
        counted = {**made.counted, **({EMPTIED: emptied} if emptied else {})}
        parts = [(is_load, Records(data=b"".join(found), count=len(found), absent=made.absent))
                 for is_load, found in lines.items() if found]  # fmt: skip
        if not parts and (counted or self._begins):
            # A table without rows has an empty file in the full load; what was counted has to stand somewhere.
            parts = [(self._begins and not emptied, Records(data=b"", count=0))]
        if counted and parts:
            parts[-1] = (parts[-1][0], replace(parts[-1][1], counted=counted))
        return [(self._output(output, is_load=is_load), each) for is_load, each in parts]

    def _lead(self, op: bytes, at: bytes, *, is_load: bool) -> bytes:
        has_op = self._files.include_op_for_full_load or not is_load
        lead = op + b"," if has_op else b""
        return lead + _dms_time(at) + b"," if self._files.timestamp_column_name else lead

    def _output(self, output: Output, *, is_load: bool) -> DmsOutput:
        known = self._outputs.get((output, is_load))
        return known or self._outputs.setdefault((output, is_load), self._made(output, is_load=is_load))

    def _made(self, output: Output, *, is_load: bool) -> DmsOutput:
        lead = []
        if self._files.include_op_for_full_load or not is_load:
            lead.append(Column(name="Op", type="text", nullable=False))
        if self._files.timestamp_column_name:
            lead.append(Column(name=self._files.timestamp_column_name, type="text"))
        columns = (*lead, *output.columns[len(CHANGE_COLUMNS) :])
        name = f"{output.name}/{'load' if is_load else 'changes'}"
        return DmsOutput(name=name, table=output.table, columns=columns, load=is_load)

    def _with_absent(self, output: Output, row: bytes, unchanged: bytes) -> bytes:
        (names,) = next(csv_records.rows(unchanged + b"\n", self._null))
        absent = set(json.loads(names or "[]"))
        if not self._files.csv_no_sup_value:
            raise ConfigurationError(
                f"{output.table}: the log does not have all columns of an update ({', '.join(sorted(absent))}), and a file of "
                "DMS cannot tell that from NULL. Have the source log whole rows (MySQL: binlog_row_image=FULL), set field "
                "dms.csv_no_sup_value of the destination to a text that stands for them, or use layout tables"
            )
        columns = output.columns[len(CHANGE_COLUMNS) :]
        values = next(csv_records.rows(row + b"\n", self._null))
        marker = self._files.csv_no_sup_value
        return ",".join(
            marker if column.name in absent else field(value, self._null)
            for column, value in zip(columns, values, strict=True)
        ).encode()


@lru_cache(maxsize=1024)
def _dms_time(at: bytes) -> bytes:
    """``2026-01-31 12:00:00+00`` → ``2026-01-31 12:00:00.000000``; what is no time stays as it is."""
    found = _TIME.fullmatch(at)
    return found[1] + b"." + (found[2] or b"")[:6].ljust(6, b"0") if found else at
