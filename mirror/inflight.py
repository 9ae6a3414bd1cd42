"""What is under way right now: a file that several prompts name is fetched by one of them, a prompt is visited by one
run at a time, and the others wait.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from weakref import WeakValueDictionary

from msgspec import Struct

from mirror.models import Failure, ManifestFile, PromptId

_PATIENCE = 5.0

Fetched = tuple[str, Failure] | None
"""How the fetch of a file that several prompts share ended: where it failed, the URL and why."""

Elsewhere = tuple[str, ManifestFile]
"""A folder, and the entry of a file that the run has stored there for another prompt."""


class Turn(Struct, frozen=True, kw_only=True):
    """Whose a file is. ``mine``: the caller's, until it leaves. Else another one had it, and ``failed`` says how.

    ``elsewhere`` is where the run has stored it already, as far as whoever gave the turn knows.
    """

    mine: bool
    failed: Fetched = None
    elsewhere: Elsewhere | None = None


_MINE = Turn(mine=True)


class Inflight:
    """The files, by identity, that visits of this process fetch."""

    def __init__(self) -> None:
        self._ends: dict[str, asyncio.Future[Fetched] | None] = {}  # a future where somebody waits

    async def enter(self, identity: str) -> Turn:
        """The caller's turn at a file; or, once whoever is at it has left, how that ended."""
        if identity not in self._ends:
            self._ends[identity] = None
            return _MINE
        other = self._ends[identity]
        if other is None:
            other = self._ends[identity] = asyncio.get_running_loop().create_future()
        await asyncio.wait({other})
        return Turn(mine=False, failed=other.result())

    def leave(self, identity: str, ended: Fetched) -> None:
        """The caller's turn is over."""
        waited_for = self._ends.pop(identity)
        if waited_for is not None:
            waited_for.set_result(ended)


class Company:
    """Runs of this process that are under way: together, but for one that has workers of its own. Those take up what
    stands unfinished under the root, which would be another run's.
    """

    def __init__(self) -> None:
        self._running = 0
        self._is_alone = False
        self._moved = asyncio.Event()

    @contextlib.asynccontextmanager
    async def joined(self, *, alone: bool) -> AsyncIterator[None]:
        """Under way as long as the block lasts. Who cannot be yet waits a moment: a run that was left may be ending.

        Raises:
            RuntimeError: nothing has ended meanwhile.
        """
        try:
            async with asyncio.timeout(_PATIENCE):
                while self._is_alone or (alone and self._running):
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            told = "a run with worker processes, or on a cluster, has a Mirror for itself: wait for the other one's end"
            raise RuntimeError(told) from None
        self._running += 1
        self._is_alone = alone
        try:
            yield
        finally:
            self._running -= 1
            self._is_alone = False
            self._moved.set()


class Visited:
    """Prompts that are visited, by whichever run of this process: two would publish one manifest at once."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[PromptId, asyncio.Lock] = WeakValueDictionary()

    def alone(self, prompt_id: PromptId) -> asyncio.Lock:
        """To be held for as long as a visit takes."""
        lock = self._locks.get(prompt_id)
        if lock is None:
            lock = self._locks[prompt_id] = asyncio.Lock()
        return lock
