"""A service that is not the bottleneck: tasks and media of any size, from memory, over one process's event loop.

Started with `python -m tests.bench.origin PROMPTS FILES SIZE`: each prompt has so many originals of that size, each
with its own bytes and a strong ETag. Prints its port and ends when stdin closes. `GET /sent` tells the bytes it sent.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from urllib.parse import parse_qs, urlsplit

_PIECE = 256 << 10
_PATTERN = hashlib.shake_256(b"bench").digest(_PIECE * 4)


def piece(number: int, at: int, size: int) -> bytes:
    """The bytes of a file from an offset on; a piece's content depends on file and place."""
    start = (number * 7919 + at) % (len(_PATTERN) // 2)
    return _PATTERN[start : start + min(size, len(_PATTERN) - start)]


class Connection(asyncio.Protocol):
    """HTTP/1.1, keep-alive, GET only, with Range."""

    sent = 0

    def __init__(self, prompts: int, files: int, size: int, port: list[int]) -> None:
        self._prompts, self._files, self._size, self._port = prompts, files, size, port
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
            start = 0
            for line in head.split("\r\n")[1:]:
                if line.lower().startswith("range: bytes="):
                    start = int(line.split("=")[1].split("-")[0])
            self._send_file(target, start)

    def _send(self, body: bytes) -> None:
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    def _send_file(self, target: str, start: int) -> None:
        number = hash(target) % 1000
        etag = hashlib.sha256(target.encode()).hexdigest()[:32]
        status = "206 Partial Content" if start else "200 OK"
        ranged = f"Content-Range: bytes {start}-{self._size - 1}/{self._size}\r\n" if start else ""
        head = (
            f"HTTP/1.1 {status}\r\nContent-Length: {self._size - start}\r\n{ranged}"
            f'ETag: "{etag}"\r\nAccept-Ranges: bytes\r\nContent-Type: video/mp4\r\n\r\n'
        ).encode()
        if self._size - start <= _PIECE:
            Connection.sent += self._size - start
            self._transport.write(head + self._content(number, start, self._size))
            return
        self._transport.write(head)
        self._writing = asyncio.get_running_loop().create_task(self._stream(number, start))

    def _content(self, number: int, start: int, stop: int) -> bytes:
        found = b""
        while start + len(found) < stop:
            found += piece(number, start + len(found), stop - start - len(found))
        return found

    async def _stream(self, number: int, at: int) -> None:
        while at < self._size:
            await self._room.wait()
            data = piece(number, at, min(_PIECE, self._size - at))
            self._transport.write(data)
            at += len(data)
            Connection.sent += len(data)


async def main() -> None:
    """Serve until stdin closes."""
    prompts, files, size = map(int, sys.argv[1:4])
    loop = asyncio.get_running_loop()
    port: list[int] = []
    server = await loop.create_server(lambda: Connection(prompts, files, size, port), "127.0.0.1", 0, backlog=1024)
    port.append(server.sockets[0].getsockname()[1])
    print(port[0], flush=True)
    await loop.run_in_executor(None, sys.stdin.buffer.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
