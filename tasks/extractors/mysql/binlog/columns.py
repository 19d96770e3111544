"""What the decoder must know of each column, from the log's own metadata or from the table's description."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.extractors.contract import Column
from tasks.extractors.mysql.binlog.charsets import BYTES_PER_CHARACTER, charset_of, utf8
from tasks.extractors.mysql.binlog.table_map import CHARACTERS, Code, MappedColumn, TableMap, UndecodableError
from tasks.extractors.mysql.describe import Field, Relation

_INTEGERS = {
    Code.TINY: "tinyint",
    Code.SHORT: "smallint",
    Code.INT24: "mediumint",
    Code.LONG: "int",
    Code.LONGLONG: "bigint",
}
_FLOATS = {Code.FLOAT: "float", Code.DOUBLE: "double"}
_TIMES = {Code.TIME2: "time", Code.DATETIME2: "datetime", Code.TIMESTAMP2: "timestamp"}
_OLD_TIMES = {Code.TIME: "time", Code.DATETIME: "datetime", Code.TIMESTAMP: "timestamp"}
_TEXTS = {1: "tinytext", 2: "text", 3: "mediumtext", 4: "longtext"}
_BLOBS = {1: "tinyblob", 2: "blob", 3: "mediumblob", 4: "longblob"}
_GEOMETRIES = (
    "geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon", "geometrycollection",
)  # fmt: skip
_BLOB_BYTES = {name: size for names in (_TEXTS, _BLOBS) for size, name in names.items()}
_STRUCTS = {"uuid": 16, "inet6": 16, "inet4": 4}
"""MariaDB's types that are a BINARY to the log, which does not tell that they are more."""

_VALUE = re.compile(r"'((?:[^']|'')*)'")


@dataclass(frozen=True)
class LogColumn:
    """A column of a table in the log, beside its layout, which the table map has."""

    name: str
    type: str
    """As in information_schema's COLUMN_TYPE: ``int unsigned``."""
    charset: str | None = None
    """Of text, ENUM and SET; ``binary`` and None for all others."""
    unsigned: bool = False
    values: tuple[str, ...] = ()
    """Of an ENUM or a SET."""
    key: bool = False
    nullable: bool = True
    generated: bool = False
    """Whether it is computed from others; False where only the log was asked, which does not tell."""

    @property
    def kind(self) -> str:
        """The type without length."""
        return re.split(r"[( ]", self.type, maxsplit=1)[0]

    @property
    def numbers(self) -> tuple[int, ...]:
        """What stands in parentheses: a length, digits of a fraction, precision and scale."""
        found = re.match(r"\w+\(([\d, ]+)\)", self.type)
        return tuple(map(int, found[1].split(","))) if found else ()

    @property
    def column(self) -> Column:
        """As a plan and a commit have it."""
        return Column(name=self.name, type=self.type, nullable=self.nullable, key=self.key)


def log_columns(table_map: TableMap, relation: Relation | None = None) -> tuple[LogColumn, ...]:
    """All columns of the table, in its order.

    With ``binlog_row_metadata=FULL`` the log says what they are, and the relation, by column names, only what the log
    leaves out (UUID and INET of MariaDB, digits of times in its old format, which columns are generated). Without, the
    relation says it all, provided that it fits the table map.

    Raises `UndecodableError`, naming table and column, where it does not fit, or where neither tells what a column is.
    """
    if table_map.has_names:
        fields = {field.column.name: field for field in relation.fields} if relation else {}
        return tuple(_told(table_map, mapped, fields.get(mapped.name or "")) for mapped in table_map.columns)
    if relation is None:
        raise UndecodableError(
            f"{table_map.name}: its table map has no column names; set binlog_row_metadata=FULL on the server, or "
            "have the table described"
        )
    verify(table_map, relation)
    pairs = zip(relation.fields, table_map.columns, strict=True)
    return tuple(_described(field, mapped) for field, mapped in pairs)


def verify(table_map: TableMap, relation: Relation) -> None:
    """Raise `UndecodableError` where the table as it is described cannot be the one the table map is of."""
    have, want = len(relation.fields), len(table_map.columns)
    if have != want:
        raise _unfit(table_map, f"it has {have} columns, and {want} in the log")
    for field, mapped in zip(relation.fields, table_map.columns, strict=True):
        if mapped.name is not None and mapped.name != field.column.name:
            raise _unfit(table_map, f"column {field.column.name} is {mapped.name} in the log")
        if reason := _misfit(field, mapped):
            raise _unfit(table_map, f"column {field.column.name} is {field.column.type}, and in the log {reason}")


def _unfit(table_map: TableMap, reason: str) -> UndecodableError:
    return UndecodableError(
        f"{table_map.name}: the table is no longer what it was when these rows were written: {reason}. With "
        "binlog_row_metadata=FULL on the server the log itself says what the columns are"
    )


# -- from the description ---------------------------------------------------------------------------------------------


def _described(field: Field, mapped: MappedColumn) -> LogColumn:
    full = field.column.type
    return LogColumn(
        name=field.column.name,
        type=full,
        charset=field.charset,
        unsigned=mapped.unsigned if mapped.unsigned is not None else _is_unsigned(full),
        values=tuple(map(_unescaped, _listed(field))),
        key=field.column.key,
        nullable=mapped.nullable,
        generated=field.generated,
    )


def _unescaped(value: str) -> str:
    """What append_unescaped of sql_show.cc made of it, undone; the sql_mode is no matter."""
    meanings = {"''": "'", "\\\\": "\\", r"\n": "\n", r"\r": "\r", r"\0": "\0"}
    return re.sub(r"''|\\[\\nr0]", lambda found: meanings[found[0]], value)


def _is_unsigned(full: str) -> bool:
    return bool(re.search(r"\b(unsigned|zerofill)\b", full)) and not full.startswith(("enum", "set"))


def _misfit(field: Field, mapped: MappedColumn) -> str | None:
    """Why a column cannot have the layout that the log has; None where it can."""
    described = LogColumn(field.column.name, field.column.type, field.charset, values=_listed(field))
    wanted = _layouts(described)
    if (mapped.code, mapped.metadata) not in wanted:
        return _name_of(mapped)
    if mapped.code in CHARACTERS and mapped.collation is not None and field.charset is not None:
        charset = charset_of(mapped.collation)
        if charset != field.charset.replace("utf8mb3", "utf8").replace("utf8", "utf8mb3").replace(
            "utf8mb3mb4", "utf8mb4"
        ):
            return f"in the character set {charset}"
    if mapped.unsigned is not None and mapped.unsigned != _is_unsigned(field.column.type):
        return "unsigned" if mapped.unsigned else "signed"
    return None


def _listed(field: Field) -> tuple[str, ...]:
    return tuple(_VALUE.findall(field.column.type)) if field.kind in ("enum", "set") else ()


def _layouts(column: LogColumn) -> set[tuple[Code, tuple[int, int]]]:
    """The layouts a column of this type can have in a table map."""
    kind, numbers = column.kind, column.numbers
    first = numbers[0] if numbers else 0
    for names in (_INTEGERS, _OLD_TIMES):
        for code, name in names.items():
            if name == kind and names is _INTEGERS:
                return {(code, (0, 0))}
    if kind in _TIMES.values():
        new = {(code, (first, 0)) for code, name in _TIMES.items() if name == kind}
        return new | {(code, (0, 0)) for code, name in _OLD_TIMES.items() if name == kind}
    if kind in _BLOB_BYTES:
        return {(code, (_BLOB_BYTES[kind], 0)) for code in (Code.BLOB, Code.BLOB_COMPRESSED)}
    if kind in ("varchar", "varbinary"):
        size = first * _width(column)
        return {(Code.VARCHAR, (size, 0)), (Code.VARCHAR_COMPRESSED, (size + 1, 0))}
    return {
        "float": {(Code.FLOAT, (4, 0))},
        "double": {(Code.DOUBLE, (8, 0))},
        "decimal": {(Code.NEWDECIMAL, (numbers + (10, 0)[len(numbers) :])[:2])} if kind == "decimal" else set(),
        "bit": {(Code.BIT, (first % 8, first // 8))},
        "year": {(Code.YEAR, (0, 0))},
        "date": {(Code.DATE, (0, 0)), (Code.NEWDATE, (0, 0))},
        "char": {(Code.STRING, (first * _width(column), 0))},
        "binary": {(Code.STRING, (first, 0))},
        "enum": {(Code.ENUM, (1 if len(column.values) < 256 else 2, 0))},
        "set": {(Code.SET, (_set_bytes(len(column.values)), 0))},
        "json": {(Code.JSON, (4, 0)), (Code.BLOB, (4, 0))},
        "vector": {(Code.VECTOR, (4, 0)), (Code.VARCHAR, (4 * first, 0))},
        **{name: {(Code.STRING, (size, 0))} for name, size in _STRUCTS.items()},
        **{name: {(Code.GEOMETRY, (4, 0))} for name in (*_GEOMETRIES, "geomcollection")},
    }.get(kind, set())  # type: ignore[return-value]


def _set_bytes(values: int) -> int:
    size = (values + 7) // 8
    return size if size <= 4 else 8


def _width(column: LogColumn) -> int:
    return BYTES_PER_CHARACTER.get(column.charset or "binary", 1)


# -- from the log -----------------------------------------------------------------------------------------------------


def _told(table_map: TableMap, mapped: MappedColumn, field: Field | None) -> LogColumn:
    """A column as the log tells it, and what it leaves out from the column's description, where that is of the same."""
    if field is not None and _misfit(field, mapped) is None:
        column = _described(field, mapped)
        # Values may have been added behind the old ones since.
        values = _values(table_map, mapped) if mapped.values is not None else column.values
        key = column.key if mapped.key is None else mapped.key
        return LogColumn(**{**vars(column), "values": values, "key": key})
    if _is_ambiguous(table_map, mapped):
        raise UndecodableError(
            f"{table_map.name}, column {mapped.name}: the log tells only that it is {_name_of(mapped)}, and not all that "
            "there is to know; the table it was part of is gone or has been altered. Start from a new snapshot"
        )
    return LogColumn(
        name=mapped.name or "",
        type=_name_of(mapped),
        charset=_charset(table_map, mapped),
        unsigned=bool(mapped.unsigned),
        values=_values(table_map, mapped),
        key=bool(mapped.key),
        nullable=mapped.nullable,
    )


def _is_ambiguous(table_map: TableMap, mapped: MappedColumn) -> bool:
    if mapped.code in _OLD_TIMES:
        return True
    lengths = [(size, 0) for size in _STRUCTS.values()]
    is_binary = mapped.code is Code.STRING and mapped.collation == 63
    return table_map.flavour == "MariaDB" and is_binary and mapped.metadata in lengths


def _charset(table_map: TableMap, mapped: MappedColumn) -> str | None:
    if mapped.collation is None or mapped.code not in CHARACTERS | {Code.ENUM, Code.SET}:
        return None
    charset = charset_of(mapped.collation)
    if charset is None:
        raise UndecodableError(
            f"{table_map.name}, column {mapped.name}: its collation has the number {mapped.collation}, whose character "
            "set is not known"
        )
    return charset


def _values(table_map: TableMap, mapped: MappedColumn) -> tuple[str, ...]:
    charset = _charset(table_map, mapped)
    if not mapped.values or charset is None:
        return ()
    convert = utf8(charset)
    # A value of the character set binary is bytes that need not be UTF-8: they stay what they are.
    return tuple((convert(value) if convert else value).decode("utf-8", "surrogateescape") for value in mapped.values)


def _name_of(mapped: MappedColumn) -> str:
    """The type as COLUMN_TYPE would have it, as far as the layout tells it."""
    first, second = mapped.metadata
    code = mapped.code
    sign = " unsigned" if mapped.unsigned else ""
    charset = charset_of(mapped.collation) if mapped.collation is not None else None
    binary, width = charset == "binary", BYTES_PER_CHARACTER.get(charset or "", 1)
    if code in _INTEGERS or code in _FLOATS:
        return (_INTEGERS.get(code) or _FLOATS[code]) + sign
    if code in _TIMES:
        return _TIMES[code] + (f"({first})" if first else "")
    if code in (Code.BLOB, Code.BLOB_COMPRESSED):
        return (_BLOBS if binary else _TEXTS).get(first, "blob")
    if code in (Code.VARCHAR, Code.VARCHAR_COMPRESSED, Code.VAR_STRING):
        size = first - (code is Code.VARCHAR_COMPRESSED)
        return f"varbinary({size})" if binary else f"varchar({size // width})"
    if code is Code.STRING:
        return f"binary({first})" if binary else f"char({first // width})"
    if code in (Code.ENUM, Code.SET):
        listed = ",".join(
            "'" + value.decode("utf-8", "replace").replace("'", "''") + "'" for value in mapped.values or ()
        )
        return f"{code.name.lower()}({listed})"
    plain = {
        Code.NEWDECIMAL: f"decimal({first},{second}){sign}",
        Code.BIT: f"bit({second * 8 + first})",
        Code.GEOMETRY: _GEOMETRIES[mapped.geometry or 0] if (mapped.geometry or 0) < len(_GEOMETRIES) else "geometry",
        Code.VECTOR: f"vector({mapped.dimension or 0})",
        Code.NEWDATE: "date",
    }
    return plain.get(code) or _OLD_TIMES.get(code) or code.name.lower()


def written(columns: Sequence[LogColumn], names: Sequence[str] | None) -> list[int]:
    """The places of the columns that are written; ValueError for a name there is no column of."""
    if names is None:
        return list(range(len(columns)))
    places = {column.name: place for place, column in enumerate(columns)}
    if missing := [name for name in names if name not in places]:
        raise ValueError(f"no column {', '.join(missing)}")
    return [places[name] for name in names]
