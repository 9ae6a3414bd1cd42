"""One request through a `FaultProxy`, and its answer back: carried out faithfully, save for its fault."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from http.client import responses
from typing import TYPE_CHECKING

from tests.s3.faults import Fault, Reply
from tests.s3.seen import KEPT, Seen
from tests.s3.wire import PIECE, Head, Wire, readable

if TYPE_CHECKING:
    from tests.s3.proxy import FaultProxy


class Exchange:
    """What a client connection is in the middle of, and the one connection to the server that it has."""

    def __init__(self, proxy: FaultProxy, client: Wire, number: int) -> None:
        self._proxy = proxy
        self._client = client
        self._number = number
        self._server: Wire | None = None

    def carry(self) -> bool:
        """Reads one request and sees it through; True where the connection is good for another."""
        head = self._client.head()
        if head is None:
            return False
        seen, fault = self._proxy.enter(self._number, head)
        try:
            return self._carry(seen, head, fault) and not head.closes
        finally:
            self._proxy.end(seen)

    def hang_up(self) -> None:
        """Closes the connection to the server, if there is one."""
        if self._server:
            self._proxy.forget(self._server)
        self._server = None

    def _carry(self, seen: Seen, head: Head, fault: Fault) -> bool:
        if fault.held == "request":
            self._proxy.wait_release(seen)
        answer, whole = self._ask(seen, head, fault)
        if answer and (fault.reset or fault.reply):
            for _ in self._answer_body(seen, answer):
                pass
        if fault.held == "answer":
            self._proxy.wait_release(seen)
        self._pause(fault.delay)
        if fault.reset:
            self._proxy.end(seen)
            self._client.reset()
            return False
        good = whole
        if fault.reply:
            self._reply(seen, fault.reply, whole)
        elif answer:
            good = self._relay(seen, answer, fault, whole) and whole
        else:
            return False
        if not whole:
            self._linger()
        return good

    # The request

    def _ask(self, seen: Seen, head: Head, fault: Fault) -> tuple[Head | None, bool]:
        """Takes the request, on to the server if it may; the head of the answer, and whether all was taken."""
        if fault.forward:
            return self._forward(seen, head, fault)
        if fault.early:
            return None, False
        if head.get("expect"):
            self._client.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        for _ in self._request_body(seen, head, fault, None):
            pass
        return None, True

    def _forward(self, seen: Seen, head: Head, fault: Fault) -> tuple[Head | None, bool]:
        if self._server and readable(self._server):  # it hung up while idle
            self.hang_up()
        server = self._server = self._server or self._proxy.connect()
        whole = False
        answer: Head | None = None
        with contextlib.suppress(ConnectionError):  # it may have answered before it closed
            server.send(head.raw())
            for piece in self._request_body(seen, head, fault, server):
                if isinstance(piece, Head):
                    answer = piece
                    break
                server.send(b"%x\r\n%b\r\n" % (len(piece), piece) if head.chunked else piece)
            else:
                whole = True
                if head.chunked:
                    server.send(b"0\r\n\r\n")
        while answer is None or answer.status == 100:
            answer = server.head()
            if answer is None:
                return None, False
        with self._proxy.changed:
            seen.upstream = answer.status
            seen.answer_headers = {name.lower(): value for name, value in answer.fields}
            self._proxy.changed.notify_all()
        return answer, whole

    def _request_body(self, seen: Seen, head: Head, fault: Fault, server: Wire | None) -> Iterator[bytes | Head]:
        """The body piece by piece; the server's answer in place of the rest, where that comes before the end."""
        size = None if head.chunked else int(head.get("content-length", "0"))
        body = self._client.payload(head)
        while size is None or seen.bytes_up < size:
            if server and server in readable(server, self._client, timeout=None):
                early = server.head()
                if early is None:
                    raise ConnectionResetError
                if early.status != 100:
                    yield early
                    return
                self._client.send(early.raw())
                continue
            try:
                piece = next(body, b"")
            except ConnectionError as error:
                raise OSError("the client went away") from error  # the server waits for the rest, and would for ever
            if not piece:
                return
            at = -1 if fault.corrupt is None else fault.corrupt - seen.bytes_up
            with self._proxy.changed:
                seen.bytes_up += len(piece)
                seen.body += piece[: KEPT - len(seen.body)]
                self._proxy.changed.notify_all()
            if 0 <= at < len(piece):
                piece = piece[:at] + bytes([piece[at] ^ 0xFF]) + piece[at + 1 :]
            if fault.upload_rate:
                self._pause(len(piece) / fault.upload_rate)
            yield piece

    # The answer

    def _answer_body(self, seen: Seen, answer: Head) -> Iterator[bytes]:
        if seen.method != "HEAD" and answer.status not in (204, 304):
            assert self._server
            yield from self._server.payload(answer)

    def _relay(self, seen: Seen, answer: Head, fault: Fault, whole: bool) -> bool:
        """Passes the server's answer on; True where both connections are good for another."""
        shown = Head(answer.first, answer.fields)
        if fault.edit:
            shown.fields = list(fault.edit(dict(answer.fields)).items())
        if not whole:
            shown.put("Connection", "close")
        body = self._answer_body(seen, answer)
        self._send(seen, shown, body, fault, chunked=answer.chunked)
        bodiless = seen.method == "HEAD" or answer.status in (204, 304)
        framed = bodiless or answer.chunked or bool(answer.get("content-length"))
        return framed and fault.cut is None and not answer.closes

    def _reply(self, seen: Seen, reply: Reply, whole: bool) -> None:
        """Answers with what was scripted."""
        fields = [("x-amz-request-id", "fault"), ("Content-Type", "application/xml"), *reply.headers.items()]
        if reply.status not in (204, 304):
            fields.append(("Content-Length", str(len(reply.body))))
        if not whole:
            fields.append(("Connection", "close"))
        head = Head(f"HTTP/1.1 {reply.status} {responses.get(reply.status, '')}", fields)
        bodiless = seen.method == "HEAD" or reply.status in (204, 304) or not reply.body
        self._send(seen, head, iter([] if bodiless else [reply.body]), Fault(), chunked=False)

    def _send(self, seen: Seen, head: Head, body: Iterator[bytes], fault: Fault, *, chunked: bool) -> None:
        """Sends an answer; all of it is in the record before the client can have it."""
        pieces = _first(body, fault.cut)
        if fault.rate:
            pieces = _small(pieces, max(1, int(fault.rate / 20)))
        piece = next(pieces, b"")
        with self._proxy.changed:
            seen.status = head.status
            self._proxy.changed.notify_all()
        if not piece:
            self._proxy.end(seen)
        self._client.send(head.raw())
        while piece:
            following = next(pieces, b"")
            with self._proxy.changed:
                seen.bytes_down += len(piece)
                self._proxy.changed.notify_all()
            if not following:
                self._proxy.end(seen)
            self._client.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            if fault.rate:
                self._pause(len(piece) / fault.rate)
            piece = following
        if chunked and fault.cut is None and seen.method != "HEAD":
            self._client.send(b"0\r\n\r\n")

    # Time

    def _pause(self, seconds: float) -> None:
        if seconds and self._proxy.closing.wait(seconds):
            raise ConnectionAbortedError

    def _linger(self) -> None:
        """Closes so that the answer arrives although the client was still sending: reads on until it has closed, too.

        Who is sent something after it has closed resets the connection, and the answer may be lost by that. The client
        may be slow to see it on a busy machine; one that never closes is waited for half a minute.
        """
        end = time.monotonic() + 30
        with contextlib.suppress(OSError):
            self._client.sock.shutdown(socket.SHUT_WR)
            while (left := end - time.monotonic()) > 0 and readable(self._client, timeout=left):
                if not self._client.some(PIECE):
                    break


def _first(pieces: Iterator[bytes], size: int | None) -> Iterator[bytes]:
    """The first so many bytes; all, where that is None."""
    if size is None:
        yield from pieces
        return
    while size > 0 and (piece := next(pieces, b"")):
        yield piece[:size]
        size -= len(piece)


def _small(pieces: Iterator[bytes], most: int) -> Iterator[bytes]:
    for piece in pieces:
        for start in range(0, len(piece), most):
            yield piece[start : start + most]
