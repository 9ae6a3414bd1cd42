"""WebP: a RIFF file tells its length (the WebP container specification)."""

from __future__ import annotations

from mirror.media.walk import Verdict, Walk

_LEAST = 12
"""Bytes that a RIFF length counts at least: its form, and one chunk's header. Some writers leave it 0."""

HEAD = 30
"""Bytes that tell a picture's size."""

_EXIF = 1 << 3


def size_of(head: bytes) -> tuple[int, int] | None:
    """Width and height in pixels, as the first bytes tell them; None where they are no WebP's."""
    if len(head) < HEAD or not head.startswith(b"RIFF") or head[8:12] != b"WEBP":
        return None
    kind, data = head[12:16], head[20:HEAD]
    if kind == b"VP8X":  # a canvas, of an animation for one
        return 1 + int.from_bytes(data[4:7], "little"), 1 + int.from_bytes(data[7:10], "little")
    if kind == b"VP8L" and data[0] == 0x2F:
        bits = int.from_bytes(data[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and data[3:6] == b"\x9d\x01\x2a":
        width, height = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (6, 8))
        return (width, height) if width and height else None
    return None


def has_exif(head: bytes) -> bool:
    """Whether a chunk with Exif data follows, which stands behind the picture."""
    return head[12:16] == b"VP8X" and bool(head[20] & _EXIF)


class Webp(Walk):
    kind = "WebP"
    first = 12

    def __init__(self) -> None:
        super().__init__()
        self._padding = 0

    def read(self, header: bytes) -> None:
        length = int.from_bytes(header[4:8], "little")
        if length < _LEAST:
            self.stop()
            return
        self.skip, self.is_last = length - 4, True
        self._padding = length % 2

    def verdict(self) -> Verdict:
        found = super().verdict()
        return found._replace(trailing=max(0, found.trailing - self._padding))

    def missing(self) -> str:
        if self.held:
            return "it ends within its header"
        return f"its RIFF length tells of {self.skip} more bytes"
