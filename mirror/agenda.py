"""What is to be done next: a bounded queue of what can start, and a heap of what waits for its time."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Agenda(Generic[T]):
    """Shared by one producer, who waits while ``room`` items are ready, and any number of workers."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._ready: deque[T] = deque()
        self._later: list[tuple[float, int, T]] = []
        self._order = itertools.count()
        self._busy = 0
        self._closed = False
        lock = asyncio.Lock()
        self._space = asyncio.Condition(lock)
        self._work = asyncio.Condition(lock)

    @property
    def unfinished(self) -> int:
        """Items that were put in and have not ended."""
        return len(self._ready) + len(self._later) + self._busy

    async def put(self, item: T) -> None:
        """Add an item; waits while there is no room."""
        async with self._space:
            await self._space.wait_for(lambda: len(self._ready) < self._room)
            self._ready.append(item)
            self._work.notify()

    async def take(self) -> T | None:
        """The next item, those whose time has come first. None when all have ended and no more will come."""
        async with self._work:
            while True:
                item = self._pop()
                if item is not None:
                    self._busy += 1
                    if self._later:
                        self._work.notify()  # somebody must go on watching the clock
                    return item
                if self._is_over():
                    return None
                await self._wait_until(self._later[0][0] if self._later else None)

    async def done(self, again: tuple[T, float] | None = None) -> None:
        """A taken item has ended; or it is to come back after so many seconds."""
        async with self._work:
            self._busy -= 1
            if again is not None:
                item, seconds = again
                due = asyncio.get_running_loop().time() + seconds
                heapq.heappush(self._later, (due, next(self._order), item))
                self._work.notify()
            elif self._is_over():
                self._work.notify_all()

    async def close(self) -> None:
        """Nothing more will be put in."""
        async with self._work:
            self._closed = True
            if self._is_over():
                self._work.notify_all()

    def _pop(self) -> T | None:
        if self._later and self._later[0][0] <= asyncio.get_running_loop().time():
            return heapq.heappop(self._later)[2]
        if self._ready:
            self._space.notify()
            return self._ready.popleft()
        return None

    def _is_over(self) -> bool:
        return self._closed and not self.unfinished

    async def _wait_until(self, due: float | None) -> None:
        try:
            async with asyncio.timeout_at(due):
                await self._work.wait()
        except TimeoutError:
            pass
