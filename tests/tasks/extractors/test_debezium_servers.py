"""Real Debezium on real databases: what its events become is, byte for byte, what our own SELECT of the table gives.

Where it is not, the connector itself has lost something: each such case stands here, and in docs/debezium.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg

from blocks.s3 import CsvDialect
from tasks.extractors.contract import Column, ReadOptions
from tasks.extractors.kafka.debezium import DebeziumOptions
from tasks.extractors.kafka.message import Message
from tasks.extractors.mysql.source import MySQLTable
from tasks.extractors.postgres.source import PostgresTable
from tests.servers.connect import ConnectServer
from tests.servers.kafka import KafkaServer
from tests.servers.mysql import MySQLServer
from tests.servers.postgres import PostgresServer, connected
from tests.tasks.extractors import test_mysql, test_mysql_types, test_postgres, test_postgres_types
from tests.tasks.extractors.binlog import fields
from tests.tasks.extractors.debezium import (
    Connector,
    decode,
    exact_mysql,
    exact_postgres,
    json_of,
    of_mysql,
    of_postgres,
    recorded,
    rows,
)

_MORE_POSTGRES = [
    ("date", "'-infinity'"), ("date", "'5874897-12-31'"), ("timestamp", "'infinity'"), ("timestamp", "'-infinity'"),
    ("timestamptz", "'infinity'"), ("timestamptz", "'2026-07-01 12:00:00.120+02'"), ("timestamp(3)", "'2026-02-28 01:02:03.12'"),
    ("timestamptz", "'0044-03-15 00:00:00+00 BC'"), ("timestamp", "'10000-01-01 00:00:00'"), ("time(0)", "'12:00:00'"),
    ("numeric", "12.30"), ("numeric", "-0.000001"), ("numeric(5,0)", "7"), ("double precision", "1e15"), ("real", "1e-5"),
    ("double precision", "123456789012345"), ("interval", "'-1 mon 2 days -00:00:00.5'"), ("interval", "'0'"),
    ("bit(1)", "B'1'"), ("varbit(8)", "B'1011'"), ("varbit(8)", "B'0011'"), ("bytea[]", r"ARRAY['\x00ff'::bytea, NULL]"),
    ("date[]", "ARRAY['2026-02-28'::date]"), ("timestamp[]", "ARRAY['2026-02-28 01:02:03.5'::timestamp]"),
    ("boolean[]", "ARRAY[true, false, NULL]"), ("uuid[]", "ARRAY['a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid]"),
    ("jsonb[]", """ARRAY['{"a": 1}'::jsonb]"""), ("real[]", "ARRAY[0.1::real, 'NaN']"), ("numeric(6,2)[]", "ARRAY[1.5, -2]"),
    ("time[]", "ARRAY['10:00:00.25'::time]"), ("mood[]", "ARRAY['sad'::mood]"), ("bigint[]", "ARRAY[9223372036854775807]"),
    ("text[]", "'{}'"), ("inet[]", "ARRAY['10.0.0.1'::inet]"), ("varchar(9)[]", "ARRAY['a,b']"), ("oid", "4294967295"),
]  # fmt: skip

Losses = dict[str, tuple[str, str]]
"""By type and value: what is written of a row of the snapshot, and of one of the log."""


def _differences(messages: list[Message], options: DebeziumOptions, table: str, expected: dict[str, str]) -> Losses:
    """Columns (of the rows 1, a snapshot's, and 3) that are written otherwise; "-": not at all."""
    found = {row["id"]: row for row in rows(decode(messages, options), table)}
    assert {number: row["_op"] for number, row in found.items()} == {"1": "S", "2": "S", "3": "I", "4": "I"}
    for number in "24":  # all NULL
        assert set(list(found[number].values())[5:]) == {""}
    written = {name: (found["1"].get(name, "-"), found["3"].get(name, "-")) for name in expected}
    return {name: both for name, both in written.items() if both != (expected[name],) * 2}


# -- PostgreSQL ---------------------------------------------------------------------------------------------------------


class _Postgres:
    """A table of all types: row 1 of values, row 2 of NULLs."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self.values = [(kind, value) for kind, value, *_ in test_postgres_types.VALUES] + _MORE_POSTGRES

    async def create(self) -> None:
        columns = ", ".join(f"c{n} {kind}" for n, (kind, _) in enumerate(self.values))
        await self._execute(
            test_postgres_types.SETUP,
            f"CREATE TABLE everything (id int PRIMARY KEY, {columns})",
        )
        await self.add(1)

    async def add(self, number: int) -> None:
        values = ", ".join(f"({value})::{kind}" for kind, value in self.values)
        await self._execute(
            f"INSERT INTO everything SELECT {number}, {values}; INSERT INTO everything (id) VALUES ({number + 1})"
        )

    async def _execute(self, *statements: str) -> None:
        connection = await asyncpg.connect(self.server.dsn())
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    async def record(
        self, connector: Connector, snapshot: int, changes: Callable[[], Any], total: int
    ) -> list[Message]:
        """As `recorded`; the slot is gone when it ends, which a connector that is removed sees to in its own time."""
        messages = await recorded(connector, snapshot, changes, total)
        async with asyncio.timeout(60), connected(self.server) as connection:
            while await connection.fetchval(
                "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()"
            ):
                await asyncio.sleep(0.2)
        return messages

    async def selected(self) -> tuple[tuple[Column, ...], dict[str, str]]:
        """The columns, and the fields of row 1, as our own SELECT has them."""
        source = PostgresTable(
            connection=test_postgres.block_of(self.server), table="public.everything", where="id = 1"
        )
        return await _selected(source)


async def _selected(source: Any) -> tuple[tuple[Column, ...], dict[str, str]]:
    chunks: list[bytes] = []

    async def write(data: bytes) -> None:
        chunks.append(data)

    async with source.open(ReadOptions(dialect=CsvDialect())) as extractor:
        plan = await extractor.plan(None)
        for partition in plan.partitions:
            await extractor.read(plan, partition, write)
    [row] = fields(b"".join(chunks))
    return plan.columns, {column.name: part.decode() for column, part in zip(plan.columns, row, strict=True)}


def _named(values: list[tuple[str, str]], found: Losses) -> Losses:
    return {f"{values[int(name[1:])][0]} {values[int(name[1:])][1]}": both for name, both in found.items()}


_POLYGON = '"((0.0,0.0),(1.0,1.0),(1.0,0.0))"'
_COMPOSITE = b'(1,"x, ""y""")'.hex()
_POSTGRES_LOSSES: Losses = {
    "date '0044-03-15 BC'": ("0044-03-15", "0044-03-15 BC"),
    "timetz '12:00:00+05:30'": ("06:30:00+00", "06:30:00+00"),
    "int[] '{{1,2},{3,NULL}}'": ('"[null,null]"', '"[null,null]"'),
    "numeric[] ARRAY[1.10, 'NaN']::numeric[]": ("", ""),
    "varbit(8) B'0011'": ("11", "11"),
}
_UNKNOWN: Losses = {
    "polygon '((0,0),(1,1),(1,0))'": (_POLYGON, _POLYGON),  # the JDBC driver's text
    "pair ROW(1, 'x, \"y\"')": (_COMPOSITE, _COMPOSITE),
}
_LONG = "12345678901234567890.123456789012345678901234567890"
_DEFAULTS: Losses = {
    "numeric 'NaN'": ("", ""),
    "numeric '-Infinity'": ("", ""),
    f"numeric {_LONG}": (_LONG[:-1], _LONG[:-1]),
    "numeric 12.30": ("12.3", "12.3"),
    "interval '1 year 2 mons -3 days 04:05:06.7'": ("PT10159H5M6.7S", "PT10159H5M6.7S"),
    "interval '-1 mon 2 days -00:00:00.5'": ("PT-682H-30M-0.5S", "PT-682H-30M-0.5S"),
    **dict.fromkeys(
        (*_UNKNOWN, "int4multirange '{[1,2),[5,9)}'", "tsquery 'fat & rat'", "pg_lsn '16/B374D848'"), ("-", "-")
    ),
}
"""Beside `_POSTGRES_LOSSES`; "-": the column is not in the events."""


async def test_all_types_of_postgresql(
    database: PostgresServer, kafka_server: KafkaServer, connect_server: ConnectServer
) -> None:
    """With headrace's own settings: only what the connector has lost is not the same."""
    table = _Postgres(database)
    await table.create()
    connector = Connector(kafka_server, connect_server, exact_postgres(database, "public.everything"))
    messages = await table.record(connector, 2, lambda: table.add(3), 4)
    _, expected = await table.selected()
    found = _differences(messages, DebeziumOptions(), "public.everything", expected | {"id": "1"})
    found.pop("id")
    assert _named(table.values, found) == _POSTGRES_LOSSES | _UNKNOWN


async def test_all_types_of_postgresql_without_schemas(
    database: PostgresServer, kafka_server: KafkaServer, connect_server: ConnectServer
) -> None:
    """Under the connector's defaults, with the types that our own SELECT knows."""
    table = _Postgres(database)
    await table.create()
    connector = Connector(kafka_server, connect_server, of_postgres(database))
    messages = await table.record(connector, 2, lambda: table.add(3), 4)
    columns, expected = await table.selected()
    options = DebeziumOptions(tables={"public.everything": columns})
    found = _differences(messages, options, "public.everything", expected | {"id": "1"})
    found.pop("id")
    assert _named(table.values, found) == _POSTGRES_LOSSES | _DEFAULTS


# -- MySQL --------------------------------------------------------------------------------------------------------------


_MYSQL_LOSSES: Losses = {
    # In a snapshot MySQL sends the connector six digits of a FLOAT.
    "FLOAT 16777217": ("16777200", "16777216"),
    "FLOAT 1.17549435e-38": ("1.17549e-38", "1.1754944e-38"),
    "FLOAT -3.4028235e38": ("-3.40282e38", "-3.4028235e38"),
    "YEAR 0": ("2000", "0000"),
    **dict.fromkeys(
        (
            "DATE '0000-00-00'",
            "DATE '2026-02-00'",
            "DATETIME '0000-00-00 00:00:00'",
            "TIMESTAMP NULL '0000-00-00 00:00:00'",
        ),
        ("", ""),
    ),
}


async def _mysql(
    server: MySQLServer, connector: Connector, options: Callable[[tuple[Column, ...]], DebeziumOptions]
) -> Losses:
    values = test_mysql_types.values_of(server)
    columns = ", ".join(f"c{n} {kind}" for n, (kind, *_) in enumerate(values))

    async def add(number: int) -> None:
        await server.execute(
            "SET SESSION sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+05:30'",
            f"INSERT INTO everything VALUES ({number}, {', '.join(value for _, value, _ in values)})",
            f"INSERT INTO everything (id) VALUES ({number + 1})",
        )

    await server.execute(f"CREATE TABLE everything (id INT PRIMARY KEY, {columns}) CHARACTER SET utf8mb4")
    await add(1)
    messages = await recorded(connector, 2, lambda: add(3), 4)
    source = MySQLTable(connection=test_mysql.block_of(server), table="everything", where="id = 1")
    described, expected = await _selected(source)
    found = _differences(messages, options(described), f"{server.database}.everything", expected)
    found.pop("id")
    return _named([(kind, value) for kind, value, _ in values], found)


async def test_all_types_of_mysql(
    only_mysql_database: MySQLServer, kafka_server: KafkaServer, connect_server: ConnectServer
) -> None:
    """With headrace's own settings: only what the connector has lost is not the same."""
    server = only_mysql_database
    connector = Connector(
        kafka_server, connect_server, exact_mysql(server, kafka_server, f"{server.database}.everything")
    )
    assert await _mysql(server, connector, lambda _: DebeziumOptions()) == _MYSQL_LOSSES


async def test_all_types_of_mysql_without_schemas(
    only_mysql_database: MySQLServer, kafka_server: KafkaServer, connect_server: ConnectServer
) -> None:
    """Under the connector's defaults, with the types that our own SELECT knows."""
    server = only_mysql_database
    connector = Connector(kafka_server, connect_server, of_mysql(server, kafka_server))
    name = f"{server.database}.everything"
    assert await _mysql(server, connector, lambda columns: DebeziumOptions(tables={name: columns})) == _MYSQL_LOSSES


# -- operations ---------------------------------------------------------------------------------------------------------

_DEFAULTED = """
CREATE TABLE defaulted (id int PRIMARY KEY, v int DEFAULT 5, note text DEFAULT 'x', n int NOT NULL DEFAULT 3,
    at timestamptz NOT NULL DEFAULT now(), big text);
INSERT INTO defaulted (id, v, note, at) VALUES (0, NULL, NULL, '2026-01-01 00:00+00');
"""
_OPERATIONS = """
INSERT INTO defaulted (id, v, note, n, at) VALUES (1, NULL, NULL, 4, '2026-01-01 00:00+00');
UPDATE defaulted SET note = 'y', big = (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 400) i) WHERE id = 1;
UPDATE defaulted SET note = 'z' WHERE id = 1;
UPDATE defaulted SET id = 2 WHERE id = 1;
DELETE FROM defaulted WHERE id = 2;
TRUNCATE defaulted;
"""


async def _operations(
    database: PostgresServer, kafka: KafkaServer, connect: ConnectServer, settings: dict[str, str]
) -> list[dict[str, str]]:
    """The records of a table whose columns have defaults."""
    table = _Postgres(database)
    await table._execute("DROP TABLE IF EXISTS defaulted", _DEFAULTED)
    connector = Connector(kafka, connect, settings)
    messages = await table.record(connector, 1, lambda: table._execute(*_OPERATIONS.strip().split("\n")), 8)
    return rows(decode(messages, DebeziumOptions(parts=("source", "transaction"))), "public.defaulted")


async def test_operations_and_nulls_of_columns_that_have_defaults(
    database: PostgresServer, kafka_server: KafkaServer, connect_server: ConnectServer
) -> None:
    """A NULL stays NULL; a changed key is a deletion and an insertion; what the log lacks is named, not made up."""
    settings = exact_postgres(database, "public.defaulted") | {"provide.transaction.metadata": "true"}
    others = '"[""v"",""note"",""n"",""at"",""big""]"'
    found = await _operations(database, kafka_server, connect_server, settings)
    names = ("_op", "_unchanged", "id", "v", "note", "n")
    assert [tuple(row[name] for name in names) for row in found] == [
        ("S", "", "0", "", "", "3"),
        ("I", "", "1", "", "", "4"),
        ("U", "", "1", "", "y", "4"),
        ("U", '"[""big""]"', "1", "", "z", "4"),
        ("D", others, "1", "", "", ""),
        ("I", '"[""big""]"', "2", "", "z", "4"),
        ("D", others, "2", "", "", ""),
        ("T", "", "", "", "", ""),
    ]
    sources = [json_of(row["_source"]) for row in found]
    assert [source["table"] for source in sources] == ["defaulted"] * 8
    assert sorted(source["lsn"] for source in sources) == [source["lsn"] for source in sources]
    transactions = [json_of(row["_transaction"]) for row in found]
    # A changed key is two events of one transaction; a row of a snapshot is of none.
    assert transactions[0] is None
    assert [each["total_order"] for each in transactions[1:]] == [1, 1, 1, 1, 2, 1, 1]
    of = [int(each["id"].partition(":")[0]) for each in transactions[1:]]
    assert of == [source["txId"] for source in sources[1:]]
    assert [number - of[0] for number in of] == [0, 1, 2, 3, 3, 4, 5]


async def test_connects_own_converter_writes_defaults_for_nulls(
    database: PostgresServer, kafka_server: KafkaServer, connect_server: ConnectServer
) -> None:
    """Why ``replace.null.with.default`` has to be set: without it nothing in an event tells NULL from the default."""
    settings = exact_postgres(database, "public.defaulted")
    del settings["key.converter.replace.null.with.default"], settings["value.converter.replace.null.with.default"]
    found = await _operations(database, kafka_server, connect_server, settings)
    assert [(row["v"], row["note"]) for row in found[:2]] == [("5", "x"), ("5", "x")]
