"""Responses → records: JSON, NDJSON or CSV, whole or a piece at a time, each record a value that `Documents` writes.

A response that is there whole is parsed at once. Of a larger one no more than a batch is held, where `Spec.records` is a path.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from itertools import islice
from typing import Any

from blocks.errors import ConfigurationError
from tasks.extractors.documents import MISSING, DocumentError, Getter, getter, json_text, parse
from tasks.extractors.documents.paths import steps
from tasks.extractors.rest.csv_rows import csv_rows, has_rows, named
from tasks.extractors.rest.errors import BadResponse
from tasks.extractors.rest.session import BUFFER_BYTES, Response
from tasks.extractors.rest.spec import Format, Spec
from tasks.extractors.rest.splitter import Splitter

_BATCH = 500
_MOST_WHOLE = 256 << 20
"""Bytes of a response that has to be held whole: its records are not at a path, or not known."""

_LINES = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines",
                    "application/json-lines", "application/jsonlines", "application/stream+json",
                    "application/json-seq"})  # fmt: skip

_BLANK = b" \r\t\n\x1e"
"""Around a line; the last begins a record of RFC 7464."""

Batch = list[Any]


class Page:
    """The records of one response, and what else is in it."""

    def __init__(self, response: Response | None, reader: Reader) -> None:
        self.response = response
        self._reader = reader
        self.envelope: Any = None
        """The response's JSON; without the records where it came in pieces. There once all batches are read."""
        self._records: list[Any] | None = None
        self._splitter: Splitter | None = None
        self._begun: list[bytes] = []
        """The elements that `_splitter` has found in the beginning of a large response."""

    def look(self) -> None:
        """Parse a response that is there whole: before its batches are asked for, the next page can be."""
        response = self.response
        if response is None or not response.head:
            self._records = []
        elif self._reader.form(response) != "json":
            return
        elif response.is_whole:
            self.envelope = _parsed(response.head, response)
            self._records = self._reader.found(self.envelope, response)
        elif (path := self._reader.path(response)) is not None:
            self._splitter = Splitter(path)
            self._begun = self._splitter.feed(response.head[:BUFFER_BYTES])

    @property
    def mark(self) -> int:
        """The same for two pages of the same records; 0 where there are none, or it is not known before they are read.

        Of a page that is not there whole, its first 4 MB tell; of JSON the records in them, as the rest may hold a time.
        """
        if self._records is None:
            return self._mark_of_beginning()
        if not (records := self._records):
            return 0
        # Some of them tell as much as all, and cost a page of a hundred little.
        some = (records[0], records[len(records) // 2], records[-1])
        return hash((len(records), *map(json_text, some)))

    def _mark_of_beginning(self) -> int:
        response = self.response
        assert response is not None  # noqa: S101 - it would have no records
        form = self._reader.form(response)
        if form == "json":
            return hash(tuple(self._begun)) if self._begun else 0
        head = response.head[:BUFFER_BYTES]
        there = has_rows(head) if form == "csv" else head.strip(_BLANK)
        return hash(head) if there else 0

    @property
    def is_known(self) -> bool:
        """Whether `envelope` is there already."""
        return self._records is not None

    async def batches(self) -> AsyncGenerator[Batch]:
        """The records, some at a time. To be closed, as every generator that may be left early."""
        if self._records is not None:
            for start in range(0, len(self._records), _BATCH):
                yield self._records[start : start + _BATCH]
            return
        response = self.response
        assert response is not None  # noqa: S101 - `look` has seen to that
        form = self._reader.form(response)
        made = {"json": self._json, "ndjson": self._lines, "csv": self._csv}[form](response)
        async with aclosing(made) as batches:
            async for batch in batches:
                if batch:
                    yield batch

    async def aclose(self) -> None:
        if self.response is not None:
            await self.response.aclose()

    async def _json(self, response: Response) -> AsyncGenerator[Batch]:
        path = self._reader.path(response)
        if path is None:
            self.envelope = _parsed(await _all(response), response)
            records = iter(self._reader.found(self.envelope, response))
            while batch := list(islice(records, _BATCH)):
                yield batch
            return
        splitter, known = (self._splitter, BUFFER_BYTES) if self._splitter else (Splitter(path), 0)
        begun, self._begun = self._begun, []
        for batch in _batches(begun, response):
            yield batch
        async with aclosing(response.body()) as body:
            async for data in body:
                for batch in _batches(splitter.feed(data[known:]), response):
                    yield batch
                known = 0
        try:
            self.envelope = parse(splitter.envelope())
        except DocumentError as error:
            raise BadResponse(f"{response} was cut off: {error}") from error
        if not splitter.found:
            self._reader.missing(self.envelope, response)

    async def _lines(self, response: Response) -> AsyncGenerator[Batch]:
        rest = b""
        async with aclosing(response.body()) as body:
            async for data in body:
                *lines, rest = (rest + data).split(b"\n")
                for start in range(0, len(lines), _BATCH):
                    some = (line.strip(_BLANK) for line in lines[start : start + _BATCH])
                    yield [_parsed(line, response) for line in some if line]
        if rest := rest.strip(_BLANK):
            yield [_parsed(rest, response)]

    async def _csv(self, response: Response) -> AsyncGenerator[Batch]:
        names: list[str] = []
        async with aclosing(csv_rows(response)) as pieces:
            async for rows in pieces:
                if not names and rows:
                    names = rows.pop(0)
                yield [named(names, row, response) for row in rows]


class Reader:
    """Finds the records in the responses of one endpoint."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._path = None if spec.records in ("", "@") else _names(spec.records)
        self._get: Getter | None = getter(spec.records, "records") if spec.records not in ("", "@") else None

    def page(self, response: Response | None) -> Page:
        """The page that a response is; none at all is an empty one."""
        page = Page(response, self)
        page.look()
        return page

    def form(self, response: Response) -> Format:
        """What a response is; `BadResponse` for what is none of it, such as an error page."""
        told = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        begins = response.head[:64].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
        if begins.startswith(b"<"):
            raise BadResponse(f"{response} is a page of HTML or XML ({told or 'without a type'}), not data")
        if self._spec.format != "auto":
            return self._spec.format
        if told in _LINES:
            return "ndjson"
        if told.endswith("json") or begins.startswith((b"{", b"[")):
            return "json"
        if told == "text/csv":
            return "csv"
        raise BadResponse(f"{response} is {told or 'of no type'}; if that is right, set format")

    def path(self, response: Response) -> tuple[str, ...] | None:
        """The members that lead to the array of records; None where all of a response has to be looked at."""
        if self._get is None and self._path is None and response.head.lstrip()[:1] == b"[" and not self._spec.records:
            return ()
        return self._path

    def found(self, envelope: Any, response: Response) -> list[Any]:
        """The records in a response's JSON."""
        if self._spec.records == "@":
            return envelope if isinstance(envelope, list) else [envelope]
        if self._get is None:
            return self._only_array(envelope, response)
        records = self._get(envelope)
        if records is MISSING:
            return self.missing(envelope, response)
        if records is None:
            return []
        return records if isinstance(records, list) else [records]

    def missing(self, envelope: Any, response: Response) -> list[Any]:
        """What a response stands for that has no records where they should be."""
        if self._spec.empty_when_missing:
            return []
        raise BadResponse(
            f"field records: {response} has no {self._spec.records!r}; it has {_told(envelope)}. Where the API leaves out an "
            "empty array, set empty_when_missing"
        )

    def _only_array(self, envelope: Any, response: Response) -> list[Any]:
        if isinstance(envelope, list):
            return envelope
        arrays = (
            [name for name, value in envelope.items() if isinstance(value, list)] if isinstance(envelope, dict) else []
        )
        if len(arrays) != 1:
            raise ConfigurationError(
                f"field records: say where {response} has them; it has {_told(envelope)} "
                "(@: the response itself is one record)"
            )
        # From now on: another response may have one more array, or none.
        self._path, self._get = (arrays[0],), getter(f'"{arrays[0]}"', "records")
        records: list[Any] = envelope[arrays[0]]
        return records


def _names(path: str) -> tuple[str, ...] | None:
    found: Sequence[Any] | None = steps(path)
    return tuple(found) if found and all(isinstance(step, str) for step in found) else None


def _told(envelope: Any) -> str:
    if not isinstance(envelope, dict):
        return "no members"
    kinds: dict[type[Any], str] = {list: "an array", dict: "an object"}
    return (
        ", ".join(f"{name} ({kinds.get(type(value), 'a value')})" for name, value in islice(envelope.items(), 12))
        or "none"
    )


def _parsed(data: bytes, response: Response) -> Any:
    try:
        return parse(data)
    except DocumentError as error:
        raise BadResponse(f"{response} is no JSON, or was cut off: {error}") from error


def _batches(elements: Sequence[bytes], response: Response) -> Iterator[Batch]:
    for start in range(0, len(elements), _BATCH):
        yield [_parsed(element, response) for element in elements[start : start + _BATCH]]


async def _all(response: Response) -> bytes:
    parts: list[bytes] = []
    size = 0
    async with aclosing(response.body()) as body:
        async for data in body:
            parts.append(data)
            size += len(data)
            if size > _MOST_WHOLE:
                raise ConfigurationError(
                    f"field records: {response} is larger than {_MOST_WHOLE >> 20} MB; it can be read in pieces where records "
                    "is a path such as data.items"
                )
    return b"".join(parts)
