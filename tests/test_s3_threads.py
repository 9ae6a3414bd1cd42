"""Threads for what blocks: bounded, used again, and never in the way of the process's end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from mirror.stores.s3.threads import Threads

NAME = "under-test"
LONG = 60.0


@pytest.fixture
def threads() -> Iterator[Threads]:
    made = Threads(3, NAME)
    yield made
    made.close()


def alive() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(NAME)]


@pytest.fixture(autouse=True)
def _nobody_is_left() -> Iterator[None]:
    """Whatever a test does: after close() its threads end."""
    yield
    for thread in alive():
        thread.join(LONG)
    assert alive() == []


def fail(error: BaseException) -> None:
    raise error


def test_results_and_errors_come_back(threads: Threads) -> None:
    async def run() -> None:
        assert await threads.run(lambda: 1) == 1
        assert (await threads.run(threading.current_thread)).name.startswith(NAME)
        assert (await threads.run(threading.current_thread)) is not threading.current_thread()
        for error in (ValueError("x"), KeyError("y"), SystemExit(3), asyncio.CancelledError()):
            with pytest.raises(type(error)):
                await threads.run(lambda error=error: fail(error))  # type: ignore[misc]
        assert await threads.run(lambda: "goes on") == "goes on"

    asyncio.run(run())


def test_an_idle_thread_is_used_again() -> None:
    """One that has just answered may not be idle yet when the next call comes, so there can be a few."""
    many = Threads(60, NAME)

    async def run() -> None:
        for _ in range(60):
            await many.run(lambda: None)

    asyncio.run(run())
    assert 1 <= len(alive()) < 30
    many.close()


def test_no_more_threads_than_allowed_and_as_many_as_needed(threads: Threads) -> None:
    """All three are needed to get past the barrier; the fourth call waits for one of them."""
    barrier, at_once, most = threading.Barrier(3), [0], [0]
    lock = threading.Lock()

    def call(number: int) -> int:
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        barrier.wait(LONG)
        with lock:
            at_once[0] -= 1
        return number

    async def run() -> list[int]:
        return await asyncio.gather(*(threads.run(lambda number=number: call(number)) for number in range(30)))  # type: ignore[misc]

    assert asyncio.run(run()) == list(range(30))
    assert most[0] <= 3
    assert len(alive()) == 3


def test_a_caller_that_is_cancelled_goes_on_at_once_and_the_thread_is_not_lost(threads: Threads) -> None:
    goes_on, begun, ended = threading.Event(), threading.Event(), threading.Event()

    def call() -> None:
        begun.set()
        assert goes_on.wait(LONG)
        ended.set()

    async def run() -> None:
        task = asyncio.create_task(threads.run(call))
        await asyncio.to_thread(begun.wait, LONG)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not ended.is_set(), "it did not wait for the call"
        goes_on.set()
        await asyncio.to_thread(ended.wait, LONG)
        assert await threads.run(lambda: "again") == "again"
        assert ended.is_set()

    asyncio.run(run())


def test_a_call_that_is_cancelled_before_its_turn_is_never_made(threads: Threads) -> None:
    goes_on, made = threading.Event(), []

    async def run() -> None:
        busy = [asyncio.create_task(threads.run(lambda: goes_on.wait(LONG))) for _ in range(3)]
        await asyncio.sleep(0)
        waiting = asyncio.create_task(threads.run(lambda: made.append("no")))
        last = asyncio.create_task(threads.run(lambda: made.append("yes")))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
        goes_on.set()
        assert await asyncio.gather(*busy) == [True] * 3
        await last

    asyncio.run(run())
    assert made == ["yes"]


def test_close_lets_them_end_with_what_they_are_at(threads: Threads) -> None:
    async def run() -> str:
        begun, goes_on = threading.Event(), threading.Event()

        def call() -> str:
            begun.set()
            goes_on.wait(LONG)
            return "done"

        task = asyncio.create_task(threads.run(call))
        await asyncio.to_thread(begun.wait, LONG)
        threads.close()
        goes_on.set()
        return await task

    assert asyncio.run(run()) == "done"
    for thread in alive():
        thread.join(LONG)
    assert alive() == []


def test_one_that_answers_when_its_loop_is_gone_does_no_harm(threads: Threads) -> None:
    goes_on, begun = threading.Event(), threading.Event()

    def call() -> str:
        begun.set()
        goes_on.wait(LONG)
        return "nobody hears"

    async def leave() -> None:
        task = asyncio.create_task(threads.run(call))
        await asyncio.to_thread(begun.wait, LONG)
        task.cancel()

    asyncio.run(leave())
    goes_on.set()

    async def again() -> int:
        return await threads.run(lambda: 2)

    assert asyncio.run(again()) == 2


HANGS = """
import asyncio, sys, threading
from mirror.stores.s3.threads import Threads

begun = threading.Event()
pool = Threads(2, "hangs")

def hang():
    begun.set()
    threading.Event().wait()

async def run():
    task = asyncio.create_task(pool.run(hang))
    while not begun.is_set():
        await asyncio.sleep(0.01)
    task.cancel()
    pool.close()

asyncio.run(run())
print("the end")
"""


def test_a_thread_that_hangs_for_ever_does_not_keep_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", HANGS], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "the end\n", "")
