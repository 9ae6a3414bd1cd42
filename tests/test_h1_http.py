"""The carrier as the program uses it: over TLS, and without aiohttp where no proxy asks for that."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mirror.h1 import BadCertificate, CannotConnect
from mirror.h1.body import BATCH
from mirror.h1.connection import Place
from mirror.h1.pool import Pool
from tests.conftest import Archive
from tests.helpers import done_prompt
from tests.origin import Origin
from tests.s3.tls import Certificate, certificate
from tests.wire import PATIENCE, Peer, carrying, fetched, get, serving, until

BODY = bytes(range(256)) * 5_000


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("tls"))


async def script(peer: Peer) -> None:
    """Answers for as long as it is asked."""
    while True:
        await peer.answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY)


def test_over_tls(local: Certificate) -> None:
    async def main() -> None:
        trusting = ssl.create_default_context(cafile=local.ca_file)
        async with serving(script, local.server_context()) as server, carrying(trust=lambda: trusting) as pool:
            for _ in range(2):
                assert await fetched(pool, server.place("localhost", tls=True)) == BODY
            assert server.connections == 1
            with pytest.raises(CannotConnect):
                await fetched(pool, server.place()._replace(port=1, is_tls=True))

    asyncio.run(main(), debug=True)


def test_an_authority_that_nobody_knows(local: Certificate) -> None:
    async def main() -> None:
        async with serving(script, local.server_context()) as server, carrying() as pool:
            with pytest.raises(BadCertificate, match="localhost"):
                await fetched(pool, server.place("localhost", tls=True))

    asyncio.run(main())


def test_no_tls_at_all() -> None:
    async def main() -> None:
        async with serving(lambda peer: peer.send(b"HTTP/1.0 400 no\r\n\r\n")) as server, carrying() as pool:
            with pytest.raises(CannotConnect):
                await fetched(pool, server.place(tls=True))

    asyncio.run(main())


@pytest.mark.parametrize("framing", ["the end of the connection", "chunks", "a length"])
def test_what_tls_has_decrypted_is_not_lost_at_the_end(local: Certificate, framing: str) -> None:
    """The server ends the connection behind the body, and the reader is slow: most of it is on our side by then."""
    body = BODY * 4
    answers = {
        "the end of the connection": b"HTTP/1.0 200 OK\r\n\r\n" + body,
        "chunks": b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
        "a length": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body,
    }

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            peer = local.server_context().wrap_socket(listener.accept()[0], server_side=True)
            with peer:
                peer.recv(4096)
                peer.sendall(answers[framing])
                if framing == "the end of the connection":
                    peer.unwrap()

    async def main() -> None:
        trusting = ssl.create_default_context(cafile=local.ca_file)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=serve, args=(listener,), daemon=True)
            thread.start()
            async with carrying(trust=lambda: trusting) as pool:
                place = Place("localhost", listener.getsockname()[1], True)
                answer = await pool.get(place, get())
                got = bytearray()
                while piece := await answer.read():
                    got += piece
                    await asyncio.sleep(0.002)
            thread.join(30)
        assert got == body

    asyncio.run(main())


def test_what_follows_an_answer_is_not_the_next_one() -> None:
    """It is still in the socket when the connection would be used again: the head and body fill a buffer to its end."""
    head = b"HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: %d\r\n\r\n"
    size = BATCH - len(head % 10_000)
    first = head % size + bytes(size)
    assert len(first) == BATCH

    async def script(peer: Peer) -> None:
        if peer.number == 1:
            await peer.answer(first + b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong")
            await peer.closed()
        await peer.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nright")

    async def main() -> None:
        async with serving(script) as server, carrying() as pool:
            answer = await pool.get(server.place(), get())
            answer.close()
            assert await fetched(pool, server.place()) == b"right"
            assert server.connections == 2

    asyncio.run(main())


def test_idle_connections_are_bounded() -> None:
    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            pool = Pool(PATIENCE, ssl.create_default_context, most_idle=3)
            stack.push_async_callback(pool.close)
            servers = [await stack.enter_async_context(serving(script)) for _ in range(5)]
            for server in servers:
                assert await fetched(pool, server.place()) == BODY
            await until(lambda: sum(server.open for server in servers) <= 3)
            assert [server.open for server in servers] == [0, 0, 1, 1, 1]
            assert await fetched(pool, servers[4].place()) == BODY
            assert servers[4].connections == 1

    asyncio.run(main())


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:99999", "http://[::1", "socks5://127.0.0.1:9", "://", "http://"])
def test_a_proxy_that_is_none_is_told_before_anything_starts(archive: Archive, origin: Origin, proxy: str) -> None:
    done_prompt(origin, "p", "a.png")
    done = archive.run("fetch", "p", environ={"http_proxy": proxy})
    assert done.code == 2
    assert "http_proxy: expected the URL of an HTTP proxy" in done.err
    assert origin.api_requests == []


@pytest.mark.parametrize("proxied", [False, True])
def test_a_fetch_imports_aiohttp_for_a_proxy_only(archive: Archive, origin: Origin, proxied: bool) -> None:
    done_prompt(origin, "p", "a.png")
    code = (
        "import sys; from mirror.cli import run; code = run(sys.argv[1:]); "
        "print('aiohttp' in sys.modules, 'urllib.request' in sys.modules); sys.exit(code)"
    )
    environ = {**archive.environment(), **({"http_proxy": origin.url} if proxied else {})}
    command = [sys.executable, "-c", code, "fetch", "p", "-q", "--root", str(archive.root)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split()[-2:] == [str(proxied)] * 2, done.stderr
    assert done.returncode == 0
    assert Path(archive.root, "p", "a.png").is_file()
