"""The records of the binary log hold, byte for byte, what a SELECT of the same table gives."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blocks.s3 import CsvDialect
from tasks.extractors.mysql.binlog import json_shapes
from tests.servers.mysql import MySQLServer, connected
from tests.tasks.extractors.binlog import decoded, described, logged, metadata, replayed, snapshot
from tests.tasks.extractors.test_mysql_types import values_of

_DIALECTS = [CsvDialect(), CsvDialect(null=r"\N", binary="base64"), CsvDialect(null="1"), CsvDialect(null="00ff0000")]
_HOSTILE = "SET SESSION sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+05:30'"


# -- every type -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zero_dates", ["text", "null"])
async def test_each_type_has_the_text_of_a_select(mysql_database: MySQLServer, zero_dates: Any) -> None:
    """Every type, in every dialect, by generated functions and without."""
    values = values_of(mysql_database)
    columns = ", ".join(f"c{n} {kind}" for n, (kind, *_) in enumerate(values))
    await mysql_database.execute(f"CREATE TABLE t (id INT PRIMARY KEY, {columns}) CHARACTER SET utf8mb4")
    async with logged(mysql_database, "t") as log:
        written = ", ".join(value for _, value, _ in values)
        await mysql_database.execute(
            _HOSTILE,
            f"INSERT INTO t VALUES (1, {written})",
            "INSERT INTO t (id) VALUES (2)",
            "UPDATE t SET id = id + 2",
        )
    relation = await described(mysql_database, "t")
    names = [field.column.name for field in relation.fields]
    for dialect in _DIALECTS:
        wanted = await snapshot(mysql_database, "t", dialect, zero_dates)
        for most in (512, 0):
            found = decoded(mysql_database, log, relation, dialect, zero_dates=zero_dates, most_functions=most)
            got = replayed(found, names, dialect.null.encode())
            assert len(got) == len(wanted) == 2
            for key, row in wanted.items():
                wrong = {values[n - 1][0]: (a, b) for n, (a, b) in enumerate(zip(row, got[key], strict=True)) if a != b}
                assert not wrong


# -- random values ----------------------------------------------------------------------------------------------------


def _text(strategy: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return strategy.map(lambda text: f"_utf8mb4 x'{text.encode().hex()}'")


def _bytes(most: int) -> st.SearchStrategy[str]:
    ends = st.sampled_from([b"", b"\0", b"\0\0", b" "])
    return st.tuples(st.binary(max_size=most - 2), ends).map(lambda pair: f"x'{(pair[0] + pair[1]).hex()}'")


def _numbers(low: int, high: int) -> st.SearchStrategy[str]:
    return (st.integers(low, high) | st.sampled_from([low, high, 0])).map(str)


def _decimals(precision: int, scale: int) -> st.SearchStrategy[str]:
    most = 10**precision - 1
    return (st.integers(-most, most) | st.sampled_from([most, -most, 0, 1, -1])).map(
        lambda n: f"{'-' if n < 0 else ''}{abs(n) // 10**scale}.{abs(n) % 10**scale:0{scale or 1}d}"
    )


def _clock(digits: int) -> st.SearchStrategy[str]:
    fraction = st.integers(0, 10**digits - 1).map(lambda n: f".{n:0{digits}d}" if digits else "")
    parts = st.tuples(st.sampled_from(["", "-"]), st.integers(0, 837), st.integers(0, 59), st.integers(0, 59), fraction)
    return parts.map(lambda t: f"'{t[0]}{t[1]:02d}:{t[2]:02d}:{t[3]:02d}{t[4]}'")


def _moment(digits: int, first: int, last: int, zeros: bool) -> st.SearchStrategy[str]:
    fraction = st.integers(0, 10**digits - 1).map(lambda n: f".{n:0{digits}d}" if digits else "")
    low = 0 if zeros else 1
    parts = st.tuples(
        st.integers(first, last), st.integers(low, 12), st.integers(low, 28), st.integers(0, 23), fraction
    )
    return parts.map(lambda t: f"'{t[0]:04d}-{t[1]:02d}-{t[2]:02d} {t[3]:02d}:59:07{t[4]}'")


_ANY = st.characters(exclude_categories=["Cs"])
_WORDS = st.text(st.sampled_from('abcü€🙂 ,"\n\r\\N1'), max_size=20) | st.text(_ANY, max_size=20)
_FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False).map(repr)
# The second and third are about where the servers begin to write an exponent.
_REALS = st.floats(allow_nan=False, allow_infinity=False) | st.floats(1e13, 1e18) | st.floats(1e-17, 1e-12)
_DOUBLES = _REALS.map(repr)
_VALUES = ["a", "ü,b", "it''s", '"q"', "", "x\\\\y", "l\\nf", "c\\rr"]
_LISTED = ",".join(f"'{value}'" for value in _VALUES)
_OF_SET = ",".join(f"'{n}é'" for n in range(20))

_INTEGERS = {"TINYINT": 8, "SMALLINT": 16, "MEDIUMINT": 24, "INT": 32, "BIGINT": 64}
STRATEGIES: dict[str, st.SearchStrategy[str]] = {
    **{kind: _numbers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for kind, bits in _INTEGERS.items()},
    **{f"{kind} UNSIGNED": _numbers(0, 2**bits - 1) for kind, bits in _INTEGERS.items()},
    **{f"DECIMAL({p},{s})": _decimals(p, s) for p, s in ((1, 0), (2, 2), (9, 0), (10, 2), (18, 9), (19, 1), (65, 30))},
    "DECIMAL(14,4) UNSIGNED ZEROFILL": st.integers(0, 10**10 - 1).map(lambda n: f"{n}.5"),
    "INT(7) ZEROFILL": _numbers(0, 2**32 - 1),
    "FLOAT": _FLOATS,
    "DOUBLE": _DOUBLES,
    "DOUBLE UNSIGNED": st.floats(0, 1e18).map(repr),
    "BIT(1)": _numbers(0, 1),
    "BIT(13)": _numbers(0, 2**13 - 1),
    "BIT(64)": _numbers(0, 2**64 - 1),
    "YEAR": st.sampled_from(["0", "1901", "2155", "2026"]),
    "DATE": _moment(0, 0, 9999, True),
    **{f"TIME({digits})": _clock(digits) for digits in range(7)},
    **{f"DATETIME({digits})": _moment(digits, 0, 9999, True) for digits in range(7)},
    **{f"TIMESTAMP({digits}) NULL": _moment(digits, 1971, 2037, False) for digits in range(7)},
    "CHAR(20)": _text(_WORDS),
    "CHAR(200)": _text(_WORDS),
    "VARCHAR(20)": _text(_WORDS),
    "VARCHAR(300)": _text(_WORDS | st.text(_ANY, min_size=100, max_size=300)),
    "TINYTEXT": _text(_WORDS),
    "TEXT": _text(st.text(_ANY, max_size=300)),
    "MEDIUMTEXT": _text(_WORDS),
    "LONGTEXT": _text(_WORDS),
    "BINARY(20)": _bytes(20),
    "VARBINARY(20)": _bytes(20),
    "VARBINARY(300)": _bytes(300),
    "BLOB": _bytes(300),
    f"ENUM({_LISTED})": _numbers(1, len(_VALUES)) | st.just("''"),
    f"SET({_OF_SET})": _numbers(0, 2**20 - 1),
    "ENUM('a','ü,','ß') CHARACTER SET utf16": _numbers(1, 3),
    "SET('a','ü','ß') CHARACTER SET latin1": _numbers(0, 7),
    "POINT": st.tuples(st.floats(-90, 90), st.floats(-90, 90)).map(
        lambda p: f"ST_GeomFromText('POINT({p[0]!r} {p[1]!r})')"
    ),
}
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _WORDS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(_WORDS, inner, max_size=5),
    max_leaves=20,
)


def _json_literal(value: Any) -> str:
    return f"CONVERT(_utf8mb4 x'{json.dumps(value, ensure_ascii=False).encode().hex()}' USING utf8mb4)"


_OPAQUE = [
    "CAST(CAST('12.50' AS DECIMAL(10,3)) AS JSON)", "CAST(DATE '2026-02-03' AS JSON)", "CAST(TIME '-11:12:13.5' AS JSON)",
    "CAST(TIMESTAMP '2026-02-03 04:05:06.789' AS JSON)", "CAST(x'00ff41' AS JSON)", "JSON_OBJECT('b', b'101')",
    "JSON_ARRAY(CAST('-0.001' AS DECIMAL(65,30)), REPEAT('ü', 70), REPEAT('x', 200), 1e100, -0e0, 1e15, 123456789012345680e0)",
    "JSON_OBJECT('big', REPEAT('0123456789', 9000), 'n', 70000, 'm', -70000, 's', 'é', 't', true)",
    "JSON_ARRAY(CAST(REPEAT('y', 100) AS BINARY), YEAR(NOW()), 1.5, 18446744073709551615, -9223372036854775808)",
]  # fmt: skip

_OF_FLAVOUR: dict[bool, dict[str, st.SearchStrategy[str]]] = {
    False: {
        "JSON": _JSON.map(_json_literal) | st.sampled_from(_OPAQUE),
        "VECTOR(3)": st.lists(st.integers(-9, 9), min_size=3, max_size=3).map(lambda v: f"TO_VECTOR('{v}')"),
    },
    True: {
        "JSON": _JSON.map(_json_literal),
        "VECTOR(3)": st.lists(st.integers(-9, 9), min_size=3, max_size=3).map(lambda v: f"VEC_FromText('{v}')"),
        "UUID": st.uuids().map(lambda uuid: f"'{uuid}'"),
        "INET4": st.ip_addresses(v=4).map(lambda ip: f"'{ip}'"),
        "INET6": st.ip_addresses(v=6).map(lambda ip: f"'{ip}'")
        | st.sampled_from(["'::'", "'::1'", "'::ffff:1.2.3.4'"]),
        "VARCHAR(300) COMPRESSED": _text(_WORDS | st.text(st.sampled_from("aü"), min_size=150, max_size=250)),
        "TEXT COMPRESSED": _text(_WORDS | st.text(st.sampled_from("aü"), min_size=150, max_size=250)),
        "VARBINARY(300) COMPRESSED": _bytes(300),
        "BLOB COMPRESSED": st.integers(0, 300).map(lambda n: f"REPEAT('x', {n})"),
    },
}


def _examples(strategy: st.SearchStrategy[Any], count: int) -> list[Any]:
    """Many values of a strategy at once, to be sent to the server together."""
    found: list[Any] = []

    @settings(max_examples=count, database=None, suppress_health_check=list(HealthCheck), deadline=None)
    @given(strategy)
    def collect(value: Any) -> None:
        found.append(value)

    collect()
    return found


def strategies_of(server: MySQLServer, charsets: list[str]) -> dict[str, st.SearchStrategy[str]]:
    words = {f"VARCHAR(40) CHARACTER SET {name}": _text(_WORDS) for name in charsets}
    padded = {f"CHAR(12) CHARACTER SET {name}": _text(_WORDS) for name in charsets}
    return {**STRATEGIES, **words, **padded, **_OF_FLAVOUR[server.is_mariadb]}


async def _charsets(server: MySQLServer) -> list[str]:
    found = await server.fetch("SELECT CHARACTER_SET_NAME FROM information_schema.CHARACTER_SETS")
    return sorted(name for (name,) in found if name not in ("binary", "utf8mb4"))


_ROWS = 60


@pytest.mark.parametrize("amount", ["FULL", "MINIMAL"])
@pytest.mark.parametrize("image", ["FULL", "NOBLOB", "MINIMAL"])
async def test_random_rows_are_what_a_select_gives(mysql_database: MySQLServer, image: str, amount: str) -> None:
    """Inserts, updates and deletes of random values of every type, replayed, are the table; whatever the log tells."""
    kinds = strategies_of(mysql_database, await _charsets(mysql_database))
    columns = ", ".join(f"c{n} {kind}" for n, kind in enumerate(kinds))
    await mysql_database.execute(
        f"CREATE TABLE r (id INT PRIMARY KEY, {columns}) CHARACTER SET utf8mb4 ROW_FORMAT=DYNAMIC"
    )
    async with metadata(mysql_database, amount), logged(mysql_database, "r") as log:
        await _write(mysql_database, list(kinds.values()), image)
    relation = await described(mysql_database, "r")
    names = [field.column.name for field in relation.fields]
    wanted = await snapshot(mysql_database, "r", CsvDialect())
    found = decoded(mysql_database, log, relation)
    got = replayed(found, names)
    assert got.keys() == wanted.keys()
    for key, row in wanted.items():
        wrong = {
            (list(kinds)[n - 1] if n else "id"): pair
            for n, pair in enumerate(zip(row, got[key], strict=True))
            if pair[0] != pair[1]
        }
        assert not wrong
    assert decoded(mysql_database, log, relation, most_functions=0) == found
    if amount == "FULL" and not mysql_database.is_mariadb:
        assert decoded(mysql_database, log, None) == found


async def _write(server: MySQLServer, strategies: list[st.SearchStrategy[str]], image: str) -> None:
    """Rows of all strategies, of which some are then changed, moved or deleted."""
    values = [_examples(st.one_of(st.just("NULL"), strategy, strategy, strategy), _ROWS) for strategy in strategies]
    dice = random.Random(1)
    async with connected(server) as connection, connection.cursor() as cursor:
        await cursor.execute("SET SESSION sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00'")
        await cursor.execute(f"SET SESSION binlog_row_image = {image}")
        for row in range(_ROWS):
            written = ", ".join(dice.choice(some) for some in values)
            await cursor.execute(f"INSERT IGNORE INTO r VALUES ({row}, {written})")
        for row in range(0, _ROWS, 2):
            places = dice.sample(range(len(values)), 5)
            changes = [f"c{place} = {dice.choice(values[place])}" for place in places]
            if row % 10 == 0:
                changes.append(f"id = {row + 1000}")
            await cursor.execute(f"UPDATE IGNORE r SET {', '.join(changes)} WHERE id = {row}")
        await cursor.execute("DELETE FROM r WHERE id % 7 = 1")


async def test_shapes_of_json_with_a_function(mysql_database: MySQLServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents taken by the functions of their shapes are what a SELECT gives, as those taken value by value are."""
    if mysql_database.is_mariadb:
        return  # its JSON is text
    monkeypatch.setattr(json_shapes, "_MEETINGS", 1)
    documents = [_json_literal(document) for document in _examples(_JSON, 100)] + _OPAQUE
    await mysql_database.execute("CREATE TABLE j (id INT PRIMARY KEY, document JSON)")
    async with logged(mysql_database, "j") as log:
        values = ", ".join(f"({n}, {document})" for n, document in enumerate(documents))
        await mysql_database.execute(f"INSERT INTO j VALUES {values}")
    relation = await described(mysql_database, "j")
    wanted = await snapshot(mysql_database, "j", CsvDialect())
    assert len(wanted) == len(documents)
    made: list[bytes] = []
    make = json_shapes.Shapes.make

    def counted(shapes: json_shapes.Shapes, identity: bytes, *rest: Any) -> None:
        made.append(identity)
        make(shapes, identity, *rest)

    monkeypatch.setattr(json_shapes.Shapes, "make", counted)
    for _ in range(2):
        assert replayed(decoded(mysql_database, log, relation), ["id", "document"]) == wanted
    assert len(made) > 20
