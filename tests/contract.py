"""The suite every extractor passes: subclass `ExtractorContract`, provide the fixture `subject`, inherit the tests."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from functools import partial
from typing import Protocol

import pytest
from pydantic import JsonValue

from blocks.errors import ConfigurationError
from blocks.s3 import CsvDialect
from tasks.extractors.contract import Extractor, Plan, ReadOptions
from tests.destinations import assert_a_cancel_ends_it, assert_its_error_comes_out, assert_one_at_a_time

Row = tuple[str, ...]


class SubjectUnderTest(Protocol):
    """A real source holding rows of (id, note, amount); note is now and then NULL, empty, or full of quotes."""

    can_increment: bool
    can_partition: bool

    def open(self, options: ReadOptions) -> Extractor: ...
    def misnamed(self, options: ReadOptions) -> Extractor:
        """The same source, with the name of what is read misspelt."""
        ...

    async def add(self, count: int) -> None:
        """Write that many new rows, visible to a read that begins after this returns."""
        ...

    async def move(self, amount: int) -> None:
        """Take ``amount`` from the first row and give it to the last, in one transaction."""
        ...

    async def count(self) -> int: ...


async def collected(extractor: Extractor, plan: Plan) -> list[Row]:
    """All rows of a plan, read partition by partition."""
    rows: list[Row] = []
    for partition in plan.partitions:
        chunks: list[bytes] = []

        async def write(data: bytes, chunks: list[bytes] = chunks) -> None:
            chunks.append(data)

        told = await extractor.read(plan, partition, write)
        read = parsed(b"".join(chunks))
        assert told.rows == len(read)
        rows += read
    return rows


def parsed(data: bytes) -> list[Row]:
    return [tuple(row) for row in csv.reader(io.StringIO(data.decode(), newline=""))]


def ids(rows: Sequence[Row]) -> list[int]:
    return sorted(int(row[0]) for row in rows)


class ExtractorContract:
    """What flows rely on, whatever the source."""

    @pytest.mark.parametrize("partitions", [1, 4])
    async def test_full_brings_every_row_once(self, subject: SubjectUnderTest, partitions: int) -> None:
        """A full read brings each row exactly once, however it is cut."""
        async with subject.open(ReadOptions(mode="full", partitions=partitions)) as extractor:
            plan = await extractor.plan(None)
            rows = await collected(extractor, plan)
        assert ids(rows) == list(range(1, await subject.count() + 1))
        assert len({partition.name for partition in plan.partitions}) == len(plan.partitions)
        if subject.can_partition:
            assert (len(plan.partitions) > 1) == (partitions > 1)

    async def test_columns_are_told_before_a_row_is_read(self, subject: SubjectUnderTest) -> None:
        """The plan names the columns in file order, and every record has as many fields."""
        async with subject.open(ReadOptions(mode="full")) as extractor:
            plan = await extractor.plan(None)
            rows = await collected(extractor, plan)
        assert [column.name for column in plan.columns][:3] == ["id", "note", "amount"]
        assert {len(row) for row in rows} == {len(plan.columns)}

    async def test_chosen_columns_come_in_the_order_asked_for(self, subject: SubjectUnderTest) -> None:
        """Named columns alone are read; a leading minus leaves one out."""
        async with subject.open(ReadOptions(mode="full", columns=("amount", "id"))) as extractor:
            plan = await extractor.plan(None)
            assert [column.name for column in plan.columns] == ["amount", "id"]
            assert {len(row) for row in await collected(extractor, plan)} == {2}
        async with subject.open(ReadOptions(mode="full", columns=("-note",))) as extractor:
            assert "note" not in [column.name for column in (await extractor.plan(None)).columns]

    async def test_an_unknown_column_is_named_with_its_field(self, subject: SubjectUnderTest) -> None:
        """A column that is not there is a configuration error that names the field."""
        async with subject.open(ReadOptions(mode="full", columns=("amuont",))) as extractor:
            with pytest.raises(ConfigurationError, match=r"(?s)columns.*amuont.*amount"):
                await extractor.plan(None)

    async def test_an_unknown_source_is_named(self, subject: SubjectUnderTest) -> None:
        """A misspelt name is a configuration error."""
        async with subject.misnamed(ReadOptions(mode="full")) as extractor:
            with pytest.raises(ConfigurationError):
                await extractor.plan(None)

    async def test_null_and_the_empty_string_stay_apart(self, subject: SubjectUnderTest) -> None:
        """NULL is an unquoted empty field, the empty string a quoted one; with a marker, NULL is the marker."""
        assert {b",,", b',"",'} <= await _note_forms(subject, CsvDialect())
        assert rb",\N," in await _note_forms(subject, CsvDialect(null=r"\N"))

    async def test_chunks_end_on_a_record(self, subject: SubjectUnderTest) -> None:
        """Every chunk can be cut off from the next without cutting a record."""
        async with subject.open(ReadOptions(mode="full")) as extractor:
            plan = await extractor.plan(None)

            async def write(data: bytes) -> None:
                assert data.endswith(b"\n")
                assert {len(row) for row in parsed(data)} == {len(plan.columns)}

            await extractor.read(plan, plan.partitions[0], write)

    async def test_writes_wait_for_one_another(self, subject: SubjectUnderTest) -> None:
        """While one write waits no other begins: a slow destination slows the source down."""
        async with subject.open(ReadOptions(mode="full")) as extractor:
            plan = await extractor.plan(None)
            await assert_one_at_a_time(partial(extractor.read, plan, plan.partitions[0]))

    async def test_a_failing_destination_stops_the_read(self, subject: SubjectUnderTest) -> None:
        """The destination's own error comes out, and the partition can be read again."""
        async with subject.open(ReadOptions(mode="full")) as extractor:
            plan = await extractor.plan(None)
            await assert_its_error_comes_out(partial(extractor.read, plan, plan.partitions[0]))
            assert len(await collected(extractor, plan)) == await subject.count()

    async def test_a_cancelled_read_ends_at_once(self, subject: SubjectUnderTest) -> None:
        """A read that is cancelled while its destination waits ends within seconds."""
        async with subject.open(ReadOptions(mode="full")) as extractor:
            plan = await extractor.plan(None)
            await assert_a_cancel_ends_it(partial(extractor.read, plan, plan.partitions[0]))

    async def test_partitions_show_one_state(self, subject: SubjectUnderTest) -> None:
        """Transfers between rows while the partitions are read never change their sum."""
        if not subject.can_partition:
            pytest.skip("this source has no partitions, so nothing can come apart")
        async with subject.open(ReadOptions(mode="full", partitions=4)) as extractor:
            plan = await extractor.plan(None)
            total = 0
            for partition in plan.partitions:
                await subject.move(7)
                chunks: list[bytes] = []

                async def write(data: bytes, chunks: list[bytes] = chunks) -> None:
                    chunks.append(data)

                await extractor.read(plan, partition, write)
                total += sum(int(row[2]) for row in parsed(b"".join(chunks)))
        assert total == 100 * await subject.count()

    async def test_incremental_brings_what_is_new_and_nothing_else(self, subject: SubjectUnderTest) -> None:
        """The window begins after the last one's end: no row is missing, none comes twice."""
        _need_increments(subject)
        first, since = await _increment(subject, None)
        again, same = await _increment(subject, since)
        await subject.add(25)
        added, _ = await _increment(subject, same)
        assert (again, same) == ([], since)
        assert ids([*first, *added]) == list(range(1, await subject.count() + 1))
        assert len(added) == 25

    async def test_a_plan_made_earlier_reads_the_same_window(self, subject: SubjectUnderTest) -> None:
        """A resumable plan, read by another extractor after more rows came, brings the rows of its window alone."""
        _need_increments(subject)
        options = ReadOptions(mode="incremental")
        async with subject.open(options) as extractor:
            plan = await extractor.plan(None)
        before = await subject.count()
        await subject.add(10)
        async with subject.open(options) as later:
            assert later.asked == plan.asked
            rows = await collected(later, Plan.model_validate(plan.kept()))
        assert plan.resumable
        assert ids(rows) == list(range(1, before + 1))

    async def test_what_is_asked_for_has_a_digest(self, subject: SubjectUnderTest) -> None:
        """Other columns, or another dialect, are another question: no plan of the one is taken up by the other."""
        questions = [ReadOptions(), ReadOptions(columns=("id",)), ReadOptions(dialect=CsvDialect(null="NULL"))]
        assert len({subject.open(options).asked for options in questions}) == 3
        assert subject.open(ReadOptions()).asked == subject.open(ReadOptions()).asked


def _need_increments(subject: SubjectUnderTest) -> None:
    if not subject.can_increment:
        pytest.skip("this source has no mode incremental")


async def _increment(subject: SubjectUnderTest, since: JsonValue) -> tuple[list[Row], JsonValue]:
    async with subject.open(ReadOptions(mode="incremental")) as extractor:
        plan = await extractor.plan(since)
        return await collected(extractor, plan), plan.until


async def _note_forms(subject: SubjectUnderTest, dialect: CsvDialect) -> set[bytes]:
    """How the notes of the first rows are written, commas included."""
    chunks: list[bytes] = []
    async with subject.open(ReadOptions(mode="full", columns=("id", "note", "amount"), dialect=dialect)) as extractor:
        plan = await extractor.plan(None)

        async def write(data: bytes) -> None:
            chunks.append(data)

        await extractor.read(plan, plan.partitions[0], write)
    lines = b"".join(chunks).split(b"\n")
    return {b"," + line.split(b",", 1)[1].rsplit(b",", 1)[0] + b"," for line in lines if line.count(b",") == 2}
