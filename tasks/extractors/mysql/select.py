"""The SELECTs that are sent: of a partition, of the highest cursor value, of what is there at all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from blocks.errors import ConfigurationError
from blocks.mysql import MySQL
from blocks.s3 import CsvDialect
from tasks.extractors.contract import Partition, Plan
from tasks.extractors.mysql import literals
from tasks.extractors.mysql.describe import (
    BINARIES,
    DATES,
    INTEGERS,
    STRINGS,
    Field,
    Relation,
    Writing,
    ZeroDates,
    query,
    table,
)
from tasks.extractors.mysql.session import Session
from tasks.extractors.source import ZonedWindow

CURSORS = INTEGERS | STRINGS | BINARIES | DATES | {"decimal", "year", "uuid"} - {"vector"}
"""Types that a window or a partition can be bounded by: their text says which value it is, and they sort as they compare."""

# What stands for "no bound" in a query with {since} and {until}.
_ENDS: dict[str, tuple[str, str | None]] = {
    **dict.fromkeys(INTEGERS | {"decimal"}, ("-1e65", "1e65")),
    **dict.fromkeys(DATES, ("0000-00-00 00:00:00", "9999-12-31 23:59:59.999999")),
    **dict.fromkeys(STRINGS | BINARIES, ("", None)),
    "year": ("0", "9999"),
}


@dataclass(frozen=True)
class Subject:
    """What is read, as the user named it: a table with a condition, or a query."""

    block: MySQL
    window: ZonedWindow
    zero_dates: ZeroDates
    table: str = ""
    where: str = ""
    query: str = ""
    key: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bound:
    """Rows below it (``exclusive``) or up to it are complete."""

    value: str | None
    """Text of the cursor's type; None: nothing may be read now."""
    exclusive: bool
    notes: tuple[str, ...] = ()


class Select:
    """Makes the statements for one subject, once its relation is described."""

    def __init__(self, subject: Subject, relation: Relation) -> None:
        self._subject = subject
        self.relation = relation

    @classmethod
    async def of(cls, session: Session, subject: Subject, dialect: CsvDialect) -> Select:
        """Describe the subject; `ConfigurationError` names the field that is wrong."""
        writing = await Writing.of(session, dialect, subject.zero_dates)
        if subject.table:
            return cls(subject, await table(session, subject.table, subject.where, writing))
        # NULL has every type, and says nothing about which it is: enough to learn the columns.
        bare = _stripped(subject.query).replace("{since}", "NULL").replace("{until}", "NULL")
        return cls(subject, await query(session, bare, subject.key, writing))

    @property
    def cursor(self) -> Field | None:
        """The cursor's field; None when none is named."""
        name = self._subject.window.cursor
        if not name:
            return None
        field = self.relation.field(name, "field cursor")
        if field.kind not in CURSORS:
            raise ConfigurationError(
                f"field cursor: {name} is {field.column.type}, which has no order to go by; "
                "choose a number, a string, a date or a time"
            )
        return field

    def origin(self, low: str | None = None, high: str | None = None) -> str:
        """What follows FROM; a query with its bounds filled in."""
        if self.relation.name:
            return self.relation.origin
        statement = _stripped(self._subject.query)
        for mark, value, end in (("{since}", low, 0), ("{until}", high, 1)):
            if mark in statement:
                statement = statement.replace(mark, self._bound(mark, value, end))
        return f"(\n{statement}\n) AS t"

    def _bound(self, mark: str, value: str | None, end: int) -> str:
        cursor = self.cursor
        if cursor is None:
            raise ConfigurationError(f"field cursor: the query has {mark}; name the column it bounds")
        if value is None and cursor.kind in INTEGERS | {"decimal"}:
            return str(_ENDS[cursor.kind][end])
        value = value if value is not None else _ENDS.get(cursor.kind, (None, None))[end]
        if value is None:
            raise ConfigurationError(
                f"field query: {mark} cannot be filled in, for {cursor.column.type} has no lowest or highest value; "
                "leave it out: the query is wrapped in the bounds anyway"
            )
        return literal(cursor, value)

    def everything(self, what: str = "*") -> str:
        return f"SELECT {what} FROM {self.origin()}{_where(self.filter)}"

    def highest(self, cursor: Field, after: str | None, bound: Bound | None) -> str:
        """The highest cursor value past ``after`` and within the bound, as text; no row when there is none."""
        upper = bound.value if bound else None
        conditions = [f"{cursor.quoted} IS NOT NULL", *self.filter]
        if after is not None:
            conditions.append(f"{cursor.quoted} > {literal(cursor, after)}")
        if bound is not None and upper is not None:
            conditions.append(f"{cursor.quoted} {'<' if bound.exclusive else '<='} {literal(cursor, upper)}")
        origin = self.origin(after, upper)
        return (
            f"SELECT {shown(cursor)} AS value FROM {origin}{_where(conditions)} ORDER BY {cursor.quoted} DESC LIMIT 1"
        )

    def without_cursor(self, cursor: Field) -> str:
        """Whether there are rows whose cursor is NULL."""
        conditions = [f"{cursor.quoted} IS NULL", *self.filter]
        return f"SELECT EXISTS (SELECT 1 FROM {self.origin()}{_where(conditions)})"

    def quantiles(self, cursor: Field, low: str | None, high: str | None, count: int) -> str:
        """The upper ends of ``count`` slices of the window, found by reading it: for what has no index to ask."""
        between = [f"{cursor.quoted} IS NOT NULL", *self.between(cursor, low, high), *self.filter]
        return (
            f"SELECT {shown(cursor)} FROM (SELECT {cursor.quoted}, ROW_NUMBER() OVER (ORDER BY {cursor.quoted}) AS place, "
            f"COUNT(*) OVER () AS total FROM {self.origin(low, high)}{_where(between)}) AS t "
            f"WHERE FLOOR(place * {count} / total) > FLOOR((place - 1) * {count} / total) ORDER BY place"
        )

    def partition(self, plan: Plan, partition: Partition) -> str:
        """The statement that reads a partition."""
        fields = [self.relation.field(column.name, "field columns") for column in plan.columns]
        conditions, low, high = self._conditions(plan, partition)
        head = "SELECT " + ", ".join(field.selected for field in fields)
        return f"{head} FROM {self.origin(low, high)}{_where([*conditions, *self.filter])}"

    def _conditions(self, plan: Plan, partition: Partition) -> tuple[list[str], str | None, str | None]:
        """What holds in a partition, and the ends of its window of the cursor."""
        lower, upper = partition.lower or {}, partition.upper or {}
        if not isinstance(lower, dict) or not isinstance(upper, dict):
            raise TypeError(f"not bounds of a MySQL partition: {lower!r}, {upper!r}")
        low, high = _text(lower.get("cursor")), _text(upper.get("cursor"))
        conditions: list[str] = []
        if "key" in lower:
            columns = lower["key"]
            assert isinstance(columns, list)  # noqa: S101 - written by `key_ranges`
            key = [self.relation.field(str(name), "partition key") for name in columns]
            conditions += within(key, _texts(lower.get("values")), _texts(upper.get("values")))
        if self.cursor is not None and (low, high) != (None, None):
            conditions += self._window(plan, partition, self.cursor, low, high)
        return conditions, low, high

    def _window(self, plan: Plan, partition: Partition, cursor: Field, low: str | None, high: str | None) -> list[str]:
        between = self.between(cursor, low, high)
        # A full read is cut by the cursor where nothing else cuts it, and brings rows without one as well. Slices of a
        # key share the window of the cursor, and each brings its own.
        whole = partition == plan.partitions[0] or "key" in (
            partition.lower if isinstance(partition.lower, dict) else {}
        )
        if whole and (plan.mode == "full" or self._subject.window.null_cursor == "include"):
            return [f"({' AND '.join(between)} OR {cursor.quoted} IS NULL)"]
        return between

    def between(self, cursor: Field, low: str | None, high: str | None) -> list[str]:
        conditions = [f"{cursor.quoted} > {literal(cursor, low)}"] if low is not None else []
        if high is not None:
            conditions.append(f"{cursor.quoted} <= {literal(cursor, high)}")
        return conditions

    @property
    def filter(self) -> list[str]:
        """The user's own condition."""
        # The line break ends a trailing "--" or "#" comment of the user's.
        return [f"({self.relation.where}\n)"] if self.relation.where else []


# -- values -----------------------------------------------------------------------------------------------------------


def literal(field: Field, value: str) -> str:
    """A cursor's value, as `shown` reads it."""
    if field.kind in INTEGERS or field.kind in ("decimal", "year"):
        return _number(field, value)
    if field.kind in BINARIES:
        return literals.of_charset(value, "binary")
    return literals.text(value)


def shown(field: Field) -> str:
    """The expression that reads a cursor's value as text: what `literal` takes."""
    return f"HEX({field.quoted})" if field.kind in BINARIES else field.quoted


def key_literal(field: Field, value: str) -> str:
    """A key's value, as `key_shown` reads it: a string in its own character set, so that nothing is converted."""
    if field.kind in STRINGS and field.charset:
        return literals.of_charset(value, field.charset)
    return literal(field, value)


def key_shown(field: Field) -> str:
    """The expression that reads a key's value: what `key_literal` takes."""
    return f"HEX({field.quoted})" if field.kind in STRINGS | BINARIES else field.quoted


def within(key: Sequence[Field], low: Sequence[str] | None, high: Sequence[str] | None) -> list[str]:
    """The condition ``low < key <= high`` of a key of several columns, in the form that indexes are used for."""
    conditions = []
    if low is not None:
        conditions.append(past(key, low, ">", ">"))
    if high is not None:
        conditions.append(past(key, high, "<", "<="))
    return conditions


def past(key: Sequence[Field], values: Sequence[str], sign: str, last_sign: str) -> str:
    """``(a > x OR (a = x AND (b > y …)))``: row comparisons ``(a, b) > (x, y)`` use no index."""
    field, value = key[0], key_literal(key[0], values[0])
    if len(values) == 1:
        return f"{field.quoted} {last_sign} {value}"
    rest = past(key[1:], values[1:], sign, last_sign)
    return f"({field.quoted} {sign}= {value} AND ({field.quoted} {sign} {value} OR {rest}))"


def _number(field: Field, value: str) -> str:
    try:
        return literals.number(value)
    except ValueError as error:
        raise ConfigurationError(f"{field.column.name} is {field.column.type}: {error}") from None


def _stripped(statement: str) -> str:
    return re.sub(r"[;\s]+\Z", "", statement.strip())


def _text(value: JsonValue) -> str | None:
    return None if value is None else str(value)


def _texts(value: JsonValue) -> list[str] | None:
    return [str(item) for item in value] if isinstance(value, list) else None


def _where(conditions: Sequence[str]) -> str:
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""
