"""What goes with a request: bytes that are here, or a file that the kernel gives to the socket."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

_DRY = 5
"""Milliseconds that a thread waits for a socket that takes nothing: about what it costs to come again."""

_TURN = 0.2
"""Seconds after which a thread gives the socket back, so that a stop never waits long and others have their turn."""

_MOST = 4 << 20
"""Bytes that are asked for at once: nothing else of a turn is looked at meanwhile."""

_sendfile: Callable[[int, int, int, int], int] | None = getattr(os, "sendfile", None)


class OpenFile(Protocol):
    """A file that is a body from its first byte on, and who reads it."""

    fd: int

    async def read(self, at: int, size: int) -> bytes:
        """So many bytes at an offset, or fewer; never none. May raise what its owner wants to learn of."""
        ...

    def run(self, call: Callable[[], int]) -> Awaitable[int]:
        """Have a blocking call made in a thread, to its end in any case."""
        ...


class Body(NamedTuple):
    """What goes with a request, ``size`` bytes in all; nobody changes them.

    ``sent`` is told how many of them the socket has taken by now: 0 when they begin to go, each time that they do.
    """

    content: Sequence[bytes | memoryview] | OpenFile
    size: int
    sent: Callable[[int], None]


def pour(file: int, sock: int, at: int, stop: int, is_over: Callable[[], object]) -> int:
    """Have the kernel give a file's bytes to a socket for as long as that takes them, 0.2 s at most. Blocks, a little
    longer where the disk does.

    They come into no buffer of ours (sendfile(2)). A socket that is full is not waited for when something has come in.

    Returns how many were taken: perhaps none. Whether the socket is full, it or the file is broken, or there is no such
    way between the two, shows when the next bytes are read and written the usual way.
    """
    if _sendfile is None:
        return 0
    until, start = time.monotonic() + _TURN, at
    poll = select.poll()
    poll.register(sock, select.POLLIN | select.POLLOUT)
    while at < stop and not is_over():
        try:
            taken = _sendfile(sock, file, at, min(stop - at, _MOST))
        except BlockingIOError:
            taken = -1
        except OSError:
            break
        at += max(taken, 0)
        if not taken or time.monotonic() > until or (taken < 0 and poll.poll(_DRY) != [(sock, select.POLLOUT)]):
            break
    return at - start
