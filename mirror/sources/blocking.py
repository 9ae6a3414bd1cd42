"""Reads that may block for ever, made in a thread that keeps nobody waiting."""

from __future__ import annotations

import asyncio
import os
import select
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from queue import SimpleQueue
from typing import TypeVar

from mirror.errors import ConfigError
from mirror.sources.lines import BLOCK

T = TypeVar("T")

_Answer = asyncio.Future[tuple[T | None, BaseException | None]]


async def in_thread(items: Iterator[T]) -> AsyncGenerator[T, None]:
    """Pass on what ``items`` yields, each asked for only when the one before it was taken.

    The iterator runs in a daemon thread: while it blocks the event loop goes on, a task that waits for it is cancelled
    at once, and the process may end. What it raises is raised here. A blocked iterator that nobody waits for any more
    takes one further item, which is lost, when it wakes up.
    """
    loop = asyncio.get_running_loop()
    asked: SimpleQueue[_Answer[T] | None] = SimpleQueue()
    threading.Thread(target=_serve, args=(items, asked, loop), name="mirror-source", daemon=True).start()
    try:
        while True:
            answer: _Answer[T] = loop.create_future()
            asked.put(answer)
            item, error = await answer
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]  # without an error there is an item
    finally:
        asked.put(None)


async def apart(call: Callable[[], T]) -> T:
    """What ``call`` returns, from a daemon thread: a caller that is cancelled is let go at once, and so is the process.

    What is raised is raised here.
    """
    async with aclosing(in_thread(call() for _ in range(1))) as answers:
        return await anext(answers)


def _serve(items: Iterator[T], asked: SimpleQueue[_Answer[T] | None], loop: asyncio.AbstractEventLoop) -> None:
    while (answer := asked.get()) is not None:
        item: T | None = None
        failed: BaseException | None = None
        try:
            item = next(items)
        except BaseException as error:  # noqa: BLE001 - it is raised where the item was asked for
            failed = error
        try:
            loop.call_soon_threadsafe(_deliver, answer, item, failed)
        except RuntimeError:  # the loop was closed meanwhile: nobody asks any more
            return


def _deliver(answer: _Answer[T], item: T | None, failed: BaseException | None) -> None:
    # An error is handed over as a value: one set on a future that is cancelled right then would be complained about.
    if not answer.done():
        answer.set_result((item, failed))


def blocks_of(fd: int, name: str) -> Iterator[bytes]:
    """What an open file descriptor brings, each block as much as is there, at most ``BLOCK`` bytes.

    Raises:
        ConfigError: it cannot be read.
    """
    while True:
        try:
            block = os.read(fd, BLOCK)
        except BlockingIOError:  # another process, with which it is shared, has made it non-blocking
            select.select([fd], [], [])
            continue
        except OSError as error:
            raise ConfigError(f"{name}: cannot be read: {error.strerror}") from error
        if not block:
            return
        yield block
