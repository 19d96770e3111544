"""What an extractor is: two methods, a plan fixed before the first row is read, and bytes pushed to one callable."""

from __future__ import annotations

import re
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Protocol, Self, runtime_checkable

from pydantic import BaseModel, ConfigDict, JsonValue

from blocks.layout import DmsFiles, Layout
from blocks.s3 import CsvDialect

Mode = Literal["full", "incremental", "changes"]

Write = Callable[[bytes], Awaitable[None]]
"""Takes CSV records (a chunk ends on a record boundary) and returns when there is room for more."""


class Frozen(BaseModel):
    """A value: made once, compared by content, stored as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Column(Frozen):
    """One column of the CSV, in file order."""

    name: str
    type: str
    """The source's own name of the type, such as ``numeric(10,2)``."""
    nullable: bool = True
    key: bool = False
    """Part of the primary key: what a loader merges by."""


class Output(Frozen):
    """What objects of a change stream hold: records of one table in one shape. A new shape begins a new object."""

    name: str
    """Names the objects' folder; letters, digits, ``- . _``; a table's own, whatever its shape."""
    table: str
    """As the source calls it, such as ``shop.orders``."""
    columns: tuple[Column, ...]
    """Those of the CSV, `CHANGE_COLUMNS` included."""


class Partition(Frozen):
    """One slice of a plan: one task run, and one object but in change streams, which have some for each table."""

    name: str
    """Names the object; ``a-z 0-9 -``, unique in its plan."""
    lower: JsonValue = None
    upper: JsonValue = None
    """What the bounds mean is known to the extractor alone."""


class Plan(Frozen):
    """The window of one run and its slices, fixed before the first row is read."""

    id: str
    mode: Mode
    since: JsonValue = None
    """The position before: what the last commit reached."""
    until: JsonValue = None
    """The position after: what the watermark becomes once this plan is committed."""
    columns: tuple[Column, ...] = ()
    partitions: tuple[Partition, ...] = ()
    """None: there is nothing to read, and the run commits nothing."""
    resumable: bool = False
    """A later run may read the partitions that are missing and get the same rows: true for closed cursor windows,
    false for physical ranges under a snapshot that dies with this run."""
    joinable: JsonValue = None
    """By what other processes read the snapshot of this plan while the extractor that made it is open; None: they cannot."""
    snapshot: JsonValue = None
    """Which state of the source the rows show, in the source's own words; recorded in the commit."""
    estimated_rows: int | None = None
    estimated_bytes: int | None = None
    statement: str = ""
    """What is sent to the source, for people (``headrace plan``); without values of rows or secrets."""
    asked: str = ""
    """A digest of what was asked for (source and options): a plan is taken up again only by who asks for the same."""
    notes: tuple[str, ...] = ()
    """What a person should know about this plan: assumptions made, privileges missing, bounds held back."""

    @property
    def is_shared(self) -> bool:
        """Whether other processes can read partitions of it while the extractor that made it is open."""
        return self.resumable or self.joinable is not None

    def only(self, partition: Partition) -> Plan:
        """The plan for whoever reads this partition, the last, alone: the first comes along, an empty table is told by it."""
        few = self.partitions[:1] if partition == self.partitions[0] else (self.partitions[0], partition)
        return self.model_copy(update={"partitions": few})

    def kept(self) -> dict[str, JsonValue]:
        """As JSON, for a later run, which cannot join a snapshot that is gone by then."""
        return self.model_dump(mode="json", exclude={"joinable"})


class Limits(Frozen):
    """Where a run of a change stream ends before its window does, at the next end of a transaction; 0: nowhere."""

    seconds: float = 0
    bytes: int = 0
    """Of CSV."""
    rows: int = 0


class ReadOptions(Frozen):
    """What a run asks of any extractor, whatever the source."""

    mode: Mode = "full"
    columns: tuple[str, ...] = ()
    """Names to read, in this order; or, each with a leading ``-``, names to leave out. Empty: all."""
    partitions: int = 0
    """How many slices; 0: as many as give objects of about ``object_bytes``."""
    object_bytes: int = 256 << 20
    parallel: int = 4
    """How many slices will be read at once: as many connections may have to see one state."""
    limits: Limits = Limits()
    dialect: CsvDialect = CsvDialect()
    layout: Layout = "tables"
    """How the objects of a change stream are laid out, which is no business of its extractor's."""
    dms: DmsFiles = DmsFiles()


NOT_ASKED = frozenset({"parallel", "limits"})
"""Options that decide neither which rows are read nor how they are written."""


class Planning(Protocol):
    """What every extractor does before it reads. Used as ``async with``: connections and snapshots live from entry to exit.

    ``plan`` is awaited once, or not at all when an earlier plan is taken up again (``resumable``); then each partition
    is read, several at a time.
    """

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None: ...

    @property
    def asked(self) -> str:
        """A digest of everything that decides which rows and bytes are read: source, mode, columns, dialect."""
        ...

    async def plan(self, since: JsonValue) -> Plan:
        """Fix the window after ``since`` (``None``: from the beginning) and its partitions. Reads no rows.

        Raises `ConfigurationError` for what the user has to mend, `PositionLost` when ``since`` cannot be gone on from.
        """
        ...


class Read(Frozen):
    """What was read of a partition."""

    rows: int
    counted: dict[str, int] = {}
    """How often something happened that a person should know of, such as ``{"price: not a decimal, written as text": 3}``."""


class Extractor(Planning, Protocol):
    """Reads one stream, whose records are all of one shape."""

    async def read(self, plan: Plan, partition: Partition, write: Write) -> Read:
        """Push the partition's records to ``write``, header excluded; how many they were.

        A call that raises has pushed rows that must be thrown away; it may be repeated.
        """
        ...


CHANGE_COLUMNS = (
    Column(name="_op", type="text", nullable=False),
    Column(name="_committed_at", type="timestamptz"),
    Column(name="_position", type="text", nullable=False, key=True),
    Column(name="_unchanged", type="json"),
)
"""What every record of a change stream begins with.

``_op`` is I, U, D, T (the table was emptied) or S (a row of the snapshot). ``_position`` sorts as text in log order and
is unique to the record. ``_unchanged`` is NULL, or the names of the columns that the log does not have for this record,
whose fields are NULL.
"""


def table_output(table: str, columns: Sequence[Column]) -> Output:
    """Where the records of a table go; ``columns``: the row's own.

    >>> table_output("shop.orders", ()).name, table_output("shop.заказы", ()).name
    ('shop.orders', 'shop.--b84698f7')
    """
    folder = re.sub(r"[^\w.-]+", "-", table, flags=re.ASCII)
    if folder != table:
        # What was replaced told it from other tables.
        folder = f"{folder}-{zlib.crc32(table.encode()):08x}"
    return Output(name=folder, table=table, columns=(*CHANGE_COLUMNS, *columns))


@dataclass(frozen=True, slots=True)
class Records:
    """Some records of one output."""

    data: bytes
    count: int
    absent: frozenset[str] = frozenset()
    """Columns that the log did not have for one of them."""
    counted: Mapping[str, int] = field(default_factory=dict)
    """As in `Read`."""


Emit = Callable[[Output, Records], Awaitable[None]]
"""Takes records of an output, in log order, and returns when there is room for more."""


@runtime_checkable
class ChangeExtractor(Planning, Protocol):
    """Reads one stream whose partitions hold records of several tables: changes, and the snapshot they begin with."""

    async def capture(self, plan: Plan, partition: Partition, emit: Emit) -> JsonValue:
        """Push the partition's records; the position that is reached, or None where it is ``plan.until`` as planned.

        As `Extractor.read`, it may be repeated after it raised.
        """
        ...

    def reached(self, plan: Plan, positions: Sequence[JsonValue]) -> JsonValue:
        """The position after a run whose partitions came to ``positions`` (in their order, those that told one)."""
        ...


class Behind(Frozen):
    """How far a position is behind the end of the source's log; None: not known."""

    seconds: float | None = None
    """0 at the end; else the age of the moment up to which everything that the source committed is there."""
    bytes: int | None = None
    """Of the log, those of other tables included."""
    rows: int | None = None

    def __str__(self) -> str:
        told = [f"{self.seconds:,.1f} s"] if self.seconds is not None else []
        told += [f"{self.bytes / 1e6:,.1f} MB of log"] if self.bytes is not None else []
        told += [f"{self.rows:,} rows"] if self.rows is not None else []
        return ", ".join(told) or "not known"


@runtime_checkable
class TellsBehind(Protocol):
    """A `ChangeExtractor` that can say how far a position is behind."""

    async def behind(self, reached: JsonValue) -> Behind:
        """Ask the source where its log ends now. ``reached``: what `ChangeExtractor.capture` came to, or ``plan.until``."""
        ...


AnyExtractor = Extractor | ChangeExtractor
