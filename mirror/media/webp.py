"""WebP: a RIFF file tells its length (the WebP container specification)."""

from __future__ import annotations

from mirror.media.walk import Verdict, Walk

_LEAST = 12
"""Bytes that a RIFF length counts at least: its form, and one chunk's header. Some writers leave it 0."""


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
