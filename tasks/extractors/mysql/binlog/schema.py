"""What the followed tables look like at each point of the log: a decoder for each shape of each table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from blocks.errors import ConfigurationError
from blocks.s3 import CsvDialect
from tasks.extractors.contract import Output, Records, table_output
from tasks.extractors.mysql.binlog.columns import log_columns
from tasks.extractors.mysql.binlog.decoder import Decoder, Head
from tasks.extractors.mysql.binlog.events import Event, GarbledLogError
from tasks.extractors.mysql.binlog.statements import Table
from tasks.extractors.mysql.binlog.table_map import TableMap
from tasks.extractors.mysql.binlog.tables import Tables
from tasks.extractors.mysql.binlog.transactions import Statement
from tasks.extractors.mysql.describe import Relation, ZeroDates
from tasks.extractors.mysql.sql import Flavour

_WRITES = frozenset({23, 30, 166, 169})
"""Rows events of INSERT."""


@dataclass(frozen=True)
class _Shape:
    table: Table
    output: Output
    decoder: Decoder


@dataclass(frozen=True)
class Dialects:
    """How values are written."""

    csv: CsvDialect
    zero_dates: ZeroDates
    flavour: Flavour


class Shapes:
    """Learns from table maps which table has which number, and how its rows are decoded."""

    def __init__(self, tables: Tables, relations: Mapping[Table, Relation], dialects: Dialects) -> None:
        """``relations``: the followed tables as they are now, for what the log leaves out."""
        self._tables, self._relations, self._dialects = tables, relations, dialects
        self._shapes: dict[bytes, _Shape | None] = {}
        """By the body of the table map, which is the same for as long as a table is the same."""
        self._by_number: dict[bytes, _Shape | None] = {}
        self._last: dict[Table, Output] = {}
        self._told: set[Table] = set()
        self.dropped: set[Table] = set()
        """Tables that have had no rows since they were dropped."""

    @property
    def known(self) -> list[Table]:
        """Followed tables that there are, or that had rows in the log."""
        return sorted({*self._relations, *self._last, *self._told} - self.dropped)

    def remember(self, tables: Iterable[Table]) -> None:
        """Tables that there were before what is read, and may not be there now."""
        self._told.update(table for table in tables if table in self._tables)

    def recall(self, bodies: Iterable[bytes], gone: Iterable[Table]) -> None:
        """What table maps before say of tables that were not seen since, and which were dropped."""
        for body in bodies:
            shape = self._shape(body)
            if shape is not None and shape.table not in self.dropped:
                self._last.setdefault(shape.table, shape.output)
        self.dropped.update(table for table in gone if table not in self._last)

    def table_of(self, body: bytes) -> Table:
        """That of a table map."""
        table_map = TableMap.parse(body, self._dialects.flavour)
        return table_map.schema, table_map.table

    def forget(self) -> None:
        """The server gives numbers anew."""
        self._by_number.clear()

    def learn(self, event: Event) -> None:
        """Take in a table map."""
        body = event.body
        if body not in self._shapes:
            self._shapes[body] = self._shape(body)
        shape = self._by_number[body[:6]] = self._shapes[body]
        if shape is not None:
            self._last[shape.table] = shape.output
            self.dropped.discard(shape.table)

    def _shape(self, body: bytes) -> _Shape | None:
        table_map = TableMap.parse(body, self._dialects.flavour)
        table = (table_map.schema, table_map.table)
        if table not in self._tables:
            return None
        columns = log_columns(table_map, self._relations.get(table))
        written = [column for column in columns if not (column.generated and self._dialects.flavour == "MariaDB")]
        names = [column.name for column in written]
        decoder = Decoder(table_map, columns, self._dialects.csv, self._dialects.zero_dates, names=names)
        return _Shape(table, table_output(".".join(table), tuple(column.column for column in written)), decoder)

    def records(self, event: Event, committed_at: str, position: str) -> tuple[Output, Records] | None:
        """The records of a rows event; None where its table is not followed."""
        try:
            shape = self._by_number[event.body[:6]]
        except KeyError:
            raise GarbledLogError(
                "rows of a table that was not told: the position is in the middle of a transaction"
            ) from None
        if shape is None:
            return None
        made = shape.decoder.records(event.kind, event.body, Head(committed_at, position))
        if made.absent and event.kind in _WRITES:
            raise ConfigurationError(
                f"{shape.output.table}: the log leaves out what an INSERT did not name ({', '.join(sorted(made.absent))}), which "
                "is not NULL but a default. SET GLOBAL binlog_row_image = 'FULL' (or 'NOBLOB'), and start from a new snapshot"
            )
        return shape.output, made

    def last_output(self, table: Table) -> Output:
        """What the table's last rows went to; of one without, all that is known is that it is one."""
        if table in self._last:
            return self._last[table]
        relation = self._relations.get(table)
        return table_output(".".join(table), tuple(field.column for field in relation.fields) if relation else ())

    def refuse_if_followed(self, statement: Statement) -> None:
        """A write that stands in the log as a statement cannot be told in rows."""
        for schema, name in self.known:
            named = re.search(rf"(?<![\w$]){re.escape(name)}(?![\w$])", statement.text)
            if named and (schema == statement.query.schema or schema in statement.text):
                raise ConfigurationError(
                    f"the log has a write of {schema}.{name} as a statement, not as rows: {statement.text[:80]} … Some "
                    "session runs with binlog_format STATEMENT or MIXED. Set it to ROW, and start from a new snapshot"
                )
