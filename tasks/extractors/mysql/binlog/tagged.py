"""GTIDs with a tag (MySQL 8.3 and later), which the log writes in a format of its own, with numbers of variable length.

Format: https://dev.mysql.com/doc/dev/mysql-server/latest/PageLibsMysqlSerialization.html; which fields there are, and
their order, is that of Gtid_event::define_fields in control_events.h.
"""

from __future__ import annotations

from dataclasses import dataclass

_VERSION = 1
_FLAGS, _UUID, _NUMBER, _TAG, _PARENT, _SEQUENCE, _COMMITTED = range(7)


class UnknownFormatError(ValueError):
    """What stands there is in no format that is known here."""


@dataclass(frozen=True)
class Tagged:
    """The GTID that a transaction begins with."""

    source: bytes
    """The 16 bytes of a UUID."""
    tag: str
    """Empty: none, in a log that has some."""
    number: int
    microseconds: int
    """When it was committed on this server, since 1970."""


def tagged(body: bytes) -> Tagged:
    """The GTID of an event's body."""
    try:
        return _tagged(body)
    except IndexError:
        raise UnknownFormatError("a tagged GTID that is cut off") from None


def _tagged(body: bytes) -> Tagged:
    version, at = whole(body, 0)
    if version != _VERSION:
        raise UnknownFormatError(f"a tagged GTID in version {version} of its format")
    for _ in ("size", "last field that may not be passed over"):
        _, at = whole(body, at)
    _, at = whole(body, _field(body, at, _FLAGS))
    at = _field(body, at, _UUID)
    source = bytearray()
    for _ in range(16):
        byte, at = whole(body, at)
        source.append(byte)
    number, at = whole(body, _field(body, at, _NUMBER))
    tag, at = text(body, _field(body, at, _TAG))
    for field in (_PARENT, _SEQUENCE):
        _, at = whole(body, _field(body, at, field))
    committed, _ = whole(body, _field(body, at, _COMMITTED))
    # A signed number has its sign in the lowest bit; this one is never negative.
    return Tagged(bytes(source), tag, number >> 1, committed)


def _field(body: bytes, at: int, wanted: int) -> int:
    found, at = whole(body, at)
    if found != wanted:
        raise UnknownFormatError(f"a tagged GTID that has field {found} where field {wanted} should be")
    return at


def whole(data: bytes, at: int) -> tuple[int, int]:
    """A number without a sign, and where it ends: as many bytes follow the first as that ends in ones."""
    first = data[at]
    more = (~first & (first + 1)).bit_length() - 1
    end = at + 1 + more
    if end > len(data):
        raise IndexError("a number that is cut off")
    # Of eight ones no zero follows: the number begins behind them.
    return int.from_bytes(data[at:end], "little") >> min(more + 1, 8), end


def text(data: bytes, at: int) -> tuple[str, int]:
    """A text with its length before it, and where it ends."""
    length, at = whole(data, at)
    if at + length > len(data):
        raise IndexError("a text that is cut off")
    return data[at : at + length].decode("ascii"), at + length
