"""A process that makes previews and nothing else: thumbnails are untrusted, and so is what decoding them may do.

It takes a picture on stdin (its length in 8 bytes, then its bytes) and answers on stdout (length, width and height in 4
bytes each, then a WebP; all 0 where the picture cannot be read), until stdin ends. When it is ready it says so with one
byte. It may hold 1 GiB of memory, think 10 seconds about one picture, and write no file. Its argument is its parent.
"""

from __future__ import annotations

import io
import struct
import sys
import warnings
from typing import BinaryIO

from mirror.media.confinement import allow, confine

READY = b"\1"
ASK = struct.Struct(">Q")
TOLD = struct.Struct(">III")
LONG_SIDE = 480
"""Pixels: twice what a card is wide."""

_QUALITY = 80
_MEMORY = 1 << 30
_SECONDS = 10
_PIXELS = 64_000_000
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP", "TIFF")
"""What is decoded at all: of what Pillow knows, some formats start other programs."""


def preview(body: bytes) -> tuple[bytes, int, int]:
    """A WebP of the picture's first frame, upright, with its width and height.

    Raises:
        Exception: it cannot be read; of any kind, decoders raise many.
    """
    from PIL import Image, ImageOps  # noqa: PLC0415 - after the limits are set

    Image.MAX_IMAGE_PIXELS = _PIXELS
    Image.init()
    known = [name for name in _FORMATS if name in Image.OPEN]
    with Image.open(io.BytesIO(body), formats=known) as picture:
        picture.draft("RGB", (2 * LONG_SIDE, 2 * LONG_SIDE))  # a JPEG is decoded at a fraction of its size
        upright = ImageOps.exif_transpose(picture)
        clear = "A" in upright.getbands() or "transparency" in upright.info
        small = upright.convert("RGBA" if clear else "RGB")
        small.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
    out = io.BytesIO()
    small.save(out, "WEBP", quality=_QUALITY, method=4)
    return out.getvalue(), small.width, small.height


def serve(asked: BinaryIO, told: BinaryIO) -> None:
    """Answer until there is nothing more to read."""
    while head := asked.read(ASK.size):
        allow(_SECONDS)
        try:
            body, width, height = preview(asked.read(*ASK.unpack(head)))
        except Exception:  # noqa: BLE001 - of any kind, and none of them is worth more than no preview
            body, width, height = b"", 0, 0
        told.write(TOLD.pack(len(body), width, height) + body)
        told.flush()


def main() -> None:
    """Be such a process."""
    confine(int(sys.argv[1]), _MEMORY)
    warnings.simplefilter("error")  # a picture that Pillow calls a bomb is one
    from PIL import features  # noqa: PLC0415

    if features.check("webp"):
        sys.stdout.buffer.write(READY)
        sys.stdout.buffer.flush()
        serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
