"""GIF: blocks of sub-blocks up to the trailer (the GIF89a specification, appendix A)."""

from __future__ import annotations

from mirror.media.walk import Walk

_FULL = 255
_TOGETHER = 256
"""Full sub-blocks that are looked at in one step: a picture is made of little else."""


class Gif(Walk):
    kind = "GIF"
    first = 13

    def __init__(self) -> None:
        super().__init__()
        self._block = -1

    def read(self, header: bytes) -> None:
        block, self._block = self._block, 0
        if block == -1:  # signature and screen
            self.skip, self.need = _colours(header[10]), 1
        elif block == ord(","):  # an image's place; its code size and sub-blocks follow
            self.skip, self.need = _colours(header[8]) + 1, 0
        elif block == ord("!"):  # an extension's label
            self.need = 0
        elif header == b";":
            self.is_last = True
        elif header in (b",", b"!"):
            self._block, self.need = header[0], 9 if header == b"," else 1
        elif header != b"\0":  # between blocks that is padding, and the rest nobody knows
            self.stop()

    def search(self, data: bytes | memoryview, at: int) -> int:
        """Sub-blocks, up to the empty one."""
        size = len(data)
        while at < size:
            length = data[at]
            if length == _FULL:
                lengths = bytes(data[at : at + _TOGETHER * (_FULL + 1) : _FULL + 1])
                at += (_FULL + 1) * (len(lengths) - len(lengths.lstrip(b"\xff")))
                continue
            at += 1 + length
            if not length:
                self.need = 1
                return at
        self.skip = at - size
        return size

    def missing(self) -> str:
        return "it has no trailer"


def _colours(flags: int) -> int:
    """Bytes of the table of colours that these flags tell of."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
