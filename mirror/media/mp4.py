"""MP4 and QuickTime: boxes that add up, a moov among them, and data (ISO/IEC 14496-12, 4.2 and 8.1).

Fragmented files have a moof before each mdat, pictures (HEIF, AVIF) a meta in the place of the moov.
"""

from __future__ import annotations

from mirror.media.walk import TO_THE_END, Verdict, Walk

_BEGINNINGS = frozenset({b"moov", b"mdat"})
_SMALL_BEGINNINGS = frozenset({b"free", b"skip", b"wide"})

_SHORT = 8
_LONG = 16
_PADDING = b"\0" * _SHORT


def begins_so(beginning: bytes) -> bool:
    """Whether a file that begins so is taken for one: what has no ftyp only where it plainly is."""
    name = beginning[4:_SHORT]
    return name == b"ftyp" or name in _BEGINNINGS or (name in _SMALL_BEGINNINGS and beginning[:2] == b"\0\0")


class Mp4(Walk):
    kind = "MP4"
    first = _SHORT

    def __init__(self) -> None:
        super().__init__()
        self._box = b""
        self._seen: frozenset[bytes] = frozenset()
        self._promised = False  # a moof stands before its data

    def read(self, header: bytes) -> None:
        size, self._box = int.from_bytes(header[:4]), header[4:_SHORT]
        if size == 1 and len(header) == _SHORT:  # 64 bits of size follow
            self.held, self.need = header, _LONG
            return
        if len(header) == _LONG:
            size = int.from_bytes(header[_SHORT:])
        self.need = _SHORT
        if size and size < len(header):
            self.stop("its boxes do not add up")
            return
        self.skip = size - len(header) if size else TO_THE_END  # a size of 0 says: to the end
        if self._box in (b"moov", b"meta", b"mdat", b"moof"):
            self._seen |= {self._box}
            self._promised = self._box == b"moof" or (self._promised and self._box != b"mdat")

    def verdict(self) -> Verdict:
        missing = self.wrong or self.missing()
        return Verdict(self.kind, missing, 0)

    def missing(self) -> str:
        if self.held and (len(self.held) < 4 or self.held.strip(b"\0")):  # a size of 0 is padding
            return "it ends within a box's header"
        if 0 < self.skip < TO_THE_END // 2:
            return f"its box {str(self._box)[2:-1]} tells of {self.skip} more bytes"
        if not self._seen & {b"moov", b"meta"}:
            return "it has no moov box"
        if b"moov" in self._seen and not self._seen & {b"mdat", b"moof"}:
            return "it has no mdat box"
        return "it ends between a moof box and its data" if self._promised else ""
