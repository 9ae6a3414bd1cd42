"""An origin for a crowd: it holds the bodies of very many requests open until all have come, then lets them flow."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

from tests import media

_PIECE = 64 << 10


class Crowd:
    """Serves prompts of one film each from one event loop in a thread: `with Crowd(1000, size, first) as crowd: …`.

    Each film's first bytes are sent, and the others once `count` requests for films are under way at the same time.
    `most` is how many there were at once.
    """

    def __init__(self, count: int, size: int, first: int) -> None:
        self.most = 0
        self.token = "crowd-token"
        self.film = media.mp4(size)
        self._count = count
        self._first = first
        self._held = 0
        self._listening = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="crowd")

    def __enter__(self) -> Self:
        self._thread.start()
        self._listening.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._closed.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._closed, self._go_on = asyncio.Event(), asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._begin, "127.0.0.1", 0, backlog=2048)
        self.api_url = self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._listening.set()
        async with server:
            await self._closed.wait()
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._converse(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while True:
                    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                    await self._answer(urlsplit(head.split(" ", 2)[1]).path, head, writer)
        finally:
            writer.close()

    async def _answer(self, path: str, head: str, writer: asyncio.StreamWriter) -> None:
        if path == "/getTaskInfo":
            prompt_id = parse_qs(urlsplit(head.split(" ", 2)[1]).query)["promptId"][0]
            images = [{"id": 1, "origin": f"{self.url}/{prompt_id}/film.mp4"}]
            data = {"promptId": prompt_id, "state": 30, "imageList": images}
            await self._send(writer, json.dumps({"code": 200, "msg": "SUCCESS", "data": data}).encode())
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nContent-Length: %d\r\n\r\n" % len(self.film))
        await self._send_span(writer, 0, self._first)
        self._held += 1
        self.most = max(self.most, self._held)
        if self._held >= self._count:
            self._go_on.set()
        try:
            await self._go_on.wait()
            await self._send_span(writer, self._first, len(self.film))
        finally:
            self._held -= 1

    async def _send(self, writer: asyncio.StreamWriter, body: bytes) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()

    async def _send_span(self, writer: asyncio.StreamWriter, first: int, end: int) -> None:
        for at in range(first, end, _PIECE):
            writer.write(memoryview(self.film)[at : min(end, at + _PIECE)])
            await writer.drain()
