"""TLS between a socket and whoever speaks over it (RFC 5246, RFC 8446)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any, cast

_SCRATCH = 256 << 10
"""Bytes of ciphertext that are taken from a socket at once."""

_PIECE = 64 << 10
"""Bytes that are encrypted at once."""

_MOST_ANSWERS = 64 << 10
"""Bytes of answers to TLS's own messages that may wait to be sent, beside what the socket has not taken. Who makes us
answer so much takes no answer."""


class _Scratch(threading.local):
    """A thread's buffer for ciphertext. Nothing stays in it between two calls: one is enough for all connections."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(_SCRATCH))


_scratch = _Scratch()


class Tls(asyncio.BufferedProtocol, asyncio.Transport):
    """To asyncio the protocol of a plain socket; to ``inner`` a transport, as a plain socket's would be.

    asyncio's own TLS keeps a buffer for each connection, makes bytes of all that comes or loses some of it at the end,
    and costs more than TLS itself. Here what comes is decrypted into the buffers that ``inner`` gives, each filled as
    far as it goes. While reading is paused nothing is decrypted: what was received then waits encrypted, ``_SCRATCH``
    bytes at most.

    ``inner`` is told of an end as of a plain socket's: ``eof_received`` if the other side has said that it is one. An
    end that comes without this word may be somebody else's doing: that is ``connection_lost`` with an EOFError. In
    either case it has got all that came before.

    Raises:
        ValueError, UnicodeError: ``host`` is none that a certificate can be for.
    """

    def __init__(self, inner: asyncio.BufferedProtocol, context: ssl.SSLContext, host: str) -> None:
        super().__init__()
        self._inner = inner
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._read = cast("Callable[[int, memoryview], int]", self._ssl.read)  # which says too little of its types
        self._loop = asyncio.get_running_loop()
        self._shaken: asyncio.Future[None] = self._loop.create_future()
        self._socket: socket.socket | None = None
        self._raw: asyncio.Transport | None = None
        self._is_open = False
        self._is_paused = False  # reading
        self._is_full = False  # what is to be written
        self._is_ended = False  # there is nothing more to decrypt, ever
        self._error: Exception | None = None  # why, if that is not as it should be

    async def open(self, sock: socket.socket) -> None:
        """Take a connected socket over, and shake hands. If this raises, the socket is closed.

        Raises:
            ssl.SSLCertVerificationError: the certificate is not valid, or not for this host.
            OSError: of any other kind, ssl.SSLError included, the handshake failed.
        """
        self._socket = sock
        try:
            await self._loop.create_connection(lambda: self, sock=sock)
            await self._shaken
        except BaseException:
            self._shaken.cancel()
            if self._raw is not None:
                self._raw.abort()
            raise

    # What asyncio calls ------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = cast("asyncio.Transport", transport)
        self._shake()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return _scratch.view

    def buffer_updated(self, nbytes: int) -> None:
        self._incoming.write(_scratch.view[:nbytes])
        self._go_on()

    def eof_received(self) -> None:
        """All that came before was decrypted: nothing is read from the socket while it is not."""
        self._incoming.write_eof()
        self._go_on()

    def pause_writing(self) -> None:
        self._is_full = True
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._is_full = False
        self._inner.resume_writing()
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._is_open:
            self._inner.connection_lost(self._error or exc)
            self._inner = asyncio.BufferedProtocol()  # neither keeps the other
        elif not self._shaken.done():
            self._shaken.set_exception(exc or ConnectionAbortedError())

    # In ----------------------------------------------------------------------------------------

    def _go_on(self) -> None:
        if self._is_open:
            self._deliver()
        else:
            self._shake()

    def _shake(self) -> None:
        if self._shaken.done():
            return  # nobody waits for it any more
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            self._send()
        except OSError as error:
            self._send()  # the other side learns what is wrong
            self._shaken.set_exception(error)
        else:
            self._send()
            self._is_open = True
            self._shaken.set_result(None)  # who waits is woken before it can learn of an end
            self._inner.connection_made(self)
            self._deliver()

    def _deliver(self) -> None:
        """Give all that came to ``inner``, or as much as it wants, and then the end if that is here."""
        inner = self._inner
        while not self._is_paused and not self.is_closing():
            if self._is_ended:
                self._tell_end()
                return
            buffer = cast("memoryview", inner.get_buffer(-1))
            size = self._decrypt(buffer)
            if size:
                inner.buffer_updated(size)
            if size < len(buffer) and not self._is_ended:
                break
        self._send_answers()

    def _decrypt(self, view: memoryview) -> int:
        """Fill it. If it does not get full, all that came is decrypted, or the end is here."""
        filled, room, read = 0, len(view), self._read
        try:
            while filled < room:
                size = read(room - filled, view[filled:])
                if not size:
                    self._end(None)
                    break
                filled += size
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLEOFError:
            self._end(EOFError("TLS was cut off"))
        except ssl.SSLError as error:
            self._end(error)
        return filled

    def _end(self, error: Exception | None) -> None:
        self._is_ended, self._error = True, error

    def _tell_end(self) -> None:
        if self._error is None:
            self._inner.eof_received()
            self.close()
        else:
            self._fail(self._error)

    def pause_reading(self) -> None:
        assert self._raw is not None
        self._is_paused = True
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        """Nothing comes before this has returned."""
        if self._is_paused:
            self._is_paused = False
            self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        assert self._raw is not None
        if self._is_paused:
            return  # again, before this came: a thread may be at it
        try:
            self._deliver()
        except Exception as error:
            self._fail(error)
            raise
        if not self._is_paused:
            self._raw.resume_reading()

    def receive(self, view: memoryview) -> int | None:
        """Fill it with what comes, as far as that is here already: for another thread, while reading is paused.

        Nothing else of this object may be used meanwhile, ``abort`` included, and ``write`` must have sent all there
        was. What the loop side has to know of an end it learns when reading is resumed.

        Returns:
            The bytes that ``view`` holds now; 0 at the end of any kind; None if nothing is here yet, or what was here
            was none of ``inner``'s.

        Raises:
            OSError: of the socket, or an ssl.SSLError; not before what came until then was returned.
        """
        assert self._socket is not None
        filled, has_read = 0, False
        while not self._is_ended:
            before = filled
            filled += self._decrypt(view[filled:])
            if filled == len(view) or self._is_ended:
                break
            if has_read and filled == before:
                return filled or None  # messages of TLS's own could go on for ever
            try:
                size = self._socket.recv_into(_scratch.view)
            except (BlockingIOError, InterruptedError):
                return filled or None
            except OSError as error:
                self._end(error)
                break
            has_read = True
            if size:
                self._incoming.write(_scratch.view[:size])
            else:
                self._incoming.write_eof()
            if self._outgoing.pending > _MOST_ANSWERS:  # the loop side sends them
                self._end(ConnectionAbortedError())
        if not filled and isinstance(self._error, OSError):
            raise self._error
        return filled

    # Out ---------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[self._ssl.write(view[:_PIECE]) :]
                self._send()
        except ssl.SSLError as error:
            self._fail(error)

    def _send(self) -> None:
        if self._outgoing.pending and not self.is_closing():
            assert self._raw is not None
            self._raw.write(self._outgoing.read())

    def _send_answers(self) -> None:
        """What reading makes to be sent. It goes with what is written next if the socket takes nothing now."""
        if not self._is_full:
            self._send()
        elif self._outgoing.pending > _MOST_ANSWERS:
            self._fail(ConnectionAbortedError())

    def get_write_buffer_size(self) -> int:
        return self._raw.get_write_buffer_size() if self._raw is not None else 0

    # Both --------------------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As of the plain socket; ``unread`` is whether something came that was not given to ``inner``."""
        if name == "unread":
            return bool(self._incoming.pending or self._ssl.pending() or self._is_ended)
        return self._raw.get_extra_info(name, default) if self._raw is not None else default

    def is_closing(self) -> bool:
        return self._raw is None or self._raw.is_closing()

    def close(self) -> None:
        """Say that this is the end, and send what is not sent. Nobody waits for the other side to say so, too."""
        if self.is_closing():
            return
        assert self._raw is not None
        with contextlib.suppress(ssl.SSLError):
            self._ssl.unwrap()
        self._send()
        self._raw.close()

    def abort(self) -> None:
        """Close at once, without a word."""
        if self._raw is not None:
            self._raw.abort()

    def _fail(self, error: Exception) -> None:
        """Close at once; ``inner`` is told why. What TLS has to say of it is sent if that can be done at once."""
        self._error = error
        self._send()
        self.abort()
