"""The API that is read: pages of `orders` as JSON, each answered 20 ms after it was asked for, whoever else asks.

``python -m benchmarks.shop_api ROWS`` prints its port. The pages are made before; it speaks as much of HTTP/1.1 as clients need.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

PAGE = 100
LATENCY = 0.020

COLUMNS = {
    "id": "integer", "customer": "text", "email": "text", "status": "text", "amount": "decimal", "quantity": "integer",
    "paid": "boolean", "note": "text", "country": "text", "created_at": "timestamptz", "updated_at": "timestamptz",
    "city": "text",
}  # fmt: skip
"""As headrace is told them; ``city`` is nested, in ``address``."""
PATHS = {"city": "address.city"}

_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def order(number: int) -> dict[str, Any]:
    """One order, the same every time."""
    created = _BEGIN + timedelta(seconds=number)
    return {
        "id": number,
        "customer": f"Customer {number % 9973}",
        "email": f"c{number % 9973}@shop.example",
        "status": ("open", "paid", "sent", "returned")[number % 4],
        "amount": number % 100_000 / 4,
        "quantity": 1 + number % 7,
        "paid": number % 2 == 0,
        "note": None if number % 3 else 'leave it, "please", at the door',
        "country": ("DE", "FR", "PL", "PT")[number % 4],
        "created_at": f"{created:%Y-%m-%dT%H:%M:%SZ}",
        "updated_at": f"{created + timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}",
        "address": {"city": f"City {number % 211}"},
    }


def csv_bytes(rows: int) -> int:
    """How large headrace's CSV of so many orders is, without a header: counted without its code."""
    return sum(len(_line(order(number))) for number in range(1, rows + 1))


def _line(made: dict[str, Any]) -> str:
    note = "" if made["note"] is None else '"' + made["note"].replace('"', '""') + '"'
    times = [f"{made[name][:10]} {made[name][11:19]}+00" for name in ("created_at", "updated_at")]
    fields = [str(made["id"]), made["customer"], made["email"], made["status"], json.dumps(made["amount"]),
              str(made["quantity"]), "true" if made["paid"] else "false", note, made["country"], *times,
              made["address"]["city"]]  # fmt: skip
    return ",".join(fields) + "\n"


def pages(rows: int) -> Iterator[bytes]:
    """The bodies of all pages."""
    for start in range(0, rows, PAGE):
        found = [order(number) for number in range(start + 1, min(start + PAGE, rows) + 1)]
        told = {"data": found, "total": rows, "pages": -(-rows // PAGE)}
        yield json.dumps(told, separators=(",", ":")).encode()


class Api:
    """Answers every request for ``/orders?page=n``."""

    def __init__(self, rows: int) -> None:
        self._pages = [_answer(body) for body in pages(rows)]
        self._beyond = _answer(json.dumps({"data": [], "total": rows, "pages": len(self._pages)}).encode())

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                target = head.split(b" ", 2)[1].decode()
                number = int(parse_qs(urlsplit(target).query).get("page", ["1"])[0])
                await asyncio.sleep(LATENCY)
                writer.write(self._pages[number - 1] if number <= len(self._pages) else self._beyond)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def _answer(body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def main(rows: int) -> None:
    server = await asyncio.start_server(Api(rows).serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
