"""The demo's API: events of the shop as JSON with nested properties, in pages and windows, by a server of its own.

``python -m flows.demo_api PORT EVENTS``. ``POST /events?more=N`` has N more happen now.
"""

from __future__ import annotations

import sys
import zlib
from datetime import UTC, datetime, timedelta
from typing import Any

_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
_KINDS = ("view", "cart", "purchase", "search")
_CITIES = ("Köln", "Łódź", "São Paulo", "東京", 'Place "X", Y', None)


def event(number: int, at: datetime) -> dict[str, Any]:
    """One event, the same every time but for its time."""
    chance = zlib.crc32(str(number).encode())
    properties: dict[str, Any] = {"path": f"/p/{chance % 5000}?q=a,b", "tags": ["new", "été"][: chance % 3]}
    if city := _CITIES[chance % 6]:
        properties["geo"] = {"city": city, "lat": chance % 90, "zone": chance // 90 % 12}
    if number % 3 == 0:
        properties["campaign"] = {"id": chance % 40, "note": "half\nprice" if number % 2 else ""}
    amount = f"{chance % 50_000 // 100}.{chance % 100:02d}" if chance % 4 == 2 else None
    return {"id": number, "kind": _KINDS[chance % 4], "amount": amount, "properties": properties, "at": _text(at)}


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def main() -> None:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    events = [event(number, _BEGIN + timedelta(seconds=number)) for number in range(1, int(sys.argv[2]) + 1)]

    async def show(request: Request) -> JSONResponse:
        asked = request.query_params
        since, until = asked.get("since", ""), asked.get("until", "9")
        # The times are all of one form, so that they sort as text.
        found = [one for one in events if since.removesuffix("Z") < one["at"] and one["at"][:19] <= until]
        size = int(asked.get("per_page", "100"))
        start = (int(asked.get("page", "1")) - 1) * size
        return JSONResponse({"data": found[start : start + size], "total": len(found)})

    async def more(request: Request) -> JSONResponse:
        for _ in range(int(request.query_params["more"])):
            events.append(event(len(events) + 1, datetime.now(UTC)))
        return JSONResponse({})

    routes = [Route("/events", show), Route("/events", more, methods=["POST"])]
    uvicorn.run(Starlette(routes=routes), host="127.0.0.1", port=int(sys.argv[1]), log_level="error")


if __name__ == "__main__":
    main()
