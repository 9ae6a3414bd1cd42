"""JPEG: segments that tell their length, scans that do not, and an end-of-image marker (ITU-T T.81, annex B).

What follows the end is legal: a second picture (MPF), the film of a motion photo. What stands within a segment is not
looked at, so the end of a thumbnail there is not taken for the file's.
"""

from __future__ import annotations

import re

from mirror.media.walk import Verdict, Walk

_END = b"\xff\xd9"
_SCAN = 0xDA
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd9\xff]")
"""Markers with a segment. Fill bytes (FF) may stand before one."""

_BETWEEN_SCANS = re.compile(rb"\xff[\xc4\xcc\xd9-\xdd\xe0-\xef\xfe]")
"""Markers that may follow a scan. In its data FF is followed by 00, or by the number of a restart (D0 to D7)."""


class Jpeg(Walk):
    kind = "JPEG"
    first = 2

    def __init__(self) -> None:
        super().__init__()
        self._marker = 0xD8
        self._scanned = False
        self._tail = b""

    def feed(self, data: bytes | memoryview) -> None:
        super().feed(data)
        self._tail = (self._tail + data[-2:])[-2:]

    def read(self, header: bytes) -> None:
        if self._marker != 0xD8:
            self.skip = max(0, int.from_bytes(header) - 2)
            self._scanned = self._scanned or self._marker == _SCAN
        self.need = 0

    def search(self, data: bytes | memoryview, at: int) -> int:
        pattern = _BETWEEN_SCANS if self._scanned else _MARKER
        if self.held:  # the last piece ended with FF
            pair, self.held = self.held + data[at : at + 1], b""
            if pattern.match(pair):
                return self._found(pair[1], at + 1)
        found = pattern.search(data, at)
        if found is not None:
            return self._found(data[found.end() - 1], found.end())
        self.held = b"\xff" if data[-1] == 0xFF else b""
        return len(data)

    def _found(self, marker: int, at: int) -> int:
        self._marker = marker
        self.is_last = marker == 0xD9
        self.need = 2
        return at

    def verdict(self) -> Verdict:
        if self._scanned and self._tail == _END:  # where a scan is damaged, a marker may be none
            return Verdict(self.kind, "", self.trailing)
        return super().verdict()

    def missing(self) -> str:
        return "it has no end-of-image marker" if self._scanned else "it ends before its picture begins"
