"""A cheap S3 endpoint: keeps small objects, counts large ones and throws their bytes away.

`python -m benchmarks.sink` prints the port it listens on. One thread per connection. Bodies of parts are
dropped inside the kernel (MSG_TRUNC, tcp(7)) without ever being copied. What a multipart upload leaves is its size, so
HEAD and LIST tell the truth and GET answers 501. Signatures are not checked: it listens on the loopback device only.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import itertools
import re
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

KEEP = 1 << 20
"""Objects below this size are stored."""
NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
DATE = ("Wed, 01 Jan 2025 00:00:00 GMT", "2025-01-01T00:00:00.000Z")


@dataclass(frozen=True)
class Stored:
    """An object; `body` is `None` where the bytes were thrown away."""

    size: int
    etag: str
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()


@dataclass
class Upload:
    """A multipart upload under way: size, ETag and checksum by part number."""

    key: str
    headers: tuple[tuple[str, str], ...]
    parts: dict[int, tuple[int, str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    method: str
    key: str
    query: dict[str, str]
    headers: dict[str, str]
    size: int
    body: bytes | None

    def echoed(self, *names: str) -> tuple[tuple[str, str], ...]:
        return tuple((name, self.headers[name]) for name in names if name in self.headers)


@dataclass(frozen=True)
class Response:
    status: str = "200 OK"
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    length: int | None = None
    """Of a HEAD: the size of the object that is not sent."""

    def encode(self) -> bytes:
        length = len(self.body) if self.length is None else self.length
        lines = [f"HTTP/1.1 {self.status}", "x-amz-request-id: sink", f"Content-Length: {length}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + self.body


def xml(tag: str, content: str) -> Response:
    body = f'<?xml version="1.0" encoding="UTF-8"?><{tag} xmlns="{NAMESPACE}">{content}</{tag}>'
    return Response(body=body.encode(), headers=(("Content-Type", "application/xml"),))


def error(status: str, code: str) -> Response:
    body = f"<Error><Code>{code}</Code><Message>{code}</Message><RequestId>sink</RequestId></Error>"
    return Response(status, body.encode(), (("Content-Type", "application/xml"),))


class Store:
    """The objects and uploads of all buckets, keyed `bucket/key`; every method is one atomic step."""

    def __init__(self) -> None:
        self._objects: dict[str, Stored] = {}
        self._uploads: dict[str, Upload] = {}
        self._lock = threading.Lock()
        self._serial = itertools.count(1)

    def answer(self, request: Request) -> Response:
        with self._lock:
            return self._handler(request)(request)

    def _handler(self, request: Request) -> Callable[[Request], Response]:
        query, is_bucket = request.query, "/" not in request.key
        match request.method:
            case "PUT" if is_bucket:
                return lambda _: Response()
            case "PUT":
                return self._put_part if "uploadId" in query else self._put
            case "POST" if "delete" in query:
                return self._delete_many
            case "POST":
                return self._create if "uploads" in query else self._complete
            case "DELETE":
                return self._abort if "uploadId" in query else self._delete
            case "HEAD" if is_bucket:
                return lambda _: Response(headers=(("x-amz-bucket-region", "us-east-1"),))
            case "GET" if is_bucket and "uploads" in query:
                return self._list_uploads
            case "GET" if is_bucket and "location" in query:
                return lambda _: xml("LocationConstraint", "")
            case "GET" if is_bucket and "versioning" in query:
                return lambda _: xml("VersioningConfiguration", "")
            case "GET" if is_bucket:
                return self._list
            case _:
                return self._get

    def _condition(self, request: Request) -> Response | None:
        """What a conditional write is refused with."""
        present = self._objects.get(request.key)
        wanted = request.headers.get("if-match")
        if request.headers.get("if-none-match") == "*" and present:
            return error("412 Precondition Failed", "PreconditionFailed")
        if wanted and not present:
            return error("404 Not Found", "NoSuchKey")
        if wanted and present and wanted.strip('"') != present.etag:
            return error("412 Precondition Failed", "PreconditionFailed")
        return None

    def _put(self, request: Request) -> Response:
        if refused := self._condition(request):
            return refused
        kept = request.body if request.size < KEEP else None
        seed = kept if kept is not None else f"{request.key} {next(self._serial)}".encode()
        etag = hashlib.md5(seed, usedforsecurity=False).hexdigest()
        checksums = request.echoed("x-amz-checksum-crc32")
        extra = request.echoed("content-type", "content-encoding") + checksums
        extra += tuple((name, value) for name, value in request.headers.items() if name.startswith("x-amz-meta-"))
        self._objects[request.key] = Stored(request.size, etag, kept, extra)
        return Response(headers=(("ETag", f'"{etag}"'), *checksums))

    def _create(self, request: Request) -> Response:
        extra = request.echoed("content-type", "content-encoding")
        extra += tuple((name, value) for name, value in request.headers.items() if name.startswith("x-amz-meta-"))
        upload = f"upload-{next(self._serial)}"
        self._uploads[upload] = Upload(request.key, extra)
        bucket, _, key = request.key.partition("/")
        content = f"<Bucket>{escape(bucket)}</Bucket><Key>{escape(key)}</Key><UploadId>{upload}</UploadId>"
        return xml("InitiateMultipartUploadResult", content)

    def _put_part(self, request: Request) -> Response:
        upload = self._uploads.get(request.query["uploadId"])
        if upload is None:
            return error("404 Not Found", "NoSuchUpload")
        number = int(request.query["partNumber"])
        seed = f"{request.query['uploadId']} {number} {request.size}".encode()
        etag = hashlib.md5(seed, usedforsecurity=False).hexdigest()
        checksum = request.headers.get("x-amz-checksum-crc32", "")
        upload.parts[number] = (request.size, etag, checksum)
        return Response(headers=(("ETag", f'"{etag}"'), *request.echoed("x-amz-checksum-crc32")))

    def _complete(self, request: Request) -> Response:
        upload = self._uploads.get(request.query.get("uploadId", ""))
        if upload is None:
            return error("404 Not Found", "NoSuchUpload")
        if refused := self._condition(request):
            return refused
        numbers = [int(number) for number in re.findall(rb"<PartNumber>(\d+)</PartNumber>", request.body or b"")]
        if not numbers or any(number not in upload.parts for number in numbers):
            return error("400 Bad Request", "InvalidPart")
        if numbers != sorted(set(numbers)):
            return error("400 Bad Request", "InvalidPartOrder")
        chosen = [upload.parts[number] for number in numbers]
        etag = f"{hashlib.md5(repr(chosen).encode(), usedforsecurity=False).hexdigest()}-{len(chosen)}"
        checksum = request.headers.get("x-amz-checksum-crc32") or composite([part[2] for part in chosen])
        extra = upload.headers + ((("x-amz-checksum-crc32", checksum),) if checksum else ())
        del self._uploads[request.query["uploadId"]]
        self._objects[request.key] = Stored(sum(part[0] for part in chosen), etag, None, extra)
        bucket, _, key = request.key.partition("/")
        content = f"<Bucket>{escape(bucket)}</Bucket><Key>{escape(key)}</Key><ETag>&quot;{etag}&quot;</ETag>"
        return xml(
            "CompleteMultipartUploadResult",
            content + (f"<ChecksumCRC32>{checksum}</ChecksumCRC32>" if checksum else ""),
        )

    def _abort(self, request: Request) -> Response:
        known = self._uploads.pop(request.query["uploadId"], None)
        return Response("204 No Content") if known else error("404 Not Found", "NoSuchUpload")

    def _delete(self, request: Request) -> Response:
        self._objects.pop(request.key, None)
        return Response("204 No Content")

    def _delete_many(self, request: Request) -> Response:
        for key in re.findall(r"<Key>(.*?)</Key>", (request.body or b"").decode()):
            plain = key.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", '"').replace("&amp;", "&")
            self._objects.pop(f"{request.key}/{plain}", None)
        return xml("DeleteResult", "")

    def _get(self, request: Request) -> Response:
        stored = self._objects.get(request.key)
        if stored is None:
            missing = error("404 Not Found", "NoSuchKey")
            return missing if request.method == "GET" else Response(missing.status)
        headers = (("ETag", f'"{stored.etag}"'), ("Last-Modified", DATE[0]), *stored.headers)
        if request.method == "HEAD":
            return Response(headers=headers, length=stored.size)
        if stored.body is None:
            return error("501 Not Implemented", "BytesThrownAway")
        return Response(body=stored.body, headers=headers)

    def _list(self, request: Request) -> Response:
        query = request.query
        prefix = f"{request.key}/{query.get('prefix', '')}"
        after = max(query.get("start-after", ""), query.get("continuation-token", ""))
        limit = int(query.get("max-keys", "1000"))
        start = len(request.key) + 1
        keys = sorted(key for key in self._objects if key.startswith(prefix) and key[start:] > after)
        groups, rows = common_prefixes(keys, prefix, query.get("delimiter", ""))
        page, more = rows[:limit], len(rows) > limit
        content = f"<Name>{escape(request.key)}</Name><KeyCount>{len(page)}</KeyCount><MaxKeys>{limit}</MaxKeys>"
        content += f"<IsTruncated>{str(more).lower()}</IsTruncated>"
        if more:
            content += f"<NextContinuationToken>{escape(page[-1][start:])}</NextContinuationToken>"
        for key in page:
            stored = self._objects[key]
            content += f"<Contents><Key>{escape(key[start:])}</Key><LastModified>{DATE[1]}</LastModified>"
            content += f"<ETag>&quot;{stored.etag}&quot;</ETag><Size>{stored.size}</Size></Contents>"
        content += "".join(
            f"<CommonPrefixes><Prefix>{escape(group[start:])}</Prefix></CommonPrefixes>" for group in groups
        )
        return xml("ListBucketResult", content)

    def _list_uploads(self, request: Request) -> Response:
        prefix = f"{request.key}/{request.query.get('prefix', '')}"
        rows = [(identity, upload.key) for identity, upload in self._uploads.items() if upload.key.startswith(prefix)]
        start = len(request.key) + 1
        content = "<IsTruncated>false</IsTruncated>" + "".join(
            f"<Upload><Key>{escape(key[start:])}</Key><UploadId>{identity}</UploadId><Initiated>{DATE[1]}</Initiated></Upload>"
            for identity, key in rows
        )
        return xml("ListMultipartUploadsResult", content)


def common_prefixes(keys: list[str], prefix: str, delimiter: str) -> tuple[list[str], list[str]]:
    """Folders and the keys outside them, as a listing with a delimiter shows them."""
    if not delimiter:
        return [], keys
    groups: dict[str, None] = {}
    rows = []
    for key in keys:
        head, found, _ = key[len(prefix) :].partition(delimiter)
        if found:
            groups[prefix + head + delimiter] = None
        else:
            rows.append(key)
    return list(groups), rows


def composite(checksums: list[str]) -> str:
    """Checksum of checksums of a multipart object, as S3 makes it for CRC32; empty if a part came without one."""
    if not all(checksums):
        return ""
    joined = b"".join(base64.b64decode(value) for value in checksums)
    return f"{base64.b64encode(binascii.crc32(joined).to_bytes(4, 'big')).decode()}-{len(checksums)}"


class Connection:
    """One client's connection: reads requests, drops or keeps their bodies, writes the answers."""

    def __init__(self, peer: socket.socket, store: Store) -> None:
        self._peer, self._store = peer, store
        self._ahead = b""
        self._scratch = memoryview(bytearray(KEEP))

    def serve(self) -> None:
        self._peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while True:
                self._peer.sendall(self._store.answer(self._read()).encode())
        except (ConnectionError, EOFError):
            pass  # the client hung up
        finally:
            self._peer.close()

    def _read(self) -> Request:
        head = self._until(b"\r\n\r\n").decode("latin-1")
        first, *lines = head.split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if "100-continue" in headers.get("expect", "").lower():
            self._peer.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        url = urlsplit(target)
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        sent, body = self._body(headers, keep=not (method == "PUT" and "uploadId" in query))
        size = int(headers.get("x-amz-decoded-content-length", sent))
        if body is not None and "aws-chunked" in headers.get("content-encoding", ""):
            body = unwrapped(body)
        return Request(method, unquote(url.path).strip("/"), query, headers, size, body)

    def _body(self, headers: dict[str, str], *, keep: bool) -> tuple[int, bytes | None]:
        if "chunked" not in headers.get("transfer-encoding", "").lower():
            size = int(headers.get("content-length", "0"))
            return size, self._take(size, keep=keep and size < KEEP)
        total, pieces = 0, []
        while size := int(self._until(b"\r\n").split(b";")[0], 16):
            total += size
            pieces.append(self._take(size, keep=keep and total < KEEP) or b"")
            self._until(b"\r\n")
        self._until(b"\r\n")
        return total, b"".join(pieces) if keep and total < KEEP else None

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._ahead:
            more = self._peer.recv(1 << 16)
            if not more:
                raise EOFError
            self._ahead += more
        found, self._ahead = self._ahead.split(mark, 1)
        return found

    def _take(self, size: int, *, keep: bool) -> bytes | None:
        first, self._ahead = self._ahead[:size], self._ahead[size:]
        kept, left = bytearray(first), size - len(first)
        flags = 0 if keep or sys.platform != "linux" else socket.MSG_TRUNC
        while left:
            got = self._peer.recv_into(self._scratch, min(left, KEEP), flags)
            if not got:
                raise EOFError
            if keep:
                kept += self._scratch[:got]
            left -= got
        return bytes(kept) if keep else None


def unwrapped(body: bytes) -> bytes:
    """The payload inside `aws-chunked` framing; trailers and chunk signatures are dropped."""
    plain = bytearray()
    while body:
        head, _, body = body.partition(b"\r\n")
        size = int(head.split(b";")[0], 16)
        if not size:
            break
        plain += body[:size]
        body = body[size + 2 :]
    return bytes(plain)


def main() -> None:
    store = Store()
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            peer, _ = listener.accept()
            threading.Thread(target=Connection(peer, store).serve, daemon=True).start()


if __name__ == "__main__":
    main()
