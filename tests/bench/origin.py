"""A service that is not the bottleneck: tasks and media of any size, from memory, over one process's event loop.

Started with `python -m tests.bench.origin PROMPTS FILES SIZE [SMALLEST]`: each prompt has so many originals of that
size (or of sizes down to the smallest), each with its own bytes and a strong ETag. Prints its port and ends when stdin
closes. `GET /sent` tells the bytes it sent.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import zlib
from urllib.parse import parse_qs, urlsplit

_PIECE = 256 << 10
_PERIOD = 2 * _PIECE
_PATTERN = hashlib.shake_256(b"bench").digest(_PERIOD) * 2


def piece(number: int, at: int, size: int) -> bytes:
    """Some bytes of a file from an offset on, the same however the file is divided."""
    start = (number * 7919 + at) % _PERIOD
    return _PATTERN[start : start + min(size, _PERIOD)]


def content(target: str, start: int, stop: int) -> bytes:
    """The bytes of the file at a target, from one offset to another."""
    number, found = zlib.crc32(target.encode()) % 1000, b""
    while start + len(found) < stop:
        found += piece(number, start + len(found), stop - start - len(found))
    return found


def size_of(target: str, largest: int, smallest: int) -> int:
    """How long the file at a target is."""
    return smallest + zlib.crc32(target.encode()) % (largest - smallest + 1)


class Connection(asyncio.Protocol):
    """HTTP/1.1, keep-alive, GET only, with Range."""

    sent = 0

    def __init__(self, files: int, sizes: tuple[int, int], port: list[int]) -> None:
        self._files, self._sizes, self._port = files, sizes, port
        self._head = b""
        self._writing: asyncio.Task[None] | None = None
        self._room = asyncio.Event()
        self._room.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.set_write_buffer_limits(high=1 << 20)
        self._transport = transport

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._writing is not None:
            self._writing.cancel()

    def data_received(self, data: bytes) -> None:
        self._head += data
        while (end := self._head.find(b"\r\n\r\n")) >= 0:
            head, self._head = self._head[:end].decode("latin-1"), self._head[end + 4 :]
            self._respond(head)

    def _respond(self, head: str) -> None:
        target = head.split(" ", 2)[1]
        parts = urlsplit(target)
        if parts.path == "/getTaskInfo":
            prompt = parse_qs(parts.query)["promptId"][0]
            images = [
                {"id": n, "origin": f"http://127.0.0.1:{self._port[0]}/{prompt}/{n}.bin"} for n in range(self._files)
            ]
            data = {"promptId": prompt, "state": 30, "imageList": images}
            self._send(json.dumps({"code": 200, "msg": "SUCCESS", "data": data}).encode())
        elif parts.path == "/sent":
            self._send(str(Connection.sent).encode())
        else:
            asked = ""
            for line in head.split("\r\n")[1:]:
                if line.lower().startswith("range: bytes="):
                    asked = line.split("=")[1]
            self._send_file(target, asked)

    def _send(self, body: bytes) -> None:
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    def _send_file(self, target: str, asked: str) -> None:
        size = size_of(target, *self._sizes)
        first, _, last = asked.partition("-")
        start, stop = int(first or 0), min(size, int(last or size) + 1)
        etag = hashlib.sha256(target.encode()).hexdigest()[:32]
        status = "206 Partial Content" if asked else "200 OK"
        ranged = f"Content-Range: bytes {start}-{stop - 1}/{size}\r\n" if asked else ""
        head = (
            f"HTTP/1.1 {status}\r\nContent-Length: {stop - start}\r\n{ranged}"
            f'ETag: "{etag}"\r\nAccept-Ranges: bytes\r\nContent-Type: video/mp4\r\n\r\n'
        ).encode()
        if stop - start <= _PIECE:
            Connection.sent += stop - start
            self._transport.write(head + content(target, start, stop))
            return
        self._transport.write(head)
        self._writing = asyncio.get_running_loop().create_task(self._stream(target, start, stop))

    async def _stream(self, target: str, at: int, stop: int) -> None:
        number = zlib.crc32(target.encode()) % 1000
        while at < stop and not self._transport.is_closing():
            await self._room.wait()
            data = piece(number, at, min(_PIECE, stop - at))
            self._transport.write(data)
            at += len(data)
            Connection.sent += len(data)


async def main() -> None:
    """Serve until stdin closes."""
    _prompts, files, size, *rest = map(int, sys.argv[1:5])
    sizes = (size, rest[0] if rest else size)
    loop = asyncio.get_running_loop()
    port: list[int] = []
    server = await loop.create_server(lambda: Connection(files, sizes, port), "127.0.0.1", 0, backlog=1024)
    port.append(server.sockets[0].getsockname()[1])
    print(port[0], flush=True)
    await loop.run_in_executor(None, sys.stdin.buffer.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
