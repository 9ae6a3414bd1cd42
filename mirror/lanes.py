"""The lanes that files travel on: connections to media hosts, and places, memory and bytes a second to share."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from mirror.download import Body, open_body
from mirror.errors import Refused, Unavailable
from mirror.events import BytesReceived, Observer
from mirror.http import MOST_BUFFERED, Http
from mirror.limits import ByteBudget, Level, Levels, Rate, open_files_cap
from mirror.models import Span
from mirror.settings import Settings
from mirror.stores import Head
from mirror.urls import authority, shown

_REQUEST_MEMORY = 2 * MOST_BUFFERED
"""What is buffered, and a piece of it that was taken out and is written."""

BATCH = 1 << 20
"""Bytes of a large body that come as one piece where memory allows it."""

_BATCH_MEMORY = 4 * BATCH
"""A piece that is filled, one that waits, one that was taken out, and one that is written."""

_RATE_WINDOW = 60.0


class Lanes:
    """What all transfers of a kind share. ``cap`` is how many requests the limit on open files allows at once.

    ``kind`` is ``media``, or ``s3`` for what comes back from the user's own bucket: that address is trusted.
    """

    def __init__(self, settings: Settings, observer: Observer, budget: ByteBudget, kind: str = "media") -> None:
        transfer = settings.transfer
        self.cap = open_files_cap(max(256, transfer.concurrency))
        self.min_rate = transfer.min_rate
        self.stall = transfer.stall_timeout or None
        self.observer = observer
        self._http = Http(settings, observer, kind=kind, unavailable=Unavailable, refused=Refused)
        self.budget = budget
        self.rate = Rate(transfer.limit_rate)
        self._levels = Levels(transfer.concurrency, min(self.cap, budget.size // _REQUEST_MEMORY))

    async def close(self) -> None:
        await self._http.close()

    @contextlib.asynccontextmanager
    async def request(self, url: str, span: Span | None, known: Head | None) -> AsyncIterator[Request]:
        """A request that waited for its place at the host and for its memory, both taken before a byte is read."""
        level, memory = self.level(url), 0
        await level.enter()
        try:
            memory = await self.budget.take(_REQUEST_MEMORY)
            async with open_body(self._http, url, span, known) as body:
                request = Request(self, body, level, url)
                try:
                    yield request
                finally:
                    memory += request.batches
            level.finished()
        except Unavailable:
            level.overloaded()
            raise
        finally:
            self.budget.give(memory)
            level.leave()

    def level(self, url: str) -> Level:
        return self._levels.of(authority(url))


class Request:
    """A request that was answered, and its body within the rate limit. ``batches`` is the memory for large pieces."""

    def __init__(self, lanes: Lanes, body: Body, level: Level, url: str) -> None:
        self.body = body
        self.batches = 0
        self._lanes = lanes
        self._level = level
        self._url = url
        self._waited = 0.0
        self._got = 0

    def widen(self, length: int | None) -> bool:
        """Have large pieces, if there is memory to spare; else False, and the caller writes small ones."""
        if length == 0:
            return True
        self.batches = self._lanes.budget.try_take(min(_BATCH_MEMORY, length or _BATCH_MEMORY))
        if self.batches:
            self.body.batch = BATCH
        return self.batches > 0

    async def read(self) -> bytes:
        """The next piece, b"" at the end.

        Raises:
            Unavailable: they come slower than ``min_rate`` for a minute; our own pauses do not count.
        """
        lanes = self._lanes
        since = time.monotonic()
        # Not every byte that comes is one of the body: framing alone must not hold a place for ever.
        async with asyncio.timeout(lanes.stall):
            piece = await self.body.read()
        if not piece:
            return piece
        size = len(piece)
        self._waited += time.monotonic() - since
        self._got += size
        self._level.moved(size)
        lanes.observer(BytesReceived(bytes=size))
        if self._waited >= _RATE_WINDOW:
            if self._got < lanes.min_rate * self._waited:
                rate = self._got / self._waited
                raise Unavailable(f"slower than transfer.min_rate: {rate:.0f} B/s: {shown(self._url)}")
            self._waited, self._got = 0.0, 0
        if lanes.rate.is_limited:
            await lanes.rate.take(size)
        return piece
