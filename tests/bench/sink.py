"""A store that is not the bottleneck, in a process of its own: takes what comes, and keeps or drops its bytes.

Started with `python -m tests.bench.sink [FOLDER [SOURCES]]`, which prints its port and ends when stdin closes. A body
by the name of a file of SOURCES is compared with that, and not kept. One thread.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.bench.bucket import Bucket, Request
from tests.bench.keeping import Keeper

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
        self._keeper: Keeper | None = None

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
        self._keeper = self._bucket.keeper(request)
        if request.headers.get("expect") == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _take(self, piece: memoryview) -> None:
        self._left -= len(piece)
        assert self._request is not None
        if self._keeper is not None:
            if piece:
                self._keeper.take(piece)
        elif self._request.method == "POST":
            self._body += piece

    def _end(self) -> None:
        request, body, keeper = self._request, self._body, self._keeper
        assert request is not None
        files = keeper.end() if keeper is not None else ()
        self._let_go()
        self._request, self._body = None, b""
        self._transport.write(self._bucket.answer(request, body, files))

    def _let_go(self) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.close()


async def main(folder: Path | None = None, sources: Path | None = None) -> None:
    """Serve until stdin closes."""
    bucket, scratch = Bucket(folder, sources), bytearray(1 << 20)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(bucket, scratch), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.buffer.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(main(*map(Path, sys.argv[1:3])))
