"""The lanes that files travel on: connections to media hosts, and places, memory and bytes a second to share."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from urllib.parse import urlsplit

from mirror.download import Body, open_body
from mirror.errors import Refused, Unavailable
from mirror.events import BytesReceived, Observer
from mirror.http import MOST_BUFFERED, Http
from mirror.limits import ByteBudget, Level, Levels, Rate, open_files_cap
from mirror.models import Span
from mirror.settings import Settings
from mirror.stores import Head
from mirror.urls import shown

_REQUEST_MEMORY = 2 * MOST_BUFFERED
"""What is buffered, and a chunk of it that was taken out and is written."""

_BATCH_MEMORY = (2 << 20) + MOST_BUFFERED
"""A batch of 1 MiB is collected while another one is written; a chunk more makes each of them larger than that."""

_RATE_WINDOW = 60.0


class Lanes:
    """What all transfers of a kind share. ``cap`` is how many requests the limit on open files allows at once.

    ``kind`` is ``media``, or ``s3`` for what comes back from the user's own bucket: that address is trusted.
    """

    def __init__(self, settings: Settings, observer: Observer, budget: ByteBudget, kind: str = "media") -> None:
        transfer = settings.transfer
        self.cap = open_files_cap(max(256, transfer.concurrency))
        self._min_rate = transfer.min_rate
        self._stall = transfer.stall_timeout or None
        self._observer = observer
        self._http = Http(settings, observer, kind=kind, unavailable=Unavailable, refused=Refused)
        self._budget = budget
        self._levels = Levels(transfer.concurrency, min(self.cap, budget.size // _REQUEST_MEMORY))
        self._rate = Rate(transfer.limit_rate)

    async def close(self) -> None:
        await self._http.close()

    @contextlib.asynccontextmanager
    async def request(self, url: str, span: Span | None, known: Head | None) -> AsyncIterator[Body]:
        """A request that waited for its place at the host and for its memory, both taken before a byte is read."""
        level = self.level(url)
        async with level.slot():
            try:
                async with self._budget.taken(_REQUEST_MEMORY), open_body(self._http, url, span, known) as body:
                    yield body
                level.finished()
            except Unavailable:
                level.overloaded()
                raise

    @contextlib.contextmanager
    def batches(self, length: int | None) -> Iterator[bool]:
        """Memory for large batches, if there is any to spare; else False, and the caller writes small ones."""
        memory = self._budget.try_take(min(_BATCH_MEMORY, length if length is not None else _BATCH_MEMORY))
        try:
            yield memory > 0 or length == 0
        finally:
            self._budget.give(memory)

    def level(self, url: str) -> Level:
        return self._levels.of(urlsplit(url).netloc)

    async def chunks(self, body: Body, url: str) -> AsyncGenerator[bytes, None]:
        """A body's bytes within the rate limit.

        Raises:
            Unavailable: they come slower than ``min_rate`` for a minute; our own pauses do not count.
        """
        waited, got, level = 0.0, 0, self.level(url)
        async with contextlib.aclosing(body.chunks()) as chunks:
            while True:
                since = time.monotonic()
                # Not every byte that comes is one of the body: framing alone must not hold a place for ever.
                async with asyncio.timeout(self._stall):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    return
                waited += time.monotonic() - since
                got += len(chunk)
                level.moved(len(chunk))
                self._observer(BytesReceived(bytes=len(chunk)))
                if waited >= _RATE_WINDOW:
                    if got < self._min_rate * waited:
                        raise Unavailable(f"slower than transfer.min_rate: {got / waited:.0f} B/s: {shown(url)}")
                    waited, got = 0.0, 0
                await self._rate.take(len(chunk))
                yield chunk
