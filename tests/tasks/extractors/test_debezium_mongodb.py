"""Events of Debezium's MongoDB connector: what they become, also beside our own SELECT of the collection.

The connector is the real one; the replica set is what `tests.servers.changes` is, or the one of `TEST_MONGODB_URL`.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

import pytest
from bson.binary import Binary
from bson.code import Code
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.max_key import MaxKey
from bson.min_key import MinKey
from bson.objectid import ObjectId
from bson.regex import Regex
from bson.timestamp import Timestamp

from blocks.errors import ConfigurationError
from blocks.kafka_connect import KafkaConnect
from blocks.mongodb import MongoDB
from blocks.s3 import CsvDialect
from tasks.cdc import settings
from tasks.extractors.contract import ReadOptions
from tasks.extractors.fields import Declared
from tasks.extractors.kafka.dead_letters import DeadLetters
from tasks.extractors.kafka.debezium import DebeziumOptions
from tasks.extractors.kafka.decoding import UndecodableError
from tasks.extractors.kafka.message import Message
from tasks.extractors.kafka.source import KafkaTopics
from tasks.extractors.mongodb.source import MongoDBCollection
from tests.servers.connect import ConnectServer
from tests.servers.kafka import KafkaServer
from tests.servers.mongodb import MongoServer, database_of
from tests.tasks.extractors.binlog import fields
from tests.tasks.extractors.debezium import Connector, Registered, decode, decoder, json_of, message, recorded, rows
from tests.tasks.extractors.kafka import block_of
from tests.tasks.extractors.test_mongodb import block_of as mongodb_block_of

OID = ObjectId("65a1b2c3d4e5f60718293a4b")
PASS_OVER = DebeziumOptions(looks_up=True)
WITHOUT = "an event of op u without a row or document"


def event(
    offset: int, op: str, after: str | None = None, *, key: str = "1", collection: str = "orders", **more: Any
) -> Message:
    """As the connector writes it, without schemas."""
    source = {
        "connector": "mongodb",
        "name": "shop",
        "db": "shop",
        "collection": collection,
        "ord": 1,
        "ts_ms": 1_767_323_045_678,
    }
    value = {"before": None, "after": after, "updateDescription": None, "source": source, "op": op, **more}
    return message(offset, f"shop.shop.{collection}", {"id": key}, value)


def test_each_kind_of_change() -> None:
    """Snapshot, insert, update, replacement, deletion: the document's ``_id``, and all else in ``_extra``."""
    patch = {"updatedFields": '{"n": 2}', "removedFields": ["old"], "truncatedArrays": None}
    made = decode(
        [
            event(0, "r", '{"_id": 1,"n": {"$numberLong": "1"}}'),
            event(1, "c", f'{{"_id": {{"$oid": "{OID}"}},"s": "a\\"b"}}'),
            event(2, "u", '{"_id": 1,"n": 2}', updateDescription=patch),
            event(3, "u", '{"_id": 1}'),
            event(4, "d"),
            event(5, "d", key=f'{{"$oid": "{OID}"}}', before=f'{{"_id": {{"$oid": "{OID}"}},"s": 1}}'),
        ]
    )  # fmt: skip
    assert [(row["_op"], row["_id"], json_of(row["_extra"])) for row in rows(made, "shop.orders")] == [
        ("S", "1", {"n": 1}),
        ("I", str(OID), {"s": 'a"b'}),
        ("U", "1", {"n": 2}),
        ("U", "1", None),
        ("D", "1", None),
        ("D", str(OID), {"s": 1}),
    ]
    unchanged = [json_of(row["_unchanged"]) for row in rows(made, "shop.orders")]
    assert unchanged == [None, None, None, None, ["_extra"], None]
    assert {row["_committed_at"] for row in rows(made, "shop.orders")} == {"2026-01-02 03:04:05.678000+00"}
    output = made[0][0]
    assert [(column.name, column.key) for column in output.columns[-2:]] == [("_id", True), ("_extra", False)]


def test_collections_in_one_topic() -> None:
    """Each goes to its own output, and those that are not wanted are passed over."""
    mixed = [event(n, "c", f'{{"_id": {n}}}', collection=name) for n, name in enumerate(["a", "b", "b", "a", "c"])]
    mixed = [Message("all", *each[1:]) for each in mixed]
    told = decoder(DebeziumOptions(tables_wanted=lambda name: name != "shop.c"))
    made = told(mixed)
    assert [[row["_id"] for row in rows(made, f"shop.{name}")] for name in "abc"] == [["0", "3"], ["1", "2"], []]
    assert told.counted == {"events of other tables, passed over": 1}


DECLARED = {
    "fields": [
        {"name": "_id", "type": "integer"},
        {"name": "total", "type": "decimal"},
        {"name": "city", "path": "to.city", "default": "?"},
    ]
}


def test_declared_columns() -> None:
    """By path, with types and defaults; what is not of its type is counted, once for each record that is written."""
    options = DebeziumOptions(declared=Declared.model_validate(DECLARED), looks_up=True)
    told = decoder(options)
    made = told(
        [
            event(0, "c", '{"_id": 1,"total": {"$numberDecimal": "1.50"},"to": {"city": "Rome","zip": "1"}}'),
            event(1, "c", '{"_id": 2,"total": "many"}'),
            event(2, "u", None, key="2"),
            event(3, "d", key="2"),
            event(4, "c", '{"_id": 3,"total": "more"}'),
        ]
    )
    assert [(r["_op"], r["_id"], r["total"], r["city"], json_of(r["_extra"])) for r in rows(made, "shop.orders")] == [
        ("I", "1", "1.50", "Rome", {"to": {"zip": "1"}}),
        ("I", "2", "many", "?", None),
        ("D", "2", "", "", None),
        ("I", "3", "more", "?", None),
    ]
    assert told.counted == {
        "total: not a decimal, written as text": 2,
        "updates of documents that were deleted since, passed over": 1,
    }


def test_counts_are_of_what_is_written() -> None:
    """A document that cannot be written stops the call; what was counted until then is counted when the rest is given again."""
    declared = Declared.model_validate(DECLARED)
    told = decoder(DebeziumOptions(declared=declared))
    good = [event(n, "c", f'{{"_id": {n},"total": "?"}}') for n in range(3)]
    with pytest.raises(UndecodableError, match=WITHOUT):
        told([*good, event(3, "u")])
    assert told.counted == {}
    assert len(rows(told(good), "shop.orders")) == 3
    assert told.counted == {"total: not a decimal, written as text": 3}


@pytest.mark.parametrize(
    ("options", "after", "told"),
    [
        ({"mistyped": "fail"}, '{"_id": 1,"total": "x"}', r"field mistyped: total: not a decimal"),
        ({"extra": "refuse"}, '{"_id": 1,"new": 1}', r"field extra: a document has the field new"),
        ({}, "[1]", r"its document is no Extended JSON: it is no document$"),
        ({}, '{"_id": 1', "its document is no Extended JSON: Expecting .* delimiter"),
    ],
)
def test_documents_that_are_refused(options: dict[str, Any], after: str, told: str) -> None:
    """Each names its message and the field; with dead letters the rest goes on."""
    declared = Declared.model_validate(DECLARED | options)
    first = event(0, "c", '{"_id": 0}')
    with pytest.raises(UndecodableError, match=rf"message 1 of .*{told}") as error:
        decode([first, event(1, "c", after)], DebeziumOptions(declared=declared))
    assert error.value.message.offset == 1


def test_an_update_without_its_document() -> None:
    """It is an error that names both causes; or passed over, where the connector looks documents up."""
    with pytest.raises(
        UndecodableError, match=r"capture\.mode has to be change_streams_update_full.*updates_without_document"
    ):
        decode([event(0, "u")])
    told = decoder(PASS_OVER)
    made = told([event(0, "c", '{"_id": 1}'), event(1, "u"), event(2, "u"), event(3, "d")])
    assert [row["_op"] for row in rows(made, "shop.orders")] == ["I", "D"]
    assert told.counted == {"updates of documents that were deleted since, passed over": 2}
    with pytest.raises(UndecodableError, match=r"op c without a row"):
        decode([event(0, "c")], PASS_OVER)


def test_a_key_that_is_none_of_the_connectors() -> None:
    """The error says that it is the key, and what it should be."""
    for key in ("1", {"_id": "1"}, {"id": 5}):
        last = message(1, "shop.shop.orders", key, json.loads(event(1, "d").value or b""))
        with pytest.raises(UndecodableError, match=r'its key is not \{"id": "…"\}'):
            decode([event(0, "c", '{"_id": 1}'), last])
    bad = event(1, "d", key='{"$oid": ')
    with pytest.raises(UndecodableError, match="its document is no Extended JSON"):
        decode([event(0, "c", '{"_id": 1}'), bad])


def test_other_connectors_in_the_same_topic() -> None:
    """Events without a row are alike in all of them, and are told by what they say of their source."""
    public = {"connector": "postgresql", "name": "p", "db": "d", "schema": "public", "table": "t", "lsn": 1, "ts_ms": 1}
    truncated = message(1, "all", None, {"before": None, "after": None, "source": public, "op": "t"})
    deleted = message(2, "all", {"id": "5"}, {"before": {"id": "5"}, "after": None, "source": public, "op": "d"})
    mine = [Message("all", *each[1:]) for each in (event(0, "c", '{"_id": 1}'), event(3, "d"))]
    made = decode([mine[0], truncated, deleted, mine[1]])
    assert [row["_op"] for row in rows(made, "public.t")] == ["T", "D"]
    assert [row["_op"] for row in rows(made, "shop.orders")] == ["I", "D"]


def test_what_is_not_wanted_stops_nothing() -> None:
    """A collection that the stream does not read may have what it likes."""
    others = [
        event(1, "u", collection="b"),
        event(2, "c", "no document", collection="b"),
        event(3, "c", collection="b"),
    ]
    told = decoder(DebeziumOptions(tables_wanted=lambda name: name == "shop.a"))
    mixed = [event(0, "c", '{"_id": 0}', collection="a"), *others, event(4, "c", '{"_id": 4}', collection="a")]
    made = told([Message("all", *each[1:]) for each in mixed])
    assert [row["_id"] for row in rows(made, "shop.a")] == ["0", "4"]
    assert told.counted == {"events of other tables, passed over": 3}


def test_flattened_events_are_refused() -> None:
    """As far as they say that they are MongoDB's."""
    flat = message(0, "shop.shop.orders", {"id": "1"}, {"_id": "1", "a": 1, "__op": "c", "__collection": "orders"})
    with pytest.raises(UndecodableError, match=r"flattened .* leave out ExtractNewDocumentState, or .* format json"):
        decode([flat])


@pytest.mark.parametrize("op", ["t", "m", "gone", "x"])
def test_operations_that_the_connector_does_not_have(op: str) -> None:
    with pytest.raises(UndecodableError, match="Invalid enum value"):
        decode([event(0, op)], PASS_OVER)


@pytest.mark.parametrize("null", ["", "∅", "Ã¼"])
def test_many_are_written_as_each(null: str) -> None:
    """Texts that are no ASCII where nothing is, values of other types, regular expressions: the same, however many there are."""
    declared = Declared.model_validate({"fields": [*DECLARED["fields"], {"name": "mark", "default": "–Ã¼"}]})
    texts = ['{"_id": 1}', '{"_id": 2,"total": null,"mark": "ü"}', '{"_id": 3,"mark": {"$regex": "\\rmark","$options": ""}}',
             '{"_id": 4,"total": "x","other": "–"}']  # fmt: skip
    events = [event(number, "c", texts[number % 4]) for number in range(160)]
    options, dialect = DebeziumOptions(declared=declared), CsvDialect(null=null)
    each = b"".join(records.data for one in events for _, records in decode([one], options, dialect))
    assert b"".join(records.data for _, records in decode(events, options, dialect)) == each


def test_many_that_are_refused() -> None:
    """Each goes to the dead letters, and what stands between comes out."""
    declared = Declared.model_validate(DECLARED | {"extra": "refuse"})
    made = DeadLetters(decoder(DebeziumOptions(declared=declared)), CsvDialect())
    more = {0: ',"new": 1', 1: "", 2: ""}
    events = [event(n, "c", f'{{"_id": {n}{more[n % 3]}}}') for n in range(600)]
    found = made(events)
    assert [int(row["_id"]) for row in rows(found, "shop.orders")] == [n for n in range(600) if n % 3]
    dead = [records.count for output, records in found if output.table != "shop.orders"]
    assert sum(dead) == 200


def test_others_than_mongodb_bring_their_columns() -> None:
    """Columns that are declared for a table's events are an error, and not without effect."""
    declared = DebeziumOptions(declared=Declared.model_validate(DECLARED))
    source: dict[str, Any] = {"connector": "postgresql", "name": "p", "schema": "public", "table": "t", "lsn": 1}
    whole = {"before": None, "after": {"id": 1}, "source": source, "op": "c"}
    for value in (whole, {"id": 1, "__op": "c"}):
        with pytest.raises(ConfigurationError, match=r"field fields: events of public\.t bring their columns"):
            decode([message(0, "p.public.t", {"id": 1}, value)], declared)


def test_what_a_stream_declares(kafka_server: KafkaServer) -> None:
    """The key is `_id`, which deletions bring; other formats and keys are refused."""

    def source(**fields: Any) -> KafkaTopics:
        return KafkaTopics(connection=block_of(kafka_server), topics=("x.*",), **({"format": "debezium"} | fields))

    assert source(fields=[{"name": "id", "path": "_id"}]).fields[0].where == "_id"
    for wrong in ([{"name": "total"}], [{"name": "_id"}, {"name": "sku", "key": True}]):
        with pytest.raises(ValueError, match=r"fields: deletions of MongoDB bring the _id alone"):
            source(fields=wrong)
    with pytest.raises(ValueError, match=r"mistyped: null would make NULL of an _id"):
        source(fields=[{"name": "_id"}], mistyped="null")
    with pytest.raises(ValueError, match=r"fields: _op is the column of"):
        source(fields=[{"name": "_id"}, {"name": "_op"}])
    with pytest.raises(ValueError, match=r"fields: columns are taken from documents"):
        source(format="text", fields=[{"name": "_id"}])


@pytest.mark.parametrize(
    ("settings", "options", "passes"),
    [
        ({}, {}, True),
        ({"capture.mode": "change_streams_update_full_with_pre_image"}, {}, True),
        ({"capture.mode": "change_streams"}, {}, False),
        ({"capture.mode": "change_streams_with_pre_image"}, {}, False),
        ({"capture.mode.full.update.type": "post_image"}, {}, False),
        ({"capture.mode": "change_streams"}, {"updates_without_document": "pass-over"}, True),
        ({}, {"updates_without_document": "fail"}, False),
    ],
)
def test_which_updates_may_be_without_their_document(
    kafka_server: KafkaServer, settings: dict[str, str], options: dict[str, Any], passes: bool
) -> None:
    """By default those of a connector that looks documents up, as far as the stream knows of it."""
    capture = {
        "connect": KafkaConnect(url="http://connect.example"), "database": MongoDB(hosts="db.example", database="shop"),
        "settings": settings,
    }  # fmt: skip
    source = KafkaTopics(
        connection=block_of(kafka_server), topics=("shop.*",), format="debezium", capture=capture, debezium=options
    )
    told = source.maker(CsvDialect())(None)
    if passes:
        assert told([event(0, "u")]) == []
    else:
        with pytest.raises(UndecodableError, match=WITHOUT):
            told([event(0, "u")])


def test_a_message_of_several_kinds_between() -> None:
    """Heartbeats, boundaries of transactions and tombstones are no records; events that are sent again come again."""
    boundary = {"status": "BEGIN", "id": "1", "event_count": None, "data_collections": None, "ts_ms": 1}
    told = decoder()
    made = told(
        [
            event(0, "c", '{"_id": 1}'),
            message(1, "shop.shop.orders", {"id": "1"}, None),
            message(2, "__debezium-heartbeat.shop", {"serverName": "shop"}, {"ts_ms": 5}),
            message(3, "shop.transaction", {"id": "1"}, boundary),
            event(4, "c", '{"_id": 1}'),
        ]
    )
    assert [row["_op"] for row in rows(made, "shop.orders")] == ["I", "I"]
    assert told.counted == {"heartbeats, passed over": 1, "transaction boundaries, passed over": 1}


def test_parts_of_the_event() -> None:
    """Where it stands in the source's log, as the connector tells it."""
    made = decode([event(0, "c", '{"_id": 1}')], DebeziumOptions(parts=("key", "source")))
    (row,) = rows(made, "shop.orders")
    assert json_of(row["_key"]) == {"id": "1"}
    assert (json_of(row["_source"])["collection"], json_of(row["_source"])["ord"]) == ("orders", 1)


# -- the real connector ---------------------------------------------------------------------------------------------------

VALUES: list[Any] = [
    5, Int64(5), Int64(2**40), 1.5, 2.0, 1e300, 1e-7, -0.0, math.nan, math.inf, Decimal128("1.10"), Decimal128("NaN"),
    Decimal128("1E+40"), OID, "", 'x"y,\n', "\\N", "ünï ✓ 🎉", datetime(2026, 1, 2, 3, 4, 5, 678000, UTC),
    datetime(1960, 1, 2, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC), Binary(b"\0\xff"), Binary(b"abc", 5),
    Binary(bytes(16), 4), Regex("a.b", "i"), Code("f()"), Code("f()", {"x": 1}), Timestamp(5, 6), MinKey(), MaxKey(), None,
    True, False, [], [1, {"k": [None]}], {}, {"é": {"$date": "x"}, "b": Int64(1)},
]  # fmt: skip
_FIELDS = [{"name": "_id"}, *({"name": f"v{number}", "type": "text"} for number in range(len(VALUES)))]
IDS: list[Any] = [
    1, Int64(7), Int64(2**40), 2.5, "q", '"', OID, Decimal128("3.0"), datetime(2026, 1, 1, tzinfo=UTC), True,
    Binary(bytes(16), 4), {"a": Int64(1), "b": datetime(2026, 1, 1, tzinfo=UTC)},
]  # fmt: skip


def connector_of(server: MongoServer, kafka: KafkaServer, connect: ConnectServer, **more: str) -> Connector:
    """As `headrace cdc enable` has it."""
    capture = settings.Capture("", "", (f"{server.database}.things",), server.password)
    config = settings.of_mongodb(mongodb_block_of(server), capture, replica_set="")
    return Connector(kafka, connect, config | more)


async def selected(server: MongoServer, **declared: Any) -> list[list[bytes]]:
    """The collection as it is read directly."""
    source = MongoDBCollection(connection=mongodb_block_of(server), collection="things", **declared)
    written = bytearray()

    async def write(data: bytes) -> None:
        written.extend(data)

    async with source.open(ReadOptions(mode="full", partitions=1)) as extractor:
        plan = await extractor.plan(None)
        for partition in plan.partitions:
            await extractor.read(plan, partition, write)
    return fields(bytes(written))


def assert_the_same_of_a_registry(found: list[Message]) -> None:
    """Avro and JSON Schema carry the same events as the JSON with schemas."""
    expected = [records.data for _, records in decode(found)]
    for converter in ("avro", "json"):
        registered = Registered()
        convert = getattr(registered, converter)
        messages = [each._replace(key=convert(each.key), value=convert(each.value)) for each in found]
        options = DebeziumOptions(schema=registered.texts.__getitem__)
        assert [records.data for _, records in decode(messages, options)] == expected


@pytest.mark.parametrize("schemas", ["false", "true"])
async def test_the_same_bytes_as_a_select(
    mongodb_replicated: MongoServer, kafka_server: KafkaServer, connect_server: ConnectServer, schemas: str
) -> None:
    """Every type, as an ``_id`` and as a value, of a snapshot and of the log, in declared columns and in ``_extra``."""
    document = {"_id": 0, **{f"v{number}": value for number, value in enumerate(VALUES)}}
    keys = [{"_id": key, "n": number} for number, key in enumerate(IDS)]
    converters = {f"{part}.converter.schemas.enable": schemas for part in ("key", "value")}
    connector = connector_of(mongodb_replicated, kafka_server, connect_server, **converters)
    wanted: dict[str, list[list[bytes]]] = {}

    async def changes() -> None:
        async with database_of(mongodb_replicated) as database:
            await database.things.insert_one({**document, "_id": 2})
            await database.things.insert_many([{**key, "n": -1} for key in keys])
            for key in keys:
                await database.things.replace_one({"_id": key["_id"]}, key)
            wanted["extra"] = await selected(mongodb_replicated)
            wanted["declared"] = await selected(mongodb_replicated, fields=_FIELDS)
            for key in keys:
                await database.things.delete_one({"_id": key["_id"]})

    async with database_of(mongodb_replicated) as database:
        await database.things.insert_one(document)
    found = await recorded(connector, 1, changes, 2 + 3 * len(IDS))
    if schemas == "true":
        assert_the_same_of_a_registry(found)
    for declared, name in ((Declared(), "extra"), (Declared.model_validate({"fields": _FIELDS}), "declared")):
        made = decode(found, DebeziumOptions(declared=declared))
        lines = [line for _, records in made for line in fields(records.data)]
        of = {op: [line for line in lines if line[0] == op] for op in (b"S", b"I", b"U", b"D")}
        # Of a deletion the key alone is known; those of one key are told apart by all else.
        direct = {tuple(line) for line in wanted[name]}
        assert {tuple(line[4:]) for line in (*of[b"S"], of[b"I"][0], *of[b"U"])} == direct
        assert [line[4] for line in of[b"D"]] == [line[4] for line in of[b"U"]]
        assert (len(of[b"S"]), len(of[b"I"]), len(of[b"U"])) == (1, 1 + len(IDS), len(IDS))
