"""The application behind `tests.servers.rest`: an API over lists of items, with as many ways of paging as are in use.

``python -m tests.servers.rest_app PORT [CERTIFICATE KEY]``. Every resource can be asked for in every way:

    /items?page=2&per_page=10        /items?offset=20&limit=10      /items?cursor=…       header Link, next URLs, totals
    /items?since=…&until=…           by updated_at, since < updated_at <= until; ?inclusive=1: since <= updated_at;
                                     ?half_open=1: updated_at < until
    /items?as=ndjson|csv|bare|github …                              the form of the answer
    /customers/7/orders              items whose parent is 7

"""

from __future__ import annotations

import asyncio
import csv
import dataclasses
import gzip
import io
import json
import re
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qsl

import brotli
import uvicorn
import zstandard
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route


@dataclasses.dataclass
class Rule:
    """What goes wrong with requests that match, so many ``times`` (-1: always), after ``skip`` of them."""

    path: str = ""
    """Part of the path."""
    query: str = ""
    """Part of the query."""
    times: int = 1
    skip: int = 0
    status: int = 0
    """Answer with this, instead."""
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    """Further headers of the answer, whatever it is; ``{date+2}`` and ``{epoch+2}`` are two seconds later than its Date."""
    body: str | None = None
    """Answer with this body, instead."""
    type: str | None = None
    """Give the answer this type."""
    delay: float = 0
    """Seconds to wait before."""
    cut: int = -1
    """Close the connection after so many bytes of the body."""
    drip: float = 0
    """Seconds between pieces of the body."""
    shrink: int = 0
    """Give no more than so many items a page."""
    skew: float = 0
    """How far the clock in the header Date is off."""
    no_date: bool = False
    drop: int = 0
    """Leave out so many of a page's first items: they are on no page."""
    empty: bool = False
    """Give no items."""
    encoding: str = ""
    """gzip, br or zstd."""
    redirect: str = ""
    remove: list[Any] = dataclasses.field(default_factory=list)
    """Remove these items behind the answer's back, so that the next pages move."""
    edit: list[Any] = dataclasses.field(default_factory=list)
    """Stamp these items behind the answer's back, so that they come last, or first where the newest do."""
    needs: dict[str, str] = dataclasses.field(default_factory=dict)
    """Headers without which the answer is 401."""
    needs_query: dict[str, str] = dataclasses.field(default_factory=dict)
    etag: bool = False
    """Answer with an ETag, and 304 to who has it."""


class _Space:
    def __init__(self) -> None:
        self.items: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
        self.rules: list[Rule] = []
        self.seen: list[dict[str, Any]] = []
        self.tokens: dict[str, float] = {}
        self.under_way = self.most_under_way = 0


_MOMENT = re.compile(r"\{(date|epoch)\+(\d+)\}")

_spaces: dict[str, _Space] = defaultdict(_Space)


# -- what tests say --------------------------------------------------------------------------------------------------


async def add(request: Request) -> Response:
    told, space = await request.json(), _spaces[request.path_params["space"]]
    items = space.items[told["resource"]]
    for item in told["items"]:
        items.pop(str(item["id"]), None)
        items[str(item["id"])] = item
    return JSONResponse({})


async def remove(request: Request) -> Response:
    _remove(_spaces[request.path_params["space"]], (await request.json())["ids"])
    return JSONResponse({})


def _remove(space: _Space, ids: list[Any]) -> None:
    for items in space.items.values():
        for key in ids:
            items.pop(str(key), None)


def _edit(space: _Space, ids: list[Any]) -> None:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    for items in space.items.values():
        for key in [str(each) for each in ids if str(each) in items]:
            items[key] = items.pop(key) | {"updated_at": now}


async def add_rule(request: Request) -> Response:
    _spaces[request.path_params["space"]].rules.append(Rule(**(await request.json())))
    return JSONResponse({})


async def seen(request: Request) -> Response:
    return JSONResponse(_spaces[request.path_params["space"]].seen)


# -- the API ---------------------------------------------------------------------------------------------------------


async def answer(request: Request) -> Response:
    space = _spaces[request.path_params["space"]]
    body = await request.body()
    told = {"method": request.method, "path": request.url.path, "query": dict(request.query_params),
            "headers": dict(request.headers), "body": body.decode(), "at": time.monotonic()}  # fmt: skip
    space.seen.append(told)
    rule = _rule(space, request)
    space.under_way += 1
    told["under_way"] = space.under_way
    try:
        if rule.delay:
            await asyncio.sleep(rule.delay)
        return await _answer(space, rule, request, body)
    finally:
        space.under_way -= 1


def _rule(space: _Space, request: Request) -> Rule:
    """What the rules that match say, together."""
    merged = Rule()
    for rule in space.rules:
        if rule.path not in request.url.path or rule.query not in str(request.url.query) or not rule.times:
            continue
        if rule.skip:
            rule.skip -= 1
            continue
        rule.times -= 1
        for each in dataclasses.fields(Rule):
            default = Rule().__dict__[each.name]
            if (value := getattr(rule, each.name)) != default and each.name not in ("times", "path", "query", "skip"):
                setattr(merged, each.name, value)
    return merged


async def _answer(space: _Space, rule: Rule, request: Request, body: bytes) -> Response:
    query = dict(request.query_params)
    refused = any(request.headers.get(name) != value for name, value in rule.needs.items())
    refused = refused or any(query.get(name) != value for name, value in rule.needs_query.items())
    if rule.redirect:
        return RedirectResponse(rule.redirect, 307)
    if refused or rule.status:
        status = 401 if refused else rule.status
        made: Response = Response(rule.body or json.dumps({"error": f"status {status}"}), status)
    else:
        if body and request.headers.get("content-type", "").startswith("application/json"):
            query |= {name: str(value) for name, value in json.loads(body).items()}
        made = _page(space, rule, request, query)
    _remove(space, rule.remove)
    _edit(space, rule.edit)
    if rule.body is not None:
        made.body = rule.body.encode()
    return _dressed(made, rule, request)


def _dressed(made: Response, rule: Rule, request: Request) -> Response:
    """The answer with the headers, encoding and faults that the rule wants."""
    body = bytes(made.body)
    now = time.time() + rule.skew
    told = {name: _MOMENT.sub(lambda match: _moment(match, now), value) for name, value in rule.headers.items()}
    headers = {name: value for name, value in made.headers.items() if name != "content-length"} | told
    if rule.type is not None:
        headers["content-type"] = rule.type
    if rule.etag:
        etag = f'"{hash(body):x}"'
        headers["etag"] = etag
        if request.headers.get("if-none-match") == etag:
            return Response(None, 304, headers)
    if rule.encoding:
        pack = {"gzip": gzip.compress, "br": brotli.compress, "zstd": zstandard.compress}[rule.encoding]
        body, headers["content-encoding"] = pack(body), rule.encoding
    if not rule.no_date:
        headers["date"] = formatdate(now, usegmt=True)
    headers["content-length"] = str(len(body))
    return StreamingResponse(_pieces(body, rule), made.status_code, headers)


def _moment(match: re.Match[str], now: float) -> str:
    later = int(now) + int(match[2])
    return formatdate(later, usegmt=True) if match[1] == "date" else str(later)


async def _pieces(body: bytes, rule: Rule) -> AsyncIterator[bytes]:
    if rule.cut >= 0:
        yield body[: rule.cut]
        raise ConnectionAbortedError("cut off, as the rule says")
    size = 1000 if rule.drip else 1 << 16
    for start in range(0, len(body), size):
        yield body[start : start + size]
        if rule.drip:
            await asyncio.sleep(rule.drip)


def _page(space: _Space, rule: Rule, request: Request, query: dict[str, str]) -> Response:
    parts = request.path_params["path"].split("/")
    if parts[-1] not in space.items and parts[-1] not in ("empty",):
        return JSONResponse({"message": "Not Found"}, 404)
    parent = parts[-2] if len(parts) > 2 and parts[-3] in space.items else None
    items = _chosen(list(space.items[parts[-1]].values()), parent, query)
    total = len(items)
    size = int(query.get("per_page", query.get("limit", "100000")))
    size = min(size, rule.shrink) if rule.shrink else size
    start = int(query.get("offset", query.get("cursor", "0")))
    start = (int(query["page"]) - 1) * size if "page" in query else start
    page = [] if rule.empty else items[start : start + size][rule.drop :]
    following = start + size if start + size < total else None
    return _formed(page, total, size, following, request, query)


def _chosen(items: list[dict[str, Any]], parent: str | None, query: dict[str, str]) -> list[dict[str, Any]]:
    if parent is not None:
        items = [item for item in items if str(item.get("parent")) == parent]
    since, until = query.get("since", query.get("updated_after", "")), query.get("until", "")
    stamp = _stamp if query.get("by") != "day" else _day
    if since:
        bound = _time(since)
        items = [one for one in items if stamp(one) > bound or (query.get("inclusive") and stamp(one) == bound)]
    if until:
        bound = _time(until)
        items = [one for one in items if stamp(one) < bound or (not query.get("half_open") and stamp(one) == bound)]
    if query.get("sort") == "newest" or query.get("direction") == "desc":
        items = sorted(items, key=_stamp, reverse=True)
    return items


def _time(text: str) -> datetime:
    """ISO 8601, a date, or seconds or milliseconds since 1970."""
    if text.isdecimal():
        return datetime.fromtimestamp(int(text) / (1000 if len(text) > 11 else 1), UTC)
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _stamp(item: dict[str, Any]) -> datetime:
    return _time(str(item.get("updated_at") or "1970-01-01"))


def _day(item: dict[str, Any]) -> datetime:
    return _stamp(item).replace(hour=0, minute=0, second=0, microsecond=0)


def _formed(
    page: list[dict[str, Any]], total: int, size: int, following: int | None, request: Request, query: dict[str, str]
) -> Response:
    """The page in the form that is asked for."""
    form = query.get("as", "")
    name = "page" if "page" in query else "cursor"
    value = None if following is None else following // size + 1 if name == "page" else following
    target = None if value is None else str(request.url.include_query_params(**{name: value}))
    headers = {"X-Total": str(total)} | ({"X-Next-Cursor": str(following)} if following is not None else {})
    if form == "ndjson":
        return Response("".join(json.dumps(item) + "\n" for item in page), 200, headers, "application/x-ndjson")
    if form == "csv":
        return Response(_csv(page), 200, headers, "text/csv")
    if form == "one":
        return JSONResponse(page[0] if page else {}, 200, headers)
    if form in ("bare", "github"):
        if target:
            last = request.url.include_query_params(**{name: max(1, -(-total // size))})
            headers["Link"] = f'<{target}>; rel="next", <{last}>; rel="last"'
        return JSONResponse(page, 200, headers)
    told = {"data": {"items": page}, "total": total, "pages": -(-total // size), "has_more": target is not None}
    if form != "unpaged":
        told |= {"next": target, "next_cursor": None if following is None else str(following)}
    else:
        told.pop("has_more")
    return JSONResponse(told, 200, headers)


def _csv(page: list[dict[str, Any]]) -> str:
    made = io.StringIO()
    writer = csv.DictWriter(made, list(page[0]) if page else ["id"], lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(page)
    return made.getvalue()


# -- more ------------------------------------------------------------------------------------------------------------


async def token(request: Request) -> Response:
    """An OAuth2 token endpoint: client ``id`` with ``secret``, or the refresh token ``again``; tokens live for a second."""
    space = _spaces[request.path_params["space"]]
    form = dict(parse_qsl((await request.body()).decode()))
    space.seen.append({"method": "POST", "path": request.url.path, "headers": dict(request.headers), "form": str(form)})
    shown = request.headers.get("authorization") == "Basic aWQ6czNjcjN0" or form.get("client_secret") == "s3cr3t"
    if not shown and form.get("refresh_token") != "again":
        return JSONResponse({"error": "invalid_client", "error_description": "no such client"}, 401)
    made = f"token-{len(space.seen)}"
    space.tokens[made] = time.monotonic() + 1
    return JSONResponse({"access_token": made, "token_type": "bearer", "expires_in": 3600})


async def private(request: Request) -> Response:
    """Items for who has a token that is still good."""
    space = _spaces[request.path_params["space"]]
    shown = request.headers.get("authorization", "").removeprefix("Bearer ")
    if space.tokens.get(shown, 0) < time.monotonic():
        space.seen.append(
            {"method": "GET", "path": request.url.path, "headers": dict(request.headers), "refused": True}
        )
        return JSONResponse({"error": "token expired"}, 401)
    request.scope["path_params"]["path"] = "items"
    return await answer(request)


async def large(request: Request) -> Response:
    """As many bytes of JSON records as are asked for, made as they are sent."""
    wanted = int(request.query_params["bytes"])

    async def pieces() -> AsyncIterator[bytes]:
        yield b'{"meta": {"of": "records"}, "data": {"items": ['
        sent = number = 0
        while sent < wanted:
            lines = [
                b'{"id":%d,"note":"%s","n":{"a":[1,2.50]}}' % (n, b"x" * 400) for n in range(number, number + 1000)
            ]
            piece = (b"," if number else b"") + b",".join(lines)
            number += 1000
            sent += len(piece)
            yield piece
        yield b']}, "after": {"next": null}}'

    return StreamingResponse(pieces(), media_type="application/json", headers={"date": formatdate(usegmt=True)})


_METHODS = ["GET", "POST"]
app = Starlette(
    routes=[
        Route("/s/{space}/_items", add, methods=["POST"]),
        Route("/s/{space}/_remove", remove, methods=["POST"]),
        Route("/s/{space}/_rules", add_rule, methods=["POST"]),
        Route("/s/{space}/_seen", seen),
        Route("/s/{space}/_token", token, methods=["POST"]),
        Route("/s/{space}/private", private),
        Route("/s/{space}/large", large),
        Route("/s/{space}/{path:path}", answer, methods=_METHODS),
    ]
)


def main() -> None:
    port, *files = sys.argv[1:]
    uvicorn.run(
        app, host="127.0.0.1", port=int(port), log_level="critical", access_log=False, date_header=False,
        ssl_certfile=files[0] if files else None, ssl_keyfile=files[1] if files else None,
    )  # fmt: skip


if __name__ == "__main__":
    main()
