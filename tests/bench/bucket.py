"""What a bucket for benchmarks answers: as much S3 as the mirror and its peers need. No signature is checked.

Keys carry the bucket's name: ``bucket/key``. With a folder the bytes are kept there, a file a body, so that they can be
compared with what should have come, or with ``sources``, a folder of files, as they come; without one only sizes are.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.bench.keeping import Compared, Keeper, Written

TOLD = "/-/told"
"""A GET of it tells what came and went, as JSON: see `Bucket.told`."""

DIGEST = "x-bench-sha256"
"""What a real store would find out while it copies, for one that is not to be the bottleneck."""

_NO_ETAG = f'"{"0" * 32}"'
_KEPT = ("content-type", "x-amz-checksum-sha256", "cache-control")


@dataclass(frozen=True)
class Request:
    """A request's head. ``headers`` by their names in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]

    @property
    def length(self) -> int:
        return int(self.headers.get("content-length", 0))


@dataclass(frozen=True)
class Object:
    """An object, or a part of one; ``files`` have its bytes one after the other, where they are kept.

    ``digest`` is its SHA-256 in base64, if whoever put it told that: copies that ask for it have it as their checksum.
    """

    size: int
    etag: str
    files: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""


class Bucket:
    """All buckets of one store."""

    def __init__(self, folder: Path | None = None, sources: Path | None = None) -> None:
        self.objects: dict[str, Object] = {}
        self._folder = folder
        self._sources = sources
        self._parts: dict[str, dict[int, Object]] = {}
        self._made = 0
        self._received = self._sent = self._requests = 0

    def keeper(self, request: Request) -> Keeper | None:
        """Who takes a body in, if it is an object's or a part's."""
        if request.method != "PUT" or self._folder is None or not request.length:
            return None
        path, _, query = request.target.partition("?")
        source = self._sources / path.rpartition("/")[2] if self._sources is not None else None
        if source is not None and not query and source.is_file() and source.stat().st_size == request.length:
            return Compared(source)
        self._made += 1
        return Written(f"{self._folder}/{self._made}")

    def told(self) -> bytes:
        """Requests, bytes of bodies that came with PUTs and went with GETs, and all objects."""
        objects = {key: {"size": it.size, "files": it.files} for key, it in self.objects.items()}
        counts = {"requests": self._requests, "received": self._received, "sent": self._sent}
        return json.dumps({**counts, "objects": objects}).encode()

    def answer(self, request: Request, body: bytes, files: tuple[str, ...]) -> bytes:
        """The answer to a request whose body has come: to memory, or where it stands in files."""
        if request.target == TOLD:
            return _ok(self.told())
        self._requests += 1
        parts = urlsplit(request.target)
        key, query = unquote(parts.path).lstrip("/"), parse_qs(parts.query, keep_blank_values=True)
        upload_id = query.get("uploadId", [""])[0]
        if upload_id and upload_id not in self._parts:
            return _refused(404, "NoSuchUpload")
        if not key.partition("/")[2]:
            return self._list(key, query) if request.method == "GET" else _ok()
        if request.method == "PUT":
            self._received += request.length
            return self._put(key, query, request, files)
        if request.method == "POST":
            return self._complete(key, upload_id) if upload_id else self._begin(request)
        if request.method == "DELETE":
            (self._parts.pop if upload_id else self.objects.pop)(upload_id or key, None)
            return _ok()
        found = self.objects.get(key)
        if found is None:
            return _refused(404, "NoSuchKey", silent=request.method == "HEAD")
        return self._get(request, found)

    def _put(self, key: str, query: Mapping[str, list[str]], request: Request, files: tuple[str, ...]) -> bytes:
        source = request.headers.get("x-amz-copy-source")
        if request.headers.get("if-none-match") == "*" and key in self.objects:
            return _refused(412, "PreconditionFailed")
        if source is not None:
            return self._copy(key, unquote(source).lstrip("/"), request)
        digest, checksum = request.headers.get("content-md5"), request.headers.get("x-amz-checksum-sha256")
        etag = f'"{base64.b64decode(digest).hex()}"' if digest else _NO_ETAG
        made = Object(request.length, etag, files, digest=request.headers.get(DIGEST, ""))
        if "uploadId" in query:
            number = int(query["partNumber"][0])
            made = replace(made, etag=f'"{number:032x}"')
            self._parts[query["uploadId"][0]][number] = made
        else:
            self.objects[key] = replace(made, headers=_described(request))
        return _ok(more={"ETag": made.etag, **({"x-amz-checksum-sha256": checksum} if checksum else {})})

    def _copy(self, key: str, source: str, request: Request) -> bytes:
        found = self.objects.get(source)
        if found is None:
            return _refused(404, "NoSuchKey")
        headers, told = _described(request), f"<ETag>{escape(found.etag)}</ETag>"
        if request.headers.get("x-amz-checksum-algorithm") == "SHA256" and found.digest:
            headers["x-amz-checksum-sha256"] = found.digest
            told += f"<ChecksumSHA256>{headers['x-amz-checksum-sha256']}</ChecksumSHA256>"
        self.objects[key] = replace(found, headers=headers)
        return _xml("CopyObjectResult", told)

    def _begin(self, request: Request) -> bytes:
        upload_id = f"upload{len(self._parts)}-{self._requests}"
        self._parts[upload_id] = {0: Object(0, "", headers=_described(request))}
        return _xml("InitiateMultipartUploadResult", f"<UploadId>{upload_id}</UploadId>")

    def _complete(self, key: str, upload_id: str) -> bytes:
        parts = self._parts.pop(upload_id)
        begun = parts.pop(0)
        digest = hashlib.md5(b"".join(bytes.fromhex(parts[number].etag[1:-1]) for number in sorted(parts)))
        made = Object(
            sum(part.size for part in parts.values()),
            f'"{digest.hexdigest()}-{len(parts)}"',
            tuple(file for number in sorted(parts) for file in parts[number].files),
            begun.headers,
        )
        self.objects[key] = made
        return _xml("CompleteMultipartUploadResult", f"<ETag>{escape(made.etag)}</ETag>")

    def _get(self, request: Request, found: Object) -> bytes:
        told = {**found.headers, "ETag": found.etag, "Last-Modified": formatdate(usegmt=True), "Accept-Ranges": "bytes"}
        if request.method == "HEAD":
            return _ok(more=told, length=found.size)
        content = b"".join(map(_content, found.files)) if found.files else bytes(found.size)
        asked = request.headers.get("range", "").removeprefix("bytes=")
        if asked:
            first, _, last = asked.partition("-")
            start, stop = int(first), min(int(last or found.size), found.size - 1) + 1
            content, told["Content-Range"] = content[start:stop], f"bytes {start}-{stop - 1}/{found.size}"
        self._sent += len(content)
        return _ok(content, more=told, status="206 Partial Content" if asked else "200 OK")

    def _list(self, key: str, query: Mapping[str, list[str]]) -> bytes:
        """Objects below a prefix. Multipart uploads are not listed: nobody begins any here that gets lost."""
        bucket, prefix, delimiter = key.rstrip("/"), query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
        told = "<IsTruncated>false</IsTruncated>"
        if "uploads" in query:
            return _xml("ListMultipartUploadsResult", told)
        folders: dict[str, None] = {}
        for name, found in self.objects.items():
            name = name.removeprefix(f"{bucket}/")  # noqa: PLW2901
            if not name.startswith(prefix):
                continue
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                folders[prefix + rest.partition(delimiter)[0] + delimiter] = None
                continue
            told += f"<Contents><Key>{escape(name)}</Key><Size>{found.size}</Size><ETag>{escape(found.etag)}</ETag>"
            told += "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
        told += "".join(f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in folders)
        return _xml("ListBucketResult", told)


def _described(request: Request) -> dict[str, str]:
    return {name: value for name, value in request.headers.items() if name in _KEPT or name.startswith("x-amz-meta-")}


def _content(file: str) -> bytes:
    return Path(file).read_bytes()


def _ok(
    body: bytes = b"", *, more: Mapping[str, str] | None = None, length: int | None = None, status: str = "200 OK"
) -> bytes:
    lines = "".join([f"{name}: {value}\r\n" for name, value in (more or {}).items()])
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Length: {size}\r\nx-amz-request-id: 1\r\n{lines}\r\n".encode("latin-1") + body


def _xml(root: str, told: str) -> bytes:
    return _ok(f'<?xml version="1.0" encoding="UTF-8"?><{root}>{told}</{root}>'.encode())


def _refused(status: int, code: str, *, silent: bool = False) -> bytes:
    body = b"" if silent else f"<Error><Code>{code}</Code></Error>".encode()
    return _ok(body, status=f"{status} {code}")
