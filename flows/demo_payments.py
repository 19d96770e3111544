"""The demo's payments: a table that MySQL or MariaDB fills by itself, the same rows every time, and what changes in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

_CHUNK = 10_000

_TABLE = """
CREATE TABLE payments (
    id bigint NOT NULL AUTO_INCREMENT PRIMARY KEY,
    order_id bigint NOT NULL,
    payer varchar(80) NOT NULL,
    method enum('card', 'invoice', 'wallet', 'cash on delivery, "sealed"') NOT NULL,
    amount decimal(12,2) NOT NULL,
    refunded boolean NOT NULL,
    note text,
    paid_at datetime(3) NOT NULL,
    updated_at timestamp(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
    KEY (updated_at)
) CHARACTER SET utf8mb4"""

_DIGITS = " UNION ALL ".join(f"SELECT {digit} AS n" for digit in range(10))

# Up to _CHUNK rows from {first}. CRC32 scatters as a random number would, and alike each time.
_ROWS = f"""
INSERT INTO payments (id, order_id, payer, method, amount, refunded, note, paid_at, updated_at)
SELECT id, 1 + chance % 300000,
       CONCAT(ELT(1 + chance % 8, 'Zoë', 'Jürgen', 'Łukasz', 'Siobhán', 'Ana "Nina"', '小龍', 'Bjørn', 'Renée'), ' ',
              ELT(1 + chance DIV 8 % 8, 'Müller', 'O''Neil', 'García, Jr.', 'Nguyễn', 'Åström', '李', 'Çelik', 'Smith')),
       1 + chance % 4, CAST((chance % 2000000 - 5000) / 100 AS decimal(12,2)), FALSE,
       CASE id % 10 WHEN 1 THEN '' WHEN 2 THEN 'the neighbour''s card, "2nd floor"' WHEN 3 THEN 'two\\nlines'
            WHEN 4 THEN 'Danke schön 🎁, wie immer' WHEN 5 THEN '\\\\N' END,
       TIMESTAMPADD(MICROSECOND, chance % 1000 * 1000, placed), {{stamp}}
FROM (SELECT id, CAST(CRC32(id) AS SIGNED) AS chance, TIMESTAMPADD(SECOND, id % 15000000, '2024-06-01 00:00:00') AS placed
      FROM (SELECT {{first}} + a.n + 10 * b.n + 100 * c.n + 1000 * d.n AS id
            FROM ({_DIGITS}) AS a, ({_DIGITS}) AS b, ({_DIGITS}) AS c, ({_DIGITS}) AS d) AS numbers
      WHERE id <= {{last}}) AS drawn"""


@dataclass(frozen=True)
class Size:
    """How many payments there are to begin with."""

    payments: int

    @classmethod
    def scaled(cls, scale: float) -> Size:
        return cls(max(300, round(200_000 * scale)))

    @property
    def chunks(self) -> int:
        return -(-self.payments // _CHUNK)


async def fill(connection: Any, size: Size) -> AsyncIterator[int]:
    """Create and fill the table; yields after each step how many payments are there."""
    await _execute(connection, _TABLE)
    for first in range(1, size.payments + 1, _CHUNK):
        last = min(first + _CHUNK - 1, size.payments)
        await _insert(connection, first, last, stamp="placed")
        yield last


@dataclass(frozen=True)
class Changes:
    """What happened to the payments between two runs: the rows a second run has to bring, and no others."""

    new: int
    refunded: int


async def change(connection: Any, size: Size) -> Changes:
    """Take some new payments and refund some old ones, stamped by the server."""
    added = min(_CHUNK, max(10, size.payments // 200))
    new = await _insert(connection, size.payments + 1, size.payments + added, stamp="CURRENT_TIMESTAMP(6)")
    refunded = await _execute(
        connection,
        "UPDATE payments SET refunded = TRUE, note = 'refunded 💸, \"as agreed\"'"
        f" WHERE id % 250 = 0 AND id <= {size.payments}",
    )
    return Changes(new, refunded)


async def _insert(connection: Any, first: int, last: int, stamp: str) -> int:
    return await _execute(connection, _ROWS.format(first=first, last=last, stamp=stamp))


async def _execute(connection: Any, statement: str) -> int:
    """How many rows a statement wrote."""
    async with connection.cursor() as cursor:
        return int(await cursor.execute(statement))
