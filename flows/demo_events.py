"""The demo's events: how they are read from the API, and what the API itself says of them."""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal
from typing import Any

import httpx

from flows.demo_proof import Summary

CONNECTION = "rest-api/shop"

STREAM: dict[str, dict[str, Any]] = {
    "events": {
        "source": {
            "connection": CONNECTION,
            "path": "/events",
            "params": {"since": "{since}", "until": "{until}"},
            "records": "data",
            "pagination": {"kind": "page", "size_param": "per_page", "size": 500, "total": "total"},
            "cursor": "at",
            "lag": "0 seconds",  # what has happened is shown at once
            "fields": [
                {"name": "id", "type": "integer", "key": True},
                {"name": "kind"},
                {"name": "amount", "type": "decimal"},
                {"name": "city", "path": "properties.geo.city"},
                {"name": "tags", "path": "properties.tags", "type": "json"},
                {"name": "at", "type": "timestamptz"},
            ],
        },
        "mode": "incremental",
    },
}


async def go_on(url: str, events: int) -> None:
    """Have so many more happen."""
    async with httpx.AsyncClient(trust_env=False) as client:
        (await client.post(f"{url}/events", params={"more": events})).raise_for_status()


async def in_api(url: str) -> Summary:
    """What the API holds, as `flows.demo_proof` sums it up: from its JSON, without any code of the extract."""
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        events = (await client.get(f"{url}/events", params={"per_page": 1_000_000})).json()["data"]
    rows = [_row(one) for one in events]
    total = sum((Decimal(row[2] or 0) for row in rows), Decimal())
    return Summary(len(rows), total, sum(_fingerprint(row) for row in rows))


def _row(event: dict[str, Any]) -> list[str | None]:
    """The columns, and what no column names."""
    rest = dict(event["properties"])
    tags, geo = rest.pop("tags"), dict(rest.pop("geo", {}))
    city = geo.pop("city", None)
    # In its own place, where it was not emptied.
    kept = {
        name: geo if name == "geo" else rest[name]
        for name in event["properties"]
        if name in rest or (name == "geo" and geo)
    }
    return [
        str(event["id"]),
        event["kind"],
        event["amount"],
        city,
        _json(tags),
        _time(event["at"]),
        _json({"properties": kept}),
    ]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _time(text: str) -> str:
    return f"{text[:10]} {text[11:-1]}+00"


def _fingerprint(row: list[str | None]) -> int:
    text = ",".join("NULL" if value is None else f"={value}" for value in row)
    return int(hashlib.sha256(text.encode()).hexdigest()[:15], 16)
