"""Whose turn it is at a file, among all workers: one that several prompts name is fetched by one of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from mirror.inflight import Elsewhere, Fetched, Turn

W = TypeVar("W")

Stored = Callable[[str], Awaitable[Elsewhere | None]]
"""Where the run has stored a file already."""


class Turns(Generic[W]):
    """``give`` tells a worker whose turn it is; ``stored`` knows what the run has stored."""

    def __init__(self, give: Callable[[W, str, Turn], None], stored: Stored) -> None:
        self._give = give
        self._stored = stored
        self._holders: dict[str, W] = {}
        self._waiting: dict[str, deque[W]] = {}

    async def enter(self, worker: W, identity: str) -> None:
        """A worker wants to fetch a file: it is told at once that it may, or later how another one fared."""
        if identity in self._holders:
            self._waiting.setdefault(identity, deque()).append(worker)
            return
        self._holders[identity] = worker
        self._give(worker, identity, Turn(mine=True, elsewhere=await self._stored(identity)))

    async def leave(self, worker: W, identity: str, ended: Fetched) -> None:
        """It is done with it; whoever waits hears how that ended, and where the file is."""
        if self._holders.get(identity) != worker:
            if worker in (waiting := self._waiting.get(identity, deque())):
                waiting.remove(worker)
            return
        del self._holders[identity]
        waiting = self._waiting.pop(identity, deque())
        elsewhere = await self._stored(identity) if waiting else None
        for other in waiting:
            self._give(other, identity, Turn(mine=False, failed=ended, elsewhere=elsewhere))

    async def leave_all(self, worker: W) -> None:
        """It is no more."""
        for waiting in self._waiting.values():
            while worker in waiting:
                waiting.remove(worker)
        for identity in [identity for identity, holder in self._holders.items() if holder == worker]:
            await self.leave(worker, identity, None)
