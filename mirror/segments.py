"""Who fetches which part of one large file: pure bookkeeping.

The first request streams from the front as far as it gets. Helpers, started while the host has idle places, take
segments from the back; where the two meet, the file is whole.
"""

from __future__ import annotations

from mirror.models import Span
from mirror.spans import cut


class Segments:
    """The spans of a file that nobody fetches yet, in pieces."""

    def __init__(self, gaps: list[Span], size: int) -> None:
        self._open = cut(gaps, size)
        self.shared = True

    def front(self, at: int) -> int | None:
        """Take the piece that begins at ``at``, for the stream that got there; its end, None if another has it."""
        for index, span in enumerate(self._open):
            if span.start == at:
                del self._open[index]
                return span.stop
        return None

    def first(self) -> Span | None:
        """Take the first piece, for whoever has come to the end of what was asked for."""
        return self._open.pop(0) if self._open and self.shared else None

    def back(self) -> Span | None:
        """Take the last piece, for a helper."""
        return self._open.pop() if self._open and self.shared else None

    def give_back(self, span: Span) -> None:
        """What a helper could not fetch."""
        if span.size > 0:
            self._open = sorted([*self._open, span])

    def stop_sharing(self) -> None:
        """No more helpers: the server does not serve ranges of this file."""
        self.shared = False

    @property
    def left(self) -> int:
        return len(self._open)
