"""Readers of what a change stream leaves in the bucket that know nothing of headrace: they list folders and read CSV."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import duckdb

from tests.flows.changes import KEYS, ChangesShop

COLUMNS = {"orders": ("id", "counter", "note", "at"), "items": ("order_id", "number", "price")}

_SELECTS = {
    "orders": "SELECT CONCAT(id, ''), CONCAT(counter, ''), note, CONCAT(DATE_FORMAT(CONVERT_TZ(at, @@session.time_zone,"
    " '+00:00'), '%Y-%m-%d %H:%i:%s.%f'), '+00') FROM orders",
    "items": "SELECT CONCAT(order_id, ''), CONCAT(number, ''), CONCAT(price, '') FROM items",
}

Fields = tuple[str | None, ...]

NASTY = ["a,\"b\"", "two\nlines", "carriage\rreturn", "", None, "\\N", '"', "NULL", "ü–✓", ",,", "{\"a\": [1]}\n"]  # fmt: skip


async def in_database(shop: ChangesShop, table: str) -> set[Fields]:
    """The rows of the table as they are."""
    return {tuple(row) for row in await shop.mysql.fetch(_SELECTS[table])}


async def objects(shop: ChangesShop, folder: str = "") -> dict[str, bytes]:
    """What lies in a folder of the stream, decompressed, by name."""
    prefix = "/".join(part for part in ("raw", shop.name, folder) if part) + "/"
    found = {}
    async with shop.destination().client() as client:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=shop.bucket, Prefix=prefix)
        for key in [each["Key"] async for page in pages for each in page.get("Contents", [])]:
            body = await (await client.get_object(Bucket=shop.bucket, Key=key))["Body"].read()
            found[key.removeprefix(prefix)] = gzip.decompress(body) if key.endswith(".gz") else body
    return found


async def dms_files(shop: ChangesShop, table: str) -> dict[str, bytes]:
    """The files of a table in the order in which a reader of DMS files takes them: the full load, then the changes."""
    found = await objects(shop, f"{shop.mysql.database}/{table}")
    return {name: found[name] for name in sorted(found, key=lambda name: (not name.startswith("LOAD"), name))}


def read_csv(body: bytes, names: tuple[str, ...], file: Path, **options: Any) -> list[Fields]:
    """As DuckDB reads it."""
    if not body:
        return []
    file.write_bytes(body)
    given = {"header": False, "nullstr": "", **options}
    told = ", ".join(f"{name} = {value!r}" for name, value in given.items())
    return duckdb.sql(
        f"SELECT * FROM read_csv(?, columns = {dict.fromkeys(names, 'VARCHAR')}, auto_detect = false, delim = ',',"
        f" quote = '\"', escape = '\"', allow_quoted_nulls = false, {told})",
        params=[str(file)],
    ).fetchall()


async def dms_table(shop: ChangesShop, table: str, folder: Path) -> set[Fields]:
    """What all files of a table's folder make of it, by Op, in the order of their names. Fails where they do not fit."""
    columns = COLUMNS[table]
    key = [columns.index(name) for name in KEYS[table]]
    made: dict[Fields, Fields] = {}
    for name, body in (await dms_files(shop, table)).items():
        is_load = name.startswith("LOAD")
        for fields in read_csv(body, columns if is_load else ("Op", *columns), folder / "file.csv"):
            op, row = ("I", fields) if is_load else (fields[0], fields[1:])
            at = tuple(row[place] for place in key)
            assert (at in made) == (op in ("U", "D")), f"{name}: {op} of {at}"
            if op == "D":
                assert made.pop(at)  # the row before it
            else:
                made[at] = row
    return set(made.values())


async def assert_dms(shop: ChangesShop, folder: Path) -> None:
    """The folders of DMS files make the tables as they are."""
    for table in COLUMNS:
        expected, found = await in_database(shop, table), await dms_table(shop, table, folder)
        assert found == expected, f"not there: {list(expected - found)[:3]}, too much: {list(found - expected)[:3]}"


async def log_records(shop: ChangesShop, folder: Path, **options: Any) -> list[dict[str, Any]]:
    """All records of a stream in layout log: objects in the order in which the commits list them, lines as they stand."""
    names = ("_op", "_committed_at", "_position", "_unchanged", "_table", "_row")
    found = []
    there = await objects(shop)
    for commit in await shop.commits():
        for entry in commit.entries:
            body = there[entry.key.removeprefix(f"raw/{shop.name}/")]
            records = read_csv(body, names, folder / "file.csv", header=True, **options)
            assert len(records) == entry.rows
            found += [dict(zip(names, fields, strict=True)) for fields in records]
    for record in found:
        record["_row"] = json.loads(record["_row"]) if record["_row"] is not None else None
    return found


def log_tables(records: list[dict[str, Any]]) -> dict[str, set[Fields]]:
    """The tables that records make, applied in their order."""
    made: dict[str, dict[Fields, dict[str, str | None]]] = {table: {} for table in COLUMNS}
    for record in records:
        name = record["_table"].split(".")[1]
        table, op, row = made[name], record["_op"], record["_row"]
        if op == "T":
            table.clear()
            continue
        at = tuple(row[column] for column in KEYS[name])
        assert (at in table) == (op in ("U", "D")), f"{op} of {at}"
        if op == "D":
            del table[at]
        else:
            table[at] = {**table.get(at, {}), **row}
    return {name: {tuple(row[c] for c in COLUMNS[name]) for row in table.values()} for name, table in made.items()}
