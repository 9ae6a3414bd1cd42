"""The tasks that do a Mirror's work, and what their callers are told when they are stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from mirror.endings import ended
from mirror.outbox import Outbox
from mirror.sources import Batch, Source

T = TypeVar("T")

Work = Callable[[Callable[[T], Awaitable[None]]], Coroutine[Any, Any, None]]
"""Hands on what comes of it, and waits where its reader is slow."""


class Tasks:
    """Open from :meth:`open` to :meth:`stop`, once, and in one event loop."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._is_open = self._is_over = False
        self._left: BaseException | None = None

    def open(self) -> None:
        """From now on there may be tasks.

        Raises:
            RuntimeError: that was so before.
        """
        if self._is_open or self._is_over:
            raise RuntimeError("a Mirror is for one block: make another one")
        self._is_open, self._loop = True, asyncio.get_running_loop()

    def check(self) -> None:
        """Check that there may be tasks.

        Raises:
            RuntimeError: there may not, any more or yet.
            SystemExit, KeyboardInterrupt: as :meth:`heed`.
        """
        self.heed()
        if self._is_over:
            raise RuntimeError("the Mirror was closed: its `async with` block has ended")
        if not self._is_open:
            raise RuntimeError("the Mirror is not open: use it in its `async with` block")
        if self._loop is not asyncio.get_running_loop():
            raise RuntimeError("the Mirror belongs to another event loop: make one in each")

    def leave(self, error: BaseException) -> None:
        """The program is to end: all tasks are stopped, and whoever reads what they hand on gets the error."""
        self._left = self._left or error
        self._cancel()

    def heed(self) -> None:
        """Raise what the program is to end with, if it is."""
        if self._left is not None:
            raise self._left

    async def stop(self) -> None:
        """Nothing works on after this. (A loop that was left with break closes its generator only some time later.)"""
        self._is_open, self._is_over = False, True
        self._cancel()
        await ended(self._running)

    def _cancel(self) -> None:
        for task in self._running:
            task.cancel()

    async def drain(self, work: Work[T]) -> AsyncGenerator[list[T], None]:
        """What some work hands on, all that has come at once. To close this stops the work.

        Raises:
            Exception: what the work raises, and what :meth:`check` does where the tasks were stopped.
        """
        self.check()
        # It lives in a task of its own: a generator must not be left while it stands in a task group (PEP 789).
        outbox: Outbox[T] = Outbox()
        task = asyncio.create_task(work(outbox.put))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        task.add_done_callback(lambda _: outbox.close())
        try:
            while come := await outbox.take():
                yield come
            await asyncio.wait({task})
            if task.cancelled() or self._left is not None:
                self.check()
            task.result()
        finally:
            task.cancel()
            await ended({task})
            if not task.cancelled():
                task.exception()

    async def given(self, source: Source) -> AsyncGenerator[Batch, None]:
        """What a caller's source gives. What it raises reaches the caller, even what a task would take for its own."""
        try:
            async for batch in source:
                yield batch
        except (SystemExit, KeyboardInterrupt) as error:
            self.leave(error)
        except asyncio.CancelledError as error:
            asking = asyncio.current_task()
            if asking is None or asking.cancelling():
                raise
            raise RuntimeError("the ids raised a CancelledError of their own") from error
