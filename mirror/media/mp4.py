"""MP4 and QuickTime: boxes that add up, a moov among them, and data (ISO/IEC 14496-12, 4.2 and 8.1).

Fragmented files have a moof before each mdat, pictures (HEIF, AVIF) a meta in the place of the moov. Once all of that
was seen, what follows and makes no box is no matter: phones and servers append what they like, and players skip it.
"""

from __future__ import annotations

from mirror.media.walk import TO_THE_END, Verdict, Walk

_BEGINNINGS = frozenset({b"moov", b"mdat"})
_SMALL_BEGINNINGS = frozenset({b"free", b"skip", b"wide"})

_SHORT = 8
_LONG = 16
_LEAST_MOOF = 64
"""Bytes of a moof that tells of a sample at least; one that is smaller waits for no data."""

_KNOWN = frozenset(b"ftyp styp moov mdat moof mfra meta meco udta uuid free skip wide sidx ssix prft emsg pdin".split())
"""Boxes that a file is made of: one that is not all there was cut off."""


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
        self._size = 0
        self._needless = False  # all was whole before this box
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
        self._needless = not self._lack()
        is_wrong = 0 < size < len(header)
        if self._needless and (is_wrong or not all(32 <= each < 127 for each in self._box)):
            self.trailing, self.is_last = len(header), True
            return
        if is_wrong:
            self.stop("its boxes do not add up")
            return
        self._size = size
        self.skip = size - len(header) if size else TO_THE_END  # a size of 0 says: to the end
        if self._box in (b"moov", b"meta", b"mdat", b"moof"):
            self._seen |= {self._box}
        if self._box == b"mdat":
            self._promised = False
        elif self._box == b"moof" and size >= _LEAST_MOOF:
            self._promised = True

    def verdict(self) -> Verdict:
        missing = self.wrong or self.missing()
        return Verdict(self.kind, missing, 0 if missing else self.trailing or self._odd())

    def missing(self) -> str:
        if self.held and (self._lack() or _is_begun(self.held)):
            return "it ends within a box's header"
        if self._rest and not (self._needless and self._box not in _KNOWN):
            return f"its box {str(self._box)[2:-1]} tells of {self._rest} more bytes"
        return self._lack()

    @property
    def _rest(self) -> int:
        """Bytes of this box that are not there."""
        return self.skip if self.skip < TO_THE_END // 2 else 0

    def _odd(self) -> int:
        """Bytes at the end of a whole file that make no box."""
        return len(self.held) or (self._size - self._rest if self._rest else 0)

    def _lack(self) -> str:
        """What is not there of that which makes it whole, were all boxes that have begun whole."""
        if not self._seen & {b"moov", b"meta"}:
            return "it has no moov box"
        if self._promised:
            return "it ends between a moof box and its data"
        return "it has no mdat box" if b"moov" in self._seen and b"mdat" not in self._seen else ""


def _is_begun(held: bytes) -> bool:
    """Whether a part of a header, or a whole short one, is plainly a box's. Four bytes and less are nothing plain."""
    name = held[4:_SHORT]
    if len(name) == 4:
        return name in _KNOWN
    return bool(name) and held[0] == 0 and any(known.startswith(name) for known in _KNOWN)
