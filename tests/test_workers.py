"""Threads that work for an event loop: every call is made once, and whoever waits for it is told how it ended."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from mirror.stores.workers import Workers

LONG = 60.0


@pytest.fixture
def workers() -> Iterator[Workers]:
    workers = Workers(4, "test-worker")
    yield workers
    workers.close()
    assert ours() == []


def ours() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("test-worker-")]


def double(number: int) -> int:
    return number * 2


def adding(to: list[int], number: int) -> Callable[[], None]:
    return lambda: to.append(number)


def test_a_call_is_made_in_a_thread(workers: Workers) -> None:
    async def main() -> str:
        return await workers.start(lambda: threading.current_thread().name)

    assert asyncio.run(main()) == "test-worker-0"


@pytest.mark.parametrize("count", [1, 4, 5, 100])
def test_each_of_many_gets_its_own_result(workers: Workers, count: int) -> None:
    async def main() -> list[int]:
        return await asyncio.gather(*(workers.start(partial(double, number)) for number in range(count)))

    assert asyncio.run(main()) == [number * 2 for number in range(count)]


def test_one_thread_makes_calls_in_the_order_of_their_start() -> None:
    workers = Workers(1, "test-worker")
    made: list[int] = []

    async def main() -> None:
        started = [workers.start(adding(made, number)) for number in range(10)]
        await asyncio.sleep(0)
        started += [workers.start(adding(made, number)) for number in range(10, 20)]
        await asyncio.gather(*started)

    asyncio.run(main())
    workers.close()
    assert made == [*range(20)]


def test_calls_that_wait_for_one_another_have_a_thread_each(workers: Workers) -> None:
    barrier = threading.Barrier(4)

    async def main() -> None:
        for _ in range(2):
            started = []
            for _ in range(4):
                started.append(workers.start(lambda: barrier.wait(LONG)))
                await asyncio.sleep(0)  # what is started in one step may share a thread
            await asyncio.gather(*started)

    asyncio.run(main())
    assert len(ours()) == 4, "and no more than there may be"


def test_one_after_the_other_needs_one_thread(workers: Workers) -> None:
    async def main() -> None:
        for number in range(20):
            assert await workers.start(partial(double, number)) == number * 2

    asyncio.run(main())
    assert len(ours()) == 1


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(3), asyncio.CancelledError()])
def test_an_exception_reaches_who_waits_and_nobody_else(workers: Workers, error: BaseException) -> None:
    def fail() -> None:
        raise error

    async def main() -> None:
        failed, well = workers.start(fail), workers.start(lambda: "well")
        with pytest.raises(type(error)) as raised:
            await failed
        assert raised.value is error
        assert await well == "well"
        assert await workers.start(lambda: "the thread is there still") == "the thread is there still"

    asyncio.run(main())


def test_who_is_cancelled_goes_on_after_the_end_of_the_call(workers: Workers) -> None:
    begun, go_on = threading.Event(), threading.Event()
    happened: list[str] = []

    def call() -> None:
        begun.set()
        assert go_on.wait(LONG)
        happened.append("the call ended")

    async def wait() -> None:
        try:
            await workers.start(call)
        finally:
            happened.append("the task went on")

    async def main() -> None:
        task = asyncio.create_task(wait())
        while not begun.is_set():
            await asyncio.sleep(0.001)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.001)
            assert not task.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    asyncio.run(main())
    assert happened == ["the call ended", "the task went on"]


def test_nobody_complains_of_a_failure_that_nobody_waits_for(workers: Workers) -> None:
    told: list[object] = []

    def fail() -> None:
        raise ValueError

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        future = workers.start(fail)
        while not future.done():
            await asyncio.sleep(0.001)
        del future
        gc.collect()

    asyncio.run(main())
    assert told == []


def test_several_loops_one_after_the_other(workers: Workers) -> None:
    async def main(number: int) -> list[int]:
        return await asyncio.gather(*(workers.start(lambda: number) for _ in range(10)))

    for number in range(5):
        assert asyncio.run(main(number)) == [number] * 10
    assert len(ours()) <= 4


def test_a_loop_that_is_gone_before_its_call_ends_harms_no_other(workers: Workers) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def call() -> None:
        begun.set()
        assert go_on.wait(LONG)

    async def leave() -> None:
        workers.start(call)
        while not begun.is_set():
            await asyncio.sleep(0.001)

    async def main() -> str:
        started = workers.start(lambda: "there")
        await asyncio.sleep(0)
        go_on.set()
        return await started

    asyncio.run(leave())
    assert asyncio.run(main()) == "there"


def test_close_waits_for_what_is_under_way_and_makes_what_was_started(workers: Workers) -> None:
    made: list[int] = []
    begun, go_on = threading.Event(), threading.Event()

    def first() -> None:
        begun.set()
        assert go_on.wait(LONG)
        made.append(0)

    async def main() -> None:
        futures = [workers.start(first)]
        while not begun.is_set():
            await asyncio.sleep(0.001)
        futures += [workers.start(adding(made, number)) for number in range(1, 10)]  # nobody has these yet
        go_on.set()
        workers.close()
        assert sorted(made) == [*range(10)]
        assert ours() == []
        await asyncio.gather(*futures)
        assert await workers.start(lambda: "again") == "again", "it may be used again"

    asyncio.run(main())
    workers.close()
    workers.close()


def test_nothing_of_a_call_is_kept_after_its_end(workers: Workers) -> None:
    class Buffer:
        pass

    async def main() -> None:
        buffer = Buffer()
        gone = weakref.ref(buffer)
        await workers.start(partial(id, buffer))
        del buffer
        deadline = time.monotonic() + LONG
        while gone() is not None:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.001)

    asyncio.run(main())


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the size of a stack is not what bounds threads")
@pytest.mark.parametrize("had", [0, 1])
def test_where_the_system_gives_no_thread(had: int) -> None:
    """Without one there is an error; with one that one does it all. Threads are refused by a limit on addresses."""
    script = f"""
import asyncio, resource, threading
from mirror.stores.workers import Workers

async def main():
    workers = Workers(4, "w")
    threading.stack_size(64 << 10)
    if {had}:
        await workers.start(lambda: None)
    threading.stack_size(1 << 30)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, -1))
    try:
        print(sum(await asyncio.gather(*(workers.start(lambda: 1) for _ in range(10)))))
    except RuntimeError as error:
        print(error)
    workers.close()

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == ("10" if had else "can't start new thread")
