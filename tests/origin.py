"""A scripted origin: a real HTTP/1.1 server on a real socket that can misbehave down to the byte.

It serves media files and the documented API from threads of its own, so a test drives a subprocess, blocking code or
coroutines against it alike. What goes wrong, and at which request, is a list of faults (`tests.faults`); without one a
file behaves as on object storage: keep-alive, one Range, If-Range, If-Match, HEAD, the MD5 as a strong ETag.

A byte is counted in the same breath in which the kernel takes it: once a client has read a body, `body_bytes` holds
all of it. Closing the origin ends every thread at once, those that stall too.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import select
import socket
import struct
import termios
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from http.client import responses
from io import BufferedReader
from itertools import count
from types import TracebackType
from typing import Any, Self, TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

from tests import media
from tests.faults import FOREVER, Fault, File, Reply, Request

__all__ = ["FOREVER", "LAST_MODIFIED", "Answer", "Origin", "Reply", "Request", "answer", "documented_example", "task"]

LAST_MODIFIED = "Wed, 28 Jan 2026 10:03:40 GMT"
_CHUNK = 8192  # body bytes in one chunk of a chunked answer
_PIECE = 1 << 18
_SOCK_DIAG, _BY_FAMILY = 4, 20  # linux/netlink.h, linux/sock_diag.h
_TYPES = {"png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "webp": "image/webp", "mp4": "video/mp4"}

Faults: TypeAlias = Fault | Sequence[Fault] | None
Answer: TypeAlias = "Mapping[str, Any] | bytes | Reply | Callable[[int], Answer]"


@dataclass
class _Route:
    """What stands at one address, and how far its script has come."""

    serve: Callable[[Request], File | Reply]
    faults: Sequence[Fault] = ()
    requests: int = 0
    released: bool = False

    def reply(self, request: Request) -> Reply:
        served = self.serve(request)
        if isinstance(served, Reply):
            return served
        last = 0
        for fault in self.faults:
            last += fault.times
            if request.number <= last:
                return fault.reply(served, request)
        return served.reply(request)


class Origin:
    """The server, from its making until it is closed: `with Origin() as origin: …`."""

    ahead = 0
    """How many bytes it may be ahead of what a client has read of its socket; 0: as many as the kernel takes."""

    def __init__(
        self,
        *,
        token: str = "origin-token",
        task_path: str = "/getTaskInfo",
        address: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        self.token = token
        self.authorization = token  # the value of the header that the API accepts
        self._task_path = task_path
        self._api_paths = {task_path}
        self._routes: dict[str, _Route] = {}
        self._requests: list[Request] = []
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._closing = threading.Event()
        self._changed = threading.Condition()  # guards all of the above, and is told of every step
        self._listener = socket.create_server(address, backlog=1024)
        self.url = f"http://{address[0]}:{self._listener.getsockname()[1]}"
        self.api_url = self.url  # what the client's base URL should be
        self._acceptor = threading.Thread(target=self._accept, name="origin", daemon=True)
        self._acceptor.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Breaks off whatever is under way and ends all threads."""
        if self._closing.is_set():
            return
        self._closing.set()
        with contextlib.suppress(OSError):  # wakes accept(), which closing its socket would not
            socket.create_connection(self._listener.getsockname(), timeout=60).close()
        self._acceptor.join()
        self._listener.close()
        with self._changed:
            self._changed.notify_all()
            threads = list(self._connections.values())
            for sock in self._connections:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()

    # What it serves

    def add(
        self,
        path: str,
        body: bytes,
        *,
        etag: str | None = "md5",
        last_modified: str | None = LAST_MODIFIED,
        content_type: str | None = "guess",
        headers: Mapping[str, str] | None = None,
        fault: Faults = None,
    ) -> str:
        """Serves `body` at `path`, in place of what stood there, and returns the URL.

        A path with a query answers that very query, one without answers any.
        """
        if etag == "md5":
            etag = f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'
        if content_type == "guess":
            content_type = _TYPES.get(urlsplit(path).path.rpartition(".")[2], "application/octet-stream")
        named = {"Last-Modified": last_modified, "Content-Type": content_type, **(headers or {})}
        file = File(body, etag, {name: value for name, value in named.items() if value is not None})
        self._put(path, lambda _: file, fault)
        return self.url + path

    def prompt(self, prompt_id: str, answers: Answer | Sequence[Answer], *, fault: Faults = None) -> str:
        """Answers for a promptId, one after the other and the last again and again; returns the promptId.

        A mapping is sent as JSON, bytes as they are, a Reply as it stands (no fault touches it); a callable gets the
        number of the request, from 1, and returns one of these.
        """
        script = list(answers) if isinstance(answers, Sequence) and not isinstance(answers, bytes) else [answers]
        self._put(self._task_target(prompt_id), lambda r: _serve(script[min(r.number, len(script)) - 1], r), fault)
        return prompt_id

    def handle(self, path: str, function: Callable[[Request], Answer], *, fault: Faults = None) -> None:
        """Another endpoint of the API, answered by a function of the request; the token is checked first."""
        with self._changed:
            self._api_paths.add(path)
        self._put(path, lambda request: _serve(function(request), request), fault)

    def history(self, rows: Sequence[Mapping[str, Any]], *, path: str = "/newImageHistory", most: int = 20) -> None:
        """The history endpoint over `rows`: pages count from 1 and are asked for in JSON, a form or the query."""

        def page(request: Request) -> Answer:
            asked: dict[str, Any] = dict(parse_qsl(request.query))
            asked |= json.loads(request.body) if request.body[:1] == b"{" else dict(parse_qsl(request.body.decode()))
            size = min(most, int(asked.get("pageSize") or most))
            first = size * (int(asked.get("page") or 1) - 1)
            return answer([dict(row) for row in rows[first : first + size]])

        self.handle(path, page)

    def release(self, path: str) -> None:
        """Lets the answers go on that are on hold at this path (or URL, or promptId), and all later ones."""
        with self._changed:
            target = self._path(path)
            self._routes[target if target in self._routes else self._task_target(path)].released = True
            self._changed.notify_all()

    # What happened

    @property
    def requests(self) -> list[Request]:
        """Every request since the last `clear`, in order of arrival, as it stands now."""
        with self._changed:
            return [replace(request) for request in self._requests]

    @property
    def api_requests(self) -> list[Request]:
        return [request for request in self.requests if request.is_api]

    @property
    def media_requests(self) -> list[Request]:
        return [request for request in self.requests if not request.is_api]

    def count(self, path_prefix: str = "") -> int:
        """How many requests there were of paths (or URLs) that begin so."""
        with self._changed:
            return sum(request.target.startswith(self._path(path_prefix)) for request in self._requests)

    def body_bytes(self, path_prefix: str = "") -> int:
        """How many bytes of bodies were sent of paths (or URLs) that begin so."""
        with self._changed:
            prefix = self._path(path_prefix)
            return sum(request.bytes_sent for request in self._requests if request.target.startswith(prefix))

    def clear(self) -> None:
        """Forgets the requests; scripts of faults and answers go on where they are."""
        with self._changed:
            self._requests.clear()

    def wait_for(self, predicate: Callable[[], bool], timeout: float = 120.0) -> None:
        """Blocks until `predicate()` holds (in a coroutine: `await asyncio.to_thread(origin.wait_for, …)`).

        Raises:
            TimeoutError: it did not come to hold.
        """
        end = time.monotonic() + timeout
        with self._changed:
            while not predicate():
                if time.monotonic() > end:
                    last = [f"{r.method} {r.target} {r.status} {r.bytes_sent}" for r in self._requests[-20:]]
                    raise TimeoutError(f"not within {timeout} s; the last requests: {last}")
                self._changed.wait(0.05)  # it may ask for more than what happens here

    def wait_bytes(self, path: str, size: int, timeout: float = 120.0) -> None:
        """Blocks until `size` bytes of bodies were sent of paths (or URLs) that begin so."""
        self.wait_for(lambda: self.body_bytes(path) >= size, timeout)

    # How it works

    def _path(self, path_or_url: str) -> str:
        return path_or_url.removeprefix(self.url)

    def _task_target(self, prompt_id: str) -> str:
        return f"{self._task_path}?promptId={prompt_id}"

    def _put(self, target: str, serve: Callable[[Request], File | Reply], fault: Faults) -> None:
        with self._changed:
            self._routes[target] = _Route(serve, [fault] if isinstance(fault, Fault) else list(fault or ()))

    def _route(self, request: Request) -> _Route:
        """Enters the request into the record and finds what answers it."""
        with self._changed:
            local = urlsplit(request.path).path if "://" in request.path else request.path  # as a proxy is asked
            request.is_api = not self._api_paths.isdisjoint({request.path, local})
            self._requests.append(request)
            self._changed.notify_all()
            if request.is_api and request.headers.get("authorization") != self.authorization:
                return _Route(lambda r: _serve(answer(None, 401, "token rejected"), r))
            targets = [request.target, request.path, unquote(request.path), local]
            if local == self._task_path:
                targets = [request.path, self._task_target(dict(parse_qsl(request.query)).get("promptId", ""))]
            for target in targets:
                if route := self._routes.get(target):
                    route.requests += 1
                    request.number = route.requests
                    return route
        return _Route(lambda r: _serve(answer(None, 900, "no data"), r) if r.is_api else Reply(404))

    def _accept(self) -> None:
        for number in count(1):
            sock, _ = self._listener.accept()
            if self._closing.is_set():
                sock.close()
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = _Connection(self, sock, number)
            thread = threading.Thread(target=connection.run, name=f"origin-{number}", daemon=True)
            with self._changed:
                self._connections[sock] = thread
            thread.start()


class _Connection:
    """One connection: reads requests and puts the answers onto the wire as their Reply says."""

    def __init__(self, origin: Origin, sock: socket.socket, number: int) -> None:
        self._origin = origin
        self._sock = sock
        self._number = number
        self._changed = origin._changed
        self._writable = select.poll()
        self._writable.register(sock, select.POLLOUT)

    def run(self) -> None:
        try:
            # A client that goes away, or the origin's closing, ends whatever step is under way.
            with contextlib.suppress(OSError), self._sock.makefile("rb") as stream:
                while (request := self._read(stream)) and self._answer(request, stream):
                    pass
        finally:
            with self._changed:
                self._sock.close()
                del self._origin._connections[self._sock]

    def _read(self, stream: BufferedReader) -> Request | None:
        if not stream.peek(1)[:1].isupper():  # the end, or a handshake of TLS, in which there may be no end of a line
            return None
        words = stream.readline().decode("latin-1").split()
        if len(words) != 3:
            return None
        headers: dict[str, str] = {}
        while line := stream.readline().decode("latin-1").strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        if words[2] == "HTTP/1.0":
            headers.setdefault("connection", "close")
        body = stream.read(int(headers.get("content-length", 0)))
        path, _, query = words[1].partition("?")
        server = self._origin.url.removeprefix("http://")
        return Request(self._number, words[0], path, query, headers, body, is_api=False, server=server)

    def _answer(self, request: Request, stream: BufferedReader) -> bool:
        """Answers; True where the connection is good for another request."""
        route = self._origin._route(request)
        reply = route.reply(request)
        try:
            if not reply.silent:
                self._send_head(request, reply)
                self._send_body(request, reply, route)
            if reply.ending == "stall":
                while stream.read(1):  # until the client or the origin closes
                    pass
            if reply.ending == "framing":
                self._send(b"5;")
                while not self._origin._closing.wait(0.05):
                    self._send(b"a")
        finally:
            with self._changed:
                request.ended = time.monotonic()
                self._changed.notify_all()
        if reply.ending == "reset":
            self._reset_on_close()
        if reply.ending == "close on reuse" and (unanswered := self._read(stream)):
            self._origin._route(unanswered)
        if reply.ending == "rest on reuse" and (unanswered := self._read(stream)):
            self._origin._route(unanswered)
            self._send(memoryview(reply.body)[reply.cut :])
        return reply.ending == "keep" and request.headers.get("connection", "").lower() != "close"

    def _send_head(self, request: Request, reply: Reply) -> None:
        headers = dict(reply.headers)
        if reply.framing == "chunked":
            headers["Transfer-Encoding"] = "chunked"
        elif reply.framing == "length" and reply.status not in (204, 304):
            headers.setdefault("Content-Length", str(len(reply.body)))
        if reply.framing == "close" or request.headers.get("connection", "").lower() == "close":
            headers["Connection"] = "close"
        version = "HTTP/1.0" if reply.framing == "close" else "HTTP/1.1"
        lines = [
            f"{version} {reply.status} {responses.get(reply.status, '')}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        with self._changed:
            request.status = reply.status
        self._send("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def _send_body(self, request: Request, reply: Reply, route: _Route) -> None:
        if request.method == "HEAD" or reply.status in (204, 304):
            return
        size = len(reply.body)
        end = size if reply.cut is None else min(reply.cut, size)
        if reply.hold is not None:
            first = min(reply.hold, end)
            self._send_span(request, reply, 0, first)
            with self._changed:
                self._changed.wait_for(lambda: route.released or self._origin._closing.is_set())
            self._send_span(request, reply, first, end)
        else:
            self._send_span(request, reply, 0, end)
        if reply.framing == "chunked" and reply.cut is None:
            self._send(b"0\r\n\r\n")

    def _send_span(self, request: Request, reply: Reply, first: int, end: int) -> None:
        """Sends a stretch of the body; a chunk's header goes before its first byte."""
        body = memoryview(reply.body)
        step = max(1, int(reply.rate / 20)) if reply.rate else _PIECE
        while first < end:
            last = min(end, first + step)
            if reply.framing == "chunked":
                last = min(last, first - first % _CHUNK + _CHUNK)
                if first % _CHUNK == 0:
                    self._send(b"%x\r\n" % min(_CHUNK, len(body) - first))
            self._send(body[first:last], request)
            if reply.framing == "chunked" and (last % _CHUNK == 0 or last == len(body)):
                self._send(b"\r\n")
            if reply.rate and last < end and self._origin._closing.wait((last - first) / reply.rate):
                raise ConnectionAbortedError
            first = last

    def _send(self, data: bytes | memoryview, counted: Request | None = None) -> None:
        """Sends all of `data`; what the kernel takes is counted before anybody can see it counted wrong."""
        left, most = memoryview(data), self._origin.ahead or len(data)
        while left:
            while self._origin.ahead and unread(self._sock) > self._origin.ahead:
                if self._origin._closing.wait(0.001):
                    raise ConnectionAbortedError
            with self._changed, contextlib.suppress(BlockingIOError):
                sent = self._sock.send(left[:most], socket.MSG_DONTWAIT)
                left = left[sent:]
                if counted:
                    counted.bytes_sent += sent
                    self._changed.notify_all()
            if left:
                self._writable.poll()

    def _reset_on_close(self) -> None:
        """Makes the close an RST, after all that was sent has arrived: an RST throws away what has not."""
        end = time.monotonic() + 30
        with contextlib.suppress(OSError):  # not every system counts what is under way
            while struct.unpack("i", fcntl.ioctl(self._sock, termios.TIOCOUTQ, bytes(4)))[0] and time.monotonic() < end:
                if self._origin._closing.wait(0.001):
                    break
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def unread(sock: socket.socket) -> int:
    """How many bytes the other end of a connection on this machine has not read yet; 0 where there is none. Linux."""
    try:
        here, there = sock.getsockname(), sock.getpeername()
    except OSError:
        return 0
    ends = struct.pack("!HH16s16s", there[1], here[1], socket.inet_aton(there[0]), socket.inet_aton(here[0]))
    which = ends + struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)  # on any interface, whatever its cookie
    asked = struct.pack("=BBBxI", socket.AF_INET, socket.IPPROTO_TCP, 0, 0xFFFFFFFF) + which
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as kernel:
        kernel.send(struct.pack("=IHHII", 16 + len(asked), _BY_FAMILY, 1, 0, 0) + asked)
        told = kernel.recv(4096)
    [kind] = struct.unpack_from("=H", told, 4)
    return int(struct.unpack_from("=I", told, 72)[0]) if kind == _BY_FAMILY else 0


# The API's answers


def _serve(given: Answer, request: Request) -> File | Reply:
    """An API answer as something to send."""
    if isinstance(given, Reply):
        return given
    if isinstance(given, bytes | Mapping):
        body = given if isinstance(given, bytes) else json.dumps(given, ensure_ascii=False).encode()
        return File(body, headers={"Content-Type": "application/json; charset=utf-8"})
    return _serve(given(request.number), request)


def answer(data: Any, code: int = 200, msg: str = "SUCCESS") -> dict[str, Any]:
    """The envelope around every answer of the API."""
    return {"code": code, "msg": msg, "data": data}


def task(
    prompt_id: str,
    state: int = 30,
    images: Iterable[tuple[str | None, str | None]] = (),
    children: Iterable[Mapping[str, Any]] | None = None,
    **extra: Any,
) -> dict[str, Any]:
    """A task as documented: `images` are pairs of path (the thumbnail) and origin, `children` are tasks.

    Without `children` there is no `taskList`. `extra` sets or replaces fields: `reason="…"`, `imageList=None`.
    """
    task_id = int(extra.get("taskId", zlib.crc32(prompt_id.encode()) % 100_000))
    listed = [
        {"id": 10 * task_id + n, "taskId": task_id, "path": path, "origin": full}
        for n, (path, full) in enumerate(images)
    ]
    made: dict[str, Any] = {
        "taskId": task_id,
        "promptId": prompt_id,
        "taskType": 7,
        "thumbFileUrl": (listed[0]["path"] if listed else "") or "",
        "state": state,
        "reason": "",
        "imageList": listed,
    }
    if children is not None:
        made["taskList"] = [dict(child) for child in children]
    return {**made, **extra}


def documented_example(origin: Origin) -> tuple[str, dict[str, bytes]]:
    """Serves the documentation's own example, its three files included; returns the promptId and name → bytes."""
    folder = "/faceWap/test/original/"
    bodies = {
        "1769594446809030000_TFVMoqDf.png": media.png(seed=1),
        "1769594620471325196_04aerrvp.mp4": media.mp4(150_000, seed=2),
        "1769594619399790547_xL19T3ky.mp4": media.mp4(90_000, seed=3),
    }
    thumbnail, first, second = (origin.add(folder + name, body) for name, body in bodies.items())
    images = [
        {"id": 957, "taskId": 1043, "path": thumbnail, "origin": first},
        {"id": 956, "taskId": 1044, "path": thumbnail, "origin": second},
    ]
    common: dict[str, Any] = {"thumbFileUrl": thumbnail, "taskType": 7}
    children = [
        task("0fdd439fe1a94c8aa3ddaca3cdf50fe5", taskId=1043, imageList=images[:1], **common),
        task("5a6ec746cfaf424da38350a323d0fb52", taskId=1044, imageList=images[1:], **common),
    ]
    prompt_id = "ef8ec19d6670c018814358a21a910090"
    root = task(prompt_id, children=children, taskId=1043, imageList=images, **common)
    return origin.prompt(prompt_id, answer(root)), bodies
