"""Bodies that go out on our own carrier: whole, as long as somebody takes them, and no further than an answer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import pytest

from mirror.h1 import Broken, Stalled, WireError, outgoing
from mirror.h1.connection import Place
from mirror.h1.head import common_lines, request
from mirror.h1.outgoing import Body
from mirror.h1.pool import Patience, Pool
from mirror.stores.workers import Workers

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
LARGE = bytes(range(256)) * (80 << 10)  # 20 MiB: more than the sockets hold

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Counts its connections, and keeps the bodies that came whole."""

    def __init__(self, serve: Serve | None = None) -> None:
        self.connections = 0
        self.ended = asyncio.Event()
        self.bodies: list[bytes] = []
        self._serve = serve or self._take_all
        self._writers: list[asyncio.StreamWriter] = []

    async def take(self, reader: asyncio.StreamReader) -> bool:
        """One request, if there is one more."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"Content-Length: (\d+)", head)
            self.bodies.append(await reader.readexactly(int(length[1]) if length else 0))
        except (asyncio.IncompleteReadError, ConnectionError):
            return False
        return True

    async def _take_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await self.take(reader):
            writer.write(OK)

    async def _met(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        try:
            with contextlib.suppress(ConnectionError):
                await self._serve(reader, writer)
        finally:
            writer.close()
            self.ended.set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Place]:
        server = await asyncio.start_server(self._met, "127.0.0.1", 0)
        try:
            yield Place("127.0.0.1", server.sockets[0].getsockname()[1], is_tls=False)
        finally:
            server.close()
            for writer in self._writers:
                writer.transport.abort()
            await asyncio.sleep(0)


def no_tls() -> ssl.SSLContext:
    raise AssertionError("nobody asked for TLS")


@contextlib.asynccontextmanager
async def pool(stall: float = 60) -> AsyncIterator[Pool]:
    made = Pool(Patience(30, stall), no_tls)
    try:
        yield made
    finally:
        await made.close()


class OnDisk:
    """An OpenFile. ``read`` counts what did not go from the disk to the socket in the kernel."""

    def __init__(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        self.path = path
        self.fd = os.open(path, os.O_RDONLY)
        self.size = len(content)
        self.blocks = 0
        self._workers = Workers(2, "test")

    async def read(self, at: int, size: int) -> bytes:
        self.blocks += 1
        block = os.pread(self.fd, size, at)
        if not block:
            raise EOFError(f"it ends before {at}")
        return block

    def run(self, call: Callable[[], int]) -> Awaitable[int]:
        return self._workers.start(call)

    def close(self) -> None:
        os.close(self.fd)
        self._workers.close()


Store = Callable[[bytes], "Sequence[bytes | memoryview] | OnDisk"]


@pytest.fixture(params=["at hand", "on disk"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Makes a body's content of bytes."""
    with contextlib.ExitStack() as closing:

        def make(content: bytes) -> Sequence[bytes | memoryview] | OnDisk:
            if request.param == "at hand":
                return [content]
            return closing.enter_context(contextlib.closing(OnDisk(tmp_path / "file", content)))

        yield make


class Sent:
    """How far a body went, and how often it began."""

    def __init__(self) -> None:
        self.upto = 0
        self.times = 0

    def __call__(self, upto: int) -> None:
        assert upto > self.upto or not upto
        self.times += not upto
        self.upto = upto


async def put(
    pool: Pool,
    place: Place,
    content: Sequence[bytes | memoryview] | OnDisk,
    sent: Callable[[int], None] = lambda _: None,
) -> tuple[int, bytes]:
    size = content.size if isinstance(content, OnDisk) else sum(map(len, content))
    head = request("/k", common_lines("h", {}), {"Content-Length": str(size)}, method="PUT")
    answer = await pool.get(place, head, Body(content, size, sent))
    body = b""
    while piece := await answer.read():
        body += piece
    answer.close()
    return answer.status, body


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [b"small"],
        [b"a", memoryview(b"bcd")[1:], b""],
        [LARGE],
        [LARGE[:300_000], memoryview(LARGE)[300_000:1_000_000], bytearray(LARGE[1_000_000:])],
    ],
    ids=["empty", "small", "small ones", "large", "large ones"],
)
def test_a_body_comes_there_as_it_is(pieces: list[bytes | memoryview]) -> None:
    async def run() -> None:
        server, sent = Server(), Sent()
        async with server.running() as place, pool() as ours:
            for _ in range(2):
                assert await put(ours, place, pieces, sent) == (200, b"")
        whole = b"".join(pieces)
        assert server.bodies == [whole] * 2
        assert sent.upto == len(whole)
        assert sent.times == 2 or not whole
        assert server.connections == 1, "it is used again"

    asyncio.run(run())


@pytest.mark.parametrize("size", [1, 300_000, len(LARGE)])
def test_a_file_comes_there_as_it_is(tmp_path: Path, size: int) -> None:
    async def run(file: OnDisk) -> None:
        server, sent = Server(), Sent()
        async with server.running() as place, pool() as ours:
            for _ in range(2):
                assert await put(ours, place, file, sent) == (200, b"")
        assert server.bodies == [LARGE[:size]] * 2
        assert file.blocks * (1 << 20) < 2 * size, "the kernel takes some of it"
        assert (sent.upto, sent.times) == (size, 2)
        assert server.connections == 1, "it is used again"

    with contextlib.closing(OnDisk(tmp_path / "file", LARGE[:size])) as file:
        asyncio.run(run(file))


def test_a_file_for_a_slow_reader_comes_there_as_it_is(tmp_path: Path) -> None:
    """The kernel takes what it can; what it does not take at once goes the usual way, and nothing twice."""

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        while len(came) < len(LARGE):
            came.extend(await reader.read(1 << 20))
            await asyncio.sleep(0.02)
        writer.write(OK)

    async def run(file: OnDisk) -> None:
        async with Server(slowly).running() as place, pool() as ours:
            assert await put(ours, place, file) == (200, b"")

    came = bytearray()
    with contextlib.closing(OnDisk(tmp_path / "file", LARGE)) as file:
        asyncio.run(run(file))
    assert came == LARGE
    assert 0 < file.blocks < 20, "some of it waited, and some did not"


def test_a_file_that_became_shorter_is_its_owners_error(tmp_path: Path) -> None:
    """Neither a request without an end nor one that is filled up with something."""

    async def run(file: OnDisk) -> None:
        os.truncate(file.path, 3 << 20)
        server = Server()
        async with server.running() as place, pool() as ours:
            with pytest.raises(EOFError):
                await put(ours, place, file)
            await asyncio.wait_for(server.ended.wait(), 60)
            file.size = 3 << 20
            assert await put(ours, place, file) == (200, b"")
        assert server.bodies == [LARGE[: 3 << 20]]
        assert server.connections == 2, "a connection that has half a request is used no more"

    with contextlib.closing(OnDisk(tmp_path / "file", LARGE)) as file:
        asyncio.run(run(file))


def test_an_answer_before_the_bodys_end_is_the_answer(store: Store) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        await writer.drain()
        await asyncio.sleep(60)

    async def run() -> None:
        server, sent = Server(refuse), Sent()
        async with server.running() as place, pool() as ours:
            for _ in range(2):
                assert await put(ours, place, store(LARGE), sent) == (403, b"no")
        assert 0 < sent.upto < len(LARGE)
        assert server.connections == 2, "the rest of a body was on its way: used no more"

    asyncio.run(run())


def test_who_takes_nothing_is_given_up(store: Store) -> None:
    async def stop(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(writer.transport, asyncio.ReadTransport)
        writer.transport.pause_reading()
        await asyncio.sleep(60)

    async def run() -> None:
        sent = Sent()
        async with Server(stop).running() as place, pool(stall=0.2) as ours:
            with pytest.raises(Stalled):
                await put(ours, place, store(LARGE), sent)
        assert sent.upto < len(LARGE)

    asyncio.run(run())


def test_who_takes_all_and_says_nothing_is_given_up(store: Store) -> None:
    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1 << 20):
            pass

    async def run() -> None:
        async with Server(listen).running() as place, pool(stall=0.2) as ours:
            for body in (b"small", LARGE):
                with pytest.raises(Stalled):
                    await put(ours, place, store(body))

    asyncio.run(run())


@pytest.mark.parametrize("body", [b"small", LARGE], ids=["small", "large"])
def test_a_connection_that_ended_meanwhile_is_replaced(body: bytes, store: Store) -> None:
    async def run() -> None:
        server, sent = Server(), Sent()

        async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            """The first connection takes a request more than it answers."""
            if await server.take(reader):
                writer.write(OK)
                if server.connections == 1:
                    await reader.read(1)
                else:
                    await server.take(reader)

        server._serve = once
        async with server.running() as place, pool() as ours:
            assert (await put(ours, place, [b"first"]))[0] == 200
            assert (await put(ours, place, store(body), sent))[0] == 200
        assert server.bodies == [b"first", body]
        assert sent.upto == len(body), "what the first connection took is not told of on top"
        assert server.connections == 2

    asyncio.run(run())


def test_an_end_within_the_body_is_an_error(store: Store) -> None:
    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(100_000)
        writer.transport.abort()

    async def run() -> None:
        async with Server(leave).running() as place, pool() as ours:
            with pytest.raises(Broken):
                await put(ours, place, store(LARGE))

    asyncio.run(run())


def test_who_is_cancelled_leaves_no_connection(store: Store) -> None:
    async def run() -> None:
        over = asyncio.Event()

        async def stop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            transport = writer.transport
            assert isinstance(transport, asyncio.ReadTransport)
            transport.pause_reading()
            await over.wait()
            transport.resume_reading()
            with contextlib.suppress(ConnectionError):
                while await reader.read(1 << 20):
                    pass
            gone.set()

        begun, gone = asyncio.Event(), asyncio.Event()
        async with Server(stop).running() as place, pool() as ours:
            task = asyncio.create_task(put(ours, place, store(LARGE), lambda _: begun.set()))
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            over.set()
            await asyncio.wait_for(gone.wait(), 60)

    asyncio.run(run())


class Held(OnDisk):
    """An OpenFile whose thread has the socket, and waits with it until it is let go."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, LARGE)
        self.has_socket = asyncio.Event()
        self.go = threading.Event()
        self.poured = -1

    def run(self, call: Callable[[], int]) -> Awaitable[int]:
        loop = asyncio.get_running_loop()

        def held() -> int:
            loop.call_soon_threadsafe(self.has_socket.set)
            assert self.go.wait(60)
            self.poured = call()
            return self.poured

        return super().run(held)


@pytest.mark.parametrize("how", ["the task is cancelled", "the pool is closed"])
def test_a_socket_is_closed_only_when_the_thread_has_given_it_back(tmp_path: Path, how: str) -> None:
    """Its number could be another file's by then, and that would get the bytes."""

    async def run() -> None:
        server = Server()
        async with server.running() as place, pool() as ours:
            with contextlib.closing(Held(tmp_path / "file")) as file:
                task = asyncio.create_task(put(ours, place, file))
                await file.has_socket.wait()
                closing = None
                if how == "the task is cancelled":
                    task.cancel()
                else:
                    closing = asyncio.create_task(ours.close())
                await asyncio.sleep(0.2)
                assert not task.done()
                assert closing is None or not closing.done()
                assert not server.ended.is_set(), "the thread still has it"
                file.go.set()
                with pytest.raises(asyncio.CancelledError if closing is None else WireError):
                    await task
                if closing is not None:
                    await closing
                assert file.poured == 0, "and it sends nothing more"
                await asyncio.wait_for(server.ended.wait(), 60)
        assert server.bodies == []

    asyncio.run(run())


def test_where_the_kernel_sends_no_files_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(file: OnDisk) -> None:
        server, sent = Server(), Sent()
        async with server.running() as place, pool() as ours:
            assert await put(ours, place, file, sent) == (200, b"")
        assert server.bodies == [LARGE]
        assert (sent.upto, sent.times) == (len(LARGE), 1)
        assert file.blocks == len(LARGE) >> 20

    monkeypatch.setattr(outgoing, "_sendfile", None)  # a system without the call
    with contextlib.closing(OnDisk(tmp_path / "file", LARGE)) as file:
        asyncio.run(run(file))
