"""A body in the hands of a thread.

A large body costs least where one thread takes a piece from the socket, hashes it and writes it while it is warm in a
core's cache. The event loop does not look at the socket meanwhile, and nobody else touches the connection.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol

Receive = Callable[[memoryview], "int | None"]
"""Takes what is there into a view: how many bytes; 0 at the end of the stream, None if nothing has come yet."""

_DRY = 0.005
"""Seconds that a thread waits for more, if some came: to go back to the loop and come again takes about as long."""

_TURN = 0.2
"""Seconds after which a thread gives the body back, so that a stop never waits long and others have their turn."""


class Lender(Protocol):
    """Where a body was lent from."""

    def take_back(self, loan: Loan) -> None:
        """The thread is done with it."""


class Loan:
    """Up to ``most`` bytes of a body, until the block is left. ``pieces`` were taken in before, and come first.

    ``wait`` waits so many seconds at most for something to receive.
    """

    def __init__(
        self,
        lender: Lender,
        pieces: Sequence[bytes | memoryview],
        most: int,
        receive: Receive,
        wait: Callable[[float], object],
    ) -> None:
        self.pieces = pieces
        self.got = 0
        self.error: OSError | None = None
        self.is_at_end = False
        self._lender = lender
        self._left = most
        self._receive = receive
        self._wait = wait
        self._until = 0.0

    def __enter__(self) -> Loan:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lender.take_back(self)

    def fill(self, buffer: memoryview, *, patient: bool = True) -> int:
        """Take in what comes next, as much of it as the buffer holds. Called in a thread; ``patient``, it waits a
        moment for a body that comes fast.

        Returns how many bytes; fewer than there is room for where no more are to be had in this turn. What goes wrong
        with the socket is kept for whoever has lent it.
        """
        now = time.monotonic()
        self._until = self._until or now + _TURN
        filled, size = 0, min(len(buffer), self._left) if now < self._until else 0
        while filled < size and not self.is_at_end:
            try:
                count = self._receive(buffer[filled:size])
            except OSError as error:
                self.error, self.is_at_end = error, True
                break
            if count:
                filled += count
            elif count == 0:
                self.is_at_end = True
            elif not (patient and self._may_wait(filled) and self._wait(_DRY)):
                break
        self.got += filled
        self._left -= filled
        return filled

    def _may_wait(self, filled: int) -> bool:
        return bool(self.got or filled) and time.monotonic() < self._until

    @property
    def size(self) -> int:
        """Bytes that it has brought."""
        return sum(map(len, self.pieces)) + self.got
