"""A bucket that is not the bottleneck: takes what comes, remembers sizes and ETags, throws the bytes away.

It speaks as much S3 as the mirror, boto3 and their like need to put objects, and checks no signature. One process,
one thread; started with `python -m tests.bench.sink`, which prints its port and ends when stdin closes.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from urllib.parse import parse_qs, unquote, urlsplit

_XML = b'<?xml version="1.0" encoding="UTF-8"?>'
_MISSING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nx-amz-request-id: 1\r\n\r\n"
_NO_UPLOAD = b"HTTP/1.1 404 Not Found\r\nContent-Length: 41\r\n\r\n<Error><Code>NoSuchUpload</Code></Error>\n"


class Bucket:
    """What was put: key → (size, ETag)."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[int, str]] = {}
        self.parts: dict[str, dict[int, int]] = {}
        self.begun = 0


class Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive; bodies are counted and dropped as they come."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._head = bytearray()
        self._left = 0
        self._kept = bytearray()  # the body of a request whose body matters
        self._request: tuple[str, str, dict[str, str]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if self._request is None:
                view = self._read_head(view)
            if self._request is not None:
                taken = view[: self._left]
                if self._request[0] == "POST":
                    self._kept += taken
                self._left -= len(taken)
                view = view[len(taken) :]
                if not self._left:
                    self._answer()

    def _read_head(self, view: memoryview) -> memoryview:
        before = len(self._head)
        self._head += view
        end = self._head.find(b"\r\n\r\n", max(0, before - 3))
        if end < 0:
            return memoryview(b"")
        lines = bytes(self._head[:end]).decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        method, target, _ = lines[0].split(" ")
        self._head.clear()
        self._kept.clear()
        self._left = int(headers.get("content-length", 0))
        self._request = (method, target, headers)
        if headers.get("expect") == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return view[end + 4 - before :]

    def _answer(self) -> None:
        assert self._request is not None
        method, target, headers = self._request
        self._request = None
        parts = urlsplit(target)
        key, query = unquote(parts.path).lstrip("/").partition("/")[2], parse_qs(parts.query, keep_blank_values=True)
        size = int(headers.get("content-length", 0))
        self._transport.write(self._respond(method, key, query, size))

    def _respond(self, method: str, key: str, query: dict[str, list[str]], size: int) -> bytes:
        bucket = self._bucket
        upload_id = query.get("uploadId", [""])[0]
        if upload_id and upload_id not in bucket.parts:
            return _NO_UPLOAD
        if method == "PUT" and upload_id:
            number = int(query["partNumber"][0])
            bucket.parts[upload_id][number] = size
            return _ok(etag=f'"{number:032x}"')
        if method == "PUT":
            if key:
                bucket.objects[key] = (size, '"' + "0" * 32 + '"')
            return _ok(etag='"' + "0" * 32 + '"')
        if method == "POST" and "uploads" in query:
            bucket.begun += 1
            upload_id = f"upload{bucket.begun}"
            bucket.parts[upload_id] = {}
            told = f"<UploadId>{upload_id}</UploadId>".encode()
            return _ok(_XML + b"<InitiateMultipartUploadResult>" + told + b"</InitiateMultipartUploadResult>")
        if method == "DELETE" and upload_id:
            del bucket.parts[upload_id]
            return _ok()
        if method == "POST" and upload_id:
            sizes = bucket.parts.pop(upload_id)
            etags = b"".join(number.to_bytes(16, "big") for number in sorted(sizes))
            digest = hashlib.md5(etags, usedforsecurity=False).hexdigest()
            bucket.objects[key] = (sum(sizes.values()), f'"{digest}-{len(sizes)}"')
            told = f"<ETag>{bucket.objects[key][1]}</ETag>".encode()
            return _ok(_XML + b"<CompleteMultipartUploadResult>" + told + b"</CompleteMultipartUploadResult>")
        if key and method in ("HEAD", "GET"):
            found = bucket.objects.get(key)
            return _ok(length=found[0], etag=found[1]) if found and method == "HEAD" else _MISSING
        listed = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
        return _ok(_XML + listed) if method == "GET" else _ok()


def _ok(body: bytes = b"", *, etag: str = "", length: int | None = None) -> bytes:
    more = f"ETag: {etag}\r\n" if etag else ""
    size = len(body) if length is None else length
    return f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nx-amz-request-id: 1\r\n{more}\r\n".encode() + body


async def main() -> None:
    """Serve until stdin closes."""
    bucket = Bucket()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(bucket), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.buffer.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
