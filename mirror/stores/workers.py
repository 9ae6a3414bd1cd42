"""Threads that do blocking calls for an event loop.

What a hop to a thread and back costs bounds how many small files a second can be stored, so this is leaner than
concurrent.futures: no lock and no condition a call, and the loop is woken once for all calls that ended meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

_EACH = 4
"""Calls of one step of the loop that are made one after the other before another thread is woken for them."""


class Uninterrupted(asyncio.Future[T]):
    """What a thread is at cannot be taken back: who waits for it and is cancelled goes on only after its end.

    ``cancel`` answers that it did nothing; the task then raises CancelledError as soon as this future is done.
    """

    def cancel(self, msg: Any | None = None) -> bool:  # noqa: ARG002
        return False


class Workers:
    """Up to ``size`` threads, started as they are needed."""

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._batches: SimpleQueue[list[_Call] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._letterbox: _Letterbox | None = None

    def start(self, call: Callable[[], T]) -> Uninterrupted[T]:
        """Have a call made in a thread. Called on the loop's thread.

        Raises:
            RuntimeError: the system gives no thread.
        """
        loop = asyncio.get_running_loop()
        letterbox = self._letterbox
        if letterbox is None or letterbox.loop is not loop:
            letterbox = self._letterbox = _Letterbox(loop)
        if len(self._threads) < self._size and len(self._threads) <= letterbox.expected:
            self._hire()
        future: Uninterrupted[T] = Uninterrupted(loop=loop)
        letterbox.expected += 1
        if not letterbox.going:
            loop.call_soon(self._hand_out, letterbox)
        letterbox.going.append((call, future, letterbox))
        return future

    def _hand_out(self, letterbox: _Letterbox) -> None:
        """What was started in one step of the loop goes to the threads in as many batches as there are threads for:
        to wake one costs about as much as it then does for a small file.
        """
        calls, letterbox.going = letterbox.going, []
        batches = min(len(self._threads), -(-len(calls) // _EACH))
        for number in range(batches):
            self._batches.put(calls[number::batches])

    def close(self) -> None:
        """Wait for the calls that are under way, and let the threads end."""
        if self._letterbox is not None:
            self._hand_out(self._letterbox)
        for _ in self._threads:
            self._batches.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _hire(self) -> None:
        thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            if not self._threads:
                raise
        else:
            self._threads.append(thread)

    def _work(self) -> None:
        while (batch := self._batches.get()) is not None:
            batch.reverse()
            while batch:
                call, future, letterbox = batch.pop()
                try:
                    letterbox.put(future, call(), None)
                except BaseException as error:  # noqa: BLE001  whoever waits is told
                    letterbox.put(future, None, error)
                del call, future  # a call may hold buffers: not until the next one comes


class _Letterbox:
    """What ended in the threads, until the loop takes it out."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.expected = 0
        self.going: list[_Call] = []
        self._letters: deque[tuple[Uninterrupted[Any], Any, BaseException | None]] = deque()
        self._rung = False

    def put(self, future: Uninterrupted[Any], result: Any, error: BaseException | None) -> None:
        """Called in a thread. Rings unless that was done since the loop began to look last."""
        self._letters.append((future, result, error))
        if not self._rung:
            self._rung = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self.loop.call_soon_threadsafe(self._take_out)

    def _take_out(self) -> None:
        self._rung = False  # first: who puts something in from now on rings again
        while self._letters:
            future, result, error = self._letters.popleft()
            self.expected -= 1
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
                future.exception()  # who was cancelled meanwhile does not look at it


_Call = tuple[Callable[[], Any], Uninterrupted[Any], _Letterbox]
