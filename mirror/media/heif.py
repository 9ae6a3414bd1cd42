"""HEIF and AVIF pictures: their size, out of the boxes at their beginning (ISO/IEC 23008-12, 6.5.3 and 6.5.10)."""

from __future__ import annotations

from collections.abc import Iterator

HEAD = 64 << 10
"""Bytes in which the box that tells it ends in all but odd files."""

_BRANDS = (b"avif", b"avis", b"heic", b"mif1")
_FULL = 4
"""Bytes of version and flags."""


def begins_so(head: bytes) -> bool:
    """Whether a file with these first bytes says that it is such a picture."""
    return head[4:8] == b"ftyp" and head[8:12] in _BRANDS


def size_of(head: bytes) -> tuple[int, int] | None:
    """Width and height in pixels as it is shown, if these first bytes tell them.

    Of the sizes in there the largest: others are those of tiles and thumbnails.
    """
    if not begins_so(head):
        return None
    properties = [
        each
        for kind, meta in _boxes(head)
        if kind == b"meta"
        for kind, box in _boxes(meta[_FULL:])
        if kind == b"iprp"
        for kind, listed in _boxes(box)
        if kind == b"ipco"
        for each in _boxes(listed)
    ]
    sizes = [
        (int.from_bytes(data[4:8]), int.from_bytes(data[8:12]))
        for kind, data in properties
        if kind == b"ispe" and len(data) >= 12
    ]
    if not sizes:
        return None
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    is_turned = any(kind == b"irot" and data[:1] in (b"\1", b"\3") for kind, data in properties)
    return (height, width) if is_turned else (width, height)


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The boxes in there that are whole, and have a short size, up to the first that is not."""
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4])
        if size < 8 or at + size > len(data):
            return
        yield data[at + 4 : at + 8], data[at + 8 : at + size]
        at += size
