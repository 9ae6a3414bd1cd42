"""A bounded pool of daemon threads: what blocks in one never holds up the end of the process."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


class Threads:
    """Runs blocking calls. concurrent.futures' own pool would be joined at the interpreter's exit."""

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._waiting: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle = threading.Semaphore(0)

    async def run(self, call: Callable[[], T]) -> T:
        """Run a call in a thread. A caller that is cancelled goes on at once; the call then ends unobserved."""
        future: Future[T] = Future()
        self._waiting.put((future, call))
        if not self._idle.acquire(blocking=False) and len(self._threads) < self._size:
            thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Let the threads end with what they are at."""
        for _ in self._threads:
            self._waiting.put(None)

    def _work(self) -> None:
        while (item := self._waiting.get()) is not None:
            future, call = item
            tell: Callable[[], object] = lambda: None  # noqa: E731
            if future.set_running_or_notify_cancel():
                try:
                    tell = partial(future.set_result, call())
                except BaseException as error:  # noqa: BLE001  whoever waits is told
                    tell = partial(future.set_exception, error)
            self._idle.release()  # first: who is told may come back at once
            with contextlib.suppress(RuntimeError):  # its loop is closed: nobody waits any more
                tell()
