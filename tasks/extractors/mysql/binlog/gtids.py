"""Sets of GTIDs, of either server, as text: what a position on another server of the same cluster is found by."""

from __future__ import annotations

import struct
from bisect import insort
from collections.abc import Iterable
from typing import Self

from tasks.extractors.mysql.binlog.events import GarbledLogError, uuid_text
from tasks.extractors.mysql.binlog.tagged import text as tag_text

Interval = tuple[int, int]
"""First and last number, both included."""


class GtidSet:
    """MySQL's: ``uuid[:tag]:1-5:8, …``. MariaDB's: ``domain-server-sequence, …``, the last of each domain.

    MariaDB's numbers of a domain grow without regard to the server, so one number stands for all up to it.
    """

    def __init__(self, members: dict[str, list[Interval]]) -> None:
        self._members = members
        self._last: dict[str, str] = {}
        """MariaDB: domain → the server that wrote its last one."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError for what is no set."""
        made = cls({})
        for part in text.replace("\n", "").split(","):
            if part := part.strip():
                made._parse(part)
        return made

    def _parse(self, part: str) -> None:
        if ":" not in part:
            domain, server, sequence = part.split("-")
            self.add(f"{int(domain)}-{int(server)}-{int(sequence)}")
            return
        source, *rest = part.split(":")
        name = source.lower()
        for piece in rest:
            if not piece[:1].isdigit():
                name = f"{source.lower()}:{piece.lower()}"
                continue
            first, _, last = piece.partition("-")
            self._insert(name, int(first), int(last or first))

    def add(self, gtid: str) -> None:
        """Take in one GTID."""
        name, _, number = gtid.rpartition(":")
        if name:
            intervals = self._members.setdefault(name, [])
            # Nearly always the one after the last.
            if intervals and intervals[-1][1] + 1 == int(number):
                intervals[-1] = (intervals[-1][0], int(number))
            else:
                self._insert(name, int(number), int(number))
            return
        domain, server, sequence = gtid.split("-")
        if not self._members.get(domain) or self._members[domain][0][1] < int(sequence):
            self._members[domain] = [(0, int(sequence))]
            self._last[domain] = server

    def _insert(self, name: str, first: int, last: int) -> None:
        if first > last or first < 0:
            raise ValueError(f"{first}-{last} is no interval")
        intervals = self._members.setdefault(name, [])
        insort(intervals, (first, last))
        merged: list[Interval] = []
        for start, end in intervals:
            if merged and start <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        self._members[name] = merged

    def __contains__(self, gtid: str) -> bool:
        name, _, number = gtid.rpartition(":")
        if not name:
            name, _, number = gtid.split("-")
        return any(first <= int(number) <= last for first, last in self._members.get(name, ()))

    def __le__(self, other: GtidSet) -> bool:
        """Whether all of these are in the other, too."""
        return all(
            any(start <= first and last <= end for start, end in other._members.get(name, ()))
            for name, intervals in self._members.items()
            for first, last in intervals
        )

    def __bool__(self) -> bool:
        return bool(self._members)

    def __str__(self) -> str:
        return ",".join(self._text(name) for name in sorted(self._members))

    def _text(self, name: str) -> str:
        intervals = self._members[name]
        if name in self._last:
            return f"{name}-{self._last[name]}-{intervals[0][1]}"
        return name + "".join(f":{first}" if first == last else f":{first}-{last}" for first, last in intervals)


def previous_gtids(body: bytes) -> GtidSet:
    """The set that a file of MySQL's log begins with: all that was executed before."""
    made = GtidSet({})
    (count,) = struct.unpack_from("<Q", body)
    layout = count >> 56
    if layout > 1:
        raise GarbledLogError(f"a set of GTIDs in layout {layout}, which is not known here")
    if layout:  # with tags; the number of the layout stands on both sides of the count
        count = count >> 8 & 0xFFFFFFFFFFFF
    at = 8
    for _ in range(count):
        name = uuid_text(body[at : at + 16])
        at += 16
        if layout:
            tag, at = tag_text(body, at)
            name += f":{tag}" if tag else ""
        (intervals,) = struct.unpack_from("<Q", body, at)
        at += 8
        for _ in range(intervals):
            first, past = struct.unpack_from("<QQ", body, at)
            made._insert(name, first, past - 1)
            at += 16
    return made


def gtid_list(body: bytes) -> GtidSet:
    """The same of MariaDB's."""
    (told,) = struct.unpack_from("<I", body)
    made = GtidSet({})
    for number in range(told & 0x0FFFFFFF):
        domain, server, sequence = struct.unpack_from("<IIQ", body, 4 + 16 * number)
        made.add(f"{domain}-{server}-{sequence}")
    return made


def union(sets: Iterable[str]) -> str:
    """The text of all together."""
    return str(GtidSet.parse(",".join(filter(None, sets))))
