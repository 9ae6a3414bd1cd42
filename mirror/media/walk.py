"""A walk through a file's structure as its bytes come, in pieces of any size: headers are read, bodies are counted."""

from __future__ import annotations

import copy
from typing import ClassVar, NamedTuple, Self

TO_THE_END = 1 << 80
"""More bytes than any file has."""


class Verdict(NamedTuple):
    """What a walk has found. ``kind`` is the format's name, empty where nothing can be said.

    ``missing`` tells why the file is not whole, empty where it is; ``trailing`` how many bytes follow its end.
    """

    kind: str = ""
    missing: str = ""
    trailing: int = 0


class Walk:
    """One file's structure. A format says how long its first header is, and in :meth:`read` what follows each.

    Never holds more than a header, never raises, and takes a time that grows with the bytes that come and no faster.
    """

    kind: ClassVar[str]
    first: ClassVar[int]
    """Bytes of the first header."""

    def __init__(self) -> None:
        self.need = self.first
        """Bytes of the next header. With 0 there is none: :meth:`search` is asked where the body ends."""
        self.skip = 0
        """Bytes that need not be seen before that."""
        self.held = b""
        self.is_last = False
        """True where the file's end is behind what is skipped now."""
        self.wrong = ""
        self.trailing = 0

    def feed(self, data: bytes | memoryview) -> None:
        """Take the bytes that follow those before."""
        at, size = 0, len(data)
        while at < size:
            if self.skip:
                at += self.skip
                self.skip = max(0, at - size)
            elif self.is_last:
                self.trailing += size - at
                return
            elif self.need:
                stop = at + self.need - len(self.held)
                header = self.held + data[at:stop]
                if stop > size:
                    self.held = header
                    return
                at, self.held = stop, b""
                self.read(header)
            else:
                at = self.search(data, at)

    def read(self, header: bytes) -> None:
        """Say what follows a header: set ``need``, ``skip``, ``is_last``."""
        raise NotImplementedError

    def search(self, data: bytes | memoryview, at: int) -> int:
        """Go on in a body whose length nobody told; how far that is. ``len(data)`` is never passed."""
        raise NotImplementedError

    def stop(self, wrong: str = "") -> None:
        """Look at nothing more: the structure is ``wrong``, or (without a word) nothing can be said of it."""
        self.wrong = wrong
        self.skip = TO_THE_END
        self.is_last = True

    def verdict(self) -> Verdict:
        """What there is to say if the file ends here."""
        if self.is_last and self.skip == 0:
            return Verdict(self.kind, "", self.trailing)
        if self.is_last and self.skip > TO_THE_END // 2 and not self.wrong:
            return Verdict()
        return Verdict(self.kind, self.wrong or self.missing())

    def missing(self) -> str:
        """What is not there, in words, where the file ends here."""
        raise NotImplementedError

    def copy(self) -> Self:
        return copy.copy(self)  # nothing in it changes but by being replaced
