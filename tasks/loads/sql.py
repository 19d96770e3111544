"""The statements that bring one table of a commit into a warehouse: what all warehouses have in common.

Objects are copied into a stage of text columns first, so that no loader's own reading of a value counts; from there every
value is cast to its column's type. Rows replace others by DELETE and INSERT in one transaction, which every warehouse has.
What a warehouse does otherwise is in `tasks.loads.warehouses`.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import ClassVar

from tasks.commits import Commit
from tasks.extractors.contract import Column
from tasks.loads.targets import Naming, Shape, Target, begins
from tasks.loads.types import Kind, Name, kind_of

BOOKS = "headrace_loads"
"""The table that tells which commits were loaded. A commit's rows and its line in here come in one transaction."""
BOOKED_ID = "commit_id"
"""Its column that tells a commit from that of another lake with the same number."""

_RANK = "_headrace_rank"


class Warehouse(ABC):
    """Writes SQL for one kind of warehouse."""

    quote: ClassVar[str] = '"'
    text: ClassVar[str]
    types: ClassVar[Mapping[Name, str]]
    """How a kind of value is called; what is not in here is text."""
    decimals: ClassVar[int] = 38
    """The most digits a decimal can have."""
    transactional_ddl: ClassVar[bool] = True
    """Whether tables can be made and altered within a transaction."""
    begin: ClassVar[str] = "BEGIN"
    commit: ClassVar[str] = "COMMIT"

    def __init__(self, naming: Naming = Naming()) -> None:  # noqa: B008 - a frozen value
        self.naming = naming

    # -- names and values ------------------------------------------------------------------------------------------

    def identifier(self, name: str) -> str:
        return self.quote + name.replace(self.quote, self.quote * 2) + self.quote

    def qualified(self, name: str) -> str:
        """A table of the schema that tables are loaded into."""
        schema = [self.identifier(part) for part in self.naming.schema.split(".") if part]
        return ".".join([*schema, self.identifier(name)])

    def literal(self, value: str) -> str:
        return "'" + value.replace("'", "''") + "'"

    def type_of(self, column: Column) -> str:
        """The type in this warehouse that holds every value of the column's type."""
        kind = kind_of(column.type)
        if kind.name == "decimal":
            return self.decimal(kind) if kind.precision <= self.decimals else self.types.get("number", self.text)
        return self.types.get(kind.name, self.text)

    def decimal(self, kind: Kind) -> str:
        return f"DECIMAL({kind.precision}, {kind.scale})"

    def cast(self, expression: str, column: Column, binary: str, to: str = "") -> str:
        """The value of a staged text. ``to``: the type the table has, where that is known."""
        kind = kind_of(column.type).name
        if kind == "bytes" and to in ("", self.types.get("bytes")):
            return self.bytes_of(expression, binary)
        if kind == "json" and to in ("", self.types.get("json")):
            return self.json_of(expression)
        wanted = to or self.type_of(column)
        # A cast to a shorter text would cut it; left as it is, a text that does not fit is an error.
        is_text = wanted.lower().startswith(("text", "string", "varchar", "char"))
        return expression if is_text else f"CAST({expression} AS {wanted})"

    @abstractmethod
    def bytes_of(self, expression: str, binary: str) -> str:
        """The bytes of a text in ``hex`` or ``base64``."""

    def json_of(self, expression: str) -> str:
        return f"CAST({expression} AS {self.types['json']})"

    def holds(self, expression: str, needle: str) -> str:
        """Whether a text holds another."""
        return f"STRPOS({expression}, {self.literal(needle)}) > 0"

    def position(self, expression: str) -> str:
        """A position as something that is compared byte by byte."""
        return expression

    # -- tables ----------------------------------------------------------------------------------------------------

    def books(self) -> str:
        """Makes the table that tells what is loaded."""
        columns = f"stream {self.text}, sequence {self.types['integer']}, loaded_at {self.types['timestamptz']}"
        return f"CREATE TABLE IF NOT EXISTS {self.qualified(BOOKS)} ({columns}, {BOOKED_ID} {self.text})"

    def add_booked_id(self) -> str:
        """For books that a version without it has made."""
        return f"ALTER TABLE {self.qualified(BOOKS)} ADD COLUMN {BOOKED_ID} {self.text}"

    def create(self, target: Target) -> str:
        """Makes the target, unless it is there (with types of its own, maybe)."""
        columns = [f"{self.identifier(column.name)} {self.type_of(column)}" for column in target.columns]
        lines = ",\n  ".join([*columns, *self.constraints(target)])
        return f"CREATE TABLE IF NOT EXISTS {self.qualified(target.name)} (\n  {lines}\n)"

    def constraints(self, target: Target) -> list[str]:
        del target
        return []

    def add_columns(self, target: Target, columns: Iterable[Column]) -> list[str]:
        """Adds the columns that the target does not have."""
        added = [f"ADD COLUMN IF NOT EXISTS {self.identifier(each.name)} {self.type_of(each)}" for each in columns]
        return [f"ALTER TABLE {self.qualified(target.name)}\n  " + ",\n  ".join(added)] if added else []

    def create_stage(self, target: Target, stage: str) -> str:
        columns = ", ".join(f"{self.identifier(name)} {self.text}" for name in target.staged)
        return f"CREATE TEMPORARY TABLE {stage} ({columns})"

    @abstractmethod
    def fill(self, shape: Shape, stage: str, commit: Commit) -> list[str]:
        """Copy a shape's objects into the stage."""

    # -- rows ------------------------------------------------------------------------------------------------------

    def prepare(self, target: Target, stage: str, commit: Commit, types: Mapping[str, str] | None = None) -> list[str]:
        """Statements that change nothing but temporary tables: the newest row of each key, behind the stage."""
        if target.action not in ("merge", "apply"):
            return []
        return [f"CREATE TEMPORARY TABLE {_newest(stage)} AS\n{self._newest(target, stage, commit, types or {})}"]

    def apply(
        self, target: Target, stage: str, commit: Commit, due: str = "", types: Mapping[str, str] | None = None
    ) -> list[str]:
        """Statements that change the target, all of them in one transaction; none where the condition ``due`` is false."""
        name, also = self.qualified(target.name), f" AND {due}" if due else ""
        statements = []
        if target.action == "replace":
            statements.append(f"DELETE FROM {name} WHERE {due or 'TRUE'}")
        if target.action == "apply":
            emptying = "'T', 'S'" if target.begins else "'T'"
            operation = self.identifier("_op")
            emptied = f"EXISTS (SELECT 1 FROM {stage} WHERE {operation} IN ({emptying}))"
            statements.append(f"DELETE FROM {name} WHERE {emptied}{also}")
        if target.action in ("merge", "apply"):
            same = " AND ".join(f"n.{key} = t.{key}" for key in map(self.identifier, target.keys))
            found = f"EXISTS (SELECT 1 FROM {_newest(stage)} n WHERE {same})"
            statements.append(f"DELETE FROM {name} {self.alias('t')} WHERE {found}{also}")
        statements.append(self._insert(target, stage, commit, due, types or {}))
        return statements

    def alias(self, name: str) -> str:
        """How DELETE names its table."""
        return f"AS {name}"

    def _insert(self, target: Target, stage: str, commit: Commit, due: str, types: Mapping[str, str]) -> str:
        columns = ", ".join(self.identifier(column.name) for column in target.columns)
        conditions = [due] if due else []
        if target.action in ("merge", "apply"):
            values, origin = columns, _newest(stage)
            if target.action == "apply":
                conditions.insert(0, f"{self.identifier('_op')} <> 'D'")
        else:
            cast = [self._cast(column, "s", commit, types) for column in target.columns]
            values, origin = ",\n  ".join(cast), f"{stage} s"
        where = f"\nWHERE {' AND '.join(conditions)}" if conditions else ""
        return f"INSERT INTO {self.qualified(target.name)} ({columns})\nSELECT {values}\nFROM {origin}{where}"

    def _cast(self, column: Column, alias: str, commit: Commit, types: Mapping[str, str]) -> str:
        return self.cast(
            f"{alias}.{self.identifier(column.name)}", column, commit.csv.binary, types.get(column.name, "")
        )

    def _newest(self, target: Target, stage: str, commit: Commit, types: Mapping[str, str]) -> str:
        """The query for the row that stands at last for each key, D included; a former value where a column is unchanged."""
        keys = ", ".join(f"s.{self.identifier(key)}" for key in target.keys)
        order = self._order(target, commit)
        inner = ["s.*"]
        if order:
            inner.append(f"ROW_NUMBER() OVER (PARTITION BY {keys} ORDER BY {order} DESC) AS {_RANK}")
        for number, name in enumerate(target.unchanged):
            missing = self._missing(name)
            whole = "ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING"
            inner.append(
                f"FIRST_VALUE(s.{self.identifier(name)}) OVER (PARTITION BY {keys} ORDER BY {missing}, {order} DESC {whole})"
                f" AS _headrace_known_{number}"
            )
            inner.append(f"MIN({missing}) OVER (PARTITION BY {keys}) AS _headrace_unknown_{number}")
        values = [self._value(column, target, commit, types) for column in target.columns]
        if target.action == "apply":
            values.append(f"r.{self.identifier('_op')}")
        lines = ",\n    ".join(inner)
        since = self._since(stage) if target.action == "apply" else ""
        query = f"SELECT {', '.join(values)}\nFROM (\n  SELECT\n    {lines}\n  FROM {stage} s{since}\n) r"
        if target.unchanged:
            same = " AND ".join(
                f"o.{self.identifier(column.name)} = {self._cast(column, 'r', commit, types)}"
                for column in target.columns
                if column.name in target.keys
            )
            query += f"\nLEFT JOIN {self.qualified(target.name)} o ON {same}"
        return query + (f"\nWHERE r.{_RANK} = 1" if order else "")

    def _order(self, target: Target, commit: Commit) -> str:
        if target.action == "apply":
            return self.position(f"s.{self.identifier('_position')}")
        column = next((column for column in target.columns if column.name == target.order), None)
        return self._cast(column, "s", commit, {}) if column else ""

    def _missing(self, name: str) -> str:
        """1 where the log does not have this column of a record."""
        listed = self.holds(f"s.{self.identifier('_unchanged')}", json.dumps(name, ensure_ascii=False))
        return f"CASE WHEN {listed} THEN 1 ELSE 0 END"

    def _value(self, column: Column, target: Target, commit: Commit, types: Mapping[str, str]) -> str:
        name = self.identifier(column.name)
        if column.name not in target.unchanged:
            return f"{self._cast(column, 'r', commit, types)} AS {name}"
        number = target.unchanged.index(column.name)
        known = self.cast(f"r._headrace_known_{number}", column, commit.csv.binary, types.get(column.name, ""))
        return f"CASE WHEN r._headrace_unknown_{number} = 1 THEN o.{name} ELSE {known} END AS {name}"

    def _since(self, stage: str) -> str:
        """Leaves out what the table's last emptying has undone, and the emptying itself."""
        operation, place = self.identifier("_op"), self.identifier("_position")
        last = f"SELECT MAX({self.position(place)}) FROM {stage} WHERE {operation} = 'T'"
        return f"\n  WHERE s.{operation} <> 'T' AND {self.position(f's.{place}')} > COALESCE(({last}), '')"

    def duplicates(self, target: Target, stage: str) -> str:
        """A query for a key that comes twice where nothing tells which row is the newer one; empty: there is no need."""
        if target.action != "merge" or target.order:
            return ""
        keys = ", ".join(self.identifier(key) for key in target.keys)
        return f"SELECT {keys} FROM {stage} GROUP BY {keys} HAVING COUNT(*) > 1 LIMIT 1"

    def moved(self, target: Target, stage: str) -> str:
        """A query for a row that came to its key from another, and whose record lacks columns; empty: there can be none.

        Their values are those of the former key's row, which nothing here follows.
        """
        if not target.unchanged:
            return ""
        operation, unchanged = self.identifier("_op"), self.identifier("_unchanged")
        found = f"{operation} = 'I' AND {unchanged} IS NOT NULL"
        return f"SELECT {self.identifier('_position')} FROM {stage} WHERE {found} LIMIT 1"

    # -- what is loaded --------------------------------------------------------------------------------------------

    def loaded(self, stream: str) -> str:
        """A query for the number of the last commit that was loaded; NULL: none was."""
        return f"SELECT MAX(sequence) AS loaded FROM {self.qualified(BOOKS)} WHERE stream = {self.literal(stream)}"

    def due(self, commit: Commit) -> str:
        """The condition under which a commit is the next to be loaded: a second time it is not, nor behind a gap."""
        before = "<" if begins(commit) else "= -1 +"
        return f"COALESCE(({self.loaded(commit.stream)}), 0) {before} {commit.sequence}"

    def booked_id(self, stream: str, sequence: int) -> str:
        """A query for the id of a commit that was loaded; NULL: it was noted by hand, or by a script."""
        which = f"stream = {self.literal(stream)} AND sequence = {sequence}"
        return f"SELECT MAX({BOOKED_ID}) FROM {self.qualified(BOOKS)} WHERE {which}"

    def book(self, commit: Commit, due: str = "", *, with_id: bool = False) -> str:
        """Notes that a commit is loaded. ``with_id``: the books are known to have a column for it."""
        now = self.literal(datetime.now(UTC).isoformat(" ", "seconds"))
        values = f"{self.literal(commit.stream)}, {commit.sequence}, CAST({now} AS {self.types['timestamptz']})"
        names = "stream, sequence, loaded_at"
        if with_id:
            names, values = f"{names}, {BOOKED_ID}", f"{values}, {self.literal(commit.id)}"
        return f"INSERT INTO {self.qualified(BOOKS)} ({names})\nSELECT {values}" + (f" WHERE {due}" if due else "")


def drop(stage: str, target: Target) -> list[str]:
    """Removes the temporary tables."""
    names: Sequence[str] = [stage, _newest(stage)] if target.action in ("merge", "apply") else [stage]
    return [f"DROP TABLE IF EXISTS {name}" for name in names]


def _newest(stage: str) -> str:
    return f"{stage}_newest"
