"""Bodies in the hands of a thread, over real sockets: the same bytes in the same order, or an error; and whatever is
done to the connection meanwhile waits for the thread.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import pytest

from mirror.h1 import CutShort
from mirror.h1.answer import Answer
from mirror.h1.loan import Loan
from tests.wire import Peer, carrying, get, serving

SIZE = 6 << 20
CONTENT = random.Random(7).randbytes(SIZE)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE
LEAST = 1 << 20
MOST = 1 << 40

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(main, 60), debug=True)


def whole(peer: Peer) -> Awaitable[None]:
    return peer.answer(HEAD, CONTENT)


def all_of(loan: Loan, size: int = 300_000) -> bytes:
    """What a thread takes in one turn."""
    buffer, found = memoryview(bytearray(size)), b""
    while count := loan.fill(buffer):
        found += buffer[:count]
        if count < size:
            break
    return found


async def by_turns(answer: Answer, most: int = MOST, size: int = 300_000, found: bytearray | None = None) -> bytearray:
    """A body that is read on the loop and in a thread by turns."""
    found = bytearray() if found is None else found
    while piece := await answer.read():
        found += piece
        loan = answer.lend(LEAST, most)
        if loan is not None:
            with loan:
                found += b"".join(loan.pieces)
                found += await asyncio.to_thread(all_of, loan, size)
    return found


@pytest.mark.parametrize("size", [7001, 300_000, 2 * SIZE])
def test_what_comes_is_what_was_sent(size: int) -> None:
    """Whatever the thread's buffer holds, and the connection is used again."""

    async def main() -> None:
        async def script(peer: Peer) -> None:
            for _ in range(3):
                await whole(peer)

        async with serving(script) as server, carrying() as pool:
            for most in (MOST, 100_000, SIZE):
                assert await by_turns(await pool.get(server.place(), get()), most, size) == CONTENT
            assert server.connections == 1

    run(main())


def test_pieces_of_any_size_at_any_time() -> None:
    async def main() -> None:
        async def script(peer: Peer) -> None:
            await peer.answer(HEAD)
            rng, at = random.Random(11), 0
            while at < SIZE:
                size = rng.choice([1, 1000, 65_536, 500_000, 1_500_000])
                await peer.send(CONTENT[at : at + size])
                at += size
                await asyncio.sleep(rng.choice([0, 0, 0.001, 0.01]))

        async with serving(script) as server, carrying() as pool:
            assert await by_turns(await pool.get(server.place(), get())) == CONTENT

    run(main())


def test_a_thread_gets_what_was_taken_in_before_it() -> None:
    """The pieces that wait, and the one that fills, come first."""

    async def main() -> None:
        async with serving(whole) as server, carrying() as pool:
            answer = await pool.get(server.place(), get())
            first = bytes(await answer.read())
            await asyncio.sleep(0.1)  # the loop reads on until it holds two pieces
            loan = answer.lend(LEAST, MOST)
            assert loan is not None
            with loan:
                before = b"".join(loan.pieces)
                assert len(before) >= answer.batch
                assert first + before == CONTENT[: len(first) + len(before)]
            assert first + before + await by_turns(answer) == CONTENT

    run(main())


def test_nothing_is_lent_of_which_less_is_to_come() -> None:
    async def main() -> None:
        async with serving(whole) as server, carrying() as pool:
            answer = await pool.get(server.place(), get())
            await answer.read()
            assert answer.lend(SIZE, MOST) is None
            await asyncio.sleep(0.1)
            assert answer.lend(LEAST, 10) is None, "what is here already is more than that"
            assert await by_turns(answer) == CONTENT[answer.batch :]

    run(main())


@pytest.mark.parametrize("framing", [b"Transfer-Encoding: chunked\r\n\r\n600000\r\n", b"\r\n"], ids=["chunks", "end"])
def test_a_body_whose_length_nobody_knows_is_not_lent(framing: bytes) -> None:
    async def main() -> None:
        end = b"\r\n0\r\n\r\n" if b"chunked" in framing else b""

        async def script(peer: Peer) -> None:
            await peer.answer(b"HTTP/1.1 200 OK\r\n" + framing + CONTENT + end)

        async with serving(script) as server, carrying() as pool:
            answer = await pool.get(server.place(), get())
            await answer.read()
            assert answer.lend(0, MOST) is None

    run(main())


@pytest.mark.parametrize("is_reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("sent", [LEAST, SIZE - 1])
def test_a_body_that_breaks_off_in_the_thread(sent: int, *, is_reset: bool) -> None:
    """What had come is handed over, and then the error, whoever meets the end."""

    async def main() -> None:
        async def script(peer: Peer) -> None:
            await peer.answer(HEAD, CONTENT[:sent])
            await asyncio.sleep(0.05)
            if is_reset:
                peer.reset()

        async with serving(script) as server, carrying() as pool:
            answer, found = await pool.get(server.place(), get()), bytearray()
            with pytest.raises(CutShort):
                await by_turns(answer, found=found)
            assert CONTENT.startswith(found)
            if not is_reset:  # a reset may take with it what was on its way
                assert len(found) == sent

    run(main())


def test_what_comes_after_the_body_is_no_answer() -> None:
    async def main() -> None:
        async def script(peer: Peer) -> None:
            peer.writer.transport.set_write_buffer_limits(high=0)  # what was sent is all in the socket
            await peer.answer(HEAD, CONTENT[:-1])
            await peer.send(CONTENT[-1:] + b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad")  # in one piece
            await peer.closed()

        async with serving(script) as server, carrying() as pool:
            for number in range(1, 4):
                assert await by_turns(await pool.get(server.place(), get())) == CONTENT
                assert server.connections == number

    run(main())


@pytest.mark.parametrize("by", ["answer", "pool"])
def test_a_socket_stays_open_as_long_as_a_thread_reads_from_it(by: str) -> None:
    """A number that is free again would be another file's."""

    async def main() -> None:
        async def script(peer: Peer) -> None:
            await peer.answer(HEAD, CONTENT[: 4 << 20])
            await peer.closed()

        async with serving(script) as server, carrying() as pool:
            answer = await pool.get(server.place(), get())
            found = bytes(await answer.read())
            loan = answer.lend(LEAST, MOST)
            assert loan is not None
            with loan:
                found += b"".join(loan.pieces)
                closing = asyncio.create_task(pool.close()) if by == "pool" else None
                if by == "answer":
                    answer.close()
                await asyncio.sleep(0.05)

                taken = await asyncio.to_thread(all_of, loan)
                assert taken
                assert loan.error is None
                assert not loan.is_at_end
                assert closing is None or not closing.done()
            assert CONTENT.startswith(found + taken)
            if closing is not None:
                await closing
            with pytest.raises(CutShort):
                await answer.read()
            while server.open:
                await asyncio.sleep(0.01)

    run(main())


def test_only_a_body_that_comes_is_waited_for() -> None:
    """A thread does not stay with one that is silent: others need it."""
    waited: list[float] = []

    def script(size: int) -> Callable[[memoryview], int | None]:
        left = [size]

        def receive(view: memoryview) -> int | None:
            taken = min(len(view), left[0], 10)
            left[0] -= taken
            return taken or None

        return receive

    class Nobody:
        def take_back(self, loan: Loan) -> None:
            del loan

    def wait(seconds: float) -> bool:
        waited.append(seconds)
        return False

    buffer = memoryview(bytearray(100))
    assert Loan(Nobody(), [], 1000, script(0), wait).fill(buffer) == 0
    assert Loan(Nobody(), [], 1000, script(30), wait).fill(buffer, patient=False) == 30
    assert waited == []
    assert Loan(Nobody(), [], 1000, script(30), wait).fill(buffer) == 30
    assert len(waited) == 1
    assert Loan(Nobody(), [], 50, script(300), wait).fill(buffer) == 50
    assert len(waited) == 1


@pytest.mark.parametrize("is_dry", [False, True])
def test_a_turn_ends_whatever_comes(*, is_dry: bool) -> None:
    """A body without end, and one of which nothing counts though the socket is never dry."""
    calls = [0]

    def receive(view: memoryview) -> int | None:
        calls[0] += 1
        return None if is_dry and calls[0] > 1 else 1 if len(view) else 0

    class Nobody:
        def take_back(self, loan: Loan) -> None:
            del loan

    loan = Loan(Nobody(), [b"before"], MOST, receive, lambda _: True)
    buffer = memoryview(bytearray(10))
    while loan.fill(buffer) == len(buffer):
        assert loan.got < 1 << 30
    assert loan.fill(buffer) == 0, "the turn is over"
    assert loan.size == loan.got + len(b"before")
