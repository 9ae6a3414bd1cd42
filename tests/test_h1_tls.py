"""TLS under an exchange: what comes is the same however it is cut, and an end is one only if the other side says so.

What becomes of the bytes in other threads is in ``test_h1_receive``.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import shutil
import socket
import ssl
import subprocess
import warnings
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest

from mirror.h1 import BadCertificate, Broken, CannotConnect, ConnectTimeout, CutShort
from mirror.h1.connection import Place
from mirror.h1.head import common_lines, request
from mirror.h1.outgoing import Body
from mirror.h1.pool import Patience
from mirror.trust import Trust
from tests.s3.tls import Certificate, certificate
from tests.speaker import Script, Speaker, speaking
from tests.wire import Peer, carrying, fetched, get, serving, until, waiting

OK = b"HTTP/1.1 200 OK\r\n"
FIVE = OK + b"Content-Length: 5\r\n\r\nabcde"
CHUNKS = OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n"
UNTIL_CLOSE = OK + b"\r\nabcde"
LARGE = random.Random(1).randbytes(3_000_000)
LONG = OK + b"Content-Length: %d\r\n\r\n" % len(LARGE) + LARGE

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """In asyncio's debug mode, and not for ever."""
    return asyncio.run(asyncio.wait_for(main, 60), debug=True)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def trusting(local: Certificate) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=local.ca_file)


def sending(*parts: bytes, goodbye: bool) -> Script:
    async def script(speaker: Speaker) -> None:
        await speaker.request()
        await speaker.peer.send(speaker.words(*parts) + (speaker.goodbye() if goodbye else b""))

    return script


def open_files() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


@pytest.fixture
def _nothing_leaks() -> Iterator[None]:
    """No socket is left open, nor found so by the collector."""
    gc.collect()  # what others left is none of ours
    before = open_files()
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        yield
        gc.collect()
    assert open_files() == before


@pytest.mark.usefixtures("_nothing_leaks")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("goodbye", [True, False])
@pytest.mark.parametrize(
    ("answer", "is_framed"),
    [(FIVE, True), (CHUNKS, True), (LONG, True), (UNTIL_CLOSE, False), (OK + b"\r\n" + LARGE, False)],
    ids=["length", "chunks", "long", "end", "long, end"],
)
def test_the_end_of_the_connection_ends_a_body_only_if_it_was_said(
    local: Certificate,
    trusting: ssl.SSLContext,
    version: ssl.TLSVersion,
    answer: bytes,
    *,
    is_framed: bool,
    goodbye: bool,
) -> None:
    trusting.minimum_version = trusting.maximum_version = version
    body = LARGE if len(answer) > 1000 else b"abcde"

    async def main() -> None:
        script = sending(answer, goodbye=goodbye)
        async with (
            speaking(local.server_context(), script) as server,
            carrying(trust=lambda: trusting) as pool,
        ):
            found = await pool.get(server.place("localhost", tls=True), get())
            got = bytearray()
            with contextlib.nullcontext() if is_framed or goodbye else pytest.raises(CutShort):
                while piece := await found.read():
                    got += piece
                    await asyncio.sleep(0.001)  # what comes is more than is read: it has to be paused
            assert got == body, "also what came before an end that is none"
            found.close()

    run(main())


@pytest.mark.parametrize("goodbye", [True, False])
@pytest.mark.parametrize("answer", [FIVE, CHUNKS, LONG[: len(LONG) // 2]], ids=["length", "chunks", "long"])
def test_a_framed_body_that_is_cut_is_cut_whoever_says_so(
    local: Certificate, trusting: ssl.SSLContext, answer: bytes, *, goodbye: bool
) -> None:
    async def main() -> None:
        script = sending(answer[:-1], goodbye=goodbye)
        async with speaking(local.server_context(), script) as server, carrying(trust=lambda: trusting) as pool:
            with pytest.raises(CutShort):
                await fetched(pool, server.place("localhost", tls=True))

    run(main())


@pytest.mark.parametrize("goodbye", [True, False])
def test_an_end_before_any_answer(local: Certificate, trusting: ssl.SSLContext, *, goodbye: bool) -> None:
    async def script(speaker: Speaker) -> None:
        await speaker.request()
        if speaker.peer.number == 1:
            await speaker.peer.send(speaker.words(FIVE))
            await speaker.request()
        await speaker.peer.send(speaker.goodbye() if goodbye else b"")

    async def main() -> None:
        async with speaking(local.server_context(), script) as server, carrying(trust=lambda: trusting) as pool:
            place = server.place("localhost", tls=True)
            assert await fetched(pool, place) == b"abcde"
            with pytest.raises(Broken, match="closed before an answer"):
                await fetched(pool, place)
            assert server.connections == 2, "the one that was used before is replaced, a new one is not"

    run(main())


@pytest.mark.parametrize(
    ("version", "answer"),
    [
        (ssl.TLSVersion.TLSv1_2, UNTIL_CLOSE),
        (ssl.TLSVersion.TLSv1_3, FIVE),
        (ssl.TLSVersion.TLSv1_3, CHUNKS),
        (ssl.TLSVersion.TLSv1_3, UNTIL_CLOSE),
    ],
    ids=["1.2 end", "length", "chunks", "end"],
)
def test_records_that_are_split_at_any_byte(
    local: Certificate, trusting: ssl.SSLContext, version: ssl.TLSVersion, answer: bytes
) -> None:
    trusting.minimum_version = trusting.maximum_version = version
    size = 0

    async def script(speaker: Speaker) -> None:
        nonlocal size
        await speaker.request()
        sent = speaker.words(answer[:20], answer[20:]) + speaker.goodbye()
        size, split = len(sent), speaker.peer.number
        await speaker.peer.send(sent[:split], sent[split:])

    async def main() -> None:
        async with speaking(local.server_context(), script) as server, carrying(trust=lambda: trusting) as pool:
            place = server.place("localhost", tls=True)
            assert await fetched(pool, place) == b"abcde"
            while server.connections < size:
                assert await fetched(pool, place) == b"abcde"

    run(main())


@pytest.mark.parametrize("version", VERSIONS)
def test_everything_byte_by_byte(local: Certificate, trusting: ssl.SSLContext, version: ssl.TLSVersion) -> None:
    trusting.minimum_version = trusting.maximum_version = version

    async def script(speaker: Speaker) -> None:
        await speaker.request()
        sent = speaker.words(UNTIL_CLOSE) + speaker.goodbye()
        await speaker.peer.send(*(sent[at : at + 1] for at in range(len(sent))))

    async def main() -> None:
        async with (
            speaking(local.server_context(), script, bytewise=True) as server,
            carrying(trust=lambda: trusting) as pool,
        ):
            assert await fetched(pool, server.place("localhost", tls=True)) == b"abcde"

    run(main())


@pytest.mark.parametrize("framing", ["length", "chunks", "end"])
def test_many_small_records(local: Certificate, trusting: ssl.SSLContext, framing: str) -> None:
    body = LARGE[:20_000]
    pieces = [body[at : at + 1 + at % 13] for at in range(len(body))]
    body = b"".join(pieces)
    match framing:
        case "length":
            parts = [OK, b"Content-Length: %d\r\n\r\n" % len(body), *pieces]
        case "chunks":
            parts = [OK, b"Transfer-Encoding: chunked\r\n\r\n", *(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces)]
            parts.append(b"0\r\n\r\n")
        case _:
            parts = [OK, b"\r\n", *pieces]

    async def main() -> None:
        script = sending(*parts, goodbye=True)
        async with speaking(local.server_context(), script) as server, carrying(trust=lambda: trusting) as pool:
            assert await fetched(pool, server.place("localhost", tls=True)) == body

    run(main())


@pytest.mark.parametrize(
    "parts",
    [
        [FIVE + b"H"],
        [FIVE, b"H"],
        [CHUNKS + b"H"],
        [CHUNKS, FIVE],
        [FIVE, OK + b"Content-Length: 6\r\n\r\nforged"],
        [FIVE, b"x" * 300_000],
    ],
    ids=range(6),
)
def test_what_follows_an_answer_is_not_the_next_one(
    local: Certificate, trusting: ssl.SSLContext, parts: list[bytes]
) -> None:
    async def script(speaker: Speaker) -> None:
        await speaker.request()
        await speaker.peer.send(speaker.words(*parts))
        await speaker.peer.closed()

    async def main() -> None:
        async with speaking(local.server_context(), script) as server, carrying(trust=lambda: trusting) as pool:
            for _ in range(2):
                assert await fetched(pool, server.place("localhost", tls=True)) == b"abcde"
            assert server.connections == 2

    run(main())


def test_a_record_that_was_tampered_with(local: Certificate, trusting: ssl.SSLContext) -> None:
    heard: list[Exception] = []

    async def script(speaker: Speaker) -> None:
        await speaker.request()
        sent = bytearray(speaker.words(OK + b"\r\nabc", b"def"))
        sent[-1] ^= 1
        await speaker.peer.send(bytes(sent))
        try:
            await speaker.read()
        except ssl.SSLError as error:
            heard.append(error)

    async def main() -> None:
        async with speaking(local.server_context(), script) as server, carrying(trust=lambda: trusting) as pool:
            answer = await pool.get(server.place("localhost", tls=True), get())
            assert await answer.read() == b"abc"
            with pytest.raises(CutShort):
                await answer.read()
            answer.close()
            await until(lambda: bool(heard))

    run(main())
    assert "alert" in str(heard[0]).lower(), "the other side is told"


# Hands that are not shaken --------------------------------------------------------------------


@pytest.mark.usefixtures("_nothing_leaks")
@pytest.mark.parametrize("sent", [b"", b"\0" * 100, b"HTTP/1.0 400 no\r\n\r\n", b"\x15\x03\x03\0\2\2\x28"])
def test_a_handshake_that_fails(trusting: ssl.SSLContext, sent: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.reader.read(1)
        await peer.send(sent)

    async def main() -> None:
        async with serving(script) as server, carrying(trust=lambda: trusting) as pool:
            with pytest.raises(CannotConnect) as failed:
                await fetched(pool, server.place("localhost", tls=True))
            assert failed.value.os_error.strerror

    run(main())


@pytest.mark.usefixtures("_nothing_leaks")
@pytest.mark.parametrize("reset", [False, True])
def test_a_handshake_that_is_cut_off(trusting: ssl.SSLContext, *, reset: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.reader.read(1 << 16)
        await peer.send(b"\x16\x03\x03\x02\0\2")
        if reset:
            sock: socket.socket = peer.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            peer.reset()

    async def main() -> None:
        async with serving(script) as server, carrying(trust=lambda: trusting) as pool:
            with pytest.raises(CannotConnect):
                await fetched(pool, server.place("localhost", tls=True))

    run(main())


@pytest.mark.usefixtures("_nothing_leaks")
def test_a_handshake_that_is_never_answered(trusting: ssl.SSLContext) -> None:
    async def main() -> None:
        async with (
            serving(lambda peer: peer.closed()) as server,
            carrying(Patience(0.1, 30), lambda: trusting) as pool,
        ):
            with pytest.raises(ConnectTimeout):
                await fetched(pool, server.place("localhost", tls=True))
            while server.open:
                await asyncio.sleep(0.01)

    run(main())


@pytest.mark.usefixtures("_nothing_leaks")
@pytest.mark.parametrize("turns", range(8))
def test_a_handshake_that_is_cancelled_closes_its_socket(
    local: Certificate, trusting: ssl.SSLContext, turns: int
) -> None:
    async def main() -> None:
        async with speaking(local.server_context(), lambda speaker: speaker.peer.closed()) as server:
            place = server.place("localhost", tls=True)
            async with carrying(trust=lambda: trusting) as pool:
                asking = asyncio.ensure_future(pool.get(place, get()))
                while not server.connections:
                    await asyncio.sleep(0)
                for _ in range(turns):
                    await asyncio.sleep(0)
                asking.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asking
            while server.open:
                await asyncio.sleep(0.01)

    run(main())


@pytest.mark.usefixtures("_nothing_leaks")
@pytest.mark.parametrize("flaw", ["name", "age", "authority"])
def test_a_certificate_that_is_not_valid(
    local: Certificate, tmp_path: Path, trusting: ssl.SSLContext, flaw: str
) -> None:
    heard: list[Exception] = []
    shown = certificate(tmp_path / "shown", age=3 if flaw == "age" else 0, host="a" if flaw == "name" else "localhost")
    if flaw != "authority":
        trusting.load_verify_locations(cafile=shown.ca_file)

    async def script(peer: Peer) -> None:
        speaker = Speaker(peer, shown.server_context())
        try:
            await speaker.shake()
            await speaker.read()
        except ssl.SSLError as error:
            heard.append(error)

    async def main() -> None:
        async with serving(script) as server, carrying(trust=lambda: trusting) as pool:
            with pytest.raises(BadCertificate, match="localhost") as failed:
                await fetched(pool, server.place("localhost", tls=True))
            assert isinstance(failed.value.reason, ssl.SSLCertVerificationError)
            while server.open:
                await asyncio.sleep(0.01)

    run(main())
    assert "alert" in str(heard[0]).lower(), "the other side is told"


def test_a_name_that_no_certificate_can_be_for(trusting: ssl.SSLContext) -> None:
    async def main() -> None:
        async with carrying(trust=lambda: trusting) as pool:
            with pytest.raises(UnicodeError):
                await fetched(pool, Place("a" * 64 + ".invalid", 1, True))

    run(main())


# Out ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_a_large_body_goes_out_whole(local: Certificate, trusting: ssl.SSLContext, version: ssl.TLSVersion) -> None:
    trusting.minimum_version = trusting.maximum_version = version
    heads: list[bytes] = []
    told: list[int] = []
    body = bytearray()

    async def script(speaker: Speaker) -> None:
        data = b""
        for _ in range(2):
            while b"\r\n\r\n" not in data:
                data += await speaker.read()
            await asyncio.sleep(0.05)  # the client has to wait until we take it
            head, _, data = data.partition(b"\r\n\r\n")
            while len(data) < len(LARGE):
                data += await speaker.read()
            heads.append(head)
            body[:] = data
            data = b""
            await speaker.peer.send(speaker.words(FIVE))

    async def main() -> None:
        async with speaking(local.server_context(), script) as server, carrying(trust=lambda: trusting) as pool:
            place = server.place("localhost", tls=True)
            ways: list[list[bytes | memoryview]] = [[LARGE], [LARGE[:7], memoryview(LARGE)[7:100_000], LARGE[100_000:]]]
            for pieces in ways:
                lines = common_lines("localhost", {"Content-Length": str(len(LARGE))})
                body.clear()
                answer = await pool.get(place, request("/", lines, {}), Body(pieces, len(LARGE), told.append))
                assert await answer.read() == b"abcde"
                answer.close()
                assert body == LARGE
            assert server.connections == 1

    run(main())
    assert told.count(len(LARGE)) == 2
    assert max(told) == told[-1] == len(LARGE)


OPENSSL = shutil.which("openssl")


class OpenSsl(NamedTuple):
    """Where it is, what it says, and both ends of the pipe by which it is told."""

    place: Place
    says: asyncio.StreamReader
    told: tuple[int, int]


@contextlib.asynccontextmanager
async def openssl(local: Certificate, version: str) -> AsyncIterator[OpenSsl]:
    """OpenSSL's own server, for one connection. What it is told it sends, unless that is a command."""
    told = os.pipe()
    server = await asyncio.create_subprocess_exec(
        *(str(OPENSSL), "s_server", "-accept", "127.0.0.1:0", version, "-crlf", "-naccept", "1"),
        *("-cert", str(local.cert_file), "-key", str(local.key_file)),
        stdin=told[0],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert server.stdout is not None
    try:
        await server.stdout.readuntil(b"ACCEPT 127.0.0.1:")
        yield OpenSsl(Place("localhost", int(await server.stdout.readline()), True), server.stdout, told)
    finally:
        with contextlib.suppress(ProcessLookupError):
            server.kill()
        await server.communicate()
        for end in told:
            os.close(end)


async def answered(server: OpenSsl, target: str, *rest: bytes) -> None:
    """Once this was asked for: a body that begins, and what comes after that, commands and the rest of it."""
    await server.says.readuntil(f"GET {target} ".encode())
    for line in (b"HTTP/1.1 200 OK\nContent-Length: 11\n", b"abc", *rest):
        await until(lambda: not waiting(server.told[0]))  # it looks for commands at the beginning of what it reads
        os.write(server.told[1], line + b"\n")


@pytest.mark.skipif(OPENSSL is None, reason="needs the command openssl")
@pytest.mark.parametrize("command", [b"k", b"K"])
def test_new_keys_in_the_middle_of_a_body(local: Certificate, command: bytes) -> None:
    """For what it sends; or for what we send, too. The request after it is the proof that it learned of ours."""

    async def main() -> None:
        async with openssl(local, "-tls1_3") as server, carrying(trust=trust.context) as pool:
            for target in ("/first", "/second", "/third"):
                answering = asyncio.ensure_future(answered(server, target, command, b"defg"))
                assert await fetched(pool, server.place, target) == b"abc\r\ndefg\r\n"
                await answering

    trust = Trust(str(local.ca_file))
    run(main())


@pytest.mark.skipif(OPENSSL is None, reason="needs the command openssl")
def test_a_new_handshake_in_the_middle_of_a_body_is_refused(local: Certificate) -> None:
    """The connection ends with that; the rest of the body, which might come before the refusal, is not sent."""

    async def main() -> None:
        async with openssl(local, "-tls1_2") as server, carrying(trust=trust.context) as pool:
            answering = asyncio.ensure_future(answered(server, "/", b"r"))
            with pytest.raises(CutShort):
                await fetched(pool, server.place)
            await answering

    trust = Trust(str(local.ca_file))
    run(main())
