"""CSV responses (RFC 4180) → rows, as many at a time as have come whole."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from itertools import islice

from tasks.extractors.rest.errors import BadResponse
from tasks.extractors.rest.session import Response

# Of the whole process; 128 KiB otherwise. Responses have a limit of their own.
csv.field_size_limit(2**31 - 1)

_BATCH = 500


async def csv_rows(response: Response) -> AsyncGenerator[list[list[str]]]:
    """The lines of a response, the header included."""
    rest = b""
    async with aclosing(response.body()) as body:
        async for data in body:
            rest += data
            cut = _last_line_end(rest)
            if cut:
                for rows in _rows(rest[:cut], response):
                    yield rows
                rest = rest[cut:]
    for rows in _rows(rest, response):
        yield rows


def has_rows(data: bytes) -> bool:
    """Whether there is something under the header."""
    data = data.rstrip()
    at = data.find(b"\n")
    while at >= 0 and data.count(b'"', 0, at) % 2:
        at = data.find(b"\n", at + 1)
    return at >= 0


def _last_line_end(data: bytes) -> int:
    """Behind the last line end that is in no quotes; 0 where there is none."""
    at = data.rfind(b"\n")
    while at >= 0 and data.count(b'"', 0, at) % 2:
        at = data.rfind(b"\n", 0, at)
    return at + 1


def _rows(data: bytes, response: Response) -> Iterator[list[list[str]]]:
    text = io.StringIO(data.decode("utf-8-sig", errors="replace"), newline="")
    lines = csv.reader(text, strict=True)
    try:
        while rows := list(islice(lines, _BATCH)):
            yield [row for row in rows if row]
    except csv.Error as error:
        raise BadResponse(f"{response} is no CSV, or was cut off: {error}") from error


def named(names: list[str], row: list[str], response: Response) -> dict[str, str | None]:
    """A row as a record; `BadResponse` where it has more or fewer fields than the header."""
    if len(row) != len(names):
        raise BadResponse(f"{response} has a line of {len(row)} fields under a header of {len(names)}")
    # CSV has no NULL; what is empty is taken for it.
    return {name: value or None for name, value in zip(names, row, strict=True)}
