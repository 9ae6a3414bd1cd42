"""How much at once: memory, bytes a second, requests a second, and requests in flight to one host."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import time
from collections import deque
from typing import NamedTuple

_FILES_EACH = 6

_START = 8
"""Requests to a host at once, before anything is known of it."""

_SHORTEST_WINDOW = 0.02
_LONG_WINDOW = 0.1
"""Seconds: what ends sooner than in the one is judged by chance; after the other it is judged, whatever has ended."""

_REQUEST_WORTH = 100_000
"""What a finished request counts for, in bytes, when throughput is judged: small files are work too."""


class Memory(NamedTuple):
    """``transfer.memory``, shared out: who holds of one share may wait for the next one, and never the other way."""

    blocks: int
    incoming: int
    outgoing: int


def shared_out(memory: int, *, bucket: bool) -> Memory:
    """How much is for blocks read from disk, for bodies that come in, and for parts on their way to the bucket."""
    return Memory(memory // 8, memory * 3 // 8, memory // 2) if bucket else Memory(0, memory, 0)


class ByteBudget:
    """A bound on all buffers together. Taken before a body is read; first come, first served."""

    def __init__(self, size: int) -> None:
        self.size = max(1, size)
        self._free = self.size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, amount: int) -> int:
        """Wait until ``amount`` bytes are free, and take them. An amount over the whole budget takes it all."""
        amount = min(amount, self.size)
        if not self._waiting and amount <= self._free:
            self._free -= amount
            return amount
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((amount, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give(amount)
            else:
                # Who gave bytes back in the same step of the loop has dropped a cancelled turn already.
                with contextlib.suppress(ValueError):
                    self._waiting.remove((amount, turn))
                self._wake()
            raise
        return amount

    def taken(self, amount: int) -> _Taken:
        """Hold ``amount`` bytes for a while."""
        return _Taken(self, amount)

    def try_take(self, amount: int) -> int:
        """``amount`` if it is free at once, else 0."""
        if self._waiting or amount > self._free:
            return 0
        self._free -= amount
        return amount

    def give(self, amount: int) -> None:
        """Put bytes back."""
        self._free += amount
        self._wake()

    def _wake(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            amount, turn = self._waiting.popleft()
            if not turn.done():
                self._free -= amount
                turn.set_result(None)


class _Taken:
    """Bytes of a budget, as long as the block lasts."""

    __slots__ = ("_amount", "_budget")

    def __init__(self, budget: ByteBudget, amount: int) -> None:
        self._budget = budget
        self._amount = amount

    async def __aenter__(self) -> None:
        self._amount = await self._budget.take(self._amount)

    async def __aexit__(self, *_: object) -> None:
        self._budget.give(self._amount)


class Rate:
    """Spreads units (bytes, requests) evenly over time; 0 a second means no limit."""

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._next = 0.0

    def set(self, per_second: float) -> None:
        """From now on."""
        self._per_second = per_second

    @property
    def is_limited(self) -> bool:
        return self._per_second > 0

    async def take(self, amount: float = 1) -> None:
        """Wait until ``amount`` more may pass."""
        if not self._per_second:
            return
        now = time.monotonic()
        due = max(self._next, now)
        self._next = due + amount / self._per_second
        if due > now:
            await asyncio.sleep(due - now)


class Level:
    """How many requests one host gets at once. It finds its own level.

    It doubles while that brings more throughput. Where twice as many bring no more, two windows long, it goes back to
    half: more connections than are of use cost memory and caches. From there it looks a little higher now and then. A
    host that says 429 or 503, or does not answer, halves it, once a window, and from there it only adds.

    A window is so many answers as there are places, or a tenth of a second of bodies that are longer on their way.
    """

    def __init__(self, start: int, cap: int, *, fixed: bool = False) -> None:
        self.limit = max(1, min(start, cap))
        self._cap = max(1, cap)
        self._fixed = fixed
        self._busy = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._doubling = True
        self._flat = 0
        self._best = 0.0
        self._windows = 0
        self._halved = False
        self._open_window()

    @classmethod
    def fixed(cls, places: int) -> Level:
        """So many places, whatever comes."""
        return cls(places, places, fixed=True)

    @property
    def idle(self) -> bool:
        """True if a further request would start at once and nobody waits for one."""
        return not self._waiting and self._busy < self.limit

    def slot(self) -> _Slot:
        """Hold one of the places while a request is under way."""
        return _Slot(self)

    def moved(self, amount: int) -> None:
        """Tell that ``amount`` bytes came in."""
        self._work += amount
        elapsed = time.monotonic() - self._since
        if elapsed >= _LONG_WINDOW:
            self._judge(self._work / elapsed)

    def finished(self) -> None:
        """Tell that a request ended well."""
        self._work += _REQUEST_WORTH
        self._ended += 1
        elapsed = time.monotonic() - self._since
        if self._ended >= self.limit and elapsed >= _SHORTEST_WINDOW:
            self._judge(self._work / elapsed)

    def overloaded(self) -> None:
        """Tell that the host asked for less, or did not answer."""
        self._ended += 1
        if self._fixed or (self._halved and self._ended < self.limit):
            return
        self.limit = max(1, self.limit // 2)
        self._doubling = False
        self._best = 0.0
        self._open_window()
        self._halved = True

    def _judge(self, rate: float) -> None:
        if self._full and not self._fixed:
            self._windows += 1
            grew = rate > self._best * 1.1
            self._flat = 0 if grew else self._flat + 1
            if self._doubling and self._flat == 2:
                self._doubling = False
                self.limit = max(1, self.limit // 2)
            elif self._doubling:
                self.limit = min(self._cap, 2 * self.limit if grew else self.limit)
            elif grew or self._windows % 8 == 0:
                self.limit = min(self._cap, self.limit + max(1, self.limit // 8))
            self._best = max(rate, self._best * 0.98)
        self._open_window()
        self._wake()

    def _open_window(self) -> None:
        self._since = time.monotonic()
        self._work = 0
        self._ended = 0
        self._full = bool(self._waiting)
        self._halved = False

    async def enter(self) -> None:
        """Wait for a place, and take it; :meth:`leave` gives it back."""
        if self._busy < self.limit and not self._waiting:
            self._busy += 1
            return
        self._full = True
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()
            else:
                with contextlib.suppress(ValueError):
                    self._waiting.remove(turn)
            raise

    def leave(self) -> None:
        """Give a place back."""
        self._busy -= 1
        self._wake()

    def _wake(self) -> None:
        while self._waiting and self._busy < self.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self._busy += 1
                turn.set_result(None)


class _Slot:
    """A place of a level, as long as the block lasts."""

    __slots__ = ("_level",)

    def __init__(self, level: Level) -> None:
        self._level = level

    async def __aenter__(self) -> None:
        await self._level.enter()

    async def __aexit__(self, *_: object) -> None:
        self._level.leave()


class Levels:
    """A :class:`Level` for each host that was met. ``concurrency`` is the same for all of them; 0 adapts."""

    def __init__(self, concurrency: int, cap: int) -> None:
        self._fixed = concurrency
        self._cap = cap
        self._levels: dict[str, Level] = {}

    def get(self, host: str) -> Level | None:
        """A host's level, if it was met."""
        return self._levels.get(host)

    def of(self, host: str, most: int | None = None) -> Level:
        """A host's level, never above the cap, nor ``most`` where that is less."""
        level = self._levels.get(host)
        if level is None:
            cap = self._cap if most is None else min(self._cap, most)
            level = self._levels[host] = Level(self._fixed or _START, cap, fixed=bool(self._fixed))
        return level


def open_files_cap(polite: int = 256) -> int:
    """How many transfers the limit on open files allows (it is raised to what the system grants), at most ``polite``.

    Each transfer holds a socket, a partial file and its journal, and as many again may pause between two attempts.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES_EACH * polite + 64
    if soft != resource.RLIM_INFINITY and soft < wanted:
        raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
    return polite if soft == resource.RLIM_INFINITY else max(4, min(polite, (soft - 64) // _FILES_EACH))
