"""The suite every change stream passes: subclass `ChangesContract`, provide the fixture `subject`, inherit the tests."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import pytest
from pydantic import JsonValue

from blocks.errors import ConfigurationError, PositionLost
from blocks.s3 import CsvDialect
from tasks.extractors.contract import CHANGE_COLUMNS, ChangeExtractor, Limits, Output, Plan, ReadOptions, Records
from tests.destinations import assert_a_cancel_ends_it, assert_its_error_comes_out, assert_one_at_a_time
from tests.tasks.extractors.binlog import fields

Row = dict[str, str]


class ChangesUnderTest(Protocol):
    """A real log of insertions of (id, note); ids go up from 1, note is now and then NULL, empty, or full of quotes.

    The stream begins at the log's beginning, without a snapshot.
    """

    def open(self, options: ReadOptions) -> ChangeExtractor: ...
    def misnamed(self, options: ReadOptions) -> ChangeExtractor:
        """The same source, with the name of what is read misspelt."""
        ...

    async def add(self, count: int) -> None:
        """Write that many more records, visible to a run that begins after this returns."""
        ...

    def order_of(self, position: str) -> str:
        """Which order the record at that ``_position`` has a place in; a log has one, topics one for each partition."""
        ...


@dataclass
class Run:
    """What a run brought."""

    plan: Plan
    until: JsonValue
    rows: dict[str, list[Row]] = field(default_factory=dict)
    """By table."""
    outputs: dict[str, Output] = field(default_factory=dict)
    counted: Counter[str] = field(default_factory=Counter)
    data: bytes = b""

    @property
    def all(self) -> list[Row]:
        """Rows of all tables."""
        return [row for rows in self.rows.values() for row in rows]

    def values(self, column: str = "value") -> list[str]:
        """The values of a column, sorted."""
        return sorted(row[column] for row in self.all)


async def captured(extractor: ChangeExtractor, plan: Plan) -> Run:
    """All partitions of a plan."""
    made = Run(plan, plan.until)
    reached = []

    async def emit(output: Output, records: Records) -> None:
        assert records.data.endswith(b"\n") or (records.counted and not records.count)
        assert output.columns[: len(CHANGE_COLUMNS)] == CHANGE_COLUMNS
        names = [column.name for column in output.columns]
        rows = [
            dict(zip(names, row, strict=True)) for row in csv.reader(io.StringIO(records.data.decode(), newline=""))
        ]
        assert len(rows) == records.count
        made.rows.setdefault(output.table, []).extend(rows)
        made.outputs[output.table] = output
        made.counted.update(records.counted)
        made.data += records.data

    for partition in plan.partitions:
        position = await extractor.capture(plan, partition, emit)
        if position is not None:
            reached.append(position)
    if reached:
        made.until = extractor.reached(plan, reached)
    return made


async def run_of(subject: ChangesUnderTest, since: JsonValue = None, **options: Any) -> Run:
    """One run, from a position that was kept as JSON."""
    async with subject.open(ReadOptions(mode="changes", **options)) as extractor:
        return await captured(extractor, await extractor.plan(json.loads(json.dumps(since))))


def ids(rows: Sequence[Row]) -> list[int]:
    return sorted(int(row["id"]) for row in rows)


class ChangesContract:
    """What flows rely on, whatever the log."""

    async def test_each_record_comes_once(self, subject: ChangesUnderTest) -> None:
        """A run brings what came since the one before: nothing is missing, nothing comes twice."""
        await subject.add(40)
        first = await run_of(subject)
        again = await run_of(subject, first.until)
        await subject.add(25)
        added = await run_of(subject, again.until)
        assert again.all == []
        assert (ids(first.all), ids(added.all)) == (list(range(1, 41)), list(range(41, 66)))
        assert {row["_op"] for row in [*first.all, *added.all]} == {"I"}

    async def test_positions_are_unique_and_sort(self, subject: ChangesUnderTest) -> None:
        """`_position` is the record's own, and what comes later in a partition sorts behind, also in a later run."""
        await subject.add(30)
        first = await run_of(subject)
        await subject.add(30)
        second = await run_of(subject, first.until)
        rows = [*first.all, *second.all]
        assert len({row["_position"] for row in rows}) == 60
        for order in {subject.order_of(row["_position"]) for row in rows}:
            of_it = [row for row in rows if subject.order_of(row["_position"]) == order]
            assert ids(of_it) == [int(row["id"]) for row in sorted(of_it, key=lambda row: row["_position"])]

    async def test_a_window_is_the_same_when_it_is_read_again(self, subject: ChangesUnderTest) -> None:
        """A plan that another extractor takes up after more came brings the records of its window alone, byte for byte."""
        await subject.add(20)
        options = ReadOptions(mode="changes")
        async with subject.open(options) as extractor:
            plan = await extractor.plan(None)
            first = await captured(extractor, plan)
            again = await captured(extractor, plan)
        await subject.add(10)
        async with subject.open(options) as later:
            assert later.asked == plan.asked
            taken_up = await captured(later, Plan.model_validate(plan.kept()))
        assert plan.resumable
        assert ids(first.all) == list(range(1, 21))
        assert (again.data, taken_up.data) == (first.data, first.data)
        assert (again.until, taken_up.until) == (first.until, first.until)

    async def test_a_plan_of_several_parts_is_taken_up_by_a_run_with_limits(self, subject: ChangesUnderTest) -> None:
        """It was made by a run without: what lies between the parts is not passed over, wherever a limit is reached."""
        for _ in range(3):
            await subject.add(20)
        options = ReadOptions(mode="changes", object_bytes=1)
        async with subject.open(options) as extractor:
            plan = await extractor.plan(None)
        assert len(plan.partitions) >= 3
        async with subject.open(options.model_copy(update={"limits": Limits(rows=5)})) as later:
            assert later.asked == plan.asked
            taken_up = await captured(later, Plan.model_validate(plan.kept()))
        rest = await run_of(subject, taken_up.until)
        assert ids([*taken_up.all, *rest.all]) == list(range(1, 61))

    async def test_null_and_the_empty_string_stay_apart(self, subject: ChangesUnderTest) -> None:
        """NULL is an unquoted empty field, the empty string a quoted one; with a marker, NULL is the marker, and the empty
        string has no need of quotes (COPY writes none).
        """
        await subject.add(40)
        plain = _notes(await run_of(subject))
        marked = _notes(await run_of(subject, dialect=CsvDialect(null=r"\N")))
        for number in range(1, 41):
            text = note(number)
            for found, null in ((plain[number], b""), (marked[number], rb"\N")):
                if text:  # may be quoted, needlessly
                    assert next(csv.reader([found.decode()])) == [text]
                elif text is None:
                    assert found == null
                else:
                    assert found == b'""' or (null and not found)

    async def test_limits_end_a_run_within_its_window(self, subject: ChangesUnderTest) -> None:
        """A run that has read enough stops, and the next one goes on there; every run brings something."""
        for _ in range(4):
            await subject.add(1000)
        found: list[int] = []
        since, runs = None, 0
        while len(found) < 4000:
            made = await run_of(subject, since, limits=Limits(rows=700))
            assert made.all
            found += ids(made.all)
            since, runs = made.until, runs + 1
        assert sorted(found) == list(range(1, 4001))
        assert runs > 1

    async def test_emits_wait_for_one_another(self, subject: ChangesUnderTest) -> None:
        """While one waits no other begins: a slow destination slows the log's reader down."""
        await subject.add(3000)
        async with subject.open(ReadOptions(mode="changes")) as extractor:
            plan = await extractor.plan(None)
            for partition in plan.partitions:
                await assert_one_at_a_time(partial(extractor.capture, plan, partition))

    async def test_a_failing_destination_stops_the_read(self, subject: ChangesUnderTest) -> None:
        """The destination's own error comes out, and the partition can be read again."""
        await subject.add(20)
        async with subject.open(ReadOptions(mode="changes")) as extractor:
            plan = await extractor.plan(None)
            await assert_its_error_comes_out(partial(extractor.capture, plan, plan.partitions[0]))
            assert ids((await captured(extractor, plan)).all) == list(range(1, 21))

    async def test_a_cancelled_read_ends_at_once(self, subject: ChangesUnderTest) -> None:
        """A read that is cancelled while its destination waits ends within seconds."""
        await subject.add(20)
        async with subject.open(ReadOptions(mode="changes")) as extractor:
            plan = await extractor.plan(None)
            await assert_a_cancel_ends_it(partial(extractor.capture, plan, plan.partitions[0]))

    async def test_what_cannot_be_is_refused(self, subject: ChangesUnderTest) -> None:
        """A misspelt name, another mode, columns to choose: errors of configuration. A position of another log is lost."""
        async with subject.misnamed(ReadOptions(mode="changes")) as extractor:
            with pytest.raises(ConfigurationError):
                await extractor.plan(None)
        for options in (ReadOptions(mode="full"), ReadOptions(mode="incremental")):
            with pytest.raises(ConfigurationError, match="mode"):
                await _planned(subject, options)
        with pytest.raises(ConfigurationError, match="columns"):
            await _planned(subject, ReadOptions(mode="changes", columns=("id",)))
        with pytest.raises(PositionLost):
            await run_of(subject, {"cursor": "id", "value": "7"})

    async def test_what_is_asked_for_has_a_digest(self, subject: ChangesUnderTest) -> None:
        """Another dialect is another question: no plan of the one is taken up by the other. Limits are none."""
        asked = subject.open(ReadOptions(mode="changes")).asked
        assert subject.open(ReadOptions(mode="changes", dialect=CsvDialect(null="NULL"))).asked != asked
        assert subject.open(ReadOptions(mode="changes", limits=Limits(rows=1))).asked == asked


async def _planned(subject: ChangesUnderTest, options: ReadOptions) -> Plan:
    async with subject.open(options) as extractor:
        return await extractor.plan(None)


def _notes(made: Run) -> dict[int, bytes]:
    """How the note of each record is written."""
    (output,) = made.outputs.values()
    names = [column.name for column in output.columns]
    return {int(line[names.index("id")]): line[names.index("note")] for line in fields(made.data)}


def note(number: int) -> str | None:
    """The note of a record, for subjects."""
    return {0: None, 1: "", 2: 'a,"b"'}.get(number % 4, "plain")
