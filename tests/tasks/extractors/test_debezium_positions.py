"""Events that a connector sends again are left out, and no other: by their place in the source's log."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from blocks.s3 import CsvDialect
from tasks.extractors.kafka.debezium import DebeziumOptions, debezium_decoder
from tasks.extractors.kafka.debezium.decoder import SEEN_BEFORE
from tasks.extractors.kafka.debezium.events import Source
from tasks.extractors.kafka.debezium.positions import ascend, source_order
from tasks.extractors.kafka.message import Message
from tests.tasks.extractors.debezium import compact, decoder, rows, sample

_TABLE = "public.t"


def _postgres(number: int, lsn: int, before: int | None, at: int, op: str = "c", key: Any = ...) -> dict[str, Any]:
    """An event of a transaction that followed the one that ended at ``before``, committed at so many milliseconds."""
    row = {"id": number}
    sequence = json.dumps([None if before is None else str(before), str(lsn)], separators=(",", ":"))
    source = {"connector": "postgresql", "name": "pg", "schema": "public", "table": "t", "lsn": lsn, "sequence": sequence,
              "ts_ms": at, "ts_us": at * 1000}  # fmt: skip
    value = {"before": row if op == "d" else None, "after": None if op == "d" else row, "source": source, "op": op}
    return {"key": row if key is ... else key, "value": value}


def _mysql(number: int, file: str, pos: int, row: int, at: int, server: int = 1) -> dict[str, Any]:
    source = {"connector": "mysql", "name": "my", "db": "public", "table": "t", "file": file, "pos": pos, "row": row,
              "server_id": server, "ts_ms": at}  # fmt: skip
    return {"key": {"id": number}, "value": {"before": None, "after": {"id": number}, "source": source, "op": "c"}}


class _Log:
    """A topic partition that events are written into, and a decoder that reads it."""

    def __init__(self) -> None:
        self.decoder = decoder()
        self.offset = 0

    def ids(self, *events: dict[str, Any]) -> list[int]:
        """The ids of the records that these events, which come next, become; 0 for that of an emptied table."""
        messages = []
        for event in events:
            key = None if event["key"] is None else compact(event["key"])
            messages.append(Message("pg.public.t", 0, self.offset, -1, key, compact(event["value"]), ()))
            self.offset += 1
        return [int(row["id"] or 0) for row in rows(self.decoder(messages), _TABLE)]

    def restarted(self) -> None:
        """Another run goes on, with what the first one has kept as JSON."""
        state = json.loads(json.dumps(self.decoder.state))
        self.decoder = debezium_decoder(CsvDialect(), DebeziumOptions(), state)


_EVENTS = [
    _postgres(1, 100, None, 1), _postgres(2, 110, None, 1), _postgres(3, 205, 120, 2), _postgres(4, 150, 220, 3),
    _postgres(5, 160, 220, 3), _postgres(6, 400, 300, 3),
]  # fmt: skip


def test_transactions_are_in_the_order_of_their_commits() -> None:
    """A change that was made early in a transaction that was committed late is not taken for one that was seen."""
    assert _Log().ids(*_EVENTS) == [1, 2, 3, 4, 5, 6]


@given(st.lists(st.integers(0, 5), max_size=4), st.booleans())
def test_whatever_is_sent_again_comes_once(restarts: list[int], new_runs: bool) -> None:
    """After any number of restarts, from any event on, each followed by all that come after it."""
    log = _Log()
    got = log.ids(*_EVENTS)
    for start in restarts:
        if new_runs:
            log.restarted()
        got += log.ids(*_EVENTS[start:])
    assert got == [1, 2, 3, 4, 5, 6]
    assert log.ids(_postgres(7, 500, 420, 5)) == [7]


_PLACES = st.lists(st.tuples(st.none() | st.integers(1, 1200), st.integers(1, 1200)), min_size=1, max_size=6)


@given(_PLACES | _PLACES.map(lambda places: sorted(places, key=lambda place: (place[0] or 0, place[1]))))
def test_an_order_that_is_told_of_many_at_once_is_that_of_each(places: list[tuple[int | None, int]]) -> None:
    """Numbers of any width, and transactions of which the one before is not known."""
    sources = [Source(**{name: _postgres(1, lsn, before, 1)["value"]["source"][name] for name in ("lsn", "sequence")})
               for before, lsn in places]  # fmt: skip
    each = [source_order(source, "u") or () for source in sources]
    rises = all(place < following for place, following in pairwise(each))
    assert rises or not ascend(sources)
    if len({len(source.sequence or "") for source in sources}) == 1 and all(before for before, _ in places):
        assert ascend(sources) == rises or len({len(str(before)) for before, _ in places}) > 1


def test_a_restart_in_the_middle() -> None:
    """What was sent before the connector died, from some event on again, and then what is new."""
    log = _Log()
    assert log.ids(*_EVENTS[:4]) == [1, 2, 3, 4]
    assert log.ids(*_EVENTS[2:]) == [5, 6]
    assert log.decoder.counted == {SEEN_BEFORE: 2}


def test_a_changed_key_is_two_events_at_one_place() -> None:
    deletion, insertion = _postgres(1, 200, 100, 1, "d"), _postgres(2, 200, 100, 1, "c")
    log = _Log()
    assert log.ids(deletion, insertion) == [1, 2]
    assert log.ids(deletion, insertion) == []


def test_rows_of_one_copy_share_a_place() -> None:
    """By their keys those that were seen are known; without keys all of them come again rather than one be lost."""
    rows_ = [_postgres(n, 200, 100, 1) for n in range(5)]
    log = _Log()
    assert log.ids(*rows_[:3]) == [0, 1, 2]
    log.restarted()
    assert log.ids(*rows_) == [3, 4]
    keyless = [_postgres(7, 300, 200, 2, key=None)] * 2
    assert log.ids(*keyless) == [7, 7]
    assert log.ids(*keyless) == [7, 7]
    assert log.ids(*rows_) == []


def test_rows_of_one_copy_that_share_their_key() -> None:
    """Of a connector with `message.key.columns` a key is no row's own: each row comes, and comes once."""
    rows_ = [_postgres(n, 200, 100, 1, key={"customer": 7}) for n in range(1, 5)]
    log = _Log()
    assert log.ids(*rows_[:3]) == [1, 2, 3]
    log.restarted()
    assert log.ids(*rows_) == [4]
    assert log.decoder.counted == {SEEN_BEFORE: 3}


def test_that_a_table_was_emptied_is_told_once() -> None:
    """It has no key: of one statement's tables, which share a place, each is told."""

    def emptied(table: str, lsn: int) -> dict[str, Any]:
        event = _postgres(0, lsn, lsn - 10, 2, "t", key=None)
        event["value"] |= {"before": None, "after": None}
        event["value"]["source"]["table"] = table
        return event

    log = _Log()
    assert log.ids(_postgres(1, 200, 100, 1), emptied("u", 300), emptied("t", 300)) == [1, 0]
    assert log.ids(emptied("u", 300), emptied("t", 300)) == []
    log.restarted()
    assert log.ids(emptied("t", 300), _postgres(2, 400, 310, 3)) == [2]
    assert log.ids(_postgres(2, 400, 310, 3), emptied("t", 500)) == [0]
    assert log.ids(emptied("t", 500), emptied("t", 600)) == [0]
    assert log.decoder.counted == {SEEN_BEFORE: 3}


def test_snapshot_rows_come_again() -> None:
    """They have no place of their own: a snapshot that was begun anew is a later state."""
    snapshot = [_postgres(n, 90, None, 1, "r") for n in range(3)]
    log = _Log()
    assert log.ids(*snapshot[:2]) == [0, 1]
    assert log.ids(*snapshot, *_EVENTS) == [0, 1, 2, 1, 2, 3, 4, 5, 6]


def test_a_source_whose_log_was_set_back_loses_nothing() -> None:
    """Another PostgreSQL under the same name, with lower places: its transactions were committed later."""
    log = _Log()
    log.ids(*_EVENTS)
    assert log.ids(_postgres(11, 50, None, 10), _postgres(12, 60, None, 10), _postgres(13, 80, 70, 11)) == [11, 12, 13]
    assert log.ids(_postgres(12, 60, None, 10), _postgres(13, 80, 70, 11), _postgres(14, 95, 90, 12)) == [14]


def test_mysql_goes_by_file_place_and_row() -> None:
    """Files are numbers, however many digits they have; another server's log is another log."""
    log = _Log()
    first = [_mysql(1, "bin.999999", 900, 0, 1), _mysql(2, "bin.999999", 900, 1, 1), _mysql(3, "bin.1000000", 4, 0, 1)]
    assert log.ids(*first) == [1, 2, 3]
    assert log.ids(*first, _mysql(4, "bin.1000000", 9, 0, 1)) == [4]
    assert log.ids(_mysql(5, "bin.000002", 4, 0, 1, server=2)) == [5]
    assert log.ids(_mysql(5, "bin.000002", 4, 0, 1, server=2), _mysql(6, "bin.000002", 8, 0, 1, server=2)) == [6]


def test_connectors_and_partitions_are_apart() -> None:
    """Each topic partition has its own places, and each connector in it."""
    events = [compact(_postgres(n, n, 0, 1)["value"]) for n in (5, 3)]
    made = decoder()
    messages = [Message("t", place, 0, -1, None, value, ()) for place, value in enumerate(events)]
    messages.append(Message("t", 0, 1, -1, None, events[1].replace(b'"pg"', b'"other"'), ()))
    assert sum(records.count for _, records in made(messages)) == 3


def _flat(number: int, lsn: int, at: int, **added: Any) -> dict[str, Any]:
    sequence = json.dumps([str(lsn - 10), str(lsn)], separators=(",", ":"))
    value = {"id": number, "__op": "c", "__source_lsn": lsn, "__source_sequence": sequence, "__source_schema": "public"}
    value |= {"__source_table": "t", "__source_ts_us": at * 1000} | added
    return {"key": {"id": number}, "value": value}


def test_flattened_events_of_connectors_that_are_not_told_apart() -> None:
    """Without the connector's name another's lower places are no sign that an event was seen; with it each has its own."""
    log = _Log()
    assert log.ids(_flat(1, 1000, 5), _flat(2, 50, 4), _flat(3, 1010, 6), _flat(4, 60, 5)) == [1, 2, 3, 4]
    log = _Log()
    one, other = _flat(1, 1000, 5, __source_name="one"), _flat(2, 50, 4, __source_name="other")
    assert log.ids(one, other, one, other) == [1, 2]
    assert log.decoder.counted == {SEEN_BEFORE: 2}


def test_flattened_events_without_a_commit_time() -> None:
    """Nothing tells that a log was set back, so lower places are no sign that an event was seen."""
    log, untimed = _Log(), {"__source_ts_us": None, "__source_name": "one"}
    assert log.ids(_flat(1, 1000, 5, **untimed), _flat(2, 50, 9, **untimed)) == [1, 2]


def test_it_can_be_switched_off() -> None:
    messages = sample("postgres_with_schemas")
    made = decoder(DebeziumOptions(deduplicate=False))
    assert sum(r.count for _, r in made(messages)) == sum(r.count for _, r in made(messages)) > 0
    assert made.state == {}


def test_no_place() -> None:
    """Snapshot rows, and events of connectors that tell none."""
    assert source_order(Source(lsn=1, sequence='[null,"1"]'), "r") is None
    assert source_order(Source(lsn=1), "c") is None
    assert source_order(Source(file="odd", pos=1), "c") is None
    assert source_order(Source(lsn=7, sequence='["5","7"]'), "d") == (5, 7, 0)
    assert source_order(Source(lsn=7, sequence='[null,"7"]'), "c") == (0, 7, 1)
