"""A connection, and one exchange at a time on it: a request goes out, a head comes in, and a body after it.

asyncio asks for a buffer, fills it and tells how far in one step. Heads come into a scratch buffer that all connections
share; where bodies go is told in ``body``.
"""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, cast

from mirror.h1 import Broken, CutShort, Stale, Unreadable
from mirror.h1.body import BATCH, CUT, Incoming
from mirror.h1.head import END, Head, check_begun, parse
from mirror.h1.loan import Receive
from mirror.h1.outgoing import Body, OpenFile, pour
from mirror.h1.tls import Tls

_PIECE = 256 << 10
"""Bytes of a body that are given to the socket at once."""

_BLOCK = 1 << 20
"""Bytes of a file that are read at once, where the kernel does not take them from there."""

_MOST_INTERIM = 10


class Place(NamedTuple):
    """Where requests go to. ``host`` is a name in ASCII, or an address without brackets."""

    host: str
    port: int
    is_tls: bool


class Owner(Protocol):
    """Whoever keeps connections. ``scratch`` is for all of them, in one event loop."""

    scratch: bytearray
    stall: float

    def settle(self, connection: Connection) -> None:
        """Its exchange has ended well, and it may be used for another one."""

    def lose(self, connection: Connection) -> None:
        """Its socket is gone."""


class Connection(Incoming, asyncio.BufferedProtocol):
    """One socket to ``place``."""

    def __init__(self, owner: Owner, place: Place) -> None:
        super().__init__(owner.scratch, owner.stall)
        self.place = place
        self.idle_since = 0.0
        self._owner = owner
        self._is_used = False
        self._begun = bytearray()
        self._interim = 0
        self._head: Head | None = None
        self._is_sent = True
        self._is_full = False
        self._poll = select.poll()

    # The exchange ------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        return self._error is None and self._transport is not None and not self._transport.is_closing()

    def is_quiet(self) -> bool:
        """Whether nothing has come that nobody asked for, the connection's end included.

        asyncio may not have looked since the last answer; what stands there would be taken for the next one.
        """
        assert self._transport is not None
        return not self._poll.poll(0) and not self._transport.get_extra_info("unread")

    async def ask(self, request: bytes, limit: float, body: Body | None = None) -> Head:
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
            body.sent(0)
            await self._send(request, body)
            if self._awaits_head and self._stall < float("inf"):
                self._alive = self._loop.time()
                self._limit = self._alive + self._stall
        while self._awaits_head:
            await self._wait()
        head = cast("Head | None", self._head)
        if head is None:
            self.abort()
            raise self._error or CutShort(CUT)
        self._is_used = True
        return head

    async def _send(self, request: bytes, body: Body) -> None:
        """Give all to the socket as fast as that takes it, or up to an answer that comes before, or an error."""
        transport = self._transport
        assert transport is not None
        content = body.content
        if not isinstance(content, Sequence):
            transport.write(request)
            self._is_sent = await self._send_file(transport, body, content)
            return
        if body.size <= _PIECE:
            self._is_sent = True
            transport.write(b"".join([request, *content]))
            body.sent(body.size)
            return
        transport.write(request)
        at = 0
        for piece in content:
            if not await self._write(transport, piece, at, body.sent):
                return
            at += len(piece)
        self._is_sent = True

    async def _write(
        self, transport: asyncio.Transport, data: bytes | memoryview, at: int, sent: Callable[[int], None]
    ) -> bool:
        """Give what stands at an offset. False where the socket takes no more of it, or it was answered already."""
        view = memoryview(data)
        for start in range(0, len(view), _PIECE):
            piece = view[start : start + _PIECE]
            if transport.is_closing():
                return False  # what is written now goes nowhere
            transport.write(piece)
            while self._is_full and self._awaits_head:
                await self._wait()
            if not self._awaits_head:
                return False
            self._alive = self._loop.time()
            sent(at + start + len(piece))
        return True

    async def _send_file(self, transport: asyncio.Transport, body: Body, file: OpenFile) -> bool:
        """As :meth:`_write`: by the kernel as long as that flows, else a block that the loop waits with."""
        at = 0
        try:
            while at < body.size:
                if poured := await self._pour(transport, body, file, at):
                    at += poured
                    self._alive = self._loop.time()
                    body.sent(at)
                    if at == body.size:
                        break
                block = await file.read(at, min(_BLOCK, body.size - at))
                self._alive = self._loop.time()  # that the disk was slow is nothing that the other side did
                if not self._awaits_head or not await self._write(transport, block, at, body.sent):
                    return False
                at += len(block)
        except BaseException:
            self.abort()
            raise
        return True

    async def _pour(self, transport: asyncio.Transport, body: Body, file: OpenFile, at: int) -> int:
        """A thread's turn; of TLS the kernel knows nothing."""
        if isinstance(transport, Tls) or transport.is_closing():
            return 0
        transport.set_write_buffer_limits(high=0)  # what is written is all in the socket before the kernel goes on
        if transport.get_write_buffer_size():
            return 0
        task = asyncio.current_task()
        assert task is not None
        sock, is_cancelled = transport.get_extra_info("socket").fileno(), task.cancelling
        self._give_away(transport)
        try:
            return await file.run(lambda: pour(file.fd, sock, at, body.size, lambda: self._is_doomed or is_cancelled()))
        finally:
            if self._got_back():
                self._go_on()

    def finish(self) -> None:
        """The reader wants no more. The connection is settled if the answer is here whole, else closed."""
        self._ready = self._head = self._chunks = None
        self._more.clear()
        self._go_on()
        if self._ended and self._is_clean and self.is_open:
            self.idle_since = self._loop.time()
            self._owner.settle(self)
        else:
            self.abort()

    def _receiver(self, transport: asyncio.Transport) -> Receive | None:
        if transport.get_write_buffer_size():
            return None
        if isinstance(transport, Tls):
            return transport.receive
        fd = transport.get_extra_info("socket").fileno()

        def receive(view: memoryview) -> int | None:
            try:
                return os.readv(fd, [view])
            except BlockingIOError:
                return None

        return receive

    def _readable(self, seconds: float) -> object:
        return self._poll.poll(seconds * 1000)

    # What asyncio calls ------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._poll.register(transport.get_extra_info("socket"), select.POLLIN)

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
            self._end_body(exc)
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
        self._awaits_head, self._head, self._limit = False, head, 0.0
        assert self._transport is not None
        # What was answered before all of the request had gone leaves the rest of it on the way.
        is_sent = self._is_sent and not self._transport.get_write_buffer_size()
        self._begin_body(head, is_clean=head.is_lasting and is_sent)
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


def _reason(exc: Exception | None) -> str | None:
    return exc.strerror if isinstance(exc, OSError) else None
