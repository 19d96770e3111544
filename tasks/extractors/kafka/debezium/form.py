"""What is known of a column: how its values are decoded, which text they become, what stands for a missing one."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from blocks.s3 import CsvDialect
from tasks.extractors.kafka.debezium.types import SourceType

Text = Callable[[Any], str]
Binary = Literal["bytes", "base64", "base64-url-safe", "hex"]

UNAVAILABLE = "__debezium_unavailable_value"


@dataclass(frozen=True, eq=False)
class Form:
    """How a column's values are decoded and written."""

    decoded: Any
    """The type that msgspec decodes them to."""
    text: Text
    plain: bool = False
    """Whether nothing in a text ever needs quotes."""
    inline: str = ""
    """An expression of ``@`` that gives the text as well, and faster; ``w`` is free for what it keeps."""
    needs: Mapping[str, Any] = field(default_factory=dict)
    """What it refers to."""
    column: Callable[[Sequence[Any]], list[str] | None] | None = None
    """Gives the texts of many values at once, none of them None, if it can of these."""
    unavailable: tuple[Any, ...] = ()
    """Decoded values that stand for one that the log does not have."""
    zero: tuple[Any, ...] = ()
    """Decoded values that stand for an unknown one in a column that cannot be NULL, beside 0, empty and false."""
    is_nested: bool = False
    """Whether Avro's values have to be made into the decoded type."""


@dataclass(frozen=True)
class Writing:
    """What forms depend on, beside the types."""

    dialect: CsvDialect
    connector: str
    """``postgresql``, ``mysql``, ``mariadb``, or another: those are written as PostgreSQL's are."""
    binary: Binary = "bytes"
    unavailable: str = UNAVAILABLE

    @property
    def is_mysql(self) -> bool:
        return self.connector in ("mysql", "mariadb")

    @property
    def is_postgres(self) -> bool:
        return self.connector == "postgresql"

    def of_bytes(self, value: bytes) -> str:
        return value.hex() if self.dialect.binary == "hex" else b64encode(value).decode()

    def digits(self, source: SourceType | None) -> int | None:
        """Of a fraction of a second; None where zeros at its end are left out."""
        return source.digits if source and self.is_mysql else None
