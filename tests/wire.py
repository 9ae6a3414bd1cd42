"""A server that sends scripted bytes, for what sends no sensible answers; and the carrier that asks it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import ssl
import sys
import termios
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from mirror.h1.answer import Answer
from mirror.h1.connection import Place
from mirror.h1.head import common_lines, request
from mirror.h1.pool import Patience, Pool

Script = Callable[["Peer"], Awaitable[None]]
PATIENCE = Patience(30, 30)


@dataclass
class Peer:
    """The server's end of one connection; ``number`` counts them from 1."""

    number: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    asked: list[bytes]

    async def request(self) -> bytes:
        """The next request's head, whole."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        self.asked.append(head)
        return head

    async def send(self, *pieces: bytes) -> None:
        """Each as a packet of its own, as far as loopback keeps them apart."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            if len(pieces) > 1:
                await asyncio.sleep(0)
                await asyncio.sleep(0)

    async def answer(self, *pieces: bytes) -> None:
        """Take a request, and send this."""
        await self.request()
        await self.send(*pieces)

    async def closed(self) -> None:
        """Until the client has closed."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(1 << 16):
                pass

    def reset(self) -> None:
        """End the connection as a machine does that knows nothing of it."""
        self.writer.transport.abort()


@dataclass
class Server:
    """What is asked, and over how many connections."""

    port: int = 0
    connections: int = 0
    open: int = 0
    asked: list[bytes] = field(default_factory=list)

    def place(self, host: str = "127.0.0.1", *, tls: bool = False) -> Place:
        return Place(host, self.port, tls)


@contextlib.asynccontextmanager
async def serving(script: Script, context: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Runs the script for each connection, and closes that at the script's end."""
    server = Server()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        server.open += 1
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await script(Peer(server.connections, reader, writer, server.asked))
        finally:
            server.open -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def start(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        task.add_done_callback(lambda _: writer.transport.abort())  # also if it never began

    listener = await asyncio.start_server(start, "127.0.0.1", 0, ssl=context)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        await asyncio.sleep(0.01)  # asyncio cannot take in what it has accepted once it listens no more
        listener.close()
        for task in [*tasks]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await listener.wait_closed()
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def carrying(
    patience: Patience = PATIENCE, trust: Callable[[], ssl.SSLContext] = ssl.create_default_context
) -> AsyncIterator[Pool]:
    pool = Pool(patience, trust)
    try:
        yield pool
    finally:
        await pool.close()


def get(target: str = "/") -> bytes:
    return request(target, common_lines("127.0.0.1", {}), {})


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what tasks of the other side are about to come to."""
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.01)


def waiting(fd: int) -> int:
    """Bytes that a socket or a pipe has to be read."""
    return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)


async def whole(answer: Answer) -> bytes:
    """The body, read to its end."""
    body = bytearray()
    while piece := await answer.read():
        body += piece
    return bytes(body)


async def fetched(pool: Pool, place: Place, target: str = "/") -> bytes:
    """The body of one answer."""
    answer = await pool.get(place, get(target))
    try:
        return await whole(answer)
    finally:
        answer.close()
