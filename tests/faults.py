"""What the origin answers, and all that can go wrong with it: a table of faults for `Origin.add(…, fault=…)`.

A fault takes `times` requests of its file (one, unless told), then the next of the list follows, and after the last
the file behaves. The range faults concern requests that carry a Range; to others the file answers as ever.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

FOREVER = sys.maxsize  # as `times`: every request from here on


@dataclass
class Request:
    """One request as it arrived, and what became of it."""

    connection: int
    method: str
    path: str  # as on the wire, still percent-encoded
    query: str
    headers: dict[str, str]  # names in lower case
    body: bytes
    is_api: bool
    server: str = ""  # the origin that got it, as host:port
    number: int = 0  # of the requests of this file or promptId, from 1
    status: int = 0  # 0: no answer was begun
    bytes_sent: int = 0  # of the body, without chunk headers
    began: float = field(default_factory=time.monotonic)
    ended: float | None = None  # None: still being answered

    @property
    def target(self) -> str:
        """Path and query."""
        return f"{self.path}?{self.query}" if self.query else self.path

    def without(self, header: str) -> Request:
        """The same request had it not sent this header."""
        return replace(self, headers={name: value for name, value in self.headers.items() if name != header})


@dataclass(frozen=True)
class Reply:
    """An answer, and how it goes onto the wire. Content-Length is added unless `headers` or `framing` say otherwise."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | memoryview = b""
    framing: Literal["length", "chunked", "close"] = "length"  # close: HTTP/1.0, the body ends with the connection
    ending: Literal["keep", "close", "reset", "stall", "close on reuse", "rest on reuse", "framing"] = "keep"
    cut: int | None = None  # body bytes sent before `ending`; None: all of them
    hold: int | None = None  # body bytes sent before the test must have released the file
    rate: float | None = None  # bytes a second
    silent: bool = False  # not even a status line, only `ending`

    def with_headers(self, changed: Mapping[str, str | None]) -> Reply:
        """The same answer with these headers set or, where None, left out."""
        merged = {**self.headers, **changed}
        return replace(self, headers={name: value for name, value in merged.items() if value is not None})


@dataclass(frozen=True)
class File:
    """A body with its headers, served as object storage does."""

    body: bytes
    etag: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def span(self, request: Request) -> tuple[int, int] | None:
        """First byte and end (exclusive) of the Range asked for, or None where the whole file is due.

        A first byte at or past the end of the file: nothing satisfies the Range.
        """
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", ""))
        validator = request.headers.get("if-range")
        if not asked or (validator is not None and not self._validates(validator)):
            return None
        size, (first, last) = len(self.body), asked.groups()
        if not first:
            return (size - min(size, int(last)), size) if last else None
        if last and int(last) < int(first):
            return None
        return int(first), min(size, int(last) + 1) if last else size

    def whole(self) -> Reply:
        """200 with everything."""
        etag = {"ETag": self.etag} if self.etag else {}
        return Reply(200, {"Accept-Ranges": "bytes", **etag, **self.headers}, self.body)

    def part(self, first: int, end: int) -> Reply:
        """206 with the bytes from `first` up to but not including `end`."""
        reply = replace(self.whole(), status=206, body=memoryview(self.body)[first:end])
        return reply.with_headers({"Content-Range": f"bytes {first}-{end - 1}/{len(self.body)}"})

    def unsatisfiable(self) -> Reply:
        """416, with the error page that some clients take for the file's tail."""
        page = b"<html><body>416 Range Not Satisfiable</body></html>"
        return Reply(416, {"Content-Range": f"bytes */{len(self.body)}", "Content-Type": "text/html"}, page)

    def reply(self, request: Request) -> Reply:
        """What a well-behaved server answers."""
        condition = request.headers.get("if-match", "*")
        if condition != "*" and (condition != self.etag or condition.startswith("W/")):
            return Reply(412)
        span = self.span(request)
        if span is None:
            return self.whole()
        return self.part(*span) if span[0] < len(self.body) else self.unsatisfiable()

    def _validates(self, validator: str) -> bool:
        strong = self.etag is not None and not self.etag.startswith("W/")
        return validator == self.headers.get("Last-Modified") or (strong and validator == self.etag)


@dataclass(frozen=True)
class Fault:
    """What goes wrong, for how many requests. `reply` answers in the file's place; a test may well write its own."""

    name: str
    reply: Callable[[File, Request], Reply]
    times: int = 1

    def __str__(self) -> str:
        return self.name


def behave(*, times: int = 1) -> Fault:
    """No fault: lets requests pass before the next fault of a list."""
    return Fault("behave", File.reply, times)


# The connection


def hang_up(*, reset: bool = False, times: int = 1) -> Fault:
    """The connection ends before any answer."""
    return Fault("hang_up", lambda _f, _r: Reply(silent=True, ending="reset" if reset else "close"), times)


def never_answers(*, times: int = 1) -> Fault:
    """Takes the request and says nothing until the client or the origin closes."""
    return Fault("never_answers", lambda _f, _r: Reply(silent=True, ending="stall"), times)


def reset_after(size: int, *, hold: bool = False, times: int = 1) -> Fault:
    """RST after `size` body bytes; with `hold` only once the test releases the file.

    A client's library may drop bytes that it had not handed on when the RST came: hold where they matter.
    """
    held = size if hold else None
    return Fault("reset_after", lambda f, r: replace(f.reply(r), ending="reset", cut=size, hold=held), times)


def close_after(size: int, *, hold: bool = False, times: int = 1) -> Fault:
    """A clean close after `size` body bytes, though Content-Length promised more; `hold` as in `reset_after`."""
    held = size if hold else None
    return Fault("close_after", lambda f, r: replace(f.reply(r), ending="close", cut=size, hold=held), times)


def stall_after(size: int, *, times: int = 1) -> Fault:
    """Not a byte more after `size` body bytes, until the client or the origin closes."""
    return Fault("stall_after", lambda f, r: replace(f.reply(r), ending="stall", cut=size), times)


def hold_after(size: int, *, times: int = 1) -> Fault:
    """Waits after `size` body bytes until the test calls `origin.release(path)`, then goes on."""
    return Fault("hold_after", lambda f, r: replace(f.reply(r), hold=size), times)


def trickle(rate: float, *, times: int = 1) -> Fault:
    """The whole body at `rate` bytes a second."""
    return Fault("trickle", lambda f, r: replace(f.reply(r), rate=rate), times)


def close_idle(*, times: int = 1) -> Fault:
    """A good answer, then the keep-alive connection is closed without a word."""
    return Fault("close_idle", lambda f, r: replace(f.reply(r), ending="close"), times)


def close_on_reuse(*, times: int = 1) -> Fault:
    """A good answer, but the next request on that connection finds it closed (and is on record with status 0)."""
    return Fault("close_on_reuse", lambda f, r: replace(f.reply(r), ending="close on reuse"), times)


def rest_on_reuse(size: int, *, times: int = 1) -> Fault:
    """Content-Length says `size`, and the bytes beyond it answer whoever asks next on that connection."""

    def reply(file: File, request: Request) -> Reply:
        told = file.reply(request).with_headers({"Content-Length": str(size)})
        return replace(told, ending="rest on reuse", cut=size)

    return Fault("rest_on_reuse", reply, times)


# The framing


def chunked(*, times: int = 1) -> Fault:
    """Chunked encoding done right: no Content-Length."""
    return Fault("chunked", lambda f, r: replace(f.reply(r), framing="chunked"), times)


def chunked_cut_after(size: int, *, times: int = 1) -> Fault:
    """Chunked encoding, closed after `size` body bytes (mid-chunk unless a multiple of 8192) with no last chunk."""

    def reply(file: File, request: Request) -> Reply:
        return replace(file.reply(request), framing="chunked", cut=size, ending="close")

    return Fault("chunked_cut_after", reply, times)


def framing_without_end(*, times: int = 1) -> Fault:
    """Chunked encoding whose next chunk's header never ends, though a byte of it comes again and again."""

    def reply(file: File, request: Request) -> Reply:
        answered = file.reply(request)
        return replace(answered, framing="chunked", cut=len(answered.body), ending="framing")

    return Fault("framing_without_end", reply, times)


def no_length(cut: int | None = None, *, times: int = 1) -> Fault:
    """HTTP/1.0: the body ends with the connection; with `cut` it ends early, and nothing on the wire tells."""
    return Fault("no_length", lambda f, r: replace(f.reply(r), framing="close", ending="close", cut=cut), times)


def huge_length(size: int = 10 * 10**12, *, times: int = 1) -> Fault:
    """A Content-Length of 10 TB; after the true body the connection closes."""
    length = {"Content-Length": str(size)}
    return Fault("huge_length", lambda f, r: replace(f.reply(r).with_headers(length), ending="close"), times)


def huge_header(size: int = 1 << 17, *, times: int = 1) -> Fault:
    """A header line longer than clients take."""
    return Fault("huge_header", lambda f, r: f.reply(r).with_headers({"X-Huge": "x" * size}), times)


# The status


def status(
    code: int,
    *,
    retry_after: int | str | None = None,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    times: int = 1,
) -> Fault:
    """Any status, with Retry-After in seconds or as a date."""
    later = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return Fault(f"status {code}", lambda _f, _r: Reply(code, {**later, **(headers or {})}, body), times)


def redirect(location: str, code: int = 302, *, times: int = 1) -> Fault:
    """A redirect to `location`, absolute or relative."""
    return Fault(f"redirect {code}", lambda _f, _r: Reply(code, {"Location": location}), times)


def html_page(code: int = 200, *, times: int = 1) -> Fault:
    """A web page where a file should be, by default with 200."""
    page = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Please sign in.</body></html>"
    return Fault("html_page", lambda _f, _r: Reply(code, {"Content-Type": "text/html; charset=utf-8"}, page), times)


def unsatisfiable(*, times: int = 1) -> Fault:
    """416, whatever was asked."""
    return Fault("unsatisfiable", lambda f, _r: f.unsatisfiable(), times)


# The range


def ignore_range(*, times: int = 1) -> Fault:
    """200 with the whole file, to a Range too."""
    return Fault("ignore_range", lambda f, _r: f.whole(), times)


def range_start(by: int, *, times: int = 1) -> Fault:
    """206 that begins `by` bytes later than asked (earlier where negative), and says so."""
    return _ranged("range_start", lambda f, first, end: f.part(min(max(0, first + by), end - 1), end), times)


def range_end(by: int, *, times: int = 1) -> Fault:
    """206 that ends `by` bytes later than asked (earlier where negative), and says so."""
    return _ranged("range_end", lambda f, first, end: f.part(first, min(max(first + 1, end + by), len(f.body))), times)


def range_total(total: int | None, *, times: int = 1) -> Fault:
    """206 whose Content-Range gives another size of the file; None: the unknown one, `*`."""

    def reply(file: File, first: int, end: int) -> Reply:
        size = "*" if total is None else total
        return file.part(first, end).with_headers({"Content-Range": f"bytes {first}-{end - 1}/{size}"})

    return _ranged("range_total", reply, times)


def range_body(by: int, *, times: int = 1) -> Fault:
    """206 whose Content-Range is as asked, but whose body (and Content-Length) is `by` bytes longer, or shorter."""

    def reply(file: File, first: int, end: int) -> Reply:
        asked = file.part(first, end)
        return replace(asked, body=bytes(asked.body[: max(0, end - first + by)]) + b"\0" * by)

    return _ranged("range_body", reply, times)


def range_refused(code: int, *, times: int = FOREVER) -> Fault:
    """A status instead of a part, as long as a part is asked for."""
    return _ranged("range_refused", lambda _f, _first, _end: Reply(code), times)


def no_content_range(*, times: int = 1) -> Fault:
    """206 that does not say which bytes it brings."""
    return _ranged("no_content_range", lambda f, *span: f.part(*span).with_headers({"Content-Range": None}), times)


def multipart(*, times: int = 1) -> Fault:
    """206 as multipart/byteranges of one part: the bytes asked for, wrapped."""

    def reply(file: File, first: int, end: int) -> Reply:
        part = file.part(first, end)
        lead = f"--cut\r\nContent-Range: {part.headers['Content-Range']}\r\n\r\n".encode()
        named = part.with_headers({"Content-Range": None, "Content-Type": "multipart/byteranges; boundary=cut"})
        return replace(named, body=lead + bytes(part.body) + b"\r\n--cut--\r\n")

    return _ranged("multipart", reply, times)


def _ranged(name: str, reply: Callable[[File, int, int], Reply], times: int) -> Fault:
    """A fault of answers to a satisfiable Range only."""

    def choose(file: File, request: Request) -> Reply:
        span = file.span(request)
        return file.reply(request) if span is None or span[0] >= len(file.body) else reply(file, *span)

    return Fault(name, choose, times)


# The validator and the bytes


def other_etag(etag: str = '"another"', *, times: int = 1) -> Fault:
    """The same bytes under another ETag, and If-Range is ignored: 206 with an ETag that is not the one before."""
    return Fault("other_etag", lambda f, r: replace(f, etag=etag).reply(r.without("if-range")), times)


def weak_etag(*, times: int = 1) -> Fault:
    """The ETag is weak, so no If-Range holds on it."""
    return Fault("weak_etag", lambda f, r: replace(f, etag=f"W/{f.etag}").reply(r), times)


def changing_etag(*, honour_if_range: bool = True, times: int = FOREVER) -> Fault:
    """The same bytes under an ETag that is new with every request; If-Range then brings 200, or is ignored."""

    def reply(file: File, request: Request) -> Reply:
        renamed = replace(file, etag=f'"v{request.number}"')
        return renamed.reply(request if honour_if_range else request.without("if-range"))

    return Fault("changing_etag", reply, times)


def changed(body: bytes, *, honour_if_range: bool = True, times: int = FOREVER) -> Fault:
    """Another file stands at this URL now: new bytes, MD5 ETag and Last-Modified; If-Range is honoured or ignored."""
    etag = f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'

    def reply(file: File, request: Request) -> Reply:
        other = File(body, etag, {**file.headers, "Last-Modified": "Thu, 29 Jan 2026 13:54:20 GMT"})
        return other.reply(request if honour_if_range else request.without("if-range"))

    return Fault("changed", reply, times)


def flipped_byte(at: int | None = None, *, times: int = 1) -> Fault:
    """One byte (the middle one, unless told) is wrong; length and ETag are right."""

    def reply(file: File, request: Request) -> Reply:
        body = bytearray(file.body)
        body[len(body) // 2 if at is None else at] ^= 0xFF
        return replace(file, body=bytes(body)).reply(request)

    return Fault("flipped_byte", reply, times)


def gzipped(*, times: int = 1) -> Fault:
    """200 with Content-Encoding: gzip, asked for or not; the ETag turns weak, as proxies make it."""

    def reply(file: File, _request: Request) -> Reply:
        packed = gzip.compress(file.body, mtime=0)
        return replace(file, body=packed, etag=f"W/{file.etag}").whole().with_headers({"Content-Encoding": "gzip"})

    return Fault("gzipped", reply, times)
