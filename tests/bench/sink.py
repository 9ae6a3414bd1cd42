"""A store that is not the bottleneck, in a process of its own: takes what comes, and keeps or drops its bytes.

Started with `python -m tests.bench.sink [FOLDER]`, which prints its port and ends when stdin closes. One thread.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from tests.bench.bucket import Bucket, Request

_END = b"\r\n\r\n"


class Connection(asyncio.BufferedProtocol):
    """HTTP/1.1 with keep-alive. All connections are received into one buffer: asyncio fills and tells in one step."""

    def __init__(self, bucket: Bucket, scratch: bytearray) -> None:
        self._bucket = bucket
        self._scratch = memoryview(scratch)
        self._head = b""  # what of it has come
        self._body = b""
        self._left = 0
        self._request: Request | None = None
        self._file = -1
        self._path: str | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._let_go()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._scratch

    def buffer_updated(self, nbytes: int) -> None:
        view = self._scratch[:nbytes]
        while view:
            if self._request is None:
                self._head += view
                end = self._head.find(_END)
                if end < 0:
                    return
                after = len(self._head) - end - len(_END)
                self._begin(self._head[:end])
                view = view[len(view) - after :]
                self._head = b""
            taken, view = view[: self._left], view[self._left :]
            self._take(taken)
            if not self._left:
                self._end()

    def _begin(self, head: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        pairs = [line.partition(": ") for line in lines]
        request = self._request = Request(method, target, {name.lower(): value for name, _, value in pairs})
        self._left = request.length
        if self._bucket.wants(request):
            self._path = self._bucket.new_file()
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        if request.headers.get("expect") == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _take(self, piece: memoryview) -> None:
        self._left -= len(piece)
        assert self._request is not None
        if self._file >= 0:
            while piece:
                piece = piece[os.write(self._file, piece) :]
        elif self._request.method == "POST":
            self._body += piece

    def _end(self) -> None:
        request, body, path = self._request, self._body, self._path
        assert request is not None
        self._let_go()
        self._request, self._body, self._path = None, b"", None
        self._transport.write(self._bucket.answer(request, body, path))

    def _let_go(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


async def main(folder: Path | None) -> None:
    """Serve until stdin closes."""
    bucket, scratch = Bucket(folder), bytearray(1 << 20)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(bucket, scratch), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.buffer.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
