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
        self._changed = asyncio.Condition()

    @property
    def unfinished(self) -> int:
        """Items that were put in and have not ended."""
        return len(self._ready) + len(self._later) + self._busy

    async def put(self, item: T) -> None:
        """Add an item; waits while there is no room."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._ready) < self._room)
            self._ready.append(item)
            self._changed.notify()

    async def take(self) -> T | None:
        """The next item, those whose time has come first. None when all have ended and no more will come."""
        async with self._changed:
            while True:
                now = asyncio.get_running_loop().time()
                if self._later and self._later[0][0] <= now:
                    self._busy += 1
                    return heapq.heappop(self._later)[2]
                if self._ready:
                    self._busy += 1
                    self._changed.notify_all()
                    return self._ready.popleft()
                if self._closed and not self._later and not self._busy:
                    return None
                await self._wait_until(self._later[0][0] if self._later else None)

    async def done(self, again: tuple[T, float] | None = None) -> None:
        """A taken item has ended; or it is to come back after so many seconds."""
        async with self._changed:
            self._busy -= 1
            if again is not None:
                item, seconds = again
                due = asyncio.get_running_loop().time() + seconds
                heapq.heappush(self._later, (due, next(self._order), item))
            self._changed.notify_all()

    async def close(self) -> None:
        """Nothing more will be put in."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()

    async def _wait_until(self, due: float | None) -> None:
        try:
            async with asyncio.timeout_at(due):
                await self._changed.wait()
        except TimeoutError:
            pass
