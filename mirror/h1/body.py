"""What comes with an answer, on its way from the socket to its reader.

A body of known length is received into buffers that then belong to the reader, without a copy. What is in chunks, ends
with the connection or came together with a head passes through a scratch buffer that all connections share.
"""

from __future__ import annotations

import asyncio
from collections import deque

from mirror.h1 import CutShort, Stalled, WireError
from mirror.h1.chunks import Chunks
from mirror.h1.head import Head
from mirror.h1.loan import Loan, Receive

BATCH = 64 << 10
"""Bytes of a piece unless its reader asks for larger ones. Two pieces at most are held: one that waits for the reader,
and one that is received or waits behind it. What TLS had decrypted before it was told to stop comes on top of that."""

CUT = "the body broke off"

_NUDGE = 0.25
"""Seconds after which a slow body's bytes are handed over though they fill no piece."""


class Incoming:
    """The side of a connection that takes a body in: its framing, its pieces, and the one task that waits for them.

    A connection is one of these rather than has one: what is done for each packet goes through as little as it can.
    """

    def __init__(self, scratch: bytearray, stall: float) -> None:
        self.batch = BATCH
        self._loop = asyncio.get_running_loop()
        self._scratch = scratch
        self._scratch_view = memoryview(scratch)
        self._transport: asyncio.Transport | None = None
        # How it is framed, and what has come of it
        self._left = 0  # of its length, if that is known
        self._chunks: Chunks | None = None
        self._ended = True
        self._is_clean = True  # nothing came that belongs to no answer
        self._buffer: bytearray | None = None
        self._view = self._scratch_view
        self._filled = 0  # of the buffer
        self._first = 0.0
        self._ready: bytes | memoryview | None = None
        self._more: deque[bytes | memoryview] = deque()
        self._is_paused = False
        self._is_lent = False
        self._is_doomed = False  # it is to be closed when it comes back
        self._error: WireError | None = None
        # Who waits, for a head or a piece, and how long
        self._waiter: asyncio.Future[None] | None = None
        self._awaits_head = False
        self._stall = stall or float("inf")
        self._limit = 0.0
        self._alive = 0.0
        # Timers that are set anew only when they fire
        self._patience: asyncio.TimerHandle | None = None
        self._nudge: asyncio.TimerHandle | None = None

    # For its reader ----------------------------------------------------------------------------

    def take(self) -> bytes | memoryview | None:
        """The next piece, b"" at the end; None if there is none yet."""
        piece = self._ready
        if piece is not None:
            self._ready = None
            if self._more:
                self._ready = self._more.popleft()
                if not self._more:
                    self._go_on()
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

    def lend(self, least: int, most: int) -> Loan | None:
        """Let a thread read on, up to ``most`` bytes; None where fewer than ``least`` are to come, or it cannot be.

        Its reader reads nothing until the loan is over; whatever else happens to the connection waits for that.
        """
        if (
            not self._left
            or self._left < least
            or self._chunks is not None
            or self._error is not None
            or self._transport is None
        ):
            return None
        receive = self._receiver(self._transport)
        if receive is None:
            return None
        if self._buffer is not None and self._filled:
            self._hand_over()
        pieces = [self._ready, *self._more] if self._ready is not None else []
        rest = most - sum(map(len, pieces))
        if rest < 0:
            return None
        self._ready = None
        self._more.clear()
        self._buffer, self._view, self._filled = None, self._scratch_view, 0
        self._give_away(self._transport)
        return Loan(self, pieces, min(rest, self._left), receive, self._readable)

    def take_back(self, loan: Loan) -> None:
        """The thread is done: go on from there."""
        if not self._got_back():
            return
        self._left -= loan.got
        self._alive = self._loop.time()
        if not self._left:
            self._ended = True
        elif loan.is_at_end:
            self._end_body(loan.error)
        else:
            self._go_on()

    def _give_away(self, transport: asyncio.Transport) -> None:
        """A thread has the socket from here on: nobody else reads from it, or closes it."""
        if not self._is_paused:
            self._is_paused = True
            transport.pause_reading()
        self._is_lent = True

    def _got_back(self) -> bool:
        """The thread is done; False if the connection was to be closed meanwhile, and is now."""
        self._is_lent = False
        if self._is_doomed:
            self.abort()
        return not self._is_doomed

    def _receiver(self, transport: asyncio.Transport) -> Receive | None:
        """What a thread reads by; None where it could not."""
        raise NotImplementedError

    def _readable(self, seconds: float) -> object:
        """Wait so long at most for something to read; false where nothing came."""
        raise NotImplementedError

    @property
    def is_done(self) -> bool:
        """True if the body has ended and its reader has all of it."""
        return self._ended and self._ready is None

    def abort(self) -> None:
        """Close at once; what has not been read is lost. A socket that a thread has closes after that."""
        self._fail(CutShort(CUT))
        self._is_doomed = True
        if self._is_lent:
            return
        if self._transport is not None:
            self._transport.abort()

    # From the socket ---------------------------------------------------------------------------

    def _begin_body(self, head: Head, *, is_clean: bool) -> None:
        """``is_clean`` says whether another exchange may follow this one."""
        self._left = head.length or 0
        self._chunks = Chunks() if head.is_chunked else None
        self._ended = head.length == 0
        self._is_clean = is_clean

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

    def _end_body(self, exc: Exception | None) -> None:
        """No more comes: that is the end of a body that has no other, and too early for all others."""
        if self._buffer is not None and self._filled:
            self._hand_over()
        is_whole = self._left == 0 and self._chunks is None and exc is None
        self._ended = is_whole
        self._fail(None if is_whole else CutShort(CUT))

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
        self._more.append(piece)
        if not self._ended and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    def _go_on(self) -> None:
        """Let the socket be read again, if it is not, and no thread has it."""
        if self._is_paused and not self._is_lent and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()

    # Waiting -----------------------------------------------------------------------------------

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
