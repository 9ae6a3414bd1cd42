"""Exchanges over real sockets: whatever the framing and however the bytes come, the body is the same or an error."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.h1 import Broken, CannotConnect, CutShort, Stalled, Unreadable, WireError
from mirror.h1.answer import Answer
from mirror.h1.body import BATCH
from mirror.h1.connection import Connection, Place
from mirror.h1.head import LONGEST_HEAD
from mirror.h1.pool import Patience
from tests.properties import examples
from tests.wire import Peer, carrying, fetched, get, serving, whole

OK = b"HTTP/1.1 200 OK\r\n"
FIVE = OK + b"Content-Length: 5\r\n\r\nabcde"
CHUNKS = OK + b"Transfer-Encoding: chunked\r\n\r\n2;a=b\r\nab\r\n3\r\ncde\r\n0\r\nTrailer: x\r\n\r\n"
UNTIL_CLOSE = OK + b"\r\nabcde"
LARGE = bytes(range(256)) * 12_000
LONG = OK + b"Content-Length: %d\r\n\r\n" % len(LARGE) + LARGE

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """In asyncio's debug mode, and not for ever."""
    return asyncio.run(asyncio.wait_for(main, 60), debug=True)


def sending(*answers: bytes) -> Callable[[Peer], Awaitable[None]]:
    """One of these for each request, then the connection is closed."""

    async def script(peer: Peer) -> None:
        for each in answers:
            await peer.answer(each)

    return script


def asked_once(*answers: bytes) -> bytes:
    """The body that comes of these answers to one request."""

    async def main() -> bytes:
        async with serving(sending(*answers)) as server, carrying() as pool:
            return await fetched(pool, server.place())

    return run(main())


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (FIVE, b"abcde"),
        (CHUNKS, b"abcde"),
        (UNTIL_CLOSE, b"abcde"),
        (OK + b"Content-Length: 0\r\n\r\n", b""),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b""),
        (OK + b"\r\n", b""),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nabcde", b"abcde"),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", b""),
        (b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + FIVE, b"abcde"),
        (OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", b"a"),
        (FIVE + b"more", b"abcde"),
        (CHUNKS + b"more", b"abcde"),
        (LONG, LARGE),
        (OK + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(LARGE) + LARGE, LARGE),
        (OK + b"\r\n" + LARGE, LARGE),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(LARGE), LARGE), LARGE),
    ],
    ids=range(17),
)
def test_a_body(answer: bytes, body: bytes) -> None:
    assert asked_once(answer) == body


@pytest.mark.parametrize(
    "answer",
    [FIVE, CHUNKS, UNTIL_CLOSE, b"HTTP/1.1 100 Continue\r\n\r\n" + FIVE],
    ids=["length", "chunks", "end", "100"],
)
def test_an_answer_that_is_split_at_any_byte(answer: bytes) -> None:
    async def main() -> None:
        splits = iter(range(1, len(answer)))

        async def script(peer: Peer) -> None:
            split = next(splits)
            await peer.answer(answer[:split], answer[split:])

        async with serving(script) as server, carrying() as pool:
            for _ in range(1, len(answer)):
                assert await fetched(pool, server.place()) == b"abcde"

        single = [answer[n : n + 1] for n in range(len(answer))]
        async with serving(lambda peer: peer.answer(*single)) as server, carrying() as pool:
            assert await fetched(pool, server.place()) == b"abcde"

    run(main())


@pytest.mark.parametrize(
    "answer",
    [
        *(b"\0" * 10, b"SSH-2.0-x\r\n", b"HTTP/2 200\r\n\r\n", b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", b"\r\n\r\n"),
        *(b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + FIVE, b"HTTP/1.1 100 Continue\r\n\r\n" * 11 + FIVE),
        *(OK + b"A: " + b"x" * LONGEST_HEAD, OK + b"A: b\r\n" * 20_000, OK + b"Content-Length: x\r\n\r\n"),
        *(OK + b"A b: c\r\n\r\n", b"\x15\x03\x03\x00\x02\x02\x46", b"h"),
    ],
    ids=range(13),
)
def test_no_answer(answer: bytes) -> None:
    """Nobody waits for more of what can be none: the server would not close."""

    async def script(peer: Peer) -> None:
        await peer.answer(answer)
        await peer.closed()

    async def main() -> None:
        async with serving(script) as server, carrying() as pool:
            with pytest.raises(Unreadable):
                await fetched(pool, server.place())

    run(main())


@pytest.mark.parametrize("answer", [FIVE, CHUNKS], ids=["length", "chunks"])
def test_an_answer_that_is_cut_at_any_byte(answer: bytes) -> None:
    async def main() -> None:
        cuts = iter(range(len(answer)))
        async with serving(lambda peer: peer.answer(answer[: next(cuts)])) as server, carrying() as pool:
            for _ in range(len(answer)):
                with pytest.raises((Broken, CutShort)):
                    await fetched(pool, server.place())

    run(main())


@pytest.mark.parametrize("size", [0, 5, BATCH, BATCH * 3 + 7])
@pytest.mark.parametrize("framed", [False, True])
def test_what_came_before_a_cut_is_handed_over(framed: bool, size: int) -> None:
    head = (
        b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(LARGE)
        if framed
        else b"Content-Length: %d\r\n\r\n" % len(LARGE)
    )

    async def main() -> None:
        got = bytearray()
        async with serving(sending(OK + head + LARGE[:size])) as server, carrying() as pool:
            answer = await pool.get(server.place(), get())

            async def read() -> None:
                while True:
                    got.extend(await answer.read())

            with pytest.raises(CutShort):
                await read()
            with pytest.raises(CutShort):
                await answer.read()
            answer.close()
        assert got == LARGE[:size]

    run(main())


def test_a_reset_is_no_end() -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(UNTIL_CLOSE)
        await asyncio.sleep(0.05)
        sock: socket.socket = peer.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.reset()

    async def main() -> None:
        async with serving(script) as server, carrying() as pool:
            with pytest.raises(CutShort):
                await fetched(pool, server.place())

    run(main())


def test_a_connection_is_used_again_after_each_framing_that_allows_it() -> None:
    async def main() -> None:
        answers = [FIVE, CHUNKS, OK + b"Content-Length: 0\r\n\r\n", b"HTTP/1.1 304 x\r\n\r\n"]
        answers += [b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\na", FIVE]
        async with serving(sending(*answers)) as server, carrying() as pool:
            bodies = [await fetched(pool, server.place()) for _ in answers]
        assert bodies == [b"abcde", b"abcde", b"", b"", b"a", b"abcde"]
        assert server.connections == 1

    run(main())


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Content-Length: 5\r\nConnection: close\r\n\r\nabcde",
        OK + b"Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nabcde",
        FIVE + b"H",
        CHUNKS + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged",
    ],
    ids=["close", "both framings", "1.0", "a byte more", "an answer more"],
)
def test_a_connection_is_not_used_again_after(answer: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(answer)
        await peer.closed()

    async def main() -> None:
        async with serving(script) as server, carrying() as pool:
            assert [await fetched(pool, server.place()) for _ in range(2)] == [b"abcde"] * 2
            assert server.connections == 2

    run(main())


def test_an_answer_that_nobody_asked_for_ends_the_connection() -> None:
    sent, may_send = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.answer(FIVE)
        if peer.number == 1:
            await may_send.wait()
            await peer.send(OK + b"Content-Length: 6\r\n\r\nforged")
            await peer.closed()
            sent.set()

    async def main() -> None:
        async with serving(script) as server, carrying() as pool:
            assert await fetched(pool, server.place()) == b"abcde"
            may_send.set()
            await sent.wait()
            assert await fetched(pool, server.place()) == b"abcde"
            assert server.connections == 2

    run(main())


@pytest.mark.parametrize("reset", [False, True])
def test_a_connection_that_ends_when_it_is_used_again_is_replaced_once(reset: bool) -> None:
    """Servers close what was idle whenever they like; the request was not answered, and is sent again."""

    async def script(peer: Peer) -> None:
        await peer.answer(FIVE)
        await peer.request()
        if reset:
            peer.reset()

    async def main() -> None:
        async with serving(script) as server, carrying() as pool:
            assert [await fetched(pool, server.place()) for _ in range(3)] == [b"abcde"] * 3
            assert (server.connections, len(server.asked)) == (3, 5)

    run(main())


def test_a_new_connection_that_ends_is_not_replaced() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        if peer.number == 1:
            await peer.send(FIVE)
            await peer.request()

    async def main() -> None:
        async with serving(script) as server, carrying() as pool:
            assert await fetched(pool, server.place()) == b"abcde"
            with pytest.raises(Broken, match="closed before an answer"):
                await fetched(pool, server.place())
            assert (server.connections, len(server.asked)) == (2, 3)

    run(main())


def test_a_used_connection_that_ends_within_a_head_is_not_replaced() -> None:
    async def main() -> None:
        async with serving(sending(FIVE, b"HTTP/1.1 2")) as server, carrying() as pool:
            assert await fetched(pool, server.place()) == b"abcde"
            with pytest.raises(Broken):
                await fetched(pool, server.place())
            assert (server.connections, len(server.asked)) == (1, 2)

    run(main())


def test_a_server_that_closes_its_half_at_once_is_still_heard() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.writer.write(FIVE)
        peer.writer.write_eof()
        await peer.closed()

    async def main() -> None:
        async with serving(script) as server, carrying() as pool:
            assert [await fetched(pool, server.place()) for _ in range(2)] == [b"abcde"] * 2

    run(main())


def test_an_answer_that_is_closed_early_closes_its_connection() -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(OK + b"Content-Length: 10\r\n\r\nabcde")
        await peer.closed()
        closed.set()

    async def main() -> None:
        async with serving(script) as server, carrying() as pool:
            answer = await pool.get(server.place(), get())
            answer.close()
            answer.close()
            await closed.wait()
            with pytest.raises(CutShort):
                await answer.read()

    closed = asyncio.Event()
    run(main())


def test_an_answer_that_is_here_whole_need_not_be_read() -> None:
    async def main() -> None:
        async with serving(sending(FIVE, FIVE)) as server, carrying() as pool:
            answer = await pool.get(server.place(), get())
            answer.close()
            assert await fetched(pool, server.place()) == b"abcde"
            assert server.connections == 1

    run(main())


def test_the_end_of_one_answer_does_not_touch_the_next_on_its_connection() -> None:
    async def main() -> None:
        async with serving(sending(FIVE, FIVE)) as server, carrying() as pool:
            first = await pool.get(server.place(), get())
            assert await whole(first) == b"abcde"
            second = await pool.get(server.place(), get())
            assert await first.read() == b""
            first.batch = 1
            first.close()
            assert await whole(second) == b"abcde"
            assert server.connections == 1

    run(main())


def test_a_body_that_is_here_is_read_without_waiting() -> None:
    async def main() -> None:
        async with serving(sending(FIVE)) as server, carrying() as pool:
            answer = await pool.get(server.place(), get())
            with pytest.raises(StopIteration) as step:
                answer.read().send(None)
            assert step.value.value == b"abcde"

    run(main())


@pytest.mark.parametrize("batch", [BATCH, 1 << 20, 100_000])
def test_pieces_are_as_large_as_was_asked_for(batch: int) -> None:
    async def main() -> list[int]:
        async with (
            serving(sending(LONG)) as server,
            carrying() as pool,
        ):
            answer = await pool.get(server.place(), get())
            answer.batch = batch
            sizes, body = [], bytearray()
            while piece := await answer.read():
                sizes.append(len(piece))
                body += piece
            assert body == LARGE
            return sizes

    first, *others, _ = run(main())
    assert first <= max(batch, BATCH), "received before a size was asked for"
    assert set(others) - {BATCH} <= {batch}


def test_a_piece_is_never_touched_again() -> None:
    async def main() -> None:
        async with (
            serving(sending(LONG)) as server,
            carrying() as pool,
        ):
            answer = await pool.get(server.place(), get())
            pieces = []
            while piece := await answer.read():
                pieces.append(piece)
            assert b"".join(pieces) == LARGE

    run(main())


def test_no_byte_more_than_the_body_is_received_into_what_is_left_of_a_piece() -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(OK + b"Content-Length: 10\r\n\r\nabc")
        await read.wait()
        await peer.send(b"defghij" + FIVE)
        await peer.closed()

    async def main() -> None:
        async with serving(script) as server, carrying() as pool:
            answer = await pool.get(server.place(), get())
            assert await answer.read() == b"abc"
            read.set()
            assert await whole(answer) == b"defghij"
            assert await fetched(pool, server.place()) == b"abcdefghij"
            assert server.connections == 2

    read = asyncio.Event()
    run(main())


def test_a_slow_body_is_handed_over_before_a_piece_is_full() -> None:
    read = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.answer(OK + b"Content-Length: 1000000\r\n\r\nab")
        await read.wait()
        read.clear()
        await peer.send(b"cde")
        await read.wait()

    async def main() -> None:
        async with serving(script) as server, carrying() as pool:
            answer = await pool.get(server.place(), get())
            answer.batch = 1 << 20
            for expected in (b"ab", b"cde"):
                assert await answer.read() == expected
                read.set()
            answer.close()

    run(main())


@pytest.mark.parametrize(
    "head",
    [b"Content-Length: 100000000\r\n\r\n", b"\r\n", b"Transfer-Encoding: chunked\r\n\r\nffffffff\r\n"],
    ids=["length", "end", "chunks"],
)
def test_a_reader_that_stops_stops_the_server(head: bytes) -> None:
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.answer(OK + head)
        while True:
            await peer.send(LARGE[: 64 << 10])
            sent += 64 << 10

    async def main() -> None:
        async with serving(script) as server, carrying() as pool:
            answer = await pool.get(server.place(), get())
            assert await answer.read()
            before = -1
            while before != sent:
                before = sent
                await asyncio.sleep(0.2)
            for _ in range(3):
                assert len(await answer.read()) <= BATCH
            connection: Connection = vars(Answer)["_connection"].__get__(answer)
            held = [each for each in gc_of(connection) if isinstance(each, bytes | bytearray | memoryview)]
            assert sum(map(len, held)) <= 3 * BATCH
            answer.close()

    run(main())
    assert sent < 50_000_000


def gc_of(connection: Connection) -> list[object]:
    """What a connection holds, the scratch buffer that all share left out."""
    shared = {"_scratch", "_scratch_view"}
    return [value for name, value in vars(connection).items() if name not in shared]


@pytest.mark.parametrize("where", ["head", "body", "trickled head", "framing"])
def test_a_server_that_stalls(where: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        match where:
            case "body":
                await peer.send(OK + b"Content-Length: 10\r\n\r\nabc")
            case "trickled head":
                await peer.send(OK)
                while True:
                    await peer.send(b"A: b\r\n")
                    await asyncio.sleep(0.05)
            case "framing":
                await peer.send(OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1;")
                while True:
                    await peer.send(b"a")
                    await asyncio.sleep(0.05)
        await peer.closed()

    async def main() -> None:
        async with serving(script) as server, carrying(Patience(5, 0.4)) as pool:
            with pytest.raises(Stalled):
                await fetched(pool, server.place())

    run(main())


def test_without_patience_nothing_stalls() -> None:
    async def script(peer: Peer) -> None:
        await asyncio.sleep(0.3)
        await peer.answer(OK + b"Content-Length: 5\r\n\r\nab")
        await asyncio.sleep(0.3)
        await peer.send(b"cde")

    async def main() -> None:
        async with serving(script) as server, carrying(Patience(0, 0)) as pool:
            assert await fetched(pool, server.place()) == b"abcde"

    run(main())


def test_an_idle_connection_is_closed_after_a_while() -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(FIVE)
        await peer.closed()

    async def main() -> None:
        async with serving(script) as server, carrying(Patience(30, 30, idle=0.2)) as pool:
            await fetched(pool, server.place())
            assert server.open == 1
            while server.open:
                await asyncio.sleep(0.05)

    run(main())


@pytest.mark.parametrize("steps", range(12))
def test_who_is_cancelled_leaves_no_connection_behind(steps: int) -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(OK + b"Content-Length: 10\r\n\r\nabcde")
        await peer.closed()

    async def main() -> None:
        async with serving(script) as server:
            async with carrying() as pool:
                task = asyncio.create_task(fetched(pool, server.place()))
                for _ in range(steps):
                    await asyncio.sleep(0.002 if steps > 8 else 0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            while server.open:
                await asyncio.sleep(0.01)

    run(main())


def test_closing_the_pool_ends_what_is_under_way() -> None:
    async def script(peer: Peer) -> None:
        await peer.answer(OK + b"Content-Length: 10\r\n\r\nabcde")
        await peer.closed()

    async def main() -> None:
        async with serving(script) as server, carrying() as pool:
            answer = await pool.get(server.place(), get())
            reading = asyncio.create_task(whole(answer))
            await asyncio.sleep(0.05)
            await pool.close()
            with pytest.raises(CutShort):
                await reading
            await pool.close()

    run(main())


def test_nobody_listens() -> None:
    async def main() -> None:
        async with carrying(Patience(5, 5)) as pool:
            for host in ("127.0.0.1", "localhost", "nowhere.invalid"):
                with pytest.raises(CannotConnect):
                    await fetched(pool, Place(host, port, is_tls=False))

    with socket.socket() as taken:  # as long as it is open, nobody else gets its port
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        run(main())


@examples(60)
@given(
    st.integers(0, 300) | st.integers(0, 3 * BATCH),
    st.sampled_from(["length", "chunks", "end"]),
    st.lists(st.integers(0, 4 * BATCH), max_size=5),
    st.integers(1, 4 * BATCH),
    st.integers(1, 2 * BATCH),
)
def test_the_body_is_the_same_whatever_its_framing(
    size: int, framing: str, cuts: list[int], batch: int, chunk: int
) -> None:
    body = LARGE[:size]
    match framing:
        case "length":
            sent = OK + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        case "end":
            sent = OK + b"\r\n" + body
        case _:
            pieces = [body[at : at + chunk] for at in range(0, len(body), chunk)]
            framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
            sent = OK + b"Transfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"
    ends = [0, *sorted(min(cut, len(sent)) for cut in cuts), len(sent)]

    async def main() -> bytes:
        split = [sent[start:stop] for start, stop in itertools.pairwise(ends) if start < stop]
        async with serving(lambda peer: peer.answer(*split)) as server, carrying() as pool:
            answer = await pool.get(server.place(), get())
            answer.batch = max(batch, size >> 9)  # a million pieces of a byte would only take their time
            return await whole(answer)

    assert run(main()) == body


def test_errors_say_nothing_of_the_other_side() -> None:
    for kind in WireError.__subclasses__():
        assert kind.__doc__
