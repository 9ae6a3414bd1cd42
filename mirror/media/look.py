"""Whether a file is whole, as far as its structure tells: formats that are not known pass."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from mirror.media.gif import Gif
from mirror.media.jpeg import Jpeg
from mirror.media.mp4 import Mp4, begins_so
from mirror.media.png import SIGNATURE, Png
from mirror.media.walk import Verdict, Walk
from mirror.media.webp import Webp

_BEGINNING = 12
"""Bytes by which a format is known."""

_READS = 6
_READ = 1 << 10


class Look:
    """Takes a file's bytes in order, in pieces of any size, and tells at the end whether one is missing."""

    def __init__(self) -> None:
        self._beginning = b""
        self._walk: Walk | None = None
        self._is_over = False

    def feed(self, data: bytes | memoryview) -> None:
        """Take the bytes that follow those before."""
        if self._walk is None:
            if self._is_over:
                return
            if self._beginning or len(data) < _BEGINNING:
                data = self._beginning + data
            if len(data) < _BEGINNING:
                self._beginning = bytes(data)
                return
            form = _form_of(bytes(data[:_BEGINNING]))
            if form is None:
                self._is_over = True
                return
            self._walk = form()
        self._walk.feed(data)

    @property
    def needless(self) -> int:
        """How many of the next bytes need not be seen."""
        return self._walk.skip if self._walk is not None else 0

    def passed(self, count: int) -> None:
        """So many of them were not read, and are there."""
        if self._walk is not None:
            self._walk.skip -= count

    def verdict(self) -> Verdict:
        """What there is to say if the file ends here."""
        walk = self._walk
        if walk is None and not self._is_over:  # it is shorter than that
            form = _form_of(self._beginning)
            walk = form() if form is not None else None
            if walk is not None:
                walk.feed(self._beginning)
        return walk.verdict() if walk is not None else Verdict()

    def copy(self) -> Look:
        twin = Look()
        twin._beginning, twin._is_over = self._beginning, self._is_over
        twin._walk = self._walk.copy() if self._walk is not None else None
        return twin


def _form_of(beginning: bytes) -> type[Walk] | None:
    """The format of a file that begins so; of one with fewer bytes, the one whose beginning they are."""
    if begins_so(beginning):
        return Mp4
    if beginning.startswith(b"\xff\xd8") and beginning[2:3] in (b"", b"\xff"):
        return Jpeg
    if beginning.startswith(SIGNATURE[: max(4, len(beginning))]):
        return Png
    if beginning.startswith((b"GIF87a"[: max(4, len(beginning))], b"GIF89a"[: max(4, len(beginning))])):
        return Gif
    if beginning.startswith(b"RIFF") and b"WEBP".startswith(beginning[8:12]):
        return Webp
    return None


def starts_like_media(beginning: bytes) -> bool:
    """Whether a file with these first bytes is of a format that is known here."""
    return _form_of(beginning) is not None


async def from_afar(read: Callable[[int, int], Awaitable[bytes]], size: int) -> Verdict:
    """The same of a file of ``size`` bytes that is read elsewhere, from one offset up to another.

    At most six reads of 1 KiB: nothing is said of what takes more.
    """
    look, at = Look(), 0
    for _ in range(_READS):
        piece = await read(at, min(at + _READ, size))
        look.feed(piece)
        jump = min(look.needless, size - at - len(piece))
        look.passed(jump)
        at += len(piece) + jump
        if at >= size:
            return look.verdict()
        if not piece or not jump:
            break
    return Verdict()
