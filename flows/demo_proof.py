"""The demo's proof: what a loader makes of the committed files, row by row, is what the table holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from tasks.commits import Commit
from tasks.extractors.contract import Column
from tasks.extractors.postgres.sql import Connection

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client

NUMBERS = {
    "customers": "id::bigint",
    "orders": "amount::decimal(12,2)",
    "order_items": "quantity::int * price::decimal(12,2)",
    "events": "amount::decimal(12,2)",
    "payments": "CAST(amount AS decimal(12,2))",
}
"""What is summed up in each table, in SQL that DuckDB reads as the table's own server does."""


@dataclass(frozen=True)
class Summary:
    """What a table comes to; two of the same content have the same."""

    rows: int
    total: Decimal
    fingerprint: int
    """The sum over all rows of 60 bits of the SHA-256 of all their values, NULL and the empty string told apart."""


async def in_postgres(connection: Connection, table: str, columns: Iterable[Column]) -> Summary:
    """The table itself, as PostgreSQL computes it."""
    row = _row_text(columns, cast="text")
    found = await connection.fetchrow(
        f"SELECT count(*) AS rows, sum({NUMBERS[table]})::numeric AS total,"
        f" sum(('x' || left(encode(sha256(convert_to({row}, 'UTF8')), 'hex'), 15))::bit(60)::bigint::numeric) AS fingerprint"
        f" FROM {table}"
    )
    if found is None:  # an aggregate always gives a row
        raise RuntimeError("PostgreSQL gave no row")
    return Summary(int(found["rows"]), Decimal(found["total"]), int(found["fingerprint"]))


async def in_mysql(connection: Any, table: str, columns: Iterable[Column]) -> Summary:
    """The same of a table of MySQL or MariaDB, as that server computes it; the session counts in UTC."""
    values = []
    for column in columns:
        # A timestamp is written with the offset that the server leaves out.
        offset = ", '+00'" if column.type.startswith("timestamp") else ""
        values.append(f"COALESCE(CONCAT('=', `{column.name}`{offset}), 'NULL')")
    row = ", ".join(values)
    async with connection.cursor() as cursor:
        await cursor.execute(
            f"SELECT COUNT(*), SUM({NUMBERS[table]}),"
            f" SUM(CAST(CONV(LEFT(SHA2(CONCAT_WS(',', {row}), 256), 15), 16, 10) AS UNSIGNED)) FROM `{table}`"
        )
        found = await cursor.fetchone()
    return Summary(int(found[0]), Decimal(found[1]), int(found[2]))


def in_files(table: str, files: list[tuple[int, Path]], columns: Iterable[Column]) -> Summary:
    """The files of one or several commits (by sequence number), merged by key as a loader does: the newest row stays."""
    columns = tuple(columns)
    types = ", ".join(f"{_text(column.name)}: 'VARCHAR'" for column in columns)
    with duckdb.connect() as connection:
        tables = [
            f"SELECT {sequence} AS _sequence, * FROM read_csv({_text(str(path))}, header = true, delim = ',',"
            " quote = '\"', escape = '\"', nullstr = '', allow_quoted_nulls = false, auto_detect = false,"
            f" compression = 'gzip', columns = {{{types}}})"
            for sequence, path in files
        ]
        merged = (
            f"SELECT * FROM ({' UNION ALL '.join(tables)})"
            " QUALIFY row_number() OVER (PARTITION BY id ORDER BY _sequence DESC) = 1"
        )
        row = _row_text(columns, cast="varchar")
        found = connection.execute(
            f"SELECT count(*), sum({NUMBERS[table]}), sum(('0x' || left(sha256({row}), 15))::bigint) FROM ({merged})"
        ).fetchone()
    if found is None:  # an aggregate always gives a row
        raise RuntimeError("DuckDB gave no row")
    return Summary(int(found[0]), Decimal(found[1]), int(found[2]))


async def download(client: S3Client, bucket: str, commits: Iterable[Commit], folder: Path) -> list[tuple[int, Path]]:
    """The files the commits name (no others are looked at), with the sequence number of their commit."""
    files = []
    for commit in commits:
        for entry in commit.entries:
            path = folder / f"{commit.stream}-{commit.sequence}-{entry.key.rsplit('/', 1)[-1]}"
            answer = await client.get_object(Bucket=bucket, Key=entry.key)
            with path.open("wb") as file:
                while part := await answer["Body"].read(1 << 20):
                    file.write(part)
            files.append((commit.sequence, path))
    return files


def _row_text(columns: Iterable[Column], cast: str) -> str:
    values = [f"coalesce('=' || \"{column.name}\"::{cast}, 'NULL')" for column in columns]
    return " || ',' || ".join(values)


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
