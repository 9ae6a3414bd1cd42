"""A body in chunks, taken apart (RFC 9112, section 7.1). Pure."""

from __future__ import annotations

import re
from typing import Literal

from mirror.h1 import CutShort
from mirror.h1.head import FIELD, LONGEST_HEAD

_LONGEST_SIZE = 4 << 10
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?")


class Chunks:
    """Takes a body as it comes, in pieces of any size, and gives what is in its chunks.

    ``ended`` is True after the last chunk and its trailer. Extensions and trailers are checked, bounded and dropped.
    """

    __slots__ = ("_begun", "_expected", "_left", "_trailer", "ended")

    def __init__(self) -> None:
        self.ended = False
        self._left = 0
        self._begun = b""
        self._trailer = LONGEST_HEAD
        self._expected: Literal["size", "end of data", "trailer"] = "size"

    def feed(self, data: bytearray, start: int, stop: int) -> tuple[bytes, int]:
        """The body's bytes in ``data[start:stop]``, and where the rest begins: at ``stop`` unless the body has ended.

        Raises:
            CutShort: these are no chunks.
        """
        pieces: list[memoryview] = []
        with memoryview(data) as view:
            while start < stop and not self.ended:
                if self._left:
                    end = min(stop, start + self._left)
                    pieces.append(view[start:end])
                    self._left -= end - start
                    start = end
                else:
                    start = self._line(data, start, stop)
            body = b"".join(pieces)
            for piece in pieces:
                piece.release()
        return body, start

    def _line(self, data: bytearray, start: int, stop: int) -> int:
        end = data.find(b"\n", start, stop)
        after = stop if end < 0 else end + 1
        self._begun += data[start:after]
        if len(self._begun) > (self._trailer if self._expected == "trailer" else _LONGEST_SIZE):
            raise CutShort("the framing of the body is broken")
        if end >= 0:
            line, self._begun = self._begun, b""
            if not line.endswith(b"\r\n"):
                raise CutShort("the framing of the body is broken")
            self._understand(line[:-2])
        return after

    def _understand(self, line: bytes) -> None:
        if self._expected == "size":
            size = _SIZE.fullmatch(line)
            if size is None:
                raise CutShort("the framing of the body is broken")
            self._left = int(size[1], 16)
            self._expected = "end of data" if self._left else "trailer"
        elif self._expected == "end of data":
            if line:
                raise CutShort("the framing of the body is broken")
            self._expected = "size"
        elif line:
            self._trailer -= len(line) + 2
            if not FIELD.fullmatch(line.decode("utf-8", "surrogateescape")):
                raise CutShort("the framing of the body is broken")
        else:
            self.ended = True
