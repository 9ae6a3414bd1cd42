"""What comes over TLS is taken by the event loop and by another thread in turn: each byte by one of them, in order."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import socket
import ssl
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from mirror.h1.tls import Tls
from tests.rekeying import key_updates, tickets
from tests.s3.tls import Certificate, certificate
from tests.speaker import Script, Speaker, speaking
from tests.wire import until, waiting

SENT = random.Random(2).randbytes(2_000_000)
T = TypeVar("T")


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("tls"))


class Taker(asyncio.BufferedProtocol):
    """Takes what comes in pieces of any size, and pauses after ``most`` of them."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.ends: list[Exception | None] = []
        self.most = 0
        self.is_lost = asyncio.Event()
        self._buffer = memoryview(bytearray(100_000))
        self._random = random.Random(3)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, Tls)
        self.tls = transport
        transport.pause_reading()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer[: self._random.choice([1, 5, 1000, 16_384, 100_000])]

    def buffer_updated(self, nbytes: int) -> None:
        self.got += self._buffer[:nbytes]
        self.most -= 1
        if self.most <= 0:
            self.tls.pause_reading()

    def eof_received(self) -> None:
        self.ends.append(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost.set()
        if exc is not None:
            self.ends.append(exc)

    def take(self, pieces: int) -> None:
        self.most = pieces
        self.tls.resume_reading()


def run(main: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(main, 60), debug=True)


@contextlib.asynccontextmanager
async def taking(local: Certificate, script: Script, context: ssl.SSLContext | None = None) -> AsyncIterator[Taker]:
    """Connected to a server that runs this script, and paused."""
    trusting = ssl.create_default_context(cafile=local.ca_file)
    async with speaking(context or local.server_context(), script) as server:
        sock = socket.create_connection(("127.0.0.1", server.port))
        sock.setblocking(False)
        taker = Taker()
        tls = Tls(taker, trusting, "localhost")
        await tls.open(sock)
        try:
            yield taker
        finally:
            tls.abort()
            await taker.is_lost.wait()


async def received(taker: Taker, size: int) -> int | None:
    """By another thread, so many bytes at most."""
    view = memoryview(bytearray(size))
    got = await asyncio.to_thread(taker.tls.receive, view)
    taker.got += view[: got or 0]
    return got


async def awaited(taker: Taker, size: int) -> int:
    """The same, once there is something."""
    while (got := await received(taker, size)) is None:
        await asyncio.sleep(0)
    return got


@pytest.mark.parametrize("goodbye", [True, False])
@pytest.mark.parametrize("record", [10, 1000, 1 << 20])
def test_the_loop_and_a_thread_in_turn(local: Certificate, record: int, *, goodbye: bool) -> None:
    sent = SENT[: record * 5000]

    async def script(speaker: Speaker) -> None:
        for at in range(0, len(sent), 100_000):
            part = sent[at : at + 100_000]
            await speaker.peer.send(speaker.words(*(part[n : n + record] for n in range(0, len(part), record))))
        await speaker.peer.send(speaker.goodbye() if goodbye else b"")

    async def main() -> None:
        chance = random.Random(4)
        async with taking(local, script) as taker:
            while len(taker.got) < len(sent):
                if chance.random() < 0.5:
                    before = len(taker.got)
                    taker.take(chance.randrange(1, 5))
                    while taker.most > 0:
                        await asyncio.sleep(0)
                        if len(taker.got) == len(sent):
                            break
                    assert len(taker.got) > before
                else:
                    await received(taker, chance.choice([1, 100, 5_000, 300_000]))
                assert taker.got == sent[: len(taker.got)]
            taker.take(2)
            await taker.is_lost.wait()
            assert [type(end) for end in taker.ends] == [type(None) if goodbye else EOFError]

    run(main())


@pytest.mark.parametrize("end", ["said", "cut", "reset", "forged"])
def test_an_end_that_a_thread_finds_is_told_by_the_loop(local: Certificate, end: str) -> None:
    async def script(speaker: Speaker) -> None:
        sent = bytearray(speaker.words(SENT[:50_000], b"abc"))
        if end == "forged":
            sent[-1] ^= 1
        await speaker.peer.send(bytes(sent) + (speaker.goodbye() if end == "said" else b""))
        if end == "reset":
            await seen.wait()
            sock: socket.socket = speaker.peer.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            speaker.peer.reset()

    async def main() -> None:
        whole = SENT[:50_000] + (b"" if end == "forged" else b"abc")
        async with taking(local, script) as taker:
            while len(taker.got) < len(whole):
                got = await received(taker, 20_000)
                assert got != 0
            assert taker.got == whole
            seen.set()
            for _ in range(2):
                told = {"reset": pytest.raises(ConnectionResetError), "forged": pytest.raises(ssl.SSLError)}
                with told.get(end, contextlib.nullcontext()):
                    assert await awaited(taker, 10) == 0
            assert taker.ends == []
            assert taker.tls.get_extra_info("unread")
            taker.take(1)
            await taker.is_lost.wait()
            kinds = {"said": type(None), "cut": EOFError, "reset": ConnectionResetError, "forged": ssl.SSLError}
            assert [type(each) for each in taker.ends] == [kinds[end]]

    seen = asyncio.Event()
    run(main())


def test_nothing_is_here_yet(local: Certificate) -> None:
    async def script(speaker: Speaker) -> None:
        await asked.wait()
        words = speaker.words(b"abcdef")
        await speaker.peer.send(words[:10])
        await half.wait()
        await speaker.peer.send(words[10:])
        await speaker.peer.closed()

    async def main() -> None:
        async with taking(local, script) as taker:
            assert await received(taker, 10) is None
            asked.set()
            await asyncio.sleep(0.02)
            assert await received(taker, 10) is None
            half.set()
            assert await awaited(taker, 4) == 4
            assert taker.tls.get_extra_info("unread"), "it must not be taken for a connection on which nothing came"
            assert await received(taker, 4) == 2
            assert await received(taker, 4) is None
            assert not taker.tls.get_extra_info("unread")
            assert taker.got == b"abcdef"

    asked, half = asyncio.Event(), asyncio.Event()
    run(main())


def test_what_is_paused_stays_so_however_often_that_changes(local: Certificate) -> None:
    """Reading is resumed in the loop's next turn. Who has paused it again until then may lend it to a thread."""

    async def script(speaker: Speaker) -> None:
        await speaker.peer.send(speaker.words(SENT[:100_000]))
        await speaker.peer.closed()

    async def main() -> None:
        async with taking(local, script) as taker:
            while not taker.got:
                await received(taker, 1)
            taker.take(100)
            taker.tls.pause_reading()
            taker.tls.resume_reading()
            taker.tls.pause_reading()
            await asyncio.sleep(0.02)
            assert len(taker.got) == 1
            taker.take(1000)
            while len(taker.got) < 100_000:
                await asyncio.sleep(0)
            assert taker.got == SENT[:100_000]

    run(main())


@pytest.mark.parametrize("first", ["client", "server"])
def test_a_connection_that_is_closed_says_so(local: Certificate, first: str) -> None:
    heard: list[bytes] = []

    async def script(speaker: Speaker) -> None:
        if first == "server":
            await speaker.peer.send(speaker.goodbye())
        while data := await speaker.read():
            heard.append(data)
        heard.append(b"the end")

    async def main() -> None:
        async with taking(local, script) as taker:
            if first == "client":
                taker.tls.write(b"ab")
                taker.tls.close()
            else:
                taker.take(1)
            await taker.is_lost.wait()
            await until(lambda: heard[-1:] == [b"the end"])

    run(main())
    assert heard == [*([b"ab"] if first == "client" else []), b"the end"]


@pytest.mark.parametrize("who", ["loop", "thread"])
def test_a_server_that_makes_us_answer_without_end(local: Certificate, tmp_path: Path, who: str) -> None:
    """Each of its messages asks for new keys of ours, and it takes none of them: they must not pile up here."""
    context = local.server_context()
    context.num_tickets = 0
    context.keylog_filename = str(tmp_path / "keys")

    async def script(speaker: Speaker) -> None:
        speaker.peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await speaker.peer.send(b"".join(itertools.islice(key_updates(tmp_path / "keys"), 20_000)))
        await over.wait()

    async def main() -> None:
        async with taking(local, script, context) as taker:
            taker.tls.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
            if who == "thread":
                with pytest.raises(ConnectionAbortedError):
                    await awaited(taker, 1)
            taker.take(1)
            await taker.is_lost.wait()
            over.set()
            assert [type(each) for each in taker.ends] == [ConnectionAbortedError]
            assert taker.got == b""

    over = asyncio.Event()
    run(main())


def test_what_is_no_body_holds_no_thread(local: Certificate, tmp_path: Path) -> None:
    """Tickets without end are none of the reader's: a thread takes a buffer full of them, and goes back."""
    context = local.server_context()
    context.num_tickets = 0
    context.keylog_filename = str(tmp_path / "keys")
    sent, over = asyncio.Event(), asyncio.Event()

    async def script(speaker: Speaker) -> None:
        await speaker.peer.send(b"".join(itertools.islice(tickets(tmp_path / "keys"), 21)))
        sent.set()
        await over.wait()

    async def main() -> None:
        async with taking(local, script, context) as taker:
            sock = taker.tls.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            await sent.wait()
            while waiting(sock.fileno()) < 330_000:  # all that comes
                await asyncio.sleep(0.01)
            assert await received(taker, 1000) is None
            assert waiting(sock.fileno()) > 0
            over.set()

    run(main())
