"""The lanes that files travel on: connections to media hosts, and places, memory and bytes a second to share."""

from __future__ import annotations

import time
from contextlib import AbstractAsyncContextManager
from types import TracebackType

from mirror.download import Body, open_body
from mirror.errors import Refused, Unavailable
from mirror.events import BytesReceived, Observer
from mirror.http import MOST_BUFFERED, Http
from mirror.limits import ByteBudget, Level, Levels, Rate, open_files_cap
from mirror.models import Span
from mirror.settings import Settings
from mirror.stores import Head, Sink
from mirror.urls import authority, shown

_REQUEST_MEMORY = 2 * MOST_BUFFERED
"""What is buffered, and a piece of it that was taken out and is written."""

BATCH = 1 << 20
"""Bytes of a large body that come as one piece where memory allows it."""

_TLS_MEMORY = 416 << 10
"""What is held of a connection through TLS: what is not decrypted yet, in a buffer a third larger that is kept; and
OpenSSL's own."""

_BATCH_MEMORY = 4 * BATCH
"""A piece that is filled, one that waits, one that was taken out, and one that is written."""

_RATE_WINDOW = 60.0


def memory_for(url: str) -> int:
    """Bytes that are set aside for a request before a byte of its body is read."""
    return _REQUEST_MEMORY + (_TLS_MEMORY if url[:6].lower() == "https:" else 0)


class Lanes:
    """What all transfers of a kind share. ``cap`` is how many requests the limit on open files allows at once.

    ``kind`` is ``media``, or ``s3`` for what comes back from the user's own bucket: that address is trusted.
    """

    def __init__(self, settings: Settings, observer: Observer, budget: ByteBudget, kind: str = "media") -> None:
        transfer = settings.transfer
        self.cap = open_files_cap(max(256, transfer.concurrency))
        self.min_rate = transfer.min_rate
        self.observer = observer
        self._http = Http(settings, observer, kind=kind, unavailable=Unavailable, refused=Refused)
        self.budget = budget
        self.rate = Rate(transfer.limit_rate)
        self._levels = Levels(transfer.concurrency, self.cap)

    async def close(self) -> None:
        await self._http.close()

    def request(self, url: str, span: Span | None, known: Head | None) -> Request:
        """A request, sent when its block is entered."""
        return Request(self, url, open_body(self._http, url, span, known))

    def level(self, url: str) -> Level:
        host = authority(url)
        return self._levels.get(host) or self._levels.of(host, self.budget.size // memory_for(url))


class Request:
    """A request with its place at the host and its memory, both waited for before a byte is read; all is given back
    at the end of its block. ``body`` comes within the rate limit.
    """

    body: Body

    def __init__(self, lanes: Lanes, url: str, opened: AbstractAsyncContextManager[Body]) -> None:
        self._lanes = lanes
        self._url = url
        self._level = lanes.level(url)
        self._opened = opened
        self._memory = 0
        self._waited = 0.0
        self._got = 0
        self._is_fast = False

    async def __aenter__(self) -> Request:
        await self._level.enter()
        try:
            self._memory = await self._lanes.budget.take(memory_for(self._url))
            self.body = await self._opened.__aenter__()
        except BaseException as error:
            self._end(error)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._opened.__aexit__(kind, error, trace)
        except BaseException as translated:
            error = translated
            raise
        finally:
            self._end(error)

    def _end(self, error: BaseException | None) -> None:
        self._lanes.budget.give(self._memory)
        if error is None:
            self._level.finished()
        elif isinstance(error, Unavailable):
            self._level.overloaded()
        self._level.leave()

    def widen(self, length: int | None) -> bool:
        """Have large pieces, if there is memory to spare; else False, and the caller writes small ones."""
        if length == 0:
            return True
        batches = self._lanes.budget.try_take(min(_BATCH_MEMORY, length or _BATCH_MEMORY))
        self._memory += batches
        if batches:
            self.body.batch = BATCH
        return batches > 0

    async def read(self) -> bytes | memoryview:
        """The next piece, b"" at the end.

        Raises:
            Unavailable: they come slower than ``min_rate`` for a minute; our own pauses do not count.
        """
        lanes, batch = self._lanes, self.body.batch
        since = time.monotonic()
        piece = await self.body.read()
        if not piece:
            return piece
        size = len(piece)
        self._waited += time.monotonic() - since
        self._is_fast = size >= batch
        self._count(size)
        if self._waited >= _RATE_WINDOW:
            if self._got < lanes.min_rate * self._waited:
                rate = self._got / self._waited
                raise Unavailable(f"slower than transfer.min_rate: {rate:.0f} B/s: {shown(self._url)}")
            self._waited, self._got = 0.0, 0
        if lanes.rate.is_limited:
            await lanes.rate.take(size)
        return piece

    async def pour(self, sink: Sink, at: int, piece: bytes | memoryview, most: int) -> int:
        """Have a sink take a piece, and what is here of what follows it, up to ``most`` bytes in all.

        Returns how many bytes it took. Raises what :meth:`read` and the sink do.
        """
        loan = None
        if self._is_fast and not self._lanes.rate.is_limited:
            loan = self.body.lend(BATCH, most - len(piece))
        if loan is None:
            await sink.write(at, piece)
            return len(piece)
        try:
            with loan:
                return await sink.draw(at, piece, loan)
        finally:  # it came, whatever became of it
            self.body.count(loan.size)
            self._count(loan.size)

    def _count(self, size: int) -> None:
        """So many bytes more have come."""
        self._got += size
        self._level.moved(size)
        self._lanes.observer(BytesReceived(bytes=size))
