"""PNG, animated or not: chunks up to IEND (the PNG specification, 5.3)."""

from __future__ import annotations

from struct import Struct
from typing import Final

from mirror.media.walk import Walk

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_HEADER: Final = Struct(">I4s")
_CHECKSUM = 4
_LONGEST = (1 << 31) - 1


class Png(Walk):
    kind = "PNG"
    first = len(SIGNATURE)

    def read(self, header: bytes) -> None:
        if header == SIGNATURE:
            return
        length, name = _HEADER.unpack(header)
        if length > _LONGEST or not name.isalpha():
            self.stop("what follows a chunk is no chunk")
            return
        self.skip = length + _CHECKSUM
        self.is_last = name == b"IEND"

    def missing(self) -> str:
        return "it ends before its IEND chunk does"
