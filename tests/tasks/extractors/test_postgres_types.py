"""Every built-in type of PostgreSQL in the CSV: its text, and that the text reads back to the same value."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import asyncpg
import duckdb
import pytest

from blocks.s3 import CsvDialect
from tasks.extractors.contract import ReadOptions
from tasks.extractors.postgres.source import PostgresQuery, PostgresTable
from tests.servers.postgres import PostgresServer
from tests.tasks.extractors.test_postgres import block_of

SETUP = """
CREATE EXTENSION hstore;
CREATE TYPE mood AS ENUM ('sad', 'it''s "ok"');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN flag AS boolean;
CREATE DOMAIN blob AS bytea;
CREATE DOMAIN small_blob AS blob;
"""

_LONG = "12345678901234567890.123456789012345678901234567890"
_ELEMENTS = (
    "(SELECT array_agg(e.v{cast} ORDER BY n) FROM json_array_elements_text({{0}}::json) WITH ORDINALITY e (v, n))"
)
_TIMES = _ELEMENTS.format(cast="::timestamptz")
_HSTORE = "(SELECT hstore(array_agg(key), array_agg(value)) FROM json_each_text({0}::json))"

# type, an SQL value, its text in the CSV, and how that text becomes the value again ({0}; "" when a cast does it)
VALUES: list[tuple[str, str, str, str]] = [
    ("boolean", "true", "true", ""),
    ("flag", "false", "false", ""),
    ("smallint", "-32768", "-32768", ""),
    ("bigint", "9223372036854775807", "9223372036854775807", ""),
    ("numeric", "'NaN'", "NaN", ""),
    ("numeric", "'-Infinity'", "-Infinity", ""),
    ("numeric", _LONG, _LONG, ""),
    ("numeric(10,4)", "1.5", "1.5000", ""),
    ("real", "16777217", "1.6777216e+07", ""),
    ("real", "0.1", "0.1", ""),
    ("double precision", "0.1::float8 + 0.2", "0.30000000000000004", ""),
    ("double precision", "'-Infinity'", "-Infinity", ""),
    ("double precision", "5e-324", "5e-324", ""),
    ("money", "1234567.89", "1234567.89", "{0}::numeric::money"),
    ("char(5)", "'ab'", "ab   ", ""),
    ("varchar(9)", "''", "", ""),
    ("text", "E'a\"b,c\\nd\\r\\ne\\\\.'", 'a"b,c\nd\r\ne\\.', ""),
    ("text", "'🙂 ünï'", "🙂 ünï", ""),
    ("text", "'\\.'", "\\.", ""),
    ("bytea", r"'\x00ff0a22'", "00ff0a22", "decode({0}, 'hex')"),
    ("small_blob", r"'\xdeadbeef'", "deadbeef", "decode({0}, 'hex')"),
    ("date", "'infinity'", "infinity", ""),
    ("date", "'0044-03-15 BC'", "0044-03-15 BC", ""),
    ("time", "'23:59:59.999999'", "23:59:59.999999", ""),
    ("timetz", "'12:00:00+05:30'", "12:00:00+05:30", ""),
    ("timestamp", "'2026-02-28 01:02:03.4'", "2026-02-28 01:02:03.4", ""),
    ("timestamp", "'4713-01-01 00:00:00 BC'", "4713-01-01 00:00:00 BC", ""),
    ("timestamptz", "'2026-07-01 12:00:00+02'", "2026-07-01 10:00:00+00", ""),
    ("timestamptz", "'-infinity'", "-infinity", ""),
    ("interval", "'1 year 2 mons -3 days 04:05:06.7'", "P1Y2M-3DT4H5M6.7S", ""),
    ("json", """'{"b": 1,  "a": [1.0, null]}'""", '{"b": 1,  "a": [1.0, null]}', ""),
    ("jsonb", """'{"b": 1, "a": [1.0, null]}'""", '{"a": [1.0, null], "b": 1}', ""),
    ("uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", ""),
    ("mood", "'it''s \"ok\"'", 'it\'s "ok"', ""),
    ("inet", "'192.168.0.1/24'", "192.168.0.1/24", ""),
    ("cidr", "'2001:db8::/32'", "2001:db8::/32", ""),
    ("macaddr", "'08:00:2b:01:02:03'", "08:00:2b:01:02:03", ""),
    ("bit(5)", "B'10101'", "10101", ""),
    ("varbit", "B'1'", "1", ""),
    ("int4range", "'[1,5)'", "[1,5)", ""),
    ("tstzrange", "'[2026-01-01 00:00+01,)'", '["2025-12-31 23:00:00+00",)', ""),
    ("int4multirange", "'{[1,2),[5,9)}'", "{[1,2),[5,9)}", ""),
    ("point", "'(1.5,2)'", "(1.5,2)", ""),
    ("polygon", "'((0,0),(1,1),(1,0))'", "((0,0),(1,1),(1,0))", ""),
    ("xml", "'<a>1 &lt; 2</a>'", "<a>1 &lt; 2</a>", ""),
    ("tsvector", "'fat:2 cat:3'", "'cat':3 'fat':2", ""),
    ("tsquery", "'fat & rat'", "'fat' & 'rat'", ""),
    ("pg_lsn", "'16/B374D848'", "16/B374D848", ""),
    ("hstore", "'a=>1,b=>NULL'", '{"a": "1", "b": null}', _HSTORE),
    ("pair", "ROW(1, 'x, \"y\"')", '{"a":1,"b":"x, \\"y\\""}', "json_populate_record(null::pair, {0}::json)"),
    ("int[]", "'{{1,2},{3,NULL}}'", "[[1,2],[3,null]]", "translate({0}, '[]', '{{}}')::int[]"),
    ("text[]", "ARRAY['a', NULL, '', 'q\"']", '["a",null,"","q\\""]', _ELEMENTS.format(cast="")),
    ("timestamptz[]", "ARRAY['2026-01-01 01:00+01'::timestamptz]", '["2026-01-01T00:00:00+00:00"]', _TIMES),
    ("numeric[]", "ARRAY[1.10, 'NaN']::numeric[]", '[1.10,"NaN"]', _ELEMENTS.format(cast="::numeric")),
]  # fmt: skip


@pytest.fixture
async def all_types(database: PostgresServer) -> PostgresServer:
    """A table with a column of each type: one row of values, one of NULLs, under hostile session defaults."""
    connection = await asyncpg.connect(database.dsn())
    try:
        await connection.execute(SETUP)
        columns = ", ".join(f"c{n} {kind}" for n, (kind, *_) in enumerate(VALUES))
        await connection.execute(f"CREATE TABLE everything (id int, {columns})")
        values = ", ".join(f"({value})::{kind}" for kind, value, *_ in VALUES)
        await connection.execute(f"INSERT INTO everything SELECT 1, {values}")
        await connection.execute("INSERT INTO everything (id) VALUES (2)")
        for setting in ("datestyle = 'German'", "timezone = 'Asia/Kolkata'", "intervalstyle = 'sql_standard'",
                        "extra_float_digits = -3", "bytea_output = 'escape'"):  # fmt: skip
            await connection.execute(f"ALTER DATABASE {database.database} SET {setting}")
    finally:
        await connection.close()
    return database


async def _csv(server: PostgresServer, dialect: CsvDialect | None = None) -> bytes:
    chunks: list[bytes] = []

    async def write(data: bytes) -> None:
        chunks.append(data)

    source = PostgresTable(connection=block_of(server), table="public.everything")
    async with source.open(ReadOptions(dialect=dialect or CsvDialect())) as extractor:
        plan = await extractor.plan(None)
        await extractor.read(plan, plan.partitions[0], write)
    return b"".join(chunks)


async def test_each_type_has_its_text(all_types: PostgresServer) -> None:
    """Every type is written as the table of its page says, whatever the session defaults of the database are."""
    values, nulls = csv.reader(io.StringIO((await _csv(all_types)).decode(), newline=""))
    wrong = {kind: (text, got) for (kind, _, text, _), got in zip(VALUES, values[1:], strict=True) if text != got}
    assert not wrong
    assert nulls == ["2"] + [""] * len(VALUES)


async def test_each_value_reads_back_through_copy(all_types: PostgresServer) -> None:
    """PostgreSQL's own COPY FROM and a cast give back the value, NULL and '' apart."""
    data = await _csv(all_types)
    connection = await asyncpg.connect(all_types.dsn())
    try:
        columns = ", ".join(f"c{n} text" for n in range(len(VALUES)))
        await connection.execute(f"CREATE TABLE back (id int, {columns})")
        await connection.copy_to_table("back", source=io.BytesIO(data), format="csv")
        for n, (kind, _, _, way_back) in enumerate(VALUES):
            expression = (way_back or "{0}::" + kind.replace("{", "{{")).format(f"b.c{n}")
            # Compared as bytes the server sends: json, xml and point have no equality.
            same = await connection.fetchval(
                f"SELECT (({expression})::{kind})::text = e.c{n}::text FROM everything e JOIN back b USING (id) WHERE id = 1"
            )
            assert same, f"{kind}: {expression}"
            assert await connection.fetchval(f"SELECT c{n} IS NULL FROM back WHERE id = 2"), kind
    finally:
        await connection.close()


async def test_each_value_reads_back_through_duckdb(all_types: PostgresServer, tmp_path: Path) -> None:
    """DuckDB reads the same texts, NULL and '' apart."""
    file = tmp_path / "everything.csv"
    file.write_bytes(await _csv(all_types))
    rows = duckdb.sql(
        f"SELECT * FROM read_csv('{file}', header = false, all_varchar = true, allow_quoted_nulls = false, "
        "delim = ',', quote = '\"', escape = '\"', new_line = '\\n')"
    ).fetchall()
    assert list(rows[0][1:]) == [text for _, _, text, _ in VALUES]
    assert rows[1][1:] == (None,) * len(VALUES)


async def test_binary_can_be_base64(all_types: PostgresServer) -> None:
    """With binary: base64 bytes are base64 without line breaks."""
    values = next(csv.reader(io.StringIO((await _csv(all_types, CsvDialect(binary="base64"))).decode(), newline="")))
    written = {kind: got for (kind, *_), got in zip(VALUES, values[1:], strict=True)}
    assert written["bytea"] == "AP8KIg=="


async def test_a_query_writes_types_as_a_table_does(all_types: PostgresServer) -> None:
    """The same column comes out the same through a query."""
    source = PostgresQuery(connection=block_of(all_types), query="SELECT * FROM everything")
    chunks: list[bytes] = []

    async def write(data: bytes) -> None:
        chunks.append(data)

    async with source.open(ReadOptions()) as extractor:
        plan = await extractor.plan(None)
        await extractor.read(plan, plan.partitions[0], write)
    assert b"".join(chunks) == await _csv(all_types)
