"""A connection, and one exchange at a time on it: bytes go from the socket to where they are handed over from.

A body of known length is received into buffers that then belong to the reader, without a copy. Heads, chunks and what
came together with a head pass through a scratch buffer that all connections share: asyncio asks for a buffer, fills it
and tells how far in one step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, cast

from mirror.h1 import Broken, CutShort, Stale, Stalled, Unreadable, WireError
from mirror.h1.chunks import Chunks
from mirror.h1.head import END, Head, Headers, check_begun, parse

BATCH = 64 << 10
"""Bytes of a piece unless its reader asks for larger ones. Two pieces at most are held: one that waits for the reader,
and one that is received or waits behind it."""

_NUDGE = 0.25
"""Seconds after which a slow body's bytes are handed over though they fill no piece."""

_PIECE = 256 << 10
"""Bytes of a body that are given to the socket at once."""

_MOST_INTERIM = 10
_CUT = "the body broke off"


class Place(NamedTuple):
    """Where requests go to. ``host`` is a name in ASCII, or an address without brackets."""

    host: str
    port: int
    is_tls: bool


class Body(NamedTuple):
    """What goes with a request, ``size`` bytes in all; nobody changes them. ``sent`` is told what the socket took."""

    pieces: Sequence[bytes | memoryview]
    size: int
    sent: Callable[[int], None]


class Owner(Protocol):
    """Whoever keeps connections. ``scratch`` is for all of them, in one event loop."""

    scratch: bytearray
    stall: float

    def settle(self, connection: Connection) -> None:
        """Its exchange has ended well, and it may be used for another one."""

    def lose(self, connection: Connection) -> None:
        """Its socket is gone."""


class Connection(asyncio.BufferedProtocol):
    """One socket to ``place``."""

    def __init__(self, owner: Owner, place: Place) -> None:
        self.place = place
        self.batch = BATCH
        self.idle_since = 0.0
        self._loop = asyncio.get_running_loop()
        self._owner = owner
        self._stall = owner.stall or float("inf")
        self._scratch = owner.scratch
        self._scratch_view = memoryview(owner.scratch)
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._error: WireError | None = None
        self._is_used = False
        # The exchange
        self._awaits_head = False
        self._begun = bytearray()
        self._interim = 0
        self._head: Head | None = None
        self._is_sent = True
        self._is_full = False
        self._limit = 0.0
        self._alive = 0.0
        # Its body
        self._left = 0
        self._chunks: Chunks | None = None
        self._ended = True
        self._is_clean = True
        self._buffer: bytearray | None = None
        self._view = self._scratch_view
        self._filled = 0  # of the buffer
        self._first = 0.0
        self._ready: bytes | memoryview | None = None
        self._next: bytes | memoryview | None = None
        # Timers that are set anew only when they fire
        self._patience: asyncio.TimerHandle | None = None
        self._nudge: asyncio.TimerHandle | None = None

    # The exchange ------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        return self._error is None and self._transport is not None and not self._transport.is_closing()

    async def ask(self, request: bytes, limit: float, body: Body | None = None) -> Answer:
        """Send a request and wait for the head of its answer, until the loop's clock shows ``limit``.

        With a body there is no limit before it is sent, as long as the other side takes it; what was answered before
        its end is the answer.

        Raises:
            Stale: the connection was used before, and ended before anything came.
            Broken, Stalled, Unreadable: no answer.
        """
        assert self._transport is not None
        self.batch = BATCH
        self._awaits_head, self._head = True, None
        self._ended = False
        self._interim = 0
        self._alive = self._loop.time()
        if body is None:
            self._limit = limit
            self._transport.write(request)
        else:
            self._limit, self._is_sent = 0.0, False
            await self._send(request, body)
            if self._awaits_head and self._stall < float("inf"):
                self._alive = self._loop.time()
                self._limit = self._alive + self._stall
        while self._awaits_head:
            await self._wait()
        head = cast("Head | None", self._head)
        if head is None:
            self.abort()
            raise self._error or CutShort(_CUT)
        self._is_used = True
        return Answer(self, head)

    async def _send(self, request: bytes, body: Body) -> None:
        """Give all to the socket as fast as that takes it, or up to an answer that comes before, or an error."""
        transport = self._transport
        assert transport is not None
        if body.size <= _PIECE:
            self._is_sent = True
            transport.write(b"".join([request, *body.pieces]))
            body.sent(body.size)
            return
        transport.write(request)
        for each in body.pieces:
            view = memoryview(each)
            for start in range(0, len(view), _PIECE):
                piece = view[start : start + _PIECE]
                transport.write(piece)
                while self._is_full and self._awaits_head:
                    await self._wait()
                if not self._awaits_head:
                    return
                self._alive = self._loop.time()
                body.sent(len(piece))
        self._is_sent = True

    def take(self) -> bytes | memoryview | None:
        """The next piece, b"" at the end; None if there is none yet."""
        piece = self._ready
        if piece is not None:
            self._ready, self._next = self._next, None
            if self._ready is not None and not self._ended and self._error is None:
                assert self._transport is not None
                self._transport.resume_reading()
            return piece
        if self._ended:
            return b""
        if self._error is not None:
            raise self._error
        return None

    async def wait(self) -> None:
        """Until there is a piece, the end or an error."""
        self._alive = self._loop.time()
        if self._nudge is None and self._chunks is None:
            self._nudge = self._loop.call_at(self._alive + _NUDGE, self._hand_over_late)
        await self._wait()

    async def _wait(self) -> None:
        if self._patience is None:
            due = self._due()
            if due < float("inf"):
                self._patience = self._loop.call_at(due, self._lose_patience)
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        except asyncio.CancelledError:
            self.abort()
            raise
        finally:
            self._waiter = None

    @property
    def is_done(self) -> bool:
        """True if the body has ended and its reader has all of it."""
        return self._ended and self._ready is None

    def finish(self) -> None:
        """The reader wants no more. The connection is settled if the answer is here whole, else closed."""
        self._ready = self._next = self._head = self._chunks = None
        if self._ended and self._is_clean and self.is_open:
            self._owner.settle(self)
        else:
            self.abort()

    def abort(self) -> None:
        """Close at once; what has not been read is lost."""
        self._fail(CutShort(_CUT))
        if self._transport is not None:
            self._transport.abort()

    # What asyncio calls ------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        if not self._left:
            return self._scratch_view
        if self._buffer is None:
            self._open_buffer()
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        if self._error is not None:
            return  # it is being closed
        if self._buffer is not None:
            self._received(nbytes)
        elif self._awaits_head:
            self._take_head(nbytes)
        elif self._ended:
            self.abort()  # nobody has asked for this
        else:
            self._take_body(0, nbytes)

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self._alive = self._loop.time()
        if self._awaits_head:
            self._wake()

    def eof_received(self) -> None:
        """The transport closes itself after it; what there is to say of it is the same."""
        self._end_of_stream()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_of_stream(exc)
        for timer in (self._patience, self._nudge):
            if timer is not None:
                timer.cancel()
        self._patience = self._nudge = None
        self._owner.lose(self)

    def _end_of_stream(self, exc: Exception | None = None) -> None:
        if self._error is not None:
            return
        if self._awaits_head:
            nothing_came = not self._begun and not self._interim
            kind = Stale if self._is_used and nothing_came else Broken
            self._fail(kind(_reason(exc) or "it was closed before an answer came"))
        elif not self._ended:
            if self._buffer is not None and self._filled:
                self._hand_over()
            is_whole = self._left == 0 and self._chunks is None and exc is None
            self._ended = is_whole  # the end of the connection is that of the body
            self._fail(None if is_whole else CutShort(_CUT))
        self._is_clean = False

    # The head ----------------------------------------------------------------------------------

    def _take_head(self, stop: int) -> None:
        start = 0
        try:
            while True:
                end = self._end_of_head(start, stop)
                if end < 0:
                    return
                raw = self._begun if self._begun else self._scratch[start : end - 4]
                head = parse(raw)
                self._begun = bytearray()
                start = end
                if head.status >= 200:
                    break
                self._interim += 1
                if self._interim > _MOST_INTERIM or head.status == 101:
                    raise Unreadable
        except Unreadable as error:
            self._fail(error)
            return
        self._begin_body(head)
        if start < stop:
            self._take_body(start, stop)
        self._wake()

    def _end_of_head(self, start: int, stop: int) -> int:
        """Where the head ends in the scratch buffer, its empty line included; -1 if it does not yet.

        Of a head that comes in pieces, all but the empty line is in ``_begun`` then.
        """
        begun = self._begun
        if not begun:
            end = self._scratch.find(END, start, stop)
            if end >= 0:
                return end + 4
        before = len(begun)
        begun += self._scratch_view[start:stop]
        end = begun.find(END, max(0, before - 3)) if before else -1
        if end < 0:
            check_begun(begun, before)
            self._alive = self._loop.time()
            return -1
        del begun[end:]
        return start + end + 4 - before

    def _begin_body(self, head: Head) -> None:
        self._awaits_head = False
        self._head = head
        self._left = head.length or 0
        self._chunks = Chunks() if head.is_chunked else None
        self._ended = head.length == 0
        assert self._transport is not None
        # What was answered before all of the request had gone leaves the rest of it on the way.
        self._is_clean = head.is_lasting and self._is_sent and not self._transport.get_write_buffer_size()
        self._limit = 0.0

    # The body ----------------------------------------------------------------------------------

    def _take_body(self, start: int, stop: int) -> None:
        """Bytes of the body, or more than those, in the scratch buffer."""
        if self._ended:
            self._is_clean = False
        elif self._chunks is not None:
            self._take_chunks(self._chunks, start, stop)
        elif self._left:
            self._take_first(start, stop)
        else:
            self._alive = self._loop.time()
            self._hand(bytes(self._scratch_view[start:stop]))

    def _take_first(self, start: int, stop: int) -> None:
        """What came with the head: all there is, or the beginning of a piece."""
        size = stop - start
        if size >= self._left:
            self._is_clean = self._is_clean and size == self._left
            size, self._left = self._left, 0
            self._ended = True
            self._hand(bytes(self._scratch_view[start : start + size]))
        else:
            self._open_buffer()
            self._view[:size] = self._scratch_view[start:stop]
            self._received(size)

    def _take_chunks(self, chunks: Chunks, start: int, stop: int) -> None:
        try:
            body, at = chunks.feed(self._scratch, start, stop)
        except CutShort as error:
            self._fail(error)
            return
        self._ended = chunks.ended
        if chunks.ended and at < stop:
            self._is_clean = False
        if body:
            self._alive = self._loop.time()
            self._hand(body)
        elif self._ended:
            self._wake()

    def _open_buffer(self) -> None:
        # The last one has room for a byte more: what comes after a body must not wait to be taken for an answer.
        self._buffer = bytearray(min(self.batch, self._left + 1))
        self._view = memoryview(self._buffer)
        self._filled = 0

    def _received(self, nbytes: int) -> None:
        """So many bytes more are in the buffer."""
        self._alive = self._loop.time()
        if not self._filled:
            self._first = self._alive
        self._filled += nbytes
        self._left -= nbytes
        if self._left <= 0:
            if self._left:
                self._filled += self._left
                self._left = 0
                self._is_clean = False
            self._ended = True
            self._hand_over()
        elif self._filled == len(self._view):
            self._hand_over()

    def _hand_over(self) -> None:
        """What is in the buffer is a piece. A small part of a large buffer is copied, and the buffer kept."""
        piece: bytes | memoryview = self._view[: self._filled]
        if self._filled * 2 < len(self._view) and self._left not in (0, len(self._view)):
            piece, self._filled = bytes(piece), 0
            self._view = self._view[: self._left + 1]
        else:
            self._buffer, self._view = None, self._scratch_view
        self._hand(piece)

    def _hand(self, piece: bytes | memoryview) -> None:
        if self._ready is None:
            self._ready = piece
            self._wake()
            return
        self._next = piece
        if not self._ended and self._transport is not None:
            self._transport.pause_reading()

    # Waiting -----------------------------------------------------------------------------------

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: WireError | None) -> None:
        """Nothing more comes; what has come is still handed over."""
        if self._error is None and error is not None:
            self._error = error
            self._awaits_head = False
            self._left = 0
            self._buffer, self._view = None, self._scratch_view
        self._wake()

    def _due(self) -> float:
        """When a wait has been too long. The head has a limit in all, against one that trickles."""
        due = self._alive + self._stall
        return min(due, self._limit) if self._limit else due

    def _lose_patience(self) -> None:
        self._patience = None
        if self._waiter is None or self._waiter.done():
            return
        due = self._due()
        if self._loop.time() >= due:
            self._fail(Stalled())
            self.abort()
        else:
            self._patience = self._loop.call_at(due, self._lose_patience)

    def _hand_over_late(self) -> None:
        self._nudge = None
        if self._waiter is None or self._waiter.done() or self._awaits_head:
            return
        due = self._first if self._buffer is not None and self._filled else self._loop.time()
        if due + _NUDGE <= self._loop.time():
            self._hand_over()
        else:
            self._nudge = self._loop.call_at(due + _NUDGE, self._hand_over_late)


class Answer:
    """The answer to a GET. Its connection goes back when its body was read to its end, or is closed with it."""

    __slots__ = ("_connection", "_is_whole", "content_length", "headers", "status")

    def __init__(self, connection: Connection, head: Head) -> None:
        self.status: int = head.status
        self.headers: Headers = head.headers
        self.content_length: int | None = head.length
        self._connection: Connection | None = connection
        self._is_whole = False

    @property
    def batch(self) -> int:
        """Bytes of a piece of a body whose length is known, as long as it has so many; pieces may be smaller."""
        return self._connection.batch if self._connection is not None else BATCH

    @batch.setter
    def batch(self, size: int) -> None:
        if self._connection is not None:
            self._connection.batch = size

    async def read(self) -> bytes | memoryview:
        """The next piece of the body, which belongs to the caller from here on; b"" at its end.

        Raises:
            CutShort: the body ended before its end.
            Stalled: no byte of it came for the time that was set.
        """
        connection = self._connection
        if connection is None:
            if self._is_whole:
                return b""
            raise CutShort(_CUT)
        while (piece := connection.take()) is None:
            await connection.wait()
        if connection.is_done:
            self._is_whole = True
            self.close()
        return piece

    def close(self) -> None:
        """The rest is not wanted. A connection that still has some of it to bring is closed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.finish()


def _reason(exc: Exception | None) -> str | None:
    return exc.strerror if isinstance(exc, OSError) else None
