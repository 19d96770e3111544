"""What the decoder makes of inserts, updates and deletes, and of events that cannot be decoded."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.s3 import CsvDialect
from tasks.extractors.mysql.binlog.charsets import charset_of, utf8
from tasks.extractors.mysql.binlog.columns import LogColumn, log_columns, verify
from tasks.extractors.mysql.binlog.decoder import Decoder, Head
from tasks.extractors.mysql.binlog.images import FAILURES
from tasks.extractors.mysql.binlog.json_text import json_text
from tasks.extractors.mysql.binlog.table_map import TableMap, UndecodableError
from tests.servers.mysql import MySQLServer, connected
from tests.tasks.extractors.binlog import HEAD, Log, decoded, described, logged, metadata, replayed, snapshot


async def _logged(server: MySQLServer, create: str, *statements: str, setup: str = "DO 0") -> Log:
    """What one session writes to a new table ``t``."""
    await server.execute(create)
    async with logged(server, "t") as log:
        await server.execute(setup, *statements)
    return log


def _lines(server: MySQLServer, log: Log, **options: Any) -> list[str]:
    """All records, without what is the same in all: when, and where in the log."""
    found = b"".join(event.data for event in decoded(server, log, None, **options)).decode()
    return [line.replace(f",{HEAD.committed_at},{HEAD.position}", ",") for line in found.splitlines()]


async def test_positions_are_numbered_within_an_event(mysql_database: MySQLServer) -> None:
    """Records carry the operation, the commit's time and a position that sorts."""
    log = await _logged(mysql_database, "CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (7), (8)")
    (event,) = decoded(mysql_database, log, None)
    first = f"I,{HEAD.committed_at},{HEAD.position}00000000,,7\n"
    assert event.data.decode() == first + first.replace("0,,7", "1,,8")
    assert (event.count, event.absent) == (2, frozenset())


async def test_a_change_of_the_key_is_a_deletion_and_an_insertion(mysql_database: MySQLServer) -> None:
    """An update gives one record, or two where the key is another: what is left could not be merged."""
    log = await _logged(
        mysql_database,
        "CREATE TABLE t (a INT, b VARCHAR(9) COLLATE utf8mb4_general_ci, n INT, PRIMARY KEY (a, b)) CHARSET utf8mb4",
        "INSERT INTO t VALUES (1, 'x', 5)",
        "UPDATE t SET n = 6",
        "UPDATE t SET b = 'X'",
        "UPDATE t SET a = 2, n = NULL",
        "DELETE FROM t",
    )
    wanted = ["I,00000000,,1,x,5", "U,00000000,,1,x,6", "D,00000000,,1,x,6", "I,00000001,,1,X,6"]
    wanted += ["D,00000000,,1,X,6", "I,00000001,,2,X,", "D,00000000,,2,X,"]
    assert _lines(mysql_database, log) == _lines(mysql_database, log, most_functions=0) == wanted


async def test_what_a_minimal_image_lacks_is_named(mysql_database: MySQLServer) -> None:
    """Key columns come from the image before; what neither image holds is NULL, and named in _unchanged."""
    log = await _logged(
        mysql_database,
        "CREATE TABLE t (id INT PRIMARY KEY, `ü,` INT, b TEXT)",
        "INSERT INTO t VALUES (1, 2, 'x')",
        "UPDATE t SET b = 'y'",
        "UPDATE t SET id = 3",
        "DELETE FROM t",
        setup="SET SESSION binlog_row_image = MINIMAL",
    )
    wanted = ["I,00000000,,1,2,x", 'U,00000000,"[""ü,""]",1,,y']
    wanted += ['D,00000000,"[""ü,"",""b""]",1,,', 'I,00000001,"[""ü,"",""b""]",3,,', 'D,00000000,"[""ü,"",""b""]",3,,']
    assert _lines(mysql_database, log) == _lines(mysql_database, log, most_functions=0) == wanted
    absent = [event.absent for event in decoded(mysql_database, log, None)]
    assert absent == [frozenset(), {"ü,"}, {"ü,", "b"}, {"ü,", "b"}]


async def test_columns_are_chosen_and_ordered(mysql_database: MySQLServer) -> None:
    """Only the columns asked for are written; the key is compared all the same."""
    create = "CREATE TABLE t (id INT PRIMARY KEY, a VARCHAR(300), b INT, c TEXT)"
    log = await _logged(mysql_database, create, "INSERT INTO t VALUES (1, 'a', 2, 'c')", "UPDATE t SET id = 2")
    wanted = ["I,00000000,,c,2", "D,00000000,,c,2", "I,00000001,,c,2"]
    assert _lines(mysql_database, log, names=["c", "b"]) == wanted
    assert _lines(mysql_database, log, names=["c", "b"], most_functions=0) == wanted
    with pytest.raises(ValueError, match="no column x"):
        _lines(mysql_database, log, names=["x"])


async def test_a_table_without_a_key_has_plain_updates(mysql_database: MySQLServer) -> None:
    """Without a key no update is a deletion; under MINIMAL the image before holds what the one after lacks."""
    for image in ("FULL", "MINIMAL"):
        await mysql_database.execute("DROP TABLE IF EXISTS t")
        setup = f"SET SESSION binlog_row_image = {image}"
        statements = "INSERT INTO t VALUES (1, 2)", "UPDATE t SET a = 5", "DELETE FROM t"
        log = await _logged(mysql_database, "CREATE TABLE t (a INT, b INT)", *statements, setup=setup)
        assert _lines(mysql_database, log) == ["I,00000000,,1,2", "U,00000000,,5,2", "D,00000000,,5,2"]


async def test_more_patterns_than_functions(mysql_database: MySQLServer) -> None:
    """A table of many nullable columns is decoded to the same bytes, whatever number of functions is kept."""
    columns = ", ".join(f"c{n} INT" for n in range(12))
    dice = random.Random(2)
    rows = ["(" + ", ".join(dice.choice(["NULL", str(n)]) for n in range(12)) + ")" for _ in range(200)]
    statement = f"INSERT INTO t VALUES {', '.join(rows)}"
    log = await _logged(mysql_database, f"CREATE TABLE t ({columns})", statement)
    every = decoded(mysql_database, log, None)
    assert (
        decoded(mysql_database, log, None, most_functions=7)
        == every
        == decoded(mysql_database, log, None, most_functions=0)
    )


async def test_a_wide_table(mysql_database: MySQLServer) -> None:
    """More than 250 columns, whose number takes more than a byte."""
    columns = ", ".join(f"c{n} TINYINT" for n in range(300))
    values = ", ".join(str(n % 100) for n in range(300))
    log = await _logged(
        mysql_database, f"CREATE TABLE t (id INT PRIMARY KEY, {columns})", f"INSERT INTO t VALUES (1, {values})"
    )
    assert _lines(mysql_database, log) == [f"I,00000000,,1,{values.replace(' ', '')}"]


async def test_partitions_and_compressed_events(mysql_database: MySQLServer) -> None:
    """MySQL tells the partition of a row, MariaDB compresses events: both are read."""
    value = "abc" * 200
    statements = [f"INSERT INTO t VALUES (1, '{value}'), (2, 'x')", "UPDATE t SET v = CONCAT(v, 'ü')", "DELETE FROM t"]
    if mysql_database.is_mariadb:
        await mysql_database.execute("SET GLOBAL log_bin_compress = ON, GLOBAL log_bin_compress_min_len = 10")
    try:
        create = "CREATE TABLE t (id INT PRIMARY KEY, v TEXT) CHARSET utf8mb4 PARTITION BY HASH (id) PARTITIONS 3"
        log = await _logged(mysql_database, create, *statements)
    finally:
        if mysql_database.is_mariadb:
            await mysql_database.execute("SET GLOBAL log_bin_compress = OFF")
    found = sorted(line.replace("00000001", "00000000") for line in _lines(mysql_database, log))
    wanted = [f"D,00000000,,1,{value}ü", "D,00000000,,2,xü", f"I,00000000,,1,{value}", "I,00000000,,2,x"]
    assert found == [*wanted, f"U,00000000,,1,{value}ü", "U,00000000,,2,xü"]
    kinds = {event.kind for _, event in log}
    assert kinds == ({166, 167, 168} if mysql_database.is_mariadb else {30, 31, 32})


async def test_generated_and_invisible_columns(mysql_database: MySQLServer) -> None:
    """What is generated is logged of new rows, and of updates by MySQL and MariaDB 10; MariaDB 11.8 does not: an error."""
    log = await _logged(
        mysql_database,
        "CREATE TABLE t (id INT PRIMARY KEY, a INT, h INT DEFAULT 7 INVISIBLE, v INT AS (a * 2) VIRTUAL,"
        " s INT AS (a * 3) STORED)",
        "INSERT INTO t (id, a) VALUES (1, 5)",
        "UPDATE t SET a = 6",
    )
    relation = await described(mysql_database, "t")
    assert [field.column.name for field in relation.fields if field.generated] == ["v", "s"]
    insert, update = log
    assert decoded(mysql_database, [insert], relation)[0].data.endswith(b",,1,5,7,10,15\n")
    image_after = update[1].body[10 if mysql_database.is_mariadb else 12]  # the bitmap of its columns
    if image_after & 0b11000:
        assert decoded(mysql_database, [update], relation)[0].data.endswith(b",,1,6,7,12,18\n")
        return
    assert mysql_database.is_mariadb
    with pytest.raises(UndecodableError, match=r"\.t, column v, s: generated columns .*field columns: -v, -s"):
        decoded(mysql_database, [update], relation)
    assert decoded(mysql_database, [update], relation, names=["id", "a", "h"])[0].data.endswith(b",,1,6,7\n")


async def test_json_that_was_changed_in_place(mysql_database: MySQLServer) -> None:
    """MySQL changes a document without writing it anew, which leaves gaps in it."""
    await mysql_database.execute("CREATE TABLE t (id INT PRIMARY KEY, j JSON)")
    document = '{"b": "long enough", "a": [1, 70000], "cc": {"x": 1.5, "yy": null}, "": "", "e": 18446744073709551615}'
    changes = [
        "REMOVE(j, '$.b')",
        "REPLACE(j, '$.a[1]', 3)",
        "SET(j, '$.cc.x', 'é')",
        "REMOVE(j, '$.cc.yy')",
        "REMOVE(j, '$.a')",
    ]
    async with logged(mysql_database, "t") as log:
        await mysql_database.execute(f"INSERT INTO t VALUES (1, '{document}'), (2, '{document}')")
        await mysql_database.execute(*(f"UPDATE t SET j = JSON_{change} WHERE id = 1" for change in changes))
    assert len(log) == 1 + len(changes)
    assert replayed(decoded(mysql_database, log, None), ["id", "j"]) == await snapshot(
        mysql_database, "t", CsvDialect()
    )


async def test_functional_indexes_have_no_columns_in_the_log(mysql_database: MySQLServer) -> None:
    """The columns that MySQL makes for them, and hides, are not among those of the table."""
    if mysql_database.is_mariadb:
        return  # it has none
    indexes = "INDEX ((a + 1)), INDEX ((CAST(j->'$[*]' AS UNSIGNED ARRAY)))"
    create = f"CREATE TABLE t (id INT PRIMARY KEY, a INT, j JSON, {indexes})"
    log = await _logged(mysql_database, create, "INSERT INTO t VALUES (1, 2, '[3, 4]')", "UPDATE t SET a = 5")
    relation = await described(mysql_database, "t")
    found = [event.data for event in decoded(mysql_database, log, relation)]
    assert [data.split(b",", 4)[4] for data in found] == [b'1,2,"[3, 4]"\n', b'1,5,"[3, 4]"\n']


# -- what cannot be decoded -------------------------------------------------------------------------------------------


async def test_a_partial_update_is_refused(mysql_database: MySQLServer) -> None:
    """MySQL can log parts of a JSON value: an error names the table and the setting."""
    if mysql_database.is_mariadb:
        return  # it has no such events
    log = await _logged(
        mysql_database,
        "CREATE TABLE t (id INT PRIMARY KEY, j JSON)",
        f"""INSERT INTO t VALUES (1, '{{"a": 1, "b": "{"x" * 200}"}}')""",
        "UPDATE t SET j = JSON_SET(j, '$.a', 2)",
        setup="SET SESSION binlog_row_value_options = PARTIAL_JSON",
    )
    with pytest.raises(UndecodableError, match=r"test_\w+\.t: .*binlog_row_value_options=PARTIAL_JSON"):
        decoded(mysql_database, log, None)


async def test_rows_without_columns_are_refused(mysql_database: MySQLServer) -> None:
    """Under MINIMAL, MySQL logs no column of a row of defaults: how many rows there are is not in the log."""
    setup = "SET SESSION binlog_row_image = MINIMAL"
    log = await _logged(mysql_database, "CREATE TABLE t (a INT DEFAULT 1)", "INSERT INTO t VALUES ()", setup=setup)
    if mysql_database.is_mariadb:
        assert _lines(mysql_database, log) == ["I,00000000,,1"]
        return
    with pytest.raises(UndecodableError, match="binlog_row_image=FULL"):
        decoded(mysql_database, log, None)


async def test_a_truncated_event_is_never_rows(mysql_database: MySQLServer) -> None:
    """Any part of an event's beginning raises; but for one that ends between two rows, which the header's size tells of."""
    log = await _logged(
        mysql_database,
        "CREATE TABLE t (id INT PRIMARY KEY, d DECIMAL(12,2), t DATETIME(6), v VARCHAR(300), b BLOB, j JSON, e ENUM('x'))",
        """INSERT INTO t VALUES (1, 1.5, NOW(6), 'x', REPEAT('y', 200), '{"a": [1, "b", 2.5]}', 'x')""",
        "UPDATE t SET v = 'z', id = 2",
        "DELETE FROM t",
    )
    for body, event in log:
        table_map = TableMap.parse(body, mysql_database.flavour)
        for most in (512, 0):
            decoder = Decoder(table_map, log_columns(table_map), CsvDialect(), most_functions=most)
            whole = decoder.records(event.kind, event.body, HEAD)
            assert whole.count
            for end in range(len(event.body)):
                with pytest.raises(UndecodableError, match=r"test_\w+\.t"):
                    decoder.records(event.kind, event.body[:end], HEAD)
            with pytest.raises(UndecodableError):
                decoder.records(event.kind, event.body + b"\0", HEAD)
        for end in range(len(body)):
            _parsed_or_refused(body[:end], mysql_database)


def _parsed_or_refused(body: bytes, server: MySQLServer) -> None:
    """The metadata's fields are each optional: a table map that is cut between them is one of less metadata."""
    try:
        table_map = TableMap.parse(body, server.flavour)
    except UndecodableError:
        return
    assert len(table_map.columns) == 7
    assert not table_map.has_names or table_map.columns[1].name == "d"


async def test_a_garbled_event_raises_what_it_should(mysql_database: MySQLServer) -> None:
    """Random bytes in an event are an error of ours or a value, and the same by both paths."""
    log = await _logged(
        mysql_database,
        "CREATE TABLE t (id INT PRIMARY KEY, d DECIMAL(12,2), t DATETIME(6), u TIMESTAMP(3) NULL, v VARCHAR(300)"
        " CHARACTER SET sjis, j JSON, e ENUM('x'), m TIME(2))",
        """INSERT INTO t VALUES (1, 1.5, NOW(6), NOW(), 'x', '{"a": [1, "b", 2.5]}', 'x', '01:02:03.4')""",
    )
    body, event = log[0]
    table_map = TableMap.parse(body, mysql_database.flavour)
    columns = log_columns(table_map)
    fast, slow = (Decoder(table_map, columns, CsvDialect(), most_functions=most) for most in (512, 0))
    dice = random.Random(3)
    for _ in range(3000):
        garbled = bytearray(event.body)
        for _ in range(dice.randint(1, 3)):
            garbled[dice.randrange(8, len(garbled))] = dice.randrange(256)
        assert _outcome(fast, event.kind, bytes(garbled)) == _outcome(slow, event.kind, bytes(garbled))


def _outcome(decoder: Decoder, kind: int, body: bytes) -> object:
    try:
        return decoder.records(kind, body, HEAD)
    except UndecodableError:
        return UndecodableError


@given(st.binary(max_size=60))
def test_json_that_is_none_raises(raw: bytes) -> None:
    """Bytes that are no JSON give one of a few errors, or a text."""
    with suppress(*FAILURES):
        assert isinstance(json_text(raw), str)


async def test_an_unknown_type_and_a_wrong_event(mysql_database: MySQLServer) -> None:
    """An error names the table, and the column where there is one."""
    log = await _logged(mysql_database, "CREATE TABLE t (id INT, v VARCHAR(9))", "INSERT INTO t VALUES (1, 'x')")
    body, event = log[0]
    table_map = TableMap.parse(body, mysql_database.flavour)
    columns = log_columns(table_map)
    with pytest.raises(UndecodableError, match=r"\.t: an event of type 2 is none of rows"):
        Decoder(table_map, columns, CsvDialect()).records(2, event.body, HEAD)
    with pytest.raises(UndecodableError, match=r"\.t, column v: .*klingon"):
        Decoder(table_map, [columns[0], replace(columns[1], charset="klingon")], CsvDialect())
    with pytest.raises(UndecodableError, match=r"\.t: 1 columns, and 2 in the log"):
        Decoder(table_map, columns[:1], CsvDialect())
    with pytest.raises(ValueError, match="not for a CSV"):
        Decoder(table_map, columns, CsvDialect()).records(event.kind, event.body, Head("a,b", ""))
    place = body.index(b"\x03\x0f")
    with pytest.raises(UndecodableError, match=r"\.t: .*type 200"):
        TableMap.parse(body.replace(b"\x03\x0f", b"\x03\xc8"), mysql_database.flavour)
    assert place


# -- columns by description -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("alteration", "reason"),
    [
        ("ADD x INT", "it has 4 columns, and 3 in the log"),
        ("MODIFY a BIGINT", r"column a is bigint(\(20\))?, and in the log int"),
        ("MODIFY a INT UNSIGNED", r"column a is int(\(10\))? unsigned, and in the log signed"),
        ("MODIFY v VARCHAR(30)", r"column v is varchar\(30\), and in the log varchar\(20\)"),
        (
            "MODIFY v VARCHAR(20) CHARACTER SET utf32",
            r"column v is varchar\(20\), and in the log in the character set utf8mb4",
        ),
        ("MODIFY d DECIMAL(10,3)", r"column d is decimal\(10,3\), and in the log decimal\(10,2\)"),
    ],
)
async def test_a_table_that_was_altered_does_not_fit(mysql_database: MySQLServer, alteration: str, reason: str) -> None:
    """Without names in the log, a description that does not fit is an error; with them, the log says what was."""
    create = "CREATE TABLE t (a INT PRIMARY KEY, v VARCHAR(20), d DECIMAL(10,2)) CHARSET utf8mb4"
    async with metadata(mysql_database, "MINIMAL"):
        log = await _logged(mysql_database, create, "INSERT INTO t VALUES (1, 'x', 2)")
    fitting = await described(mysql_database, "t")
    assert decoded(mysql_database, log, fitting)[0].data.endswith(b",,1,x,2.00\n")
    await mysql_database.execute(f"ALTER TABLE t {alteration}")
    with pytest.raises(UndecodableError, match=rf"\.t: .*{reason}.*binlog_row_metadata=FULL"):
        decoded(mysql_database, log, await described(mysql_database, "t"))
    with pytest.raises(UndecodableError, match="no column names"):
        decoded(mysql_database, log, None)


async def test_the_log_knows_what_a_table_was(mysql_database: MySQLServer) -> None:
    """With full metadata, rows from before an ALTER TABLE are decoded as what they were."""
    create = "CREATE TABLE t (a INT PRIMARY KEY, v VARCHAR(20), e ENUM('x', 'y')) CHARSET utf8mb4"
    log = await _logged(mysql_database, create, "INSERT INTO t VALUES (1, 'ü', 'y')")
    await mysql_database.execute("ALTER TABLE t DROP v, ADD w INT, MODIFY e ENUM('z', 'x', 'y')")
    relation = await described(mysql_database, "t")
    assert decoded(mysql_database, log, relation)[0].data.decode().endswith(",,1,ü,y\n")
    with pytest.raises(UndecodableError, match=r"column \w is \w in the log"):
        verify(TableMap.parse(log[0][0], mysql_database.flavour), relation)


def test_a_column_says_what_it_is() -> None:
    """Kind and numbers come from the type as information_schema has it."""
    column = LogColumn("a", "decimal(10,2) unsigned", key=True, nullable=False)
    assert (column.kind, column.numbers) == ("decimal", (10, 2))
    assert column.column.model_dump()["type"] == "decimal(10,2) unsigned"
    assert LogColumn("t", "time(3) /* mariadb-5.3 */").numbers == (3,)


# -- character sets ---------------------------------------------------------------------------------------------------


async def test_every_collation_has_its_character_set(mysql_database: MySQLServer) -> None:
    """The numbers of all collations the server has lead to the character sets it says they are of."""
    source = "COLLATION_CHARACTER_SET_APPLICABILITY" if mysql_database.is_mariadb else "COLLATIONS"
    found = await mysql_database.fetch(f"SELECT ID, CHARACTER_SET_NAME FROM information_schema.{source}")
    assert len(found) > 200
    assert [(number, name) for number, name in found if number and charset_of(number) != name] == []
    assert charset_of(999) is None


_IN_ROW, _DIGITS = range(0xA1, 0xFF), range(0x30, 0x3A)
_EUC = [bytes([0x8F, row, place]) for row in _IN_ROW for place in _IN_ROW]
_GB = [bytes([a, b, c, d]) for a in (0x81, 0x84) for b in _DIGITS for c in range(0x81, 0xFF) for d in _DIGITS]
_LONG_CODES = {"ujis": _EUC, "eucjpms": _EUC, "gb18030": _GB}


async def test_every_character_of_every_set(mysql_database: MySQLServer) -> None:
    """Each byte, and each pair of bytes that a set takes for a character, becomes what the server makes of it."""
    sets = await mysql_database.fetch("SELECT CHARACTER_SET_NAME, MAXLEN FROM information_schema.CHARACTER_SETS")
    async with connected(mysql_database) as connection, connection.cursor() as cursor:
        await cursor.execute("SET SESSION sql_mode = ''")
        for name, longest in sets:
            if name in ("binary", "utf8mb3", "utf8mb4") or name.startswith(("utf", "ucs")):
                continue
            codes = [bytes([a]) for a in range(256)] + _LONG_CODES.get(name, [])
            if longest > 1:
                codes += [bytes([a, b]) for a in range(0x80, 256) for b in range(0x30, 256)]
            await cursor.execute(f"CREATE TABLE {name} (b VARBINARY(4), t VARCHAR(4) CHARACTER SET {name})")
            for start in range(0, len(codes), 10_000):
                values = ",".join(f"(x'{code.hex()}')" for code in codes[start : start + 10_000])
                await cursor.execute(f"INSERT INTO {name} (b) VALUES {values}")
            await cursor.execute(f"UPDATE IGNORE {name} SET t = b")
            await cursor.execute(f"SELECT b, CONVERT(t USING utf8mb4) FROM {name} WHERE CAST(t AS BINARY) = b")
            convert = utf8(name)
            assert convert
            found = await cursor.fetchall()
            assert len(found) > 100
            assert [(name, code, text) for code, text in found if convert(code) != text.encode()] == []


# -- old formats ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zero_dates", ["text", "null"])
async def test_times_in_the_format_of_before_mysql_5_6(mysql_database: MySQLServer, zero_dates: str) -> None:
    """Which MariaDB can still write, and of which the log does not tell the digits: the description does."""
    if not mysql_database.is_mariadb:
        return  # it turned them into today's when the server was upgraded
    kinds = [f"{kind}({digits}) NULL" for kind in ("TIME", "DATETIME", "TIMESTAMP") for digits in range(7)]
    columns = ", ".join(f"c{n} {kind}" for n, kind in enumerate(kinds))
    await mysql_database.execute("SET GLOBAL mysql56_temporal_format = OFF")
    try:
        await mysql_database.execute(f"CREATE TABLE t (id INT PRIMARY KEY, {columns})")
    finally:
        await mysql_database.execute("SET GLOBAL mysql56_temporal_format = ON")
    times = ["'-838:59:59'", "'-00:00:00.5'", "'12:34:56.789012'", "'100:00:00'", "NULL", "'00:00:00'"]
    moments = [
        "'2026-02-03 04:05:06.789012'",
        "'1999-12-31 23:59:59'",
        "'0000-00-00'",
        "'2026-02-00'",
        "NULL",
        "'2026-01-01'",
    ]
    async with logged(mysql_database, "t") as log:
        rows = [[time] * 7 + [moment] * 14 for time, moment in zip(times, moments, strict=True)]
        inserts = [f"INSERT IGNORE INTO t VALUES ({n}, {', '.join(row)})" for n, row in enumerate(rows)]
        await mysql_database.execute("SET SESSION sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+00:00'", *inserts)
    relation = await described(mysql_database, "t")
    names = [field.column.name for field in relation.fields]
    wanted = await snapshot(mysql_database, "t", CsvDialect(), "null" if zero_dates == "null" else "text")
    for most in (512, 0):
        assert (
            replayed(decoded(mysql_database, log, relation, zero_dates=zero_dates, most_functions=most), names)
            == wanted
        )
    with pytest.raises(UndecodableError, match=r"\.t, column c0: the log tells only that it is time"):
        decoded(mysql_database, log, None)
