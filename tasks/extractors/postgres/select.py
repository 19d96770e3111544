"""The SELECTs that are sent: of a partition, of the highest cursor value, of what is there at all."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import JsonValue

from blocks.errors import ConfigurationError
from blocks.postgres import Postgres
from blocks.s3 import CsvDialect
from tasks.extractors.contract import Partition, Plan
from tasks.extractors.postgres import slices
from tasks.extractors.postgres.bounds import Bound
from tasks.extractors.postgres.describe import Field, Relation, query, table
from tasks.extractors.postgres.sql import Connection, literal
from tasks.extractors.source import ZonedWindow

# What stands for "no bound" in a query with {since} and {until}.
_ENDS: dict[str, tuple[str, str | None]] = {
    **dict.fromkeys(("timestamptz", "timestamp", "date", "numeric"), ("-infinity", "infinity")),
    **dict.fromkeys(("float4", "float8"), ("-Infinity", "Infinity")),
    **dict.fromkeys(("text", "varchar", "bpchar"), ("", None)),
    "int2": ("-32768", "32767"),
    "int4": ("-2147483648", "2147483647"),
    "int8": ("-9223372036854775808", "9223372036854775807"),
    "uuid": ("00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"),
}

# They have an order and yet are as good as NULL: a watermark that nothing is behind, or no window ever reaches.
_NO_VALUES = {
    **dict.fromkeys(("timestamptz", "timestamp", "date"), ("infinity", "-infinity")),
    **dict.fromkeys(("float4", "float8", "numeric"), ("NaN", "Infinity", "-Infinity")),
}


def no_values(connection: Connection, cursor: Field) -> tuple[str, ...]:
    """The values of the cursor's type that are treated as NULL is: NaN and the infinities."""
    if cursor.base == "numeric" and connection.get_server_version() < (14, 0):
        return ("NaN",)  # it had no others
    return _NO_VALUES.get(cursor.base, ())


@dataclass(frozen=True)
class Subject:
    """What is read, as the user named it: a table with a condition, or a query."""

    block: Postgres
    window: ZonedWindow
    table: str = ""
    where: str = ""
    query: str = ""
    key: tuple[str, ...] = ()


class Select:
    """Makes the statements for one subject, once its relation is described."""

    def __init__(self, subject: Subject, relation: Relation) -> None:
        self._subject = subject
        self.relation = relation

    @classmethod
    async def of(cls, connection: Connection, subject: Subject, dialect: CsvDialect) -> Select:
        """Describe the subject; `ConfigurationError` names the field that is wrong."""
        if subject.table:
            return cls(subject, await table(connection, subject.table, subject.where, dialect))
        # NULL has every type, and says nothing about which it is: enough to learn the columns.
        bare = _stripped(subject.query).replace("{since}", "NULL").replace("{until}", "NULL")
        return cls(subject, await query(connection, bare, subject.key, dialect))

    @property
    def cursor(self) -> Field | None:
        """The cursor's field; None when none is named."""
        name = self._subject.window.cursor
        return self.relation.field(name, "field cursor") if name else None

    @property
    def has_bounds(self) -> bool:
        return "{since}" in self._subject.query or "{until}" in self._subject.query

    async def origin(self, connection: Connection, low: str | None = None, high: str | None = None) -> str:
        """What follows FROM; a query with its bounds filled in."""
        if self.relation.oid is not None:
            return self.relation.origin
        statement = _stripped(self._subject.query)
        for mark, value, end in (("{since}", low, 0), ("{until}", high, 1)):
            if mark in statement:
                statement = statement.replace(mark, await self._bound(connection, mark, value, end))
        return f"(\n{statement}\n) AS t"

    async def _bound(self, connection: Connection, mark: str, value: str | None, end: int) -> str:
        cursor = self.cursor
        if cursor is None:
            raise ConfigurationError(f"field cursor: the query has {mark}; name the column it bounds")
        value = value if value is not None else _ENDS.get(cursor.base, (None, None))[end]
        if value is None:
            raise ConfigurationError(
                f"field query: {mark} cannot be filled in, for {cursor.column.type} has no lowest or highest value; "
                "leave it out: the query is wrapped in the bounds anyway"
            )
        return await literal(connection, value, cursor.cast)

    async def everything(self, connection: Connection) -> str:
        return f"SELECT * FROM {await self.origin(connection)}{_where(self._filter())}"

    async def highest(self, connection: Connection, cursor: Field, after: str | None, bound: Bound | None) -> str:
        """The highest cursor value past ``after`` and within the bound, as text; no row when there is none."""
        name, upper = _quoted(cursor), bound.value if bound else None
        conditions = [*_valued(connection, cursor), *self._filter()]
        if after is not None:
            conditions.append(f"{name} > {await literal(connection, after, cursor.cast)}")
        if bound is not None and upper is not None:
            sign = "<" if bound.exclusive else "<="
            conditions.append(f"{name} {sign} {await literal(connection, upper, cursor.cast)}")
        origin = await self.origin(connection, after, upper)
        # Not max(): uuid has none before PostgreSQL 18, and whatever has a btree order can be sorted.
        return f"SELECT {name}::text AS value FROM {origin}{_where(conditions)} ORDER BY {name} DESC LIMIT 1"

    async def without_cursor(self, connection: Connection, cursor: Field) -> str:
        """Whether there are rows whose cursor is NULL, or as good as."""
        conditions = [_valueless(connection, cursor), *self._filter()]
        return f"SELECT EXISTS (SELECT FROM {await self.origin(connection)}{_where(conditions)})"

    async def quantiles(self, connection: Connection, cursor: Field, window: Partition, count: int) -> str:
        """The inner bounds of ``count`` slices of the window, found by reading it: for what has no statistics."""
        shares = ", ".join(f"{n / count:.6f}" for n in range(1, count))
        low, high = _text(window.lower), _text(window.upper)
        between = await self._between(connection, cursor, low, high)
        return (
            f"SELECT percentile_disc(ARRAY[{shares}]::float8[]) WITHIN GROUP (ORDER BY {_quoted(cursor)})::text[]"
            f" FROM {await self.origin(connection, low, high)}{_where([*between, *self._filter()])}"
        )

    async def partition(self, connection: Connection, plan: Plan, partition: Partition) -> list[str]:
        """The statements that read a partition: one for each page range, or one for its cursor range."""
        fields = [self.relation.field(column.name, "field columns") for column in plan.columns]
        head = "SELECT " + ", ".join(field.selected for field in fields)
        if isinstance(partition.lower, list):
            window = await self._window(connection, partition.upper)
            ranges = [slices.range_origin(bounds) for bounds in partition.lower]
            return [f"{head} FROM {origin}{_where([*pages, *window, *self._filter()])}" for origin, pages in ranges]
        low, high = _text(partition.lower), _text(partition.upper)
        window = await self._window(connection, [low, high], first=partition == plan.partitions[0], mode=plan.mode)
        return [f"{head} FROM {await self.origin(connection, low, high)}{_where([*window, *self._filter()])}"]

    async def _window(
        self, connection: Connection, bounds: JsonValue, *, first: bool = True, mode: str = "incremental"
    ) -> list[str]:
        """The condition on the cursor, ``(low, high]``; none without bounds."""
        if not isinstance(bounds, list) or self.cursor is None or bounds == [None, None]:
            return []
        between = await self._between(connection, self.cursor, _text(bounds[0]), _text(bounds[1]))
        if mode == "full":
            # It is cut by the cursor where nothing else cuts it, and brings rows without one as well.
            return [f"({' AND '.join(between)} OR {_quoted(self.cursor)} IS NULL)"] if first else between
        if first and self._subject.window.null_cursor == "include":
            return [f"({' AND '.join(between)} OR {_valueless(connection, self.cursor)})"]
        return between if bounds[0] is not None else [*between, *_valued(connection, self.cursor)]

    async def _between(self, connection: Connection, cursor: Field, low: str | None, high: str | None) -> list[str]:
        name = _quoted(cursor)
        conditions = [f"{name} > {await literal(connection, low, cursor.cast)}"] if low is not None else []
        if high is not None:
            conditions.append(f"{name} <= {await literal(connection, high, cursor.cast)}")
        return conditions

    def _filter(self) -> list[str]:
        # The line break ends a trailing "--" comment of the user's.
        return [f"({self.relation.where}\n)"] if self.relation.where else []


def _stripped(statement: str) -> str:
    return statement.strip().rstrip(";").rstrip()


def _text(value: JsonValue) -> str | None:
    return None if value is None else str(value)


def _quoted(field: Field) -> str:
    return 't."' + field.column.name.replace('"', '""') + '"'


def _valued(connection: Connection, cursor: Field) -> list[str]:
    """The conditions that a row has a cursor value to go by."""
    name, others = _quoted(cursor), _literals(connection, cursor)
    return [f"{name} IS NOT NULL", *([f"{name} NOT IN ({others})"] if others else [])]


def _valueless(connection: Connection, cursor: Field) -> str:
    """The condition that a row has none."""
    name, others = _quoted(cursor), _literals(connection, cursor)
    return f"({name} IS NULL OR {name} IN ({others}))" if others else f"{name} IS NULL"


def _literals(connection: Connection, cursor: Field) -> str:
    return ", ".join(f"'{value}'::pg_catalog.{cursor.base}" for value in no_values(connection, cursor))


def _where(conditions: list[str]) -> str:
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""
