"""Debezium's events as they were recorded: every format of them becomes the same records."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.errors import ConfigurationError
from blocks.s3 import CsvDialect
from tasks.extractors.contract import CHANGE_COLUMNS, Column, Output, Records
from tasks.extractors.kafka.debezium import DebeziumOptions, Modes
from tasks.extractors.kafka.debezium.decoder import EARLY_TOMBSTONES, NOT_WANTED
from tasks.extractors.kafka.debezium.forms import UNAVAILABLE
from tasks.extractors.kafka.decoding import UndecodableError
from tasks.extractors.kafka.message import Message
from tests.tasks.extractors.debezium import SAMPLES, Registered, decode, decoder, json_of, message, rows, sample

FILES = sorted(file.stem for file in SAMPLES.glob("*.jsonl"))

_POSTGRES = {
    "id": "bigint", "si": "smallint", "i": "integer", "bi": "bigint", "num": "numeric", "num104": "numeric(10,4)",
    "money_": "money", "r": "real", "d": "double precision", "b": "boolean", "ch": "character(5)",
    "vc": "character varying(40)", "tx": "text", "ci": "citext", "by": "bytea", "dt": "date",
    "t": "time without time zone", "ttz": "time with time zone", "ts": "timestamp without time zone",
    "ts3": "timestamp(3) without time zone", "tstz": "timestamp with time zone", "iv": "interval", "u": "uuid",
    "js": "json", "jb": "jsonb", "xm": "xml", "ia": "integer[]", "ta": "text[]", "na": "numeric(10,2)[]",
    "tsa": "timestamp with time zone[]", "inet_": "inet", "cidr_": "cidr", "mac": "macaddr", "bt": "bit(3)",
    "vb": "bit varying(8)", "b1": "bit(1)", "pt": "point", "rng": "int4range", "tsr": "tstzrange", "hs": "hstore",
    "en": "mood", "dom": "integer", "ls": "tsvector", "oid_": "oid",
}  # fmt: skip
"""The table ``alltypes`` of the samples, as PostgreSQL shows its types."""

_TEXTS = {
    "id": "4", "si": "-32768", "i": "2147483647", "bi": "9223372036854775807",
    "num": "12345678901234567890.123456789", "num104": "-1234.5600", "money_": "1234.56", "r": "1.5",
    "d": "2.718281828459045", "b": "true", "ch": "ab   ", "vc": '"héllo, ""wörld""\nnewline"', "tx": "tëxt ☃",
    "ci": "CiText", "by": "deadbeef00", "dt": "2024-02-29", "t": "23:59:59.123456", "ttz": "10:00:00.5+00",
    "ts": "2024-02-29 23:59:59.123456", "ts3": "2024-02-29 23:59:59.123", "tstz": "2024-02-29 21:59:59.123456+00",
    "u": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "js": '"{""a"": 1, ""b"":[1,2]}"',
    "jb": '"{""a"": ""x"", ""z"": null}"', "xm": "<a>1</a>", "ia": '"[1,null,3]"', "ta": '"[""a"",""b,c"",null]"',
    "na": '"[1.10,2.20]"', "tsa": '"[""2024-01-01T00:00:00+00:00""]"', "inet_": "10.0.0.1", "cidr_": "10.0.0.0/8",
    "mac": "08:00:2b:01:02:03", "bt": "101", "vb": "1101", "b1": "1", "pt": '"(1.5,2.5)"', "rng": '"[1,10)"',
    "hs": '"{""a"": ""1"", ""b"": null}"', "en": "happy", "dom": "5", "ls": "", "oid_": "42",
}  # fmt: skip
"""What a SELECT of them gives (with the settings of the docs)."""

_MYSQL = {
    "id": "int", "ti": "tinyint", "ti1": "tinyint(1)", "bo": "tinyint(1)", "si": "smallint", "mi": "mediumint", "i": "int",
    "iu": "int unsigned", "bi": "bigint", "biu": "bigint unsigned", "dec_": "decimal(30,10)", "fl": "float",
    "db": "double", "b1": "bit(1)", "b8": "bit(8)", "ch": "char(5)", "vc": "varchar(40)", "tx": "text",
    "bin_": "binary(4)", "vb": "varbinary(8)", "bl": "blob", "dt": "date", "tm": "time(6)", "dttm": "datetime(6)",
    "dt0": "datetime", "ts": "timestamp(3)", "yr": "year", "js": "json", "en": "enum('a','b')", "st": "set('x','y','z')",
    "geo": "point",
}  # fmt: skip
_MYSQL_TEXTS = {
    "ti": "-1", "ti1": "1", "iu": "4294967295", "bi": "-9223372036854775808", "biu": "18446744073709551615",
    "fl": "1.5", "db": "2.718281828", "b1": "1", "b8": "00000101", "vc": '"héllo, ""w"""', "bin_": "00310000",
    "vb": "783031", "bl": "6465616462656566", "dt": "2024-02-29", "tm": "-100:00:00.500000",
    "dttm": "2024-02-29 23:59:59.123456", "dt0": "2024-02-29 23:59:59", "ts": "2024-02-29 23:59:59.123+00", "yr": "2024",
    "js": '"{""a"": 1}"', "en": "b", "st": '"x,z"', "geo": "0101000000000000000000f03f0000000000000040",
}  # fmt: skip

_COMPPK = {"a": "integer", "b": "text", "v": "numeric(12,2)", "extra": "jsonb"}
_SMALL = {"id": "integer", "name": "text", "big": "text", "a": "integer", "b": "text", "v": "text"}


def _columns(types: dict[str, str]) -> tuple[Column, ...]:
    return tuple(Column(name=name, type=kind) for name, kind in types.items())


POSTGRES = {
    "public.alltypes": _columns(_POSTGRES), "public.comppk": _columns(_COMPPK),
    **dict.fromkeys(("public.toast", "public.fullrep", "public.nopk"), _columns(_SMALL)),
}  # fmt: skip
MYSQL = {"shop.alltypes": _columns(_MYSQL)}


# -- every sample -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_every_recorded_event_is_decoded(name: str) -> None:
    """Each event of a row is one record, and what is none is counted or a tombstone."""
    messages = sample(name)
    made = decoder()
    found = made(messages)
    tombstones = sum(each.value is None for each in messages)
    records = sum(each.count for _, each in found)
    assert records
    assert records + tombstones + made.counted.total() == len(messages)
    for output, each in found:
        assert output.columns[: len(CHANGE_COLUMNS)] == CHANGE_COLUMNS
        assert each.data.count(b"\n") >= each.count
    positions = [row["_position"] for output, _ in found for row in rows(found, output.table)]
    assert len(set(positions)) == records


@pytest.mark.parametrize("name", FILES)
def test_parts_of_the_message_stand_before_the_row(name: str) -> None:
    """Whatever the event: the record is the one without them, and they are its message's."""
    messages = [each._replace(headers=(("h", b"x"),)) for each in sample(name)]
    by_offset = {str(each.offset): each for each in messages}
    options = DebeziumOptions(parts=("key", "topic", "partition", "offset", "timestamp", "headers"), hex_key=True)
    plain, told = decode(messages), decode(messages, options)
    for (output, _), (with_parts, _) in zip(plain, told, strict=True):
        names = [column.name for column in with_parts.columns]
        assert names[:4] + names[10:] == [column.name for column in output.columns]
        for row, wide in zip(rows(plain, output.table), rows(told, output.table), strict=True):
            parts = {name: wide.pop(name) for name in names[4:10]}
            assert wide == row
            message = by_offset[parts.pop("_offset")]
            assert parts == {
                "_key": "" if message.key is None else message.key.hex(),
                "_topic": message.topic,
                "_partition": "0",
                "_timestamp": "2026-11-22 23:01:07.000+00",
                "_headers": '"[[""h"",""x""]]"',
            }


@pytest.mark.parametrize("name", FILES)
def test_where_an_event_comes_from(name: str) -> None:
    """`source` and `transaction` are what the connector told, of whole events and of flattened ones."""
    messages = sample(name)
    by_offset = {str(each.offset): each for each in messages}
    made = decode(messages, DebeziumOptions(parts=("source", "transaction", "offset")))
    found = [row for output, _ in made for row in rows(made, output.table)]
    assert any(row["_source"] for row in found)
    for row in found:
        event = json.loads(by_offset[row["_offset"]].value or b"{}")
        event = event.get("payload", event)
        if "source" in event:
            expected = event["source"], event.get("transaction")
        else:
            sources = ("__source_lsn", "__source_ts_ms", "__source_txId", "__table")
            expected = {name[2:].removeprefix("source_"): event[name] for name in sources if name in event}, None
        assert [json_of(row["_source"]), json_of(row["_transaction"])] == [expected[0] or None, expected[1]]


def test_the_transaction_of_a_flattened_event() -> None:
    """Whatever `add.fields` has put into it; NULL is what it does not tell."""
    added = {"__op": "c", "__transaction_id": "7:1", "__transaction_total_order": 2, "__source_gtid": None, "__lsn": 5}
    options = DebeziumOptions(parts=("source", "transaction"), connector="postgresql")
    events = [message(0, "pg.public.a", {"id": 1}, {"id": 1, **added}), message(1, "pg.public.a", {"id": 1}, {"id": 1})]
    first, second = rows(decode(events, options), "public.a")
    assert json_of(first["_source"]) == {"gtid": None, "lsn": 5}
    assert json_of(first["_transaction"]) == {"id": "7:1", "total_order": 2}
    assert (second["_source"], second["_transaction"]) == ("", "")


def test_a_part_that_cannot_be_a_column_is_told() -> None:
    """A key that is no text, and a table that has a column of the part's name."""
    (event,) = _mixed_insert({"id": 1, "t": "x"})
    with pytest.raises(UndecodableError, match=r"its key is no text .* set key_format: bytes"):
        decode([event._replace(key=b"{\xff}")], DebeziumOptions(parts=("key",)))
    (event,) = _mixed_insert({"id": 1, "_offset": 5})
    with pytest.raises(ConfigurationError, match=r"field parts: public\.a has a column _offset of its own"):
        decode([event], DebeziumOptions(parts=("offset",)))


def _mixed_insert(row: dict[str, Any]) -> list[Message]:
    source = {"connector": "postgresql", "name": "pg", "db": "d", "schema": "public", "table": "a", "lsn": 1}
    return [message(0, "pg.public.a", {"id": 1}, {"before": None, "after": row, "source": source, "op": "c"})]


@pytest.mark.parametrize(
    ("name", "types"), [("postgres_with_schemas", {}), ("postgres_default", POSTGRES)], ids=["schemas", "given"]
)
def test_all_types_of_postgresql(name: str, types: dict[str, tuple[Column, ...]]) -> None:
    """With a schema in the message, or with types that were given, values have the texts of a SELECT."""
    full = POSTGRES if types else {"public.alltypes": POSTGRES["public.alltypes"]}
    row = rows(decode(sample(name), DebeziumOptions(tables=full)), "public.alltypes")[0]
    assert {name: row[name] for name in _TEXTS} == _TEXTS
    assert row["iv"] == "PT10303H5M6.789S"  # the default makes one number of it


def test_other_modes_of_postgresql_give_the_same_texts() -> None:
    """Decimals and intervals as strings, times of Kafka Connect, hex: only what milliseconds cannot hold is cut off."""
    modes = Modes(decimal="string", time="connect", interval="string", binary="hex")
    row = rows(
        decode(sample("postgres_decimal_string_time_connect"), DebeziumOptions(tables=POSTGRES, modes=modes)),
        "public.alltypes",
    )
    shortened = {"t": "23:59:59.123", "ts": "2024-02-29 23:59:59.123"}
    assert {name: row[0][name] for name in _TEXTS} == _TEXTS | shortened
    assert row[0]["iv"] == "P1Y2M3DT4H5M6.789S"
    assert (row[2]["num"], row[2]["dt"], row[2]["ts"], row[2]["tstz"]) == ("NaN", "infinity", "-infinity", "infinity")


def test_flattened_events() -> None:
    """Rows with a few fields of the event in them; a field that a table has and no event is a column."""
    modes = Modes(decimal="double", time="isostring")
    made = decode(sample("postgres_unwrap_isostring_double"), DebeziumOptions(tables=POSTGRES, modes=modes))
    row = rows(made, "public.alltypes")
    inexact = {"num": "1.2345678901234567e+19"}
    assert {name: row[0][name] for name in _TEXTS} == _TEXTS | inexact
    assert (row[2]["num"], row[2]["dt"], row[2]["ts"]) == ("NaN", "infinity", "-infinity")
    assert [(each["_op"], each["_unchanged"], each["id"]) for each in rows(made, "public.toast")] == [
        ("I", "", "1"), ("I", "", "2"), ("U", '"[""big""]"', "1"), ("D", '"[""name"",""big""]"', "2"),
        ("D", '"[""name"",""big""]"', "20"),
    ]  # fmt: skip
    assert list(rows(made, "public.comppk")[0])[4:] == ["a", "b", "v"]


@pytest.mark.parametrize("name", ["mariadb_default", "mariadb_snapshot"])
def test_all_types_of_mysql(name: str) -> None:
    """Types that were given make up for what a schema would not even tell: digits, signs."""
    row = rows(decode(sample(name), DebeziumOptions(tables=MYSQL)), "shop.alltypes")[0]
    texts = _MYSQL_TEXTS | ({"vc": '"héllo, ""w""\nx"'} if name == "mariadb_snapshot" else {})
    assert {name: row[name] for name in texts} == texts


def test_without_types_the_json_is_written_as_it_is() -> None:
    """Numbers, strings and structs as JSON has them, and the column says that its type is not known."""
    made = decode(sample("postgres_default"))
    row = rows(made, "public.alltypes")[0]
    assert (row["bi"], row["num104"], row["ts"]) == ("9223372036854775807", "/0OfAA==", "1709251199123456")
    assert row["num"] == '"{""scale"":9,""value"":""J+QbMka+ybFuOYEV""}"'
    output = next(output for output, _ in made if output.table == "public.alltypes")
    assert {column.type for column in output.columns[4:]} == {"unknown"}
    assert [column.name for column in output.columns if column.key] == ["_position", "id"]


# -- what happens to rows -----------------------------------------------------------------------------------------------


def _events() -> list[Message]:
    return sample("postgres_with_schemas")


def test_each_operation() -> None:
    """Insert, update, delete, a changed key (a deletion and an insertion), truncate; tombstones make no record."""
    made = decoder()
    found = made(_events())
    operations = {
        table: "".join(row["_op"] for row in rows(found, f"public.{table}"))
        for table in ("toast", "fullrep", "nopk", "comppk")
    }
    assert operations == {"toast": "IIUDD", "fullrep": "IUDT", "nopk": "IUDT", "comppk": "IIUDU"}
    assert made.counted == Counter(
        {"transaction boundaries, passed over": 2, "messages of pg_logical_emit_message, passed over": 1}
    )
    assert sum((Counter(records.counted) for _, records in found), Counter()) == made.counted


def test_values_that_the_log_does_not_have_are_named() -> None:
    """A large value that an update left alone; all but the key of a deletion under REPLICA IDENTITY DEFAULT."""
    found = decode(_events())
    toast = rows(found, "public.toast")
    assert (toast[2]["name"], toast[2]["big"], toast[2]["_unchanged"]) == ("a2", "", '"[""big""]"')
    assert (toast[3]["_unchanged"], toast[3]["id"]) == ('"[""name"",""big""]"', "2")
    assert {"big", "name"} <= frozenset().union(
        *[each.absent for output, each in found if output.name == "public.toast"]
    )
    full = rows(found, "public.fullrep")[2]
    assert (full["_unchanged"], full["v"]) == ("", "uno")


def test_defaults_that_the_connector_fills_in_are_not_values() -> None:
    """Under REPLICA IDENTITY DEFAULT a column that is NOT NULL has its default in ``before``, or nothing's stand-in."""
    event = json.loads(_events()[1].value or b"")
    event["schema"]["fields"][0]["fields"][1] |= {"default": "new", "optional": False}
    event["schema"]["fields"][1]["fields"][1] |= {"default": "new", "optional": False}
    event["payload"] |= {"op": "d", "before": {"id": 1, "name": "new", "big": None}, "after": None}
    [row] = rows(decode([message(0, "pg.public.toast", {"id": 1}, event)]), "public.toast")
    assert (row["_unchanged"], row["name"]) == ('"[""name"",""big""]"', "")
    event["payload"]["before"]["name"] = "other"
    [row] = rows(decode([message(0, "pg.public.toast", {"id": 1}, event)]), "public.toast")
    assert (row["_unchanged"], row["name"]) == ("", "other")


def test_the_placeholder_is_known_in_bytes_and_arrays_too() -> None:
    """As base64, as the one element of an array of strings, as the codes of its letters."""
    template = json.loads(_events()[1].value or b"")
    row = template["schema"]["fields"][1]
    row["fields"] = [
        {"type": "int32", "optional": False, "field": "id"}, {"type": "bytes", "optional": True, "field": "b"},
        {"type": "array", "items": {"type": "string", "optional": True}, "optional": True, "field": "s"},
        {"type": "array", "items": {"type": "int32", "optional": True}, "optional": True, "field": "n"},
    ]  # fmt: skip
    mark = "__debezium_unavailable_value"
    after = {"id": 1, "b": "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==", "s": [mark], "n": list(mark.encode())}
    for name in ("b", "s", "n"):
        template["payload"] |= {"after": after | dict.fromkeys({"b", "s", "n"} - {name}), "op": "u"}
        [row] = rows(decode([message(0, "pg.public.toast", None, template)]), "public.toast")
        assert (row["_unchanged"], row[name]) == (f'"[""{name}""]"', ""), name


def test_the_commit_time_and_the_position() -> None:
    """In UTC, to the microsecond; the position is the message's own."""
    row = rows(decode(_events()), "public.toast")[0]
    assert row["_committed_at"] == "2026-11-22 23:01:07.641406+00"
    assert row["_position"] == "pg.public.toast-00000-00000000000000000001-0000"


def test_an_altered_table_begins_a_new_output() -> None:
    """A column that comes in between is in the records from there on, and in no earlier one."""
    outputs = [output for output, _ in decode(_events()) if output.table == "public.comppk"]
    assert [[column.name for column in output.columns[4:]] for output in outputs] == [
        ["a", "b", "v"],
        ["a", "b", "v", "extra"],
    ]
    assert {output.name for output in outputs} == {"public.comppk"}
    assert [column.name for column in outputs[0].columns if column.key] == ["_position", "a", "b"]


def test_a_table_without_a_schema_may_be_altered_too() -> None:
    """Without schemas, other names are another shape, and no value is lost or moved."""
    columns = [
        [column.name for column in output.columns[4:]]
        for output, _ in decode(sample("postgres_default"))
        if output.table == "public.comppk"
    ]
    assert columns == [["a", "b", "v"], ["a", "b", "v", "extra"]]


def test_tables_of_one_topic_are_told_apart() -> None:
    """Events of several tables that were routed into one topic go to an output each, in their order."""
    for name in ("postgres_with_schemas", "postgres_default"):
        apart = decode(sample(name))
        together = decode([each._replace(topic="all") for each in sample(name)])
        for table in ("toast", "fullrep", "nopk", "comppk", "alltypes"):
            strip = [{k: v for k, v in row.items() if k != "_position"} for row in rows(together, f"public.{table}")]
            assert strip == [
                {k: v for k, v in row.items() if k != "_position"} for row in rows(apart, f"public.{table}")
            ]


def test_tables_that_are_not_wanted_are_passed_over() -> None:
    made = decoder(DebeziumOptions(tables_wanted=lambda table: table == "public.nopk"))
    assert {output.table for output, _ in made(_events())} == {"public.nopk"}
    assert made.counted[NOT_WANTED] == 17


def test_a_tombstone_is_a_deletion_where_nothing_else_tells_it() -> None:
    """Flattened events without `__deleted`: the key is what is known, and the rest is named."""
    value = {"id": 7, "note": "x", "__op": "c", "__source_lsn": 1, "__source_ts_ms": 1000}
    messages = [message(0, "pg.public.t", {"id": 7}, value), message(1, "pg.public.t", {"id": 7}, None)]
    records = rows(decode(messages), "public.t")
    assert [(row["_op"], row["_unchanged"], row["id"], row["note"]) for row in records] == [
        ("I", "", "7", "x"), ("D", '"[""note""]"', "7", ""),
    ]  # fmt: skip
    made = decoder()
    assert len(rows(made(messages[:1]) + made(messages[1:]) + made(messages[1:]), "public.t")) == 3
    made = decoder()
    assert made(messages[1:]) == []
    assert made.counted == {EARLY_TOMBSTONES: 1}


def test_flattened_events_without_op_are_updates() -> None:
    """All that is known of such a row is that it is so now."""
    records = rows(decode([message(0, "pg.public.t", None, {"id": 7, "__deleted": "false"})]), "public.t")
    assert [(row["_op"], row["_committed_at"]) for row in records] == [("U", "")]


# -- the dialect --------------------------------------------------------------------------------------------------------


def test_the_null_marker_and_base64() -> None:
    """NULL is the marker, a string that is the marker is quoted, the empty string is quoted under the empty marker alone."""
    event = json.loads(_events()[1].value or b"")
    for null, name, field in ((r"\N", "\\N", '"\\N"'), ("NULL", "NULL", '"NULL"'), ("1", "1", '"1"'), ("", "", '""')):
        event["payload"]["after"] = {"id": 1, "name": name, "big": None}
        made = decode([message(0, "pg.public.toast", None, event)], dialect=CsvDialect(null=null))
        [row] = rows(made, "public.toast")
        assert (row["name"], row["big"], row["_unchanged"]) == (field, null, null)
        assert row["id"] == ('"1"' if null == "1" else "1")
    row = rows(decode(_events(), dialect=CsvDialect(binary="base64")), "public.alltypes")[0]
    assert row["by"] == "3q2+7wA="


# -- what cannot be decoded ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"no JSON", "no Debezium event"),
        (b'{"op":"c","source":{"table":"t"},"after":"{}"}', "no Debezium event"),
        (b'{"schema":{"type":"struct","fields":[{"type":"int32"}]},"payload":1}', "no Debezium event"),
        (b"\0\0\0\0\1xyz", "schema 1 of a registry"),
        (b"[1,2]", "no Debezium event"),
        (b'{"op":"x","source":{"table":"t","schema":"s"},"after":{"a":1}}', "op 'x'"),
        (b'{"op":"u","source":{"table":"t","schema":"s"},"after":null,"before":{"a":1}}', "without a row"),
        (b'{ "schema" : {"type":"struct"}, "payload" : {"a":1}}', "JsonConverter"),
    ],
)
def test_what_is_no_event_is_named(value: bytes, reason: str) -> None:
    """The error is about that message, and says why."""
    bad = Message("pg.public.toast", 0, 5, -1, None, value, ())
    made = decoder()
    with pytest.raises(UndecodableError, match=reason) as caught:
        made([*_events()[:5], bad])
    assert caught.value.message == bad


def test_a_call_that_raises_has_changed_nothing() -> None:
    """The messages before the bad one can be given again, and those after it."""
    events, made, alone = _events(), decoder(), decoder()
    bad = Message("pg.public.nopk", 0, 5, -1, None, b"{", ())
    with pytest.raises(UndecodableError):
        made([*events[:9], bad, *events[9:]])
    assert made.state == decoder().state
    assert not made.counted
    assert made(events[:9]) + made(events[9:]) == alone(events[:9]) + alone(events[9:])
    assert made.state == alone.state


def test_a_value_of_another_type_than_was_given() -> None:
    """A wrong type is an error that names the column, and no wrong text."""
    tables = {"public.toast": _columns({"id": "integer", "name": "date", "big": "text"})}
    with pytest.raises(UndecodableError, match=r"\$\.after\.name"):
        decode(sample("postgres_default")[1:2], DebeziumOptions(tables=tables))


# -- registries ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("converter", ["avro", "json"])
def test_events_of_a_registry_are_the_same_records(converter: str) -> None:
    """Avro and JSON Schema carry the same events as the JSON with schemas, and make the same bytes."""
    registered = Registered()
    convert = getattr(registered, converter)
    messages = [each._replace(key=convert(each.key), value=convert(each.value)) for each in _events()]
    options = DebeziumOptions(
        schema=lambda number: registered.texts[number], tables=POSTGRES, parts=("source", "transaction")
    )
    plain = replace(options, schema=None)
    made, expected = decode(messages, options), decode(_events(), plain)
    for table in ("toast", "fullrep", "nopk", "comppk", "alltypes"):
        assert rows(made, f"public.{table}") == rows(expected, f"public.{table}")
    keys = {output.table: [column.name for column in output.columns if column.key] for output, _ in made}
    assert keys["public.comppk"] == ["_position", "a", "b"]


def test_a_schema_that_is_neither_avro_nor_json() -> None:
    protobuf = Message("t", 0, 0, -1, None, b"\0\0\0\0\1\0xyz", ())
    with pytest.raises(UndecodableError, match="neither Avro nor JSON Schema"):
        decode([protobuf], DebeziumOptions(schema=lambda number: 'syntax = "proto3";'))


def test_keys_of_another_converter() -> None:
    """The same names in another form, in one topic: each message is decoded, and no loop goes on for ever."""
    events = sample("postgres_default")[1:3]
    with_schema = sample("postgres_with_schemas")[1].key
    messages = [events[0], events[1]._replace(key=with_schema), events[0]._replace(key=b"plain", offset=9)]
    records = rows(decode(messages, DebeziumOptions(deduplicate=False)), "public.toast")
    assert [row["id"] for row in records] == ["1", "2", "1"]


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_garbled_messages_are_errors_and_nothing_else(data: st.DataObject) -> None:
    """Whatever bytes stand in a message, it is decoded or named; the decoder goes on afterwards."""
    events = sample(data.draw(st.sampled_from(FILES)))
    place = data.draw(st.integers(0, len(events) - 1))
    value = bytearray(events[place].value or b"{}")
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, max(0, len(value) - 1)))
        value[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    made = decoder(DebeziumOptions(deduplicate=False))
    with suppress(UndecodableError):
        made([*events[:place], events[place]._replace(value=bytes(value))])
    assert made(events)


_MIXED = {
    "id": "bigint",
    "t": "text",
    "j": "jsonb",
    "n": "numeric",
    "at": "timestamp",
    "b": "bytea",
    "f": "double precision",
}
_TEXTS_OF_ALL_KINDS = [
    "",
    "a",
    "NULL",
    "5",
    "a,b",
    'say "x"',
    "two\nlines",
    "\r",
    "nul\0nul",
    "é☃",
    None,
    None,
    UNAVAILABLE,
]


def _mixed(random: Random, number: int) -> list[Message]:
    """An event of any kind, and its tombstone if it is a deletion; its place in the log is most often behind the last."""
    row = {
        "id": number,
        "t": random.choice(_TEXTS_OF_ALL_KINDS),
        "j": random.choice(['{"a": 1}', None, UNAVAILABLE, "{}"]),
        "n": random.choice(["1.50", "-3", "1.5E+3", "NAN", None]),
        "at": random.choice(
            [None, 0, -1, 1_700_000_000_000_000 + number * 997, 253_402_300_800_000_000, 1_700_000_000_120_000]
        ),
        "b": random.choice(["", "3q2+7w==", None]),
        "f": random.choice([1.5, 0.1, -0.0, 1e300, "NaN", None]),
    }
    op = random.choice("cccccccuuuurdtm")
    lsn = 1000 + number * 10 - random.choice([0] * 9 + [35])
    source: dict[str, Any] = {
        "connector": "postgresql",
        "name": "pg",
        "db": "d",
        "schema": "public",
        "table": random.choice(["a"] * 19 + ["b"]),
    }
    source |= {"lsn": lsn, "sequence": f'["{lsn // 100 * 100}","{lsn}"]'}
    source |= {"ts_us": random.choice([1_700_000_000_000_000 + lsn] * 9 + [0]), "ts_ms": 1_700_000_000_000}
    value = {"before": row if op == "d" else None, "after": None if op in "dt" else row, "source": source, "op": op}
    events = [message(2 * number, "pg.public.a", {"id": number}, value)]
    return events + ([message(2 * number + 1, "pg.public.a", {"id": number}, None)] if op == "d" else [])


@given(st.randoms(use_true_random=False), st.sampled_from(["", "NULL", "5", r"\N", "é"]))
@settings(max_examples=60, deadline=None)
def test_many_events_at_once_become_what_each_becomes_alone(random: Random, null: str) -> None:
    """What is written by columns has the bytes of what is written one by one: alone, no event is long enough a column."""
    columns = tuple(Column(name=name, type=kind) for name, kind in _MIXED.items())
    options = DebeziumOptions(
        tables={"public.a": columns, "public.b": columns},
        modes=Modes(decimal="string"),
        tables_wanted=random.choice([None, lambda table: table == "public.a"]),
        parts=random.choice([(), ("offset", "key", "headers"), ("source", "transaction")]),
    )
    messages = [each for number in range(random.randint(1, 500)) for each in _mixed(random, number)]
    together, alone = (decoder(options, CsvDialect(null=null)) for _ in range(2))
    made, each = together(messages), [record for one in messages for record in alone([one])]
    assert _lines(made) == _lines(each)
    assert together.state == alone.state
    assert together.counted == alone.counted
    absent = [frozenset().union(*(records.absent for _, records in found)) for found in (made, each)]
    assert absent[0] == absent[1]


def _lines(made: list[tuple[Output, Records]]) -> list[tuple[str, bytes]]:
    """The bytes of outputs that follow each other."""
    return [
        (name, b"".join(records.data for _, records in group))
        for name, group in groupby(made, lambda each: each[0].name)
    ]
