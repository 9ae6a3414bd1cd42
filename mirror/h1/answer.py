"""An answer, as whoever asked has it."""

from __future__ import annotations

from mirror.h1 import CutShort
from mirror.h1.body import BATCH, CUT
from mirror.h1.connection import Connection
from mirror.h1.head import Head, Headers
from mirror.h1.loan import Loan


class Answer:
    """Head and body. The connection goes back when its body was read to its end, or is closed with it."""

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
            raise CutShort(CUT)
        while (piece := connection.take()) is None:
            await connection.wait()
        if connection.is_done:
            self._is_whole = True
            self.close()
        return piece

    def lend(self, least: int, most: int) -> Loan | None:
        """Let a thread read the next bytes, up to ``most``, instead of :meth:`read`, until the loan's block is left.

        None where fewer than ``least`` are to come, or where a thread cannot.
        """
        return self._connection.lend(least, most) if self._connection is not None else None

    def close(self) -> None:
        """The rest is not wanted. A connection that still has some of it to bring is closed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.finish()
