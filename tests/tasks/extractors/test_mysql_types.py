"""Every type of MySQL and MariaDB in the CSV: its text, byte for byte what the server says the value is."""

from __future__ import annotations

import csv
import io
import struct
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blocks.s3 import CsvDialect
from tasks.extractors.contract import ReadOptions
from tasks.extractors.mysql import wire
from tasks.extractors.mysql.forms import single
from tasks.extractors.mysql.source import MySQLQuery, MySQLTable
from tests.servers.mysql import MySQLServer, connected
from tests.tasks.extractors.test_mysql import block_of

_POINT = "0101000000000000000000f03f0000000000000040"  # WKB of POINT(1 2): x first
_DECIMAL = "12345678901234567890123456789012345.123456789012345678901234567890"

# type, an SQL value, its text in the CSV
VALUES: list[tuple[str, str, str]] = [
    ("TINYINT(1)", "1", "1"),
    ("TINYINT UNSIGNED", "255", "255"),
    ("SMALLINT", "-32768", "-32768"),
    ("MEDIUMINT", "8388607", "8388607"),
    ("INT(6) ZEROFILL", "42", "42"),
    ("BIGINT", "-9223372036854775808", "-9223372036854775808"),
    ("BIGINT UNSIGNED", "18446744073709551615", "18446744073709551615"),
    ("DECIMAL(65,30)", _DECIMAL, _DECIMAL),
    ("DECIMAL(10,2)", "-0.5", "-0.50"),
    ("DECIMAL(6,2) ZEROFILL", "1.5", "1.50"),
    ("FLOAT", "16777217", "16777216"),
    ("FLOAT", "0.1", "0.1"),
    ("FLOAT", "1.17549435e-38", "1.1754944e-38"),
    ("FLOAT", "-3.4028235e38", "-3.4028235e38"),
    ("FLOAT(7,3)", "1.5", "1.5"),
    ("DOUBLE", "0.1e0 + 0.2e0", "0.30000000000000004"),
    ("DOUBLE", "1.7976931348623157e308", "1.7976931348623157e308"),
    ("DOUBLE(10,2)", "1.5", "1.5"),
    ("BIT(1)", "b'1'", "1"),
    ("BIT(10)", "b'101'", "0000000101"),
    ("BIT(64)", "18446744073709551615", "1" * 64),
    ("YEAR", "2026", "2026"),
    ("YEAR", "0", "0000"),
    ("DATE", "'2026-02-28'", "2026-02-28"),
    ("DATE", "'0000-00-00'", "0000-00-00"),
    ("DATE", "'2026-02-00'", "2026-02-00"),
    ("TIME", "'-838:59:59'", "-838:59:59"),
    ("TIME(6)", "'25:00:00.000001'", "25:00:00.000001"),
    ("DATETIME", "'9999-12-31 23:59:59'", "9999-12-31 23:59:59"),
    ("DATETIME(3)", "'2026-02-28 01:02:03.4'", "2026-02-28 01:02:03.400"),
    ("DATETIME", "'0000-00-00 00:00:00'", "0000-00-00 00:00:00"),
    ("TIMESTAMP NULL", "'2026-07-01 12:00:00'", "2026-07-01 06:30:00+00"),
    ("TIMESTAMP(6) NULL", "'2026-07-01 12:00:00.5'", "2026-07-01 06:30:00.500000+00"),
    ("TIMESTAMP NULL", "'0000-00-00 00:00:00'", "0000-00-00 00:00:00"),
    ("CHAR(5)", "'ab'", "ab"),
    ("VARCHAR(9)", "''", ""),
    ("TEXT", "'a\"b,c\\nd\\r\\ne\\\\.'", 'a"b,c\nd\r\ne\\.'),
    ("TEXT", "'\\\\.'", "\\."),
    ("VARCHAR(20) CHARACTER SET latin1", "'Ünïcode €'", "Ünïcode €"),
    ("VARCHAR(20) CHARACTER SET gbk", "'中文'", "中文"),
    ("VARCHAR(20) CHARACTER SET utf16", "'🙂 ünï'", "🙂 ünï"),
    ("VARCHAR(20) CHARACTER SET utf8mb4", "'🙂 ünï'", "🙂 ünï"),
    ("VARCHAR(20) CHARACTER SET cp1251", "'Привет'", "Привет"),
    ("LONGTEXT", "REPEAT('ü', 300)", "ü" * 300),
    ("BINARY(4)", "x'00ff'", "00ff0000"),
    ("VARBINARY(9)", "x''", ""),
    ("TINYBLOB", "x'00ff0a22'", "00ff0a22"),
    ("LONGBLOB", "x'00ff0a22FB'", "00ff0a22fb"),
    ("ENUM('sad', 'it''s \"ok\", really')", "'it''s \"ok\", really'", 'it\'s "ok", really'),
    ("ENUM('a', 'b')", "''", ""),
    ("SET('a', 'b', 'c')", "'c,a'", "a,c"),
    ("GEOMETRY", "ST_GeomFromText('POINT(1 2)')", _POINT),
    ("POINT", "ST_GeomFromText('POINT(1 2)', 4326)", _POINT),
]  # fmt: skip
_OF_FLAVOUR: dict[bool, list[tuple[str, str, str]]] = {
    True: [
        ("JSON", """'{"b": 1,  "a": [1.0, null]}'""", '{"b": 1,  "a": [1.0, null]}'),
        ("UUID", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("INET4", "'192.168.0.1'", "192.168.0.1"),
        ("INET6", "'2001:DB8::1'", "2001:db8::1"),
        ("VECTOR(2)", "VEC_FromText('[1,2]')", "0000803f00000040"),
    ],
    False: [
        ("JSON", """'{"b": 1,  "a": [1.0, null, "ü"]}'""", '{"a": [1.0, null, "ü"], "b": 1}'),
        ("DOUBLE", "-0e0", "-0"),  # which MariaDB knows no difference of
        ("FLOAT", "-0e0", "-0"),
        ("VECTOR(2)", "TO_VECTOR('[1,2]')", "0000803f00000040"),
    ],
}

# Modes and zones that would change texts, and the one that lets such dates in.
HOSTILE = "SET SESSION sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+05:30'"


def values_of(server: MySQLServer) -> list[tuple[str, str, str]]:
    if server.is_mariadb:  # its POINT takes no SRID that way round for 4326 either, and stores x first as well
        return [*VALUES, *_OF_FLAVOUR[True]]
    # MySQL turns the axes of EPSG:4326 when it reads text; what is stored is x first.
    turned = [(k, v.replace("POINT(1 2)', 4326", "POINT(2 1)', 4326"), text) for k, v, text in VALUES]
    return [*turned, *_OF_FLAVOUR[False]]


@pytest.fixture
async def all_types(mysql_database: MySQLServer) -> MySQLServer:
    """A table with a column of each type: one row of values, one of NULLs, under hostile settings."""
    values = values_of(mysql_database)
    columns = ", ".join(f"c{n} {kind}" for n, (kind, *_) in enumerate(values))
    await mysql_database.execute(
        f"CREATE TABLE everything (id INT, {columns}) CHARACTER SET utf8mb4",
        HOSTILE,
        f"INSERT INTO everything VALUES (1, {', '.join(value for _, value, _ in values)})",
        "INSERT INTO everything (id) VALUES (2)",
    )
    return mysql_database


async def _csv(source: MySQLTable | MySQLQuery, dialect: CsvDialect | None = None) -> bytes:
    chunks: list[bytes] = []

    async def write(data: bytes) -> None:
        chunks.append(data)

    async with source.open(ReadOptions(dialect=dialect or CsvDialect())) as extractor:
        plan = await extractor.plan(None)
        for partition in plan.partitions:
            await extractor.read(plan, partition, write)
    return b"".join(chunks)


def _table(server: MySQLServer, name: str = "everything", **fields: Any) -> MySQLTable:
    return MySQLTable(connection=block_of(server), table=name, **fields)


def _parsed(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode(), newline="")))


async def test_each_type_has_its_text(all_types: MySQLServer) -> None:
    """Every type is written as the table of its page says, whatever the server's settings are."""
    values = values_of(all_types)
    row, nulls = _parsed(await _csv(_table(all_types)))
    wrong = {kind: (text, got) for (kind, _, text), got in zip(values, row[1:], strict=True) if text != got}
    assert not wrong
    assert nulls == ["2"] + [""] * len(values)


async def test_a_query_writes_types_as_a_table_does(all_types: MySQLServer) -> None:
    """The same column comes out the same through a query; only a width that is for show is kept there."""
    query = MySQLQuery(connection=block_of(all_types), query="SELECT * FROM everything")
    texts = dict(zip(values_of(all_types), _parsed(await _csv(query))[0][1:], strict=True))
    wrong = {kind: (text, got) for (kind, _, text), got in texts.items() if text != got and "ZEROFILL" not in kind}
    assert not wrong


async def test_both_readers_write_the_same_bytes(all_types: MySQLServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through aiomysql's public API every byte is as it is from the wire, in every dialect."""
    dialects = [CsvDialect(), CsvDialect(null=r"\N", binary="base64"), CsvDialect(null="1")]
    fast = [await _csv(_table(all_types), dialect) for dialect in dialects]
    monkeypatch.setattr(wire, "unusable", lambda _connection: "made so by the test")
    slow = [await _csv(_table(all_types), dialect) for dialect in dialects]
    assert [_parsed(data) for data in slow] == [_parsed(data) for data in fast]
    assert slow == fast


async def test_binary_can_be_base64(all_types: MySQLServer) -> None:
    """With binary: base64 bytes are base64 without line breaks, long ones too."""
    await all_types.execute("CREATE TABLE b (s VARBINARY(200), l LONGBLOB)",
                            "INSERT INTO b VALUES (REPEAT('x', 100), REPEAT('x', 100))")  # fmt: skip
    text = ("eHh4" * 33 + "eA==").encode()
    assert await _csv(_table(all_types, "b"), CsvDialect(binary="base64")) == text + b"," + text + b"\n"


async def test_zero_dates_can_be_null(all_types: MySQLServer) -> None:
    """zero_dates: null writes NULL for a date that no calendar has, and for no other."""
    texts = _parsed(await _csv(_table(all_types, zero_dates="null")))[0][1:]
    dates = {text: got for (kind, _, text), got in zip(values_of(all_types), texts, strict=True) if "DATE" in kind}
    assert dates["0000-00-00"] == dates["2026-02-00"] == dates["0000-00-00 00:00:00"] == ""
    assert dates["2026-02-28"] == "2026-02-28"


async def test_invisible_and_generated_columns_are_read(mysql_database: MySQLServer) -> None:
    """What SELECT * leaves out is read all the same, in the table's order; it can be left out by name."""
    await mysql_database.execute(
        "CREATE TABLE t (a INT, hidden INT DEFAULT 7 INVISIBLE, doubled INT AS (a * 2) VIRTUAL)",
        "INSERT INTO t (a) VALUES (1)",
    )
    assert await _csv(_table(mysql_database, "t")) == b"1,7,2\n"


async def test_an_enum_after_ddl(mysql_database: MySQLServer) -> None:
    """Values keep their text when the type grows in front of them."""
    await mysql_database.execute(
        "CREATE TABLE t (e ENUM('b', 'c'))",
        "INSERT INTO t VALUES ('b'), ('c')",
        "ALTER TABLE t MODIFY e ENUM('a, first', 'b', 'c')",
        "INSERT INTO t VALUES ('a, first')",
    )
    assert await _csv(_table(mysql_database, "t")) == b'b\nc\n"a, first"\n'


async def test_a_view_is_read_as_its_tables_are(all_types: MySQLServer) -> None:
    """A view's columns have the types of its tables, and their texts."""
    await all_types.execute("CREATE VIEW v AS SELECT * FROM everything")
    assert await _csv(_table(all_types, "v")) == await _csv(_table(all_types))


# -- random values ----------------------------------------------------------------------------------------------------

_FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
_STRATEGIES: dict[str, st.SearchStrategy[Any]] = {
    "BIGINT": st.integers(-(2**63), 2**63 - 1),
    "BIGINT UNSIGNED": st.integers(0, 2**64 - 1),
    "DECIMAL(65,30)": st.decimals(-(10**34), 10**34, places=30),
    "FLOAT": _FLOATS,
    "DOUBLE": st.floats(allow_nan=False, allow_infinity=False),
    "TEXT": st.text(st.characters(exclude_categories=["Cs"]), max_size=400),
    "VARCHAR(40) CHARACTER SET latin1": st.text(st.characters(codec="latin-1"), max_size=40),
    "TIME(6)": st.timedeltas(),
    "DATETIME(6)": st.datetimes(),
    "VARBINARY(60)": st.binary(max_size=60),
    "LONGBLOB": st.binary(max_size=400),
    "BIT(13)": st.integers(0, 2**13 - 1),
}
# How the server itself says what is stored: an expression of the column.
_TOLD: dict[str, str] = {
    "TEXT": "HEX({0})",
    "VARCHAR(40) CHARACTER SET latin1": "HEX(CONVERT({0} USING utf8mb4))",
    "VARBINARY(60)": "HEX(LOWER(HEX({0})))",
    "LONGBLOB": "HEX(LOWER(HEX({0})))",
    "BIT(13)": "HEX(LPAD(BIN({0} + 0), 13, '0'))",
}


_BITS = {"FLOAT": "<f", "DOUBLE": "<d"}


def _argument(kind: str, value: Any) -> Any:
    if value is None:
        return None
    if kind == "TIME(6)":
        limit = 838 * 3600
        return f"{int(value.total_seconds()) % limit // 3600}:{int(value.total_seconds()) % 3600 // 60}:{value.microseconds % 60}"
    if isinstance(value, float):
        return repr(value)
    return value.hex() if isinstance(value, bytes) else value


@pytest.mark.parametrize("slow", [False, True], ids=["wire", "public API"])
async def test_random_values_are_what_the_server_says(
    mysql_database: MySQLServer, slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of random values of every type come out byte for byte as HEX() and CAST show them."""
    if slow:
        monkeypatch.setattr(wire, "unusable", lambda _connection: "made so by the test")
    kinds = list(_STRATEGIES)
    columns = ", ".join(f"c{n} {kind}" for n, kind in enumerate(kinds))
    await mysql_database.execute(f"CREATE TABLE r (id INT AUTO_INCREMENT PRIMARY KEY, {columns}) CHARACTER SET utf8mb4")
    rows = _examples(st.tuples(*(st.none() | _STRATEGIES[kind] for kind in kinds)))
    async with connected(mysql_database) as connection, connection.cursor() as cursor:
        await cursor.execute("SET SESSION sql_mode = ''")
        marks = ", ".join("UNHEX(%s)" if "BLOB" in kind or "BINARY" in kind else "%s" for kind in kinds)
        for row in rows:
            arguments = [_argument(kind, value) for kind, value in zip(kinds, row, strict=True)]
            await cursor.execute(f"INSERT INTO r VALUES (DEFAULT, {marks})", arguments)
        told = ", ".join(_TOLD.get(kind, "HEX(CAST({0} AS CHAR))").format(f"c{n}") for n, kind in enumerate(kinds))
        await cursor.execute(f"SELECT {told} FROM r ORDER BY id")
        expected = [[None if v is None else bytes.fromhex(v) for v in row] for row in await cursor.fetchall()]
    chunks = await _csv(MySQLTable(connection=block_of(mysql_database), table="r"), CsvDialect(null=r"\N"))
    got = [[text.encode() for text in row[1:]] for row in _parsed(chunks)]
    assert len(got) == len(rows)
    for row, written, wanted in zip(rows, got, expected, strict=True):
        for n, kind in enumerate(kinds):
            if (bits := _BITS.get(kind)) and row[n]:
                # CAST AS CHAR lays doubles out otherwise than a result does, in MySQL; the bits tell.
                assert struct.pack(bits, float(written[n])) == struct.pack(bits, row[n]), kind
            else:
                assert written[n] == (rb"\N" if wanted[n] is None else wanted[n]), (kind, row[n])


def _examples(strategy: st.SearchStrategy[Any], count: int = 150) -> list[Any]:
    """Many values of a strategy at once, to be sent to the server together."""
    found: list[Any] = []

    @settings(max_examples=count, database=None, suppress_health_check=list(HealthCheck), deadline=None)
    @given(strategy)
    def collect(value: Any) -> None:
        found.append(value)

    collect()
    return found


# -- single precision -------------------------------------------------------------------------------------------------


@settings(max_examples=500, deadline=None)
@given(_FLOATS)
def test_a_float_reads_back_to_its_bits(value: float) -> None:
    """The text of a FLOAT is the shortest that gives the same 32 bits."""
    text = single(repr(value).encode()).decode()
    assert struct.pack("<f", float(text)) == struct.pack("<f", value)
    assert len(text.split("e")[0].replace("-", "").replace(".", "").strip("0")) <= 9


async def test_floats_are_laid_out_as_the_server_lays_out_doubles(mysql_database: MySQLServer) -> None:
    """Point and exponent stand where they do in the server's own text of the same number."""
    numbers = [f"{digits}e{exponent}" for exponent in range(-30, 31) for digits in ("1", "1.5", "-1.2345678", "9")]
    query = f"SELECT {', '.join(f'CAST({n} AS DOUBLE) AS c{place}' for place, n in enumerate(numbers))}"
    (told,) = _parsed(await _csv(MySQLQuery(connection=block_of(mysql_database), query=query)))
    mine = [single(number.encode()).decode() for number in numbers]
    wrong = {number: (text, own) for number, text, own in zip(numbers, told, mine, strict=True) if text != own}
    assert not wrong
