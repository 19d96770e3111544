"""BSON values as text: plain, as the CSV has them, and as Extended JSON. Made of the bytes themselves, so nothing is lost.

Drivers' decoders drop duplicate keys, turn symbols into strings and undefined into null, and refuse invalid UTF-8.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from functools import lru_cache
from json.encoder import encode_basestring
from math import isfinite, isnan

from bson.decimal128 import Decimal128

from tasks.extractors.bson.layout import Kind, double, end_of, int32, int64, timestamp

_DAY = 86_400_000


class Texts:
    """Writes values; ``invalid`` counts the strings that were no UTF-8, whose bad bytes become U+FFFD."""

    def __init__(self, *, canonical: bool, binary: str) -> None:
        self.invalid = 0
        self.canonical = canonical
        self.binary: Callable[[bytes], str] = _hex if binary == "hex" else _base64
        self._json = self._json_writers()
        self._plain = self._plain_writers()

    def plain(self, data: bytes, kind: int, at: int, end: int) -> str:
        """The text of a value of any type; documents, arrays and what has no plain text as JSON."""
        write = self._plain.get(kind)
        return self.json(data, kind, at, end) if write is None else write(data, at, end)

    def json(self, data: bytes, kind: int, at: int, end: int) -> str:
        """https://www.mongodb.com/docs/manual/reference/mongodb-extended-json/"""
        return self._json[kind](data, at, end)

    def string(self, data: bytes, at: int, end: int) -> str:
        """Of a value with its length before and a NUL behind it."""
        return self._decoded(data[at + 4 : end - 1])

    def named(self, data: bytes, name: bytes, kind: int, at: int, end: int) -> str:
        """A member of a JSON object."""
        return f"{self.key(name)}:{self._json[kind](data, at, end)}"

    def key(self, name: bytes) -> str:
        """A name as JSON."""
        return encode_basestring(self._decoded(name))

    def _decoded(self, raw: bytes) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError:
            self.invalid += 1
            return raw.decode("utf-8", "replace")

    # -- JSON ------------------------------------------------------------------------------------------------------

    def _json_writers(self) -> dict[int, Callable[[bytes, int, int], str]]:
        canonical = self.canonical
        return {
            Kind.DOUBLE: self._json_double,
            Kind.STRING: lambda data, at, end: encode_basestring(self.string(data, at, end)),
            Kind.DOCUMENT: self._json_document,
            Kind.ARRAY: self._json_array,
            Kind.BINARY: _json_binary,
            Kind.UNDEFINED: lambda _data, _at, _end: '{"$undefined":true}',
            Kind.OBJECTID: lambda data, at, end: f'{{"$oid":"{data[at:end].hex()}"}}',
            Kind.BOOLEAN: _boolean,
            Kind.DATE: _canonical_date if canonical else _relaxed_date,
            Kind.NULL: lambda _data, _at, _end: "null",
            Kind.REGEX: self._json_regex,
            Kind.DBPOINTER: self._json_dbpointer,
            Kind.CODE: lambda data, at, end: f'{{"$code":{encode_basestring(self.string(data, at, end))}}}',
            Kind.SYMBOL: lambda data, at, end: f'{{"$symbol":{encode_basestring(self.string(data, at, end))}}}',
            Kind.CODE_WITH_SCOPE: self._json_scoped,
            Kind.INT32: _of_format('{{"$numberInt":"{}"}}', int32) if canonical else _int32,
            Kind.TIMESTAMP: lambda data, at, _end: '{{"$timestamp":{{"t":{1},"i":{0}}}}}'.format(*timestamp(data, at)),
            Kind.INT64: _of_format('{{"$numberLong":"{}"}}', int64) if canonical else _int64,
            Kind.DECIMAL: lambda data, at, end: f'{{"$numberDecimal":"{Decimal128.from_bid(data[at:end])}"}}',
            Kind.MINKEY: lambda _data, _at, _end: '{"$minKey":1}',
            Kind.MAXKEY: lambda _data, _at, _end: '{"$maxKey":1}',
        }

    def _json_double(self, data: bytes, at: int, _end: int) -> str:
        value = double(data, at)[0]
        if isfinite(value):
            return f'{{"$numberDouble":"{value!r}"}}' if self.canonical else repr(value)
        return f'{{"$numberDouble":"{real(value)}"}}'

    def _json_document(self, data: bytes, at: int, end: int) -> str:
        return f"{{{','.join(self._members(data, at, end, named=True))}}}"

    def _json_array(self, data: bytes, at: int, end: int) -> str:
        return f"[{','.join(self._members(data, at, end, named=False))}]"

    def _members(self, data: bytes, at: int, end: int, *, named: bool) -> list[str]:
        found = []
        at += 4
        while at < end - 1:
            kind = data[at]
            begin = data.index(0, at) + 1
            stop = end_of(data, kind, begin)
            name = data[at + 1 : begin - 1]
            found.append(self.named(data, name, kind, begin, stop) if named else self._json[kind](data, begin, stop))
            at = stop
        return found

    def _json_regex(self, data: bytes, at: int, _end: int) -> str:
        pattern, options = self._regex(data, at)
        return f'{{"$regularExpression":{{"pattern":{encode_basestring(pattern)},"options":{encode_basestring(options)}}}}}'

    def _regex(self, data: bytes, at: int) -> tuple[str, str]:
        middle = data.index(0, at)
        return self._decoded(data[at:middle]), self._decoded(data[middle + 1 : data.index(0, middle + 1)])

    def _json_dbpointer(self, data: bytes, at: int, end: int) -> str:
        name = encode_basestring(self.string(data, at, end - 12))
        return f'{{"$dbPointer":{{"$ref":{name},"$id":{{"$oid":"{data[end - 12 : end].hex()}"}}}}}}'

    def _json_scoped(self, data: bytes, at: int, end: int) -> str:
        middle = at + 8 + int32(data, at + 4)[0]
        code = encode_basestring(self.string(data, at + 4, middle))
        return f'{{"$code":{code},"$scope":{self._json_document(data, middle, end)}}}'

    # -- plain -----------------------------------------------------------------------------------------------------

    def _plain_writers(self) -> dict[int, Callable[[bytes, int, int], str]]:
        return {
            Kind.DOUBLE: lambda data, at, _end: real(double(data, at)[0]),
            Kind.STRING: self.string,
            Kind.BINARY: self._binary,
            Kind.UNDEFINED: lambda _data, _at, _end: "undefined",
            Kind.OBJECTID: lambda data, at, end: data[at:end].hex(),
            Kind.BOOLEAN: _boolean,
            Kind.DATE: lambda data, at, _end: instant(int64(data, at)[0], "+00"),
            Kind.REGEX: lambda data, at, _end: "/{}/{}".format(*self._regex(data, at)),
            Kind.CODE: self.string,
            Kind.SYMBOL: self.string,
            Kind.INT32: _int32,
            Kind.TIMESTAMP: lambda data, at, _end: "{1}:{0}".format(*timestamp(data, at)),
            Kind.INT64: _int64,
            Kind.DECIMAL: lambda data, at, end: decimal(data[at:end]),
            Kind.MINKEY: lambda _data, _at, _end: "MinKey",
            Kind.MAXKEY: lambda _data, _at, _end: "MaxKey",
        }

    def _binary(self, data: bytes, at: int, end: int) -> str:
        if data[at + 4] == 4 and end - at == 21:
            return uuid(data[at + 5 : end])
        return self.binary(payload(data, at, end))


def payload(data: bytes, at: int, end: int) -> bytes:
    """The bytes of a binary value; the old subtype 2 has a second length before them."""
    return data[at + 9 : end] if data[at + 4] == 2 else data[at + 5 : end]


def real(value: float) -> str:
    """The shortest text that reads back to the same bits, as PostgreSQL spells infinities."""
    if isfinite(value):
        return repr(value).removesuffix(".0")
    return "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"


def decimal(raw: bytes) -> str:
    """All digits, without an exponent."""
    value = Decimal128.from_bid(raw).to_decimal()
    if value.is_finite():
        return f"{value:f}"
    return "NaN" if value.is_nan() else "-Infinity" if value.is_signed() else "Infinity"


def uuid(raw: bytes) -> str:
    figures = raw.hex()
    return f"{figures[:8]}-{figures[8:12]}-{figures[12:16]}-{figures[16:20]}-{figures[20:]}"


def instant(milliseconds: int, zone: str) -> str:
    """A date of any year, as PostgreSQL writes it, always with three digits of the second."""
    days, rest = divmod(milliseconds, _DAY)
    day, era = date(days)
    return f"{day} {clock(rest)}{zone}{era}"


@lru_cache(maxsize=65_536)
def date(days: int) -> tuple[str, str]:
    """The day so many days after 1970-01-01, and `` BC`` where it is before the year 1.

    http://howardhinnant.github.io/date_algorithms.html#civil_from_days, for years that `datetime` does not have.
    """
    era, day = divmod(days + 719_468, 146_097)
    year_of_era = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year_of_era + year_of_era // 4 - year_of_era // 100
    month = (5 * day + 2) // 153
    day -= (153 * month + 2) // 5 - 1
    month += 3 if month < 10 else -9
    year = year_of_era + era * 400 + (month <= 2)
    return (f"{year:04}-{month:02}-{day:02}", "") if year > 0 else (f"{1 - year:04}-{month:02}-{day:02}", " BC")


def clock(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}.{rest:03}"


def _hex(raw: bytes) -> str:
    return raw.hex()


def _base64(raw: bytes) -> str:
    return b64encode(raw).decode()


def _boolean(data: bytes, at: int, _end: int) -> str:
    return "true" if data[at] else "false"


def _int32(data: bytes, at: int, _end: int) -> str:
    return str(int32(data, at)[0])


def _int64(data: bytes, at: int, _end: int) -> str:
    return str(int64(data, at)[0])


def _of_format(template: str, unpack: Callable[[bytes, int], tuple[int]]) -> Callable[[bytes, int, int], str]:
    return lambda data, at, _end: template.format(unpack(data, at)[0])


def _json_binary(data: bytes, at: int, end: int) -> str:
    return f'{{"$binary":{{"base64":"{_base64(payload(data, at, end))}","subType":"{data[at + 4]:02x}"}}}}'


def _canonical_date(data: bytes, at: int, _end: int) -> str:
    return f'{{"$date":{{"$numberLong":"{int64(data, at)[0]}"}}}}'


_RELAXED_YEARS = range(0, 253_402_300_800_000)  # 1970 to 9999


def _relaxed_date(data: bytes, at: int, end: int) -> str:
    milliseconds = int64(data, at)[0]
    if milliseconds not in _RELAXED_YEARS:
        return _canonical_date(data, at, end)
    days, rest = divmod(milliseconds, _DAY)
    return f'{{"$date":"{date(days)[0]}T{clock(rest)}Z"}}'
